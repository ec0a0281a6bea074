//! What must hold once everything has ended, by the rows, by the log, and by what those outside saw.

use super::rows::{explain, word};
use crate::memory::{World, invariants};
use segue_core::event::{Event, Fact};
use segue_core::ids::{AttemptId, TaskId};
use segue_core::task::{AttemptEnd, Task, TaskState};
use std::collections::{BTreeMap, BTreeSet};

/// What an outcome brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// An output.
    Output,
    /// An error.
    Error,
    /// New tasks.
    Tasks,
    /// Nothing: it was told to end.
    Nothing,
}

/// What those outside of the store saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How often each attempt began in a runner.
    pub ran: BTreeMap<AttemptId, u32>,
    /// Outcomes that the engine acknowledged.
    pub acknowledged: BTreeMap<AttemptId, (TaskId, Brought)>,
    /// Tasks whose submit was answered.
    pub accepted: BTreeSet<TaskId>,
    /// Idempotency keys whose submit was answered.
    pub keys: BTreeSet<String>,
}

/// Checks everything.
///
/// # Errors
/// All that does not hold, in words.
pub fn check_end(world: &World, seen: &Seen) -> Result<BTreeMap<&'static str, usize>, Vec<String>> {
    let mut wrong = Vec::new();
    if !super::ended(world) {
        wrong.push(format!("something is left to be done:\n{}", explain(world)));
    }
    for agent in world.agents.values().filter(|agent| agent.slots_used > 0) {
        wrong.push(format!("a slot is taken and nothing runs: {agent:?}"));
    }
    if let Err(why) = invariants::check(world) {
        wrong.push(why);
    }
    let log = Log::read(world, &mut wrong);
    for task in world.tasks.values() {
        check_output(task, &log, &mut wrong);
    }
    check_outside(world, seen, &log, &mut wrong);
    let mut counts = BTreeMap::new();
    for event in &world.events {
        *counts.entry(word(&event.fact)).or_insert(0) += 1;
    }
    if wrong.is_empty() { Ok(counts) } else { Err(wrong) }
}

/// What the log tells of each task.
#[derive(Default)]
struct Log {
    assigned: BTreeMap<AttemptId, (TaskId, u32)>,
    completed_by: BTreeMap<TaskId, u32>,
    accepted: BTreeSet<(TaskId, u32)>,
    late: BTreeSet<AttemptId>,
    latest: BTreeMap<TaskId, u32>,
    ended: BTreeSet<TaskId>,
}

impl Log {
    /// Reads the log once, from the first event to the last, and checks the order of things.
    fn read(world: &World, wrong: &mut Vec<String>) -> Log {
        let mut log = Log::default();
        for event in &world.events {
            if let Err(why) = log.event(world, event) {
                wrong.push(format!("{why}: {event:?}"));
            }
        }
        log
    }

    fn event(&mut self, world: &World, event: &Event) -> Result<(), &'static str> {
        let id = event.task;
        match &event.fact {
            Fact::Assigned { attempt, number, .. } => {
                let before = self.latest.insert(id, *number).unwrap_or(0);
                self.assigned.insert(*attempt, (id, *number));
                if *number != before + 1 {
                    return Err("attempts are numbered 1, 2, 3 ..");
                }
                if self.completed_by.contains_key(&id) {
                    return Err("an attempt at a task that was completed");
                }
                let needs = world.tasks.get(&id).map(|task| task.spec.needs.as_slice());
                let open = |need: &&segue_core::task::Need| {
                    before == 0 && !self.ended.contains(&need.task)
                };
                if needs.unwrap_or_default().iter().any(|need| open(&need)) {
                    return Err("an attempt at a task before its needs had ended");
                }
            }
            Fact::Completed { number, .. } => {
                self.ended.insert(id);
                self.accepted.insert((id, *number));
                if self.completed_by.insert(id, *number).is_some() {
                    return Err("completed twice");
                }
                if *number > 0 && self.latest.get(&id) != Some(number) {
                    return Err("completed by a superseded attempt");
                }
            }
            Fact::AttemptFailed { number, .. } | Fact::Waiting { number, .. } => {
                self.accepted.insert((id, *number));
                if *number > 0 && self.latest.get(&id) != Some(number) {
                    return Err("the outcome of a superseded attempt was accepted");
                }
            }
            Fact::Failed { .. } | Fact::Cancelled { .. } | Fact::Skipped { .. } => {
                self.ended.insert(id);
            }
            Fact::LateOutcome { attempt, .. } => {
                if !self.late.insert(*attempt) {
                    return Err("one late outcome was recorded twice");
                }
            }
            Fact::Submitted { .. }
            | Fact::Unblocked
            | Fact::Started { .. }
            | Fact::Progress { .. }
            | Fact::AttemptLost { .. }
            | Fact::Retried
            | Fact::Resumed
            | Fact::Requeued
            | Fact::ProcessesEnded { .. }
            | Fact::AgentRegistered { .. }
            | Fact::AgentDrained { .. }
            | Fact::AgentGone { .. } => {}
        }
        Ok(())
    }
}

/// A runner writes the number of its attempt into its output: it has to be the one that completed the task.
fn check_output(task: &Task, log: &Log, wrong: &mut Vec<String>) {
    let by = log.completed_by.get(&task.id()).copied().unwrap_or(0);
    let output = task.output.as_ref().and_then(|output| output.text());
    let value: Option<serde_json::Value> = output.and_then(|text| serde_json::from_str(text).ok());
    let said = value.as_ref().and_then(|value| value.get("attempt")?.as_u64());
    if task.state == TaskState::Completed
        && by > 0
        && said.is_some_and(|said| said != u64::from(by))
    {
        wrong.push(format!("the output is of attempt {said:?}, completed was {by}: {task:?}"));
    }
}

/// What those outside saw has to be in the rows.
fn check_outside(world: &World, seen: &Seen, log: &Log, wrong: &mut Vec<String>) {
    for (attempt, times) in &seen.ran {
        if *times > 1 {
            wrong.push(format!("attempt {attempt} ran {times} times"));
        }
        if !log.assigned.contains_key(attempt) {
            wrong.push(format!("attempt {attempt} ran and was never assigned"));
        }
    }
    for task in &seen.accepted {
        if !world.tasks.contains_key(task) {
            wrong.push(format!("task {task} was accepted and is not there"));
        }
    }
    for key in &seen.keys {
        let holds = |task: &&std::sync::Arc<Task>| {
            task.spec.idempotency_key.as_deref() == Some(key.as_str())
        };
        let count = world.tasks.values().filter(holds).count();
        if count != 1 {
            wrong.push(format!("{count} tasks with the idempotency key {key}"));
        }
    }
    for (attempt, (task, brought)) in &seen.acknowledged {
        if let Err(why) = check_report(world, log, *attempt, *task, *brought) {
            wrong.push(format!("{why}: attempt {attempt} of task {task} brought {brought:?}"));
        }
    }
}

/// An outcome that was acknowledged counted, or stands in the log as late.
fn check_report(
    world: &World,
    log: &Log,
    attempt: AttemptId,
    task: TaskId,
    brought: Brought,
) -> Result<(), &'static str> {
    let record = world.attempts.get(&attempt).ok_or("an outcome without a record")?;
    let counted = match record.attempt.end {
        Some(AttemptEnd::Completed | AttemptEnd::Failed | AttemptEnd::Delegated) => true,
        Some(AttemptEnd::Lost | AttemptEnd::TimedOut | AttemptEnd::Cancelled) => {
            record.usage.is_some()
        }
        None => false,
    };
    if !counted {
        return Err("an outcome was acknowledged and not recorded");
    }
    let accepted = log.accepted.contains(&(task, record.attempt.number));
    match brought {
        Brought::Nothing => Ok(()),
        Brought::Output | Brought::Error | Brought::Tasks
            if accepted || log.late.contains(&attempt) =>
        {
            Ok(())
        }
        Brought::Output | Brought::Error | Brought::Tasks => {
            Err("an outcome neither counted nor was it kept as late")
        }
    }
}
