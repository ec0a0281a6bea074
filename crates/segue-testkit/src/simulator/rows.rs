//! The rows of any store, as a [`World`], and what holds a task that does not end.

use crate::memory::World;
use segue_core::event::Fact;
use segue_core::ids::{PROJECT_LOG, TaskId};
use segue_core::letter::LetterBody;
use segue_core::ports::{EventFilter, Store, StoreError, TaskFilter};
use segue_core::task::{Task, TaskState};
use std::fmt::Write;

/// Everything that a store tells, for those checks that were written for the store in memory.
///
/// # Errors
/// When the store cannot be read.
pub async fn world_of(store: &dyn Store) -> Result<World, StoreError> {
    let mut world = World::new();
    let all = TaskFilter { limit: usize::MAX, ..TaskFilter::default() };
    for task in store.tasks(all).await? {
        let id = task.id();
        for record in store.attempts(id).await? {
            world.attempts.insert(record.attempt.id, record);
        }
        for need in &task.spec.needs {
            let edge = segue_core::changes::Edge {
                need: need.task,
                task: id,
                order_only: need.order_only,
            };
            world.edges.insert((need.task, id), edge);
        }
        if let Some(parent) = task.spec.parent {
            world.children.entry(parent).or_default().insert(id);
            if let Some(key) = &task.spec.key {
                world.calls.insert((parent, key.clone()), id);
            }
        }
        world.tasks.insert(id, task);
    }
    for agent in store.agents().await? {
        world.agents.put(agent);
    }
    let all = EventFilter { limit: usize::MAX, ..EventFilter::default() };
    world.events = store.events(all).await?;
    for letter in store.unsent(0, usize::MAX).await? {
        world.letters.insert(letter.seq, letter);
    }
    for duty in store.duties(usize::MAX).await? {
        world.duties.insert((duty.task, duty.kind.as_str()), duty);
    }
    let of_project = world.events.iter().filter(|event| event.run == PROJECT_LOG);
    world.project_events = of_project.count() as u64;
    Ok(world)
}

/// Whether nothing is left to be done: every task has ended, and no letter and no duty is left.
pub fn ended(world: &World) -> bool {
    world.letters.is_empty()
        && world.duties.is_empty()
        && world.tasks.values().all(|task| task.state.is_terminal())
}

/// What is left, and what each of it waits for.
pub fn explain(world: &World) -> String {
    let mut text = String::new();
    for agent in world.agents.values() {
        let _ = writeln!(
            text,
            "  agent {} on {}: {} of {} slots, lease until {}{}{}",
            agent.spec.name,
            agent.host,
            agent.slots_used,
            agent.spec.max_concurrency,
            agent.lease_until.0,
            if agent.drained { ", drained" } else { "" },
            if agent.gone { ", gone" } else { "" },
        );
    }
    let open: Vec<&Task> =
        world.tasks.values().map(AsRef::as_ref).filter(|task| !task.state.is_terminal()).collect();
    for task in open.iter().take(20) {
        let _ = writeln!(text, "  {}", why_open(world, task));
        let last = world.events.iter().rev().filter(|event| event.task == task.id()).take(3);
        for event in last {
            let _ = writeln!(text, "      {} at {}: {:?}", event.run_seq, event.at.0, event.fact);
        }
    }
    if open.len() > 20 {
        let _ = writeln!(text, "  and {} more tasks", open.len() - 20);
    }
    for duty in world.duties.values().take(20) {
        let _ = writeln!(text, "  left behind: {duty:?}");
    }
    for letter in world.letters.values().take(20) {
        let what = match &letter.body {
            LetterBody::TaskRequest(request) => format!("attempt {}", request.attempt),
            other => format!("{other:?}"),
        };
        let _ = writeln!(text, "  unsent: letter {} to {}: {what}", letter.seq, letter.to);
    }
    text
}

/// One open task, and what it waits for.
fn why_open(world: &World, task: &Task) -> String {
    let id = task.id();
    let mut text = format!("{id} `{}` ({}) is {}", task.spec.name, task.spec.route, task.state);
    match task.state {
        TaskState::Blocked => {
            let needs: Vec<String> =
                task.spec.needs.iter().map(|need| stand_of(world, need.task)).collect();
            let _ = write!(text, ", unmet {}: [{}]", task.unmet, needs.join(", "));
        }
        TaskState::Ready => {
            let _ = write!(text, " since {:?}", task.ready_at);
        }
        TaskState::Assigned | TaskState::Running => {
            let Some(attempt) = &task.attempt else { return text + " without an attempt" };
            let agent = world.agents.get(&attempt.instance);
            let same = agent.is_some_and(|agent| agent.incarnation == attempt.incarnation);
            let _ = write!(
                text,
                ": attempt {} number {} since {}, of {} life of its host",
                attempt.id,
                attempt.number,
                attempt.assigned_at.0,
                if same { "this" } else { "ANOTHER" }
            );
        }
        TaskState::Waiting => {
            let open = world.children.get(&id).into_iter().flatten();
            let open: Vec<String> = open
                .filter(|child| !world.task(**child).state.is_terminal())
                .map(|child| stand_of(world, *child))
                .collect();
            let _ = write!(
                text,
                " for {:?}, {} open: [{}]",
                task.wait_for,
                task.open_children,
                open.join(", ")
            );
        }
        TaskState::Retrying => {
            let _ = write!(text, " until {:?}", task.retry_at);
        }
        TaskState::Completed | TaskState::Failed | TaskState::Cancelled => {}
    }
    for duty in world.duties.values().filter(|duty| duty.task == id) {
        let _ = write!(text, "; left behind: {:?}", duty.kind);
    }
    text
}

fn stand_of(world: &World, id: TaskId) -> String {
    match world.tasks.get(&id) {
        Some(task) => format!("{} {}", id.short(), task.state),
        None => format!("{} is not there", id.short()),
    }
}

/// The word for what happened, for counting.
pub(super) fn word(fact: &Fact) -> &'static str {
    match fact {
        Fact::Submitted { .. } => "submitted",
        Fact::Unblocked => "unblocked",
        Fact::Assigned { .. } => "assigned",
        Fact::Started { .. } => "started",
        Fact::Progress { .. } => "progress",
        Fact::Completed { .. } => "completed",
        Fact::AttemptFailed { .. } => "attempt_failed",
        Fact::AttemptLost { .. } => "attempt_lost",
        Fact::Retried => "retried",
        Fact::Failed { .. } => "failed",
        Fact::Waiting { .. } => "waiting",
        Fact::Resumed => "resumed",
        Fact::Cancelled { .. } => "cancelled",
        Fact::Skipped { .. } => "skipped",
        Fact::Requeued => "requeued",
        Fact::ProcessesEnded { .. } => "processes_ended",
        Fact::LateOutcome { .. } => "late_outcome",
        Fact::AgentRegistered { .. } => "agent_registered",
        Fact::AgentDrained { .. } => "agent_drained",
        Fact::AgentGone { .. } => "agent_gone",
    }
}
