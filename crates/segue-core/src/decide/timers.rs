//! What time brings: expired leases, due retries, limits passed. And the commands that do not wait for it.

use super::cancel;
use super::draft::Draft;
use super::ended::{self, Ending};
use super::{agents, finish};
use crate::command::{Excused, RUN_GRACE_MS, Reject, Reply};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::letter::{LetterBody, Notice};
use crate::task::{AttemptEnd, ErrorClass, Task, TaskError, TaskState, WaitFor};
use crate::time::Time;
use std::collections::BTreeSet;

pub(super) fn tick(draft: &mut Draft<'_>, limit: usize, excused: Excused) -> Result<Reply, Reject> {
    draft.in_bulk = true;
    let now = draft.now();
    let expired = draft.snapshot.agents().expired(now);
    // In the order of their ids, whichever lease ended first.
    let expired: BTreeSet<_> = expired
        .filter(|agent| !excused.covers(agent.host))
        .map(|agent| agent.spec.instance)
        .collect();
    for instance in &expired {
        agents::leave(draft, *instance, "its lease ended: its host was not heard of")?;
    }
    let mut changed = !expired.is_empty();
    for (_, id) in due(draft)?.into_iter().take(limit) {
        changed |= look_at(draft, id, excused)?;
    }
    Ok(Reply::Done { changed })
}

/// The tasks whose time has come: those that the store named, and those that the batch has made due since.
fn due(draft: &Draft<'_>) -> Result<BTreeSet<(Time, TaskId)>, Reject> {
    let now = draft.now();
    let snapshot = draft.snapshot;
    if snapshot.due().is_none() {
        return Err(Reject::NotLoaded("the due tasks".into()));
    }
    let ids = snapshot.tasks().map(|task| task.id());
    let due = ids.filter_map(|id| Some((draft.find(id)?.due_at()?, id)));
    Ok(due.filter(|(at, _)| *at <= now).collect())
}

/// Does what is due for one task; false where nothing is.
fn look_at(draft: &mut Draft<'_>, id: TaskId, excused: Excused) -> Result<bool, Reject> {
    let now = draft.now();
    let task = draft.task(id)?.clone();
    if task.due_at().is_none_or(|due| due > now) {
        return Ok(false);
    }
    let timeouts = task.spec.timeouts;
    let over = |ms: Option<u64>, from: Time| ms.is_some_and(|ms| now >= Time::plus_ms(from, ms));
    if over(timeouts.whole_ms, task.created_at) {
        let limit = timeouts.whole_ms.unwrap_or_default();
        return give_up(
            draft,
            id,
            format!("it did not end within {limit} ms, its limit from submit to the end"),
        );
    }
    match task.state {
        TaskState::Retrying => {
            draft.make_ready(id)?;
            draft.event(id, Fact::Retried)?;
            Ok(true)
        }
        TaskState::Ready => {
            let limit = timeouts.queue_ms.unwrap_or_default();
            give_up(draft, id, format!("nobody took it within {limit} ms, its limit in the queue"))
        }
        TaskState::Assigned | TaskState::Running if is_excused(draft, &task, excused) => Ok(false),
        TaskState::Assigned | TaskState::Running => {
            stop_overdue(draft, id)?;
            Ok(true)
        }
        TaskState::Blocked
        | TaskState::Waiting
        | TaskState::Completed
        | TaskState::Failed
        | TaskState::Cancelled => Ok(false),
    }
}

/// The whole limit or the queue limit has passed: the task is a dead letter, everything under it is cancelled.
fn give_up(draft: &mut Draft<'_>, id: TaskId, message: String) -> Result<bool, Reject> {
    let error = TaskError::new(ErrorClass::Timeout, message);
    cancel::stop_attempt(draft, id, AttemptEnd::TimedOut, &error)?;
    ended::end(draft, id, Ending::Failed(error))?;
    Ok(true)
}

/// Whether it is not known how the attempt at a task stands: its host, which ends it at its limit, could not be heard; or nobody could be
/// told to begin, and the time since it was assigned is none that it ran.
fn is_excused(draft: &Draft<'_>, task: &Task, excused: Excused) -> bool {
    if excused != Excused::Nobody && task.state == TaskState::Assigned {
        return true;
    }
    let agent = task.current_attempt().and_then(|attempt| draft.agent(attempt.instance));
    agent.is_some_and(|agent| excused.covers(agent.host))
}

/// An attempt runs longer than it may, and its host did not end it.
fn stop_overdue(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let task = draft.task(id)?.clone();
    let limit = task.spec.timeouts.run_ms.unwrap_or_default();
    let message = format!(
        "it ran longer than {limit} ms, its limit, and its host did not end it within {RUN_GRACE_MS} ms more"
    );
    let error = TaskError::new(ErrorClass::Timeout, message);
    if let Some(attempt) = task.current_attempt() {
        let notice = Notice::Cancel { attempt: attempt.id, reason: error.message.clone() };
        draft.letter(attempt.instance, &task, LetterBody::Event(notice));
    }
    finish::fail(draft, id, &error, None, None)
}

pub(super) fn retry(draft: &mut Draft<'_>, id: TaskId) -> Result<Reply, Reject> {
    let state = draft.task(id)?.state;
    match state {
        TaskState::Retrying => {
            draft.make_ready(id)?;
            draft.event(id, Fact::Retried)?;
            Ok(Reply::Done { changed: true })
        }
        TaskState::Ready => Ok(Reply::Done { changed: false }),
        TaskState::Failed | TaskState::Cancelled => {
            Err(Reject::Illegal { task: id, state, command: "retry", hint: ": requeue it" })
        }
        TaskState::Blocked
        | TaskState::Assigned
        | TaskState::Running
        | TaskState::Waiting
        | TaskState::Completed => {
            Err(Reject::Illegal { task: id, state, command: "retry", hint: "" })
        }
    }
}

pub(super) fn resume(draft: &mut Draft<'_>, id: TaskId) -> Result<Reply, Reject> {
    let task = draft.task(id)?;
    match (task.state, task.wait_for) {
        (TaskState::Waiting, Some(WaitFor::Resume)) => {
            draft.make_ready(id)?;
            draft.event(id, Fact::Resumed)?;
            Ok(Reply::Done { changed: true })
        }
        (TaskState::Ready, _) => Ok(Reply::Done { changed: false }),
        (
            state @ (TaskState::Blocked
            | TaskState::Assigned
            | TaskState::Running
            | TaskState::Waiting
            | TaskState::Retrying
            | TaskState::Completed
            | TaskState::Failed
            | TaskState::Cancelled),
            _,
        ) => Err(Reject::Illegal {
            task: id,
            state,
            command: "resume",
            hint: ": it does not wait to be resumed",
        }),
    }
}
