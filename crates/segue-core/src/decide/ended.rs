//! What the end of a task means for those that wait for it.

use super::cancel;
use super::draft::Draft;
use crate::command::{Duty, DutyKind, Reject, Reply};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::task::{ErrorClass, OnFailure, Task, TaskError, TaskState, WaitFor};

/// Puts a task into a terminal state and lets those that wait for it know.
pub(super) fn end(
    draft: &mut Draft<'_>,
    id: TaskId,
    state: TaskState,
    error: Option<TaskError>,
    fact: Fact,
) -> Result<(), Reject> {
    close(draft, id, state, error, fact)?;
    tell_dependents(draft, id, None)?;
    tell_parent(draft, id)
}

/// Puts a task into a terminal state, and leaves it to a duty to let others know.
pub(super) fn end_quietly(
    draft: &mut Draft<'_>,
    id: TaskId,
    state: TaskState,
    error: Option<TaskError>,
    fact: Fact,
) -> Result<(), Reject> {
    close(draft, id, state, error, fact)?;
    let task = draft.task(id)?;
    if task.dependents > 0 || task.spec.parent.is_some() {
        draft.duty(id, DutyKind::Propagate { after: None, parent: true });
    }
    Ok(())
}

fn close(
    draft: &mut Draft<'_>,
    id: TaskId,
    state: TaskState,
    error: Option<TaskError>,
    fact: Fact,
) -> Result<(), Reject> {
    let now = draft.now();
    let task = draft.task_mut(id)?;
    task.state = state;
    task.finished_at = Some(now);
    task.retry_at = None;
    task.wait_for = None;
    task.continuation = None;
    task.error = error;
    draft.event(id, fact)
}

/// How the end of a need looks to a dependent.
enum Verdict {
    Met,
    Fail(TaskError),
    Skip(String),
}

fn verdict(need: &Task, order_only: bool) -> Verdict {
    let name = &need.spec.name;
    let class = need.error.as_ref().map(|error| error.class);
    if order_only || need.state == TaskState::Completed {
        return Verdict::Met;
    }
    // A task whose own condition was false is no failure: its dependents see `null` and go on.
    let skipped_by_condition =
        class == Some(ErrorClass::Skipped) && need.spec.on_failure != OnFailure::Skip;
    match need.spec.on_failure {
        _ if skipped_by_condition => Verdict::Met, // total: a guard, not a catch-all
        OnFailure::Continue => Verdict::Met,
        OnFailure::Skip => Verdict::Skip(format!("`{name}`, which it needs, is {}", need.state)),
        OnFailure::Fail => {
            let why = need.error.as_ref().map_or("no reason given", |error| error.message.as_str());
            Verdict::Fail(TaskError::new(
                ErrorClass::Upstream,
                format!("`{name}`, which it needs, is {}: {why}", need.state),
            ))
        }
    }
}

/// Lets the dependents after `after` know; what does not fit into this commit becomes a duty.
fn tell_dependents(draft: &mut Draft<'_>, id: TaskId, after: Option<TaskId>) -> Result<(), Reject> {
    let need = draft.task(id)?.clone();
    if need.dependents == 0 {
        return Ok(());
    }
    let snapshot = draft.snapshot;
    let page = snapshot
        .dependents(id)
        .ok_or_else(|| Reject::NotLoaded(format!("the dependents of task {id}")))?;
    for edge in page.items.iter().filter(|edge| after.is_none_or(|after| edge.task > after)) {
        if draft.task(edge.task)?.state != TaskState::Blocked {
            continue;
        }
        match verdict(&need, edge.order_only) {
            Verdict::Met => meet(draft, edge.task)?,
            Verdict::Fail(error) => {
                let fact = Fact::Failed { class: error.class, message: error.message.clone() };
                end_quietly(draft, edge.task, TaskState::Failed, Some(error), fact)?;
            }
            Verdict::Skip(reason) => skip(draft, edge.task, reason)?,
        }
    }
    if let (true, Some(last)) = (page.more, page.items.last()) {
        draft.duty(id, DutyKind::Propagate { after: Some(last.task), parent: false });
    }
    Ok(())
}

/// Skips a task that has not begun; its dependents see it as skipped.
pub(super) fn skip(draft: &mut Draft<'_>, id: TaskId, reason: String) -> Result<(), Reject> {
    let error = TaskError::new(ErrorClass::Skipped, reason.clone());
    end_quietly(draft, id, TaskState::Cancelled, Some(error), Fact::Skipped { reason })
}

/// One thing less to wait for.
pub(super) fn meet(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let task = draft.task_mut(id)?;
    task.unmet = task.unmet.saturating_sub(1);
    let (unmet, rendered_later) = (task.unmet, task.spec.is_rendered_later());
    if unmet == 0 {
        draft.make_ready(id)?;
        draft.event(id, Fact::Unblocked)?;
    } else if unmet == 1 && rendered_later {
        draft.duty(id, DutyKind::Render);
    }
    Ok(())
}

/// Lets the parent know that one child less is open.
fn tell_parent(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let Some(parent) = draft.task(id)?.spec.parent else { return Ok(()) };
    let task = draft.task_mut(parent)?;
    task.open_children = task.open_children.saturating_sub(1);
    if task.open_children == 0 && task.state == TaskState::Waiting {
        children_ended(draft, parent)?;
    }
    Ok(())
}

/// The last child that a waiting task waited for has ended.
pub(super) fn children_ended(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    match draft.task(id)?.wait_for {
        Some(WaitFor::Resume) => {
            draft.make_ready(id)?;
            draft.event(id, Fact::Resumed)
        }
        Some(WaitFor::Collect) | None => {
            draft.duty(id, DutyKind::Collect);
            Ok(())
        }
    }
}

/// Goes on with a cascade.
pub(super) fn go_on(draft: &mut Draft<'_>, duty: &Duty) -> Result<Reply, Reject> {
    draft.duty_done(duty.task, duty.kind);
    let task = draft.task(duty.task)?;
    match duty.kind {
        DutyKind::Propagate { after, parent } => {
            // A task that was requeued meanwhile has not ended: those that wait go on waiting.
            if !task.state.is_terminal() {
                return Ok(Reply::Done { changed: false });
            }
            tell_dependents(draft, duty.task, after)?;
            if parent {
                tell_parent(draft, duty.task)?;
            }
        }
        DutyKind::CancelChildren { after } => cancel::children(draft, duty.task, after)?,
        DutyKind::Render | DutyKind::Collect => {
            return Err(Reject::Invalid(format!(
                "`{}` is work for the engine, which answers it by `expand`",
                duty.kind.as_str()
            )));
        }
    }
    Ok(Reply::Done { changed: true })
}
