//! Ending a task and everything under it.

use super::draft::Draft;
use super::ended;
use crate::command::{DutyKind, Reject, Reply};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::letter::{LetterBody, Notice};
use crate::task::{AttemptEnd, ErrorClass, TaskError, TaskState};

/// Cancels a task and everything under it. A task that has ended stays as it is.
pub(super) fn cancel(draft: &mut Draft<'_>, id: TaskId, reason: &str) -> Result<Reply, Reject> {
    let task = draft.task(id)?;
    if task.state.is_terminal() {
        return Ok(Reply::Done { changed: false });
    }
    let error = TaskError::new(ErrorClass::Cancelled, reason);
    let fact = Fact::Cancelled { reason: error.message.clone() };
    stop_attempt(draft, id, AttemptEnd::Cancelled, &error)?;
    ended::end(draft, id, TaskState::Cancelled, Some(error), fact)?;
    children(draft, id, None)?;
    Ok(Reply::Done { changed: true })
}

/// Ends the current attempt of a task, if there is one, and tells its host to end the processes.
pub(super) fn stop_attempt(
    draft: &mut Draft<'_>,
    id: TaskId,
    end: AttemptEnd,
    error: &TaskError,
) -> Result<(), Reject> {
    let task = draft.task(id)?.clone();
    let Some(attempt) = task.current_attempt() else { return Ok(()) };
    let notice = Notice::Cancel { attempt: attempt.id, reason: error.message.clone() };
    draft.letter(attempt.instance, &task, LetterBody::Event(notice));
    draft.end_attempt(id, end, Some(error.clone()), None)
}

/// Cancels the children after `after` of a task that has ended; what does not fit becomes a duty.
pub(super) fn children(
    draft: &mut Draft<'_>,
    id: TaskId,
    after: Option<TaskId>,
) -> Result<(), Reject> {
    let parent = draft.task(id)?;
    if parent.children == 0 {
        return Ok(());
    }
    let reason = format!("`{}`, under which it ran, was cancelled", parent.spec.name);
    let error = TaskError::new(ErrorClass::Cancelled, reason);
    let snapshot = draft.snapshot;
    let page = snapshot
        .children(id)
        .ok_or_else(|| Reject::NotLoaded(format!("the children of task {id}")))?;
    for child in page.items.iter().filter(|child| after.is_none_or(|after| **child > after)) {
        let task = draft.task(*child)?;
        if task.state.is_terminal() {
            continue;
        }
        let has_children = task.children > 0;
        stop_attempt(draft, *child, AttemptEnd::Cancelled, &error)?;
        let fact = Fact::Cancelled { reason: error.message.clone() };
        ended::end_quietly(draft, *child, TaskState::Cancelled, Some(error.clone()), fact)?;
        if has_children {
            draft.duty(*child, DutyKind::CancelChildren { after: None });
        }
    }
    if let (true, Some(last)) = (page.more, page.items.last()) {
        draft.duty(id, DutyKind::CancelChildren { after: Some(*last) });
    }
    Ok(())
}
