//! What comes back, and what comes back with it.

use super::draft::Draft;
use super::ended::{self, Verdict, children_ended, count_anew, each_dependent, ended_by_needs};
use crate::command::{CASCADE_MAX, DutyKind, Reject, Reply};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::task::{ErrorClass, Route, Task, TaskState};

/// Puts a dead letter or a cancelled task back. What ended on its account follows: dependents that failed or were skipped
/// because of it wait for it again, and a parent that failed while it waited for its children waits again. Of a group the
/// children come back that did not complete.
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
    let (is_group, began) = (task.spec.route == Route::Group, task.unmet == 0);
    if !may_return(draft, id)? {
        return refuse(": the task that it belongs to has ended; requeue that one");
    }
    if is_group {
        bring_group_back(draft, id)?;
        children(draft, id, None)?;
        return Ok(Reply::Done { changed: true });
    }
    let anew = !has_results(draft, id)?;
    if !began && is_refused(draft, id)? {
        return refuse(": a task that it needs did not complete; requeue that one, and it follows");
    }
    bring_back(draft, id)?;
    count_back(draft, id)?;
    if anew {
        begin_anew(draft, id)?;
    }
    each_dependent(draft, id, None, ended::follow)?;
    Ok(Reply::Done { changed: true })
}

fn is_refused(draft: &Draft<'_>, id: TaskId) -> Result<bool, Reject> {
    let spec = draft.task(id)?.spec.clone();
    let outlook = ended::outlook(draft, &spec, |need| ended::gone(draft, need))?;
    Ok(matches!(outlook.verdict, Verdict::Fail(_) | Verdict::Skip(_)))
}

/// Whether an ended task has the results of all work that it handed out. Then its last step alone is done again;
/// otherwise it begins anew, finds by their keys what its children have done, and has the rest done again.
fn has_results(draft: &Draft<'_>, id: TaskId) -> Result<bool, Reject> {
    let task = draft.task(id)?;
    if !task.resumes() || task.wait_for.is_some() {
        return Ok(false);
    }
    let children = draft.snapshot.children(id);
    let children = children.ok_or_else(|| Reject::NotLoaded(format!("the children of {id}")))?;
    for child in &children.items {
        if draft.task(*child)?.state != TaskState::Completed {
            return Ok(false);
        }
    }
    Ok(!children.more)
}

fn begin_anew(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let task = draft.task_mut(id)?;
    task.continuation = None;
    task.prefer = None;
    Ok(())
}

/// Whether a task has failed while it waited for its children: it goes on waiting once one of them comes back.
pub(crate) fn failed_waiting(task: &Task) -> bool {
    task.state == TaskState::Failed && task.wait_for.is_some()
}

/// Whether what stands above a task lets it come back: it is open, or failed while it waited for its children.
pub(super) fn may_return(draft: &Draft<'_>, id: TaskId) -> Result<bool, Reject> {
    let mut above = draft.task(id)?.spec.parent;
    while let Some(parent) = above {
        let task = draft.task(parent)?;
        if !task.state.is_terminal() {
            return Ok(true);
        }
        if !failed_waiting(task) {
            return Ok(false);
        }
        above = task.spec.parent;
    }
    Ok(true)
}

/// Takes an ended task back among those that have not ended: ready, if it had begun, else blocked until its needs are
/// counted. Its error stays until it ends again: [`end_alone`] tells by it that this is not its first end.
pub(super) fn bring_back(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let task = draft.task_mut(id)?;
    task.tried = 0;
    task.lost = 0;
    task.wait_for = None;
    reopen(draft, id)?;
    if draft.task(id)?.unmet == 0 {
        draft.make_ready(id)?;
    } else {
        draft.task_mut(id)?.state = TaskState::Blocked;
    }
    wait_above(draft, id)
}

fn reopen(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let now = draft.now();
    let task = draft.task_mut(id)?;
    task.finished_at = None;
    // The whole limit counts anew: otherwise a task that passed it could never come back.
    task.created_at = now;
    draft.event(id, Fact::Requeued)
}

/// Those above a task that came back wait for it again.
fn wait_above(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let mut above = draft.task(id)?.spec.parent;
    while let Some(parent) = above {
        let task = draft.task_mut(parent)?;
        task.open_children += 1;
        if !task.state.is_terminal() {
            return Ok(());
        }
        task.state = TaskState::Waiting;
        above = task.spec.parent;
        let children = task.open_children;
        let number = task.attempt.as_ref().map_or(0, |attempt| attempt.number);
        reopen(draft, parent)?;
        draft.event(parent, Fact::Waiting { number, children })?;
        ended::follow_later(draft, parent)?;
    }
    Ok(())
}

/// A group that has ended waits again.
fn bring_group_back(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let task = draft.task_mut(id)?;
    task.state = TaskState::Waiting;
    let children = task.open_children;
    reopen(draft, id)?;
    draft.event(id, Fact::Waiting { number: 0, children })?;
    wait_above(draft, id)?;
    ended::follow_later(draft, id)
}

/// Whether a task ended for a reason of its own: not on account of a need, and not by its condition.
fn is_to_blame(task: &Task) -> bool {
    let skipped = task.error.as_ref().is_some_and(|error| error.class == ErrorClass::Skipped);
    match task.state {
        TaskState::Failed => !ended_by_needs(task),
        TaskState::Cancelled => !skipped,
        TaskState::Blocked
        | TaskState::Ready
        | TaskState::Assigned
        | TaskState::Running
        | TaskState::Waiting
        | TaskState::Retrying
        | TaskState::Completed => false,
    }
}

/// Lets the children after `after` of a group that waits again come back, those that did not complete; what ended on their
/// account follows them. What does not fit becomes a duty.
pub(super) fn children(
    draft: &mut Draft<'_>,
    id: TaskId,
    after: Option<TaskId>,
) -> Result<(), Reject> {
    if draft.task(id)?.spec.route != Route::Group {
        return Ok(());
    }
    let snapshot = draft.snapshot;
    let page = snapshot
        .children(id)
        .ok_or_else(|| Reject::NotLoaded(format!("the children of task {id}")))?;
    let (mut back, mut last, mut more) = (Vec::new(), after, page.more);
    for child in page.items.iter().filter(|child| after.is_none_or(|after| **child > after)) {
        if draft.rows() >= CASCADE_MAX {
            more = true;
            break;
        }
        last = Some(*child);
        let task = draft.task(*child)?;
        if !is_to_blame(task) {
            continue;
        }
        if task.spec.route == Route::Group {
            let has_children = task.children > 0;
            bring_group_back(draft, *child)?;
            if has_children {
                draft.duty(*child, DutyKind::CancelChildren { after: None });
            } else {
                children_ended(draft, *child)?;
            }
            continue;
        }
        if task.wait_for.is_some() {
            begin_anew(draft, *child)?;
        }
        bring_back(draft, *child)?;
        back.push(*child);
    }
    // Their needs are counted when all of them are back: they may need each other in any order.
    for child in back {
        count_back(draft, child)?;
        ended::follow_later(draft, child)?;
    }
    if more {
        draft.duty(id, DutyKind::CancelChildren { after: last });
    } else if draft.task(id)?.open_children == 0 {
        children_ended(draft, id)?;
    }
    Ok(())
}

/// Counts the needs of a task that was just brought back, where it had not begun.
pub(super) fn count_back(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    if draft.task(id)?.state == TaskState::Blocked {
        // A count that cannot be right makes sure that whatever is counted counts as news.
        draft.task_mut(id)?.unmet = u32::MAX;
        count_anew(draft, id)?;
    }
    Ok(())
}
