//! What holds between the rows of a project after every commit, whatever the commands were.
//!
//! This file depends on `segue-core` and the standard library alone: the tests of `segue-core` include
//! it by its path.

use super::world::World;
use segue_core::command::DutyKind;
use segue_core::event::Fact;
use segue_core::ids::{PROJECT_LOG, TaskId};
use segue_core::state::{HISTORY_MAX, POLICIES_MAX};
use segue_core::task::{ErrorClass, OnFailure, Route, Task, TaskState};
use std::collections::BTreeMap;

/// Checks every invariant.
///
/// # Errors
/// The first that does not hold, in words.
pub fn check(world: &World) -> Result<(), String> {
    let count = Counts::of(world);
    for task in world.tasks.values() {
        check_state(task)
            .and_then(|()| check_needs(world, task))
            .and_then(|()| check_family(world, &count, task))
            .and_then(|()| check_mover(world, task))
            .map_err(|why| format!("{why}: {task:?}"))?;
    }
    check_agents(world, &count)?;
    check_duties(world)?;
    check_shared(world)?;
    check_log(world)
}

/// Numbers of shared state and locks were issued, and no more is kept than may be.
fn check_shared(world: &World) -> Result<(), String> {
    let stamps = world.state.keys().copied().chain(world.locks.values().map(|lock| lock.token));
    let mut stamps: Vec<u64> = stamps.collect();
    let all = stamps.len();
    stamps.sort_unstable();
    stamps.dedup();
    hold(stamps.len() == all, "no stamp is issued twice")?;
    hold(stamps.last().is_none_or(|last| *last <= world.stamp), "stamps were issued")?;
    hold(world.policies.len() <= POLICIES_MAX, "there are few policies")?;
    let kept: usize = world.state_keys.values().map(Vec::len).sum();
    hold(kept == world.state.len(), "every version is that of a key")?;
    for (key, kept) in &world.state_keys {
        hold((1..=HISTORY_MAX).contains(&kept.len()), "a key has a bounded history")?;
        hold(kept.is_sorted(), "versions rise")?;
        let of_key = |version: &u64| world.state.get(version).is_some_and(|it| it.key == *key);
        hold(kept.iter().all(of_key), "the versions of a key are its own")?;
    }
    Ok(())
}

/// Nobody is asked for what is not there to be done.
fn check_duties(world: &World) -> Result<(), String> {
    for duty in world.duties.values() {
        let task = world.task(duty.task);
        let sensible = match duty.kind {
            DutyKind::Render => task.spec.is_rendered_later(),
            DutyKind::Collect => task.children > 0 || task.spec.route == Route::Group,
            DutyKind::Propagate { .. } => task.dependents > 0,
            DutyKind::CancelChildren { .. } => task.children > 0,
        };
        if !sensible {
            return Err(format!("{duty:?} asks for nothing: {task:?}"));
        }
    }
    Ok(())
}

/// Counted once for all tasks, so that a check costs as much as there are rows.
struct Counts {
    children: BTreeMap<TaskId, (u32, u32)>,
    dependents: BTreeMap<TaskId, u32>,
    held: BTreeMap<segue_core::ids::InstanceId, u32>,
}

impl Counts {
    fn of(world: &World) -> Counts {
        let mut count = Counts {
            children: BTreeMap::new(),
            dependents: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        for task in world.tasks.values() {
            if let Some(parent) = task.spec.parent {
                let (all, open) = count.children.entry(parent).or_default();
                *all += 1;
                *open += u32::from(!task.state.is_terminal());
            }
            if let (true, Some(attempt)) = (task.state.holds_slot(), &task.attempt) {
                *count.held.entry(attempt.instance).or_default() += 1;
            }
        }
        for (need, _) in world.edges.keys() {
            *count.dependents.entry(*need).or_default() += 1;
        }
        count
    }
}

fn hold(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("does not hold: {what}")) }
}

fn check_state(task: &Task) -> Result<(), String> {
    let current = task.current_attempt().is_some();
    hold(current == task.state.holds_slot(), "an attempt is current just while a slot is held")?;
    hold(
        task.attempt.as_ref().map_or(0, |attempt| attempt.number) == task.attempts,
        "the latest attempt has the number of attempts made",
    )?;
    hold(
        task.retry_at.is_some() == (task.state == TaskState::Retrying),
        "a retry is due just in `retrying`",
    )?;
    hold(
        task.finished_at.is_some() == task.state.is_terminal(),
        "it has an end just in a terminal state",
    )?;
    hold(
        task.output.is_some() == (task.state == TaskState::Completed),
        "it has an output just when completed",
    )?;
    match task.state {
        TaskState::Blocked => hold(task.unmet > 0, "blocked by something"),
        TaskState::Ready | TaskState::Assigned | TaskState::Running | TaskState::Retrying => {
            hold(task.unmet == 0 && task.wait_for.is_none(), "waits for nothing")
        }
        TaskState::Waiting => {
            hold(task.unmet == 0 && task.wait_for.is_some(), "waits for children")
        }
        TaskState::Completed => hold(task.error.is_none(), "no error once completed"),
        TaskState::Failed | TaskState::Cancelled => hold(task.error.is_some(), "says why it ended"),
    }
}

/// Whether a duty is pending that tells the dependents of `need` where it stands.
fn is_unsure(world: &World, need: TaskId) -> bool {
    world.duties.contains_key(&(need, "propagate"))
}

fn unrendered(task: &Task) -> u32 {
    u32::from(task.spec.is_rendered_later())
}

fn check_needs(world: &World, task: &Task) -> Result<(), String> {
    for need in &task.spec.needs {
        let edge = world.edges.get(&(need.task, task.id()));
        hold(edge.is_some_and(|edge| edge.order_only == need.order_only), "an edge for each need")?;
    }
    if task.state != TaskState::Blocked {
        return Ok(());
    }
    let (mut least, mut most) = (unrendered(task), unrendered(task));
    for need in &task.spec.needs {
        let it = world.task(need.task);
        let (open, unsure) = (!it.state.is_terminal(), is_unsure(world, need.task));
        least += u32::from(open && !unsure);
        most += u32::from(open || unsure);
        let fails = !need.order_only
            && !open
            && it.state != TaskState::Completed
            && it.spec.on_failure == OnFailure::Fail
            && it.error.as_ref().map(|error| error.class) != Some(ErrorClass::Skipped);
        hold(unsure || !fails, "it does not wait where a need has failed")?;
    }
    hold((least..=most).contains(&task.unmet), "unmet counts the open needs")
}

fn check_family(world: &World, count: &Counts, task: &Task) -> Result<(), String> {
    let id = task.id();
    let (children, open) = count.children.get(&id).copied().unwrap_or_default();
    hold(task.children == children, "children are counted")?;
    hold(task.open_children == open, "open children are counted")?;
    let dependents = count.dependents.get(&id).copied().unwrap_or_default();
    hold(task.dependents == dependents, "dependents are counted")?;
    let abandoned = matches!(task.state, TaskState::Failed | TaskState::Cancelled);
    let to_cancel = world.duties.contains_key(&(id, "cancel_children"));
    hold(!abandoned || open == 0 || to_cancel, "what it leaves behind is cancelled")
}

/// Something will move every task that has not ended.
fn check_mover(world: &World, task: &Task) -> Result<(), String> {
    let id = task.id();
    match task.state {
        TaskState::Blocked => {
            let waits = task.spec.needs.iter().any(|need| {
                !world.task(need.task).state.is_terminal() || is_unsure(world, need.task)
            });
            let renders = world.duties.contains_key(&(id, "render"));
            hold(waits || renders, "something will unblock it")
        }
        TaskState::Waiting => {
            let has = |kind| world.duties.contains_key(&(id, kind));
            let moved = task.open_children > 0 || has("collect") || has("cancel_children");
            hold(moved, "something will end its wait")
        }
        // A free slot, the report or the lease of its agent, or a timer: not rows of its own.
        TaskState::Ready | TaskState::Assigned | TaskState::Running | TaskState::Retrying => Ok(()),
        TaskState::Completed | TaskState::Failed | TaskState::Cancelled => Ok(()),
    }
}

fn check_agents(world: &World, count: &Counts) -> Result<(), String> {
    for (id, agent) in world.agents.iter() {
        let held = count.held.get(id).copied().unwrap_or_default();
        if agent.slots_used != held {
            return Err(format!("{held} tasks hold a slot of {agent:?}"));
        }
        if agent.gone && held > 0 {
            return Err(format!("it has gone and holds slots: {agent:?}"));
        }
    }
    let unknown = count.held.keys().find(|id| !world.agents.contains_key(id));
    unknown.map_or(Ok(()), |id| Err(format!("tasks hold slots of {id}, which is not known")))
}

fn check_log(world: &World) -> Result<(), String> {
    let mut runs: BTreeMap<TaskId, u64> = BTreeMap::new();
    let mut completed: BTreeMap<TaskId, u32> = BTreeMap::new();
    for event in &world.events {
        let seq = runs.entry(event.run).or_default();
        *seq += 1;
        if event.run_seq != *seq {
            return Err(format!("run_seq {} where {seq} is next: {event:?}", event.run_seq));
        }
        if matches!(event.fact, Fact::Completed { .. }) {
            *completed.entry(event.task).or_default() += 1;
        }
    }
    for task in world.tasks.values() {
        let times = completed.get(&task.id()).copied().unwrap_or_default();
        if times != u32::from(task.state == TaskState::Completed) {
            return Err(format!("{times} completions of {task:?}"));
        }
        if task.is_root() && runs.get(&task.id()).copied().unwrap_or_default() != task.run_events {
            return Err(format!("the log of its run is longer or shorter than counted: {task:?}"));
        }
    }
    let project = runs.get(&PROJECT_LOG).copied().unwrap_or_default();
    if project != world.project_events {
        return Err(format!("{project} events of the project, {} counted", world.project_events));
    }
    Ok(())
}
