//! What time brings: expired leases, due retries, limits passed. And the commands that do not wait for it.

use super::cancel;
use super::draft::Draft;
use super::{agents, ended, finish};
use crate::command::{RUN_GRACE_MS, Reject, Reply};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::letter::{LetterBody, Notice};
use crate::task::{AttemptEnd, ErrorClass, TaskError, TaskState, WaitFor};

pub(super) fn tick(draft: &mut Draft<'_>) -> Result<Reply, Reject> {
    let now = draft.now();
    let expired: Vec<_> = draft
        .snapshot
        .agents()
        .values()
        .filter(|agent| !agent.gone && agent.lease_until < now)
        .map(|agent| agent.spec.instance)
        .collect();
    for instance in &expired {
        agents::leave(draft, *instance, "its lease ended: its host was not heard of")?;
    }
    let snapshot = draft.snapshot;
    let due = snapshot.due().ok_or_else(|| Reject::NotLoaded("the due tasks".into()))?;
    let mut changed = !expired.is_empty();
    for id in due {
        changed |= look_at(draft, *id)?;
    }
    Ok(Reply::Done { changed })
}

/// Does what is due for one task; false where nothing is.
fn look_at(draft: &mut Draft<'_>, id: TaskId) -> Result<bool, Reject> {
    let now = draft.now();
    let task = draft.task(id)?.clone();
    if task.due_at().is_none_or(|due| due > now) {
        return Ok(false);
    }
    let timeouts = task.spec.timeouts;
    let over =
        |ms: Option<u64>, from| ms.is_some_and(|ms| now >= crate::time::Time::plus_ms(from, ms));
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
    let error = TaskError::new(ErrorClass::Timeout, message.clone());
    cancel::stop_attempt(draft, id, AttemptEnd::TimedOut, &error)?;
    let fact = Fact::Failed { class: ErrorClass::Timeout, message };
    ended::end(draft, id, TaskState::Failed, Some(error), fact)?;
    cancel::children(draft, id, None)?;
    Ok(true)
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

pub(super) fn requeue(draft: &mut Draft<'_>, id: TaskId) -> Result<Reply, Reject> {
    let task = draft.task(id)?;
    let state = task.state;
    let refuse = |hint| Err(Reject::Illegal { task: id, state, command: "requeue", hint });
    match state {
        TaskState::Failed | TaskState::Cancelled => {}
        TaskState::Completed => return refuse(": it has its output; submit it anew"),
        TaskState::Retrying => return refuse(": retry it"),
        TaskState::Blocked
        | TaskState::Ready
        | TaskState::Assigned
        | TaskState::Running
        | TaskState::Waiting => return refuse(": it has not ended"),
    }
    if task.spec.route == crate::task::Route::Group || task.unmet > 0 {
        return refuse(": it never began; requeue the task that failed first, or submit it anew");
    }
    if let Some(parent) = task.spec.parent {
        let parent = draft.task_mut(parent)?;
        if parent.state.is_terminal() {
            return refuse(": the task that it belongs to has ended; submit that one anew");
        }
        parent.open_children += 1;
    }
    let now = draft.now();
    let task = draft.task_mut(id)?;
    task.tried = 0;
    task.lost = 0;
    task.finished_at = None;
    task.error = None;
    // The whole limit counts anew: otherwise a task that passed it could never be requeued.
    task.created_at = now;
    draft.make_ready(id)?;
    draft.event(id, Fact::Requeued)?;
    Ok(Reply::Done { changed: true })
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
