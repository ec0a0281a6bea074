//! Ending a task and everything under it.

use super::draft::Draft;
use super::ended::{self, Ending};
use crate::command::{CASCADE_MAX, DutyKind, Reject, Reply};
use crate::ids::TaskId;
use crate::letter::{LetterBody, Notice};
use crate::task::{AttemptEnd, ErrorClass, TaskError};

/// Cancels a task and everything under it. A task that has ended stays as it is.
pub(super) fn cancel(draft: &mut Draft<'_>, id: TaskId, reason: &str) -> Result<Reply, Reject> {
    if draft.task(id)?.state.is_terminal() {
        return Ok(Reply::Done { changed: false });
    }
    let error = TaskError::new(ErrorClass::Cancelled, reason);
    stop_attempt(draft, id, AttemptEnd::Cancelled, &error)?;
    ended::end_alone(draft, id, Ending::Cancelled(error))?;
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
    if parent.open_children == 0 {
        return Ok(());
    }
    let reason = format!("`{}`, under which it ran, is {}", parent.spec.name, parent.state);
    let error = TaskError::new(ErrorClass::Cancelled, reason);
    let snapshot = draft.snapshot;
    let page = snapshot
        .children(id)
        .ok_or_else(|| Reject::NotLoaded(format!("the children of task {id}")))?;
    let mut last = after;
    for child in page.items.iter().filter(|child| after.is_none_or(|after| **child > after)) {
        if draft.rows() >= CASCADE_MAX {
            draft.duty(id, DutyKind::CancelChildren { after: last });
            return Ok(());
        }
        last = Some(*child);
        if draft.task(*child)?.state.is_terminal() {
            continue;
        }
        stop_attempt(draft, *child, AttemptEnd::Cancelled, &error)?;
        ended::end_quietly(draft, *child, Ending::Cancelled(error.clone()))?;
    }
    if page.more {
        let last = last.max(page.items.last().copied());
        draft.duty(id, DutyKind::CancelChildren { after: last });
    }
    Ok(())
}
