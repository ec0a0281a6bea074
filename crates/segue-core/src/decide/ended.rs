//! What the end of a task means for those that wait for it, and what its return means for them.

use super::draft::Draft;
use super::requeue::{bring_back, may_return};
use super::{cancel, requeue};
use crate::changes::Edge;
use crate::command::{CASCADE_MAX, Duty, DutyKind, Reject, Reply};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::payload::Payload;
use crate::task::{ErrorClass, OnFailure, Task, TaskError, TaskSpec, TaskState, WaitFor};

/// How a task ends.
pub(super) enum Ending {
    /// With its output; the attempt's number, zero for a group.
    Completed(u32, Payload),
    /// As a dead letter.
    Failed(TaskError),
    /// Somebody cancelled it, or what it ran under.
    Cancelled(TaskError),
    /// It is not to run, for this reason.
    Skipped(String),
}

/// Puts a task into a terminal state and lets those that wait for it know. Where it has not completed,
/// nobody waits for the children that are still open: they are cancelled by a duty.
pub(super) fn end(draft: &mut Draft<'_>, id: TaskId, ending: Ending) -> Result<(), Reject> {
    end_alone(draft, id, ending)?;
    leave_children(draft, id)
}

/// The same, for a caller that sees to the children itself.
pub(super) fn end_alone(draft: &mut Draft<'_>, id: TaskId, ending: Ending) -> Result<(), Reject> {
    if draft.in_bulk {
        close(draft, id, ending)?;
        follow_later(draft, id)?;
        return tell_parent(draft, id);
    }
    // Every dependent of a task that ends for the first time counts it as open, so that one can be taken off. A task that
    // was requeued has ended before, and a dependent may or may not have heard of that: there the needs are counted anew.
    // Whoever was requeued has an error still; some others have one as well, and counting anew is never wrong.
    let first_end = draft.task(id)?.error.is_none();
    close(draft, id, ending)?;
    each_dependent(draft, id, None, if first_end { tell } else { follow })?;
    tell_parent(draft, id)
}

/// Puts a task into a terminal state, and leaves it to a duty to let its dependents know.
pub(super) fn end_quietly(draft: &mut Draft<'_>, id: TaskId, ending: Ending) -> Result<(), Reject> {
    close(draft, id, ending)?;
    follow_later(draft, id)?;
    tell_parent(draft, id)?;
    leave_children(draft, id)
}

fn close(draft: &mut Draft<'_>, id: TaskId, ending: Ending) -> Result<(), Reject> {
    let (state, error, output, fact) = match ending {
        Ending::Completed(number, output) => {
            let fact = Fact::Completed { number, output_bytes: output.size() };
            (TaskState::Completed, None, Some(output), fact)
        }
        Ending::Failed(error) => {
            let fact = Fact::Failed { class: error.class, message: error.message.clone() };
            (TaskState::Failed, Some(error), None, fact)
        }
        Ending::Cancelled(error) => {
            let fact = Fact::Cancelled { reason: error.message.clone() };
            (TaskState::Cancelled, Some(error), None, fact)
        }
        Ending::Skipped(reason) => {
            let error = TaskError::new(ErrorClass::Skipped, reason.clone());
            (TaskState::Cancelled, Some(error), None, Fact::Skipped { reason })
        }
    };
    let now = draft.now();
    let task = draft.task_mut(id)?;
    if state == TaskState::Completed {
        // What it waited for, and what it left for its next attempt, are of use to a requeue alone.
        task.wait_for = None;
        task.continuation = None;
    }
    task.state = state;
    task.finished_at = Some(now);
    task.retry_at = None;
    task.error = error;
    task.output = output;
    draft.event(id, fact)
}

/// Leaves it to a duty to bring the dependents in line.
pub(super) fn follow_later(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    if draft.task(id)?.dependents > 0 {
        draft.duty(id, DutyKind::Propagate { after: None, parent: false });
    }
    Ok(())
}

/// Leaves it to a duty to cancel the children of a task that has failed or was cancelled.
fn leave_children(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let task = draft.task(id)?;
    if task.open_children > 0 && task.state != TaskState::Completed {
        draft.duty(id, DutyKind::CancelChildren { after: None });
    }
    Ok(())
}

/// What a need means for a task that needs it.
pub(super) enum Verdict {
    Open,
    Met,
    Fail(TaskError),
    Skip(String),
}

/// Whether a task was ended on account of a need, before it began: it had something left to wait for.
pub(crate) fn ended_by_needs(task: &Task) -> bool {
    let class = task.error.as_ref().map(|error| error.class);
    let by_needs = match task.state {
        TaskState::Failed => class == Some(ErrorClass::Upstream),
        TaskState::Cancelled => class == Some(ErrorClass::Skipped),
        TaskState::Blocked
        | TaskState::Ready
        | TaskState::Assigned
        | TaskState::Running
        | TaskState::Waiting
        | TaskState::Retrying
        | TaskState::Completed => false,
    };
    by_needs && task.unmet > u32::from(task.spec.is_rendered_later())
}

/// Whether a task ends the ones that need it.
pub(crate) fn refuses(need: &Task, order_only: bool) -> bool {
    match verdict(need, order_only) {
        Verdict::Fail(_) | Verdict::Skip(_) => true,
        Verdict::Open | Verdict::Met => false,
    }
}

fn verdict(need: &Task, order_only: bool) -> Verdict {
    if !need.state.is_terminal() {
        return Verdict::Open;
    }
    if order_only || need.state == TaskState::Completed {
        return Verdict::Met;
    }
    let name = &need.spec.name;
    let reason = format!("`{name}`, which it needs, is {}", need.state);
    let class = need.error.as_ref().map(|error| error.class);
    let skipped = need.state == TaskState::Cancelled && class == Some(ErrorClass::Skipped);
    match (need.spec.on_failure, skipped) {
        (OnFailure::Continue, _) => Verdict::Met,
        (OnFailure::Skip, _) => Verdict::Skip(reason),
        // A skip that came down from a need goes on down.
        (OnFailure::Fail, true) if ended_by_needs(need) => Verdict::Skip(reason),
        // A task whose own condition was false is no failure: its dependents see `null` and go on.
        (OnFailure::Fail, true) => Verdict::Met,
        (OnFailure::Fail, false) => {
            let why = need.error.as_ref().map_or("no reason given", |error| error.message.as_str());
            Verdict::Fail(TaskError::new(ErrorClass::Upstream, format!("{reason}: {why}")))
        }
    }
}

/// What all needs of a task together mean for it.
pub(super) struct Outlook {
    /// Needs that are open or refuse it, plus one while its templates are not rendered.
    pub(super) unmet: u32,
    /// The first need that refuses it says why; else `Met` or `Open`.
    pub(super) verdict: Verdict,
}

/// Counts the needs of a task. `absent` says what a need means that is not there.
pub(super) fn outlook(
    draft: &Draft<'_>,
    spec: &TaskSpec,
    absent: impl Fn(TaskId) -> Result<Verdict, Reject>,
) -> Result<Outlook, Reject> {
    let mut sum = Outlook { unmet: u32::from(spec.is_rendered_later()), verdict: Verdict::Met };
    for need in &spec.needs {
        let one = match draft.find(need.task) {
            Some(task) => verdict(task, need.order_only),
            None => absent(need.task)?,
        };
        sum.unmet += u32::from(!matches!(one, Verdict::Met));
        let keeps = match (&sum.verdict, &one) {
            (Verdict::Fail(_) | Verdict::Skip(_), _) | (_, Verdict::Met) => true,
            (Verdict::Open | Verdict::Met, Verdict::Open | Verdict::Fail(_) | Verdict::Skip(_)) => {
                false
            }
        };
        if !keeps {
            sum.verdict = one;
        }
    }
    Ok(sum)
}

/// Does something for the dependents after `after`; what does not fit into this commit becomes a duty.
pub(super) fn each_dependent<'a>(
    draft: &mut Draft<'a>,
    id: TaskId,
    after: Option<TaskId>,
    act: fn(&mut Draft<'a>, &Edge) -> Result<(), Reject>,
) -> Result<(), Reject> {
    if draft.task(id)?.dependents == 0 {
        return Ok(());
    }
    let snapshot = draft.snapshot;
    let page = snapshot
        .dependents(id)
        .ok_or_else(|| Reject::NotLoaded(format!("the dependents of task {id}")))?;
    let mut last = after;
    for edge in page.items.iter().filter(|edge| after.is_none_or(|after| edge.task > after)) {
        if draft.rows() >= CASCADE_MAX {
            draft.duty(id, DutyKind::Propagate { after: last, parent: false });
            return Ok(());
        }
        act(draft, edge)?;
        last = Some(edge.task);
    }
    if page.more {
        let last = last.max(page.items.last().map(|edge| edge.task));
        draft.duty(id, DutyKind::Propagate { after: last, parent: false });
    }
    Ok(())
}

/// Lets one dependent know that its need has ended; that it is met, no more than once.
fn tell(draft: &mut Draft<'_>, edge: &Edge) -> Result<(), Reject> {
    if draft.task(edge.task)?.state != TaskState::Blocked {
        return Ok(());
    }
    match verdict(draft.task(edge.need)?, edge.order_only) {
        Verdict::Open => Ok(()),
        Verdict::Met => meet(draft, edge.task),
        Verdict::Fail(error) => end_by_need(draft, edge.task, Ending::Failed(error)),
        Verdict::Skip(reason) => end_by_need(draft, edge.task, Ending::Skipped(reason)),
    }
}

/// Ends a task that has not begun on account of a need.
pub(super) fn end_by_need(draft: &mut Draft<'_>, id: TaskId, ending: Ending) -> Result<(), Reject> {
    // That need is not met, whatever was counted before: `ended_by_needs` tells by it why the task ended.
    let task = draft.task_mut(id)?;
    task.unmet = task.unmet.max(1 + u32::from(task.spec.is_rendered_later()));
    end_quietly(draft, id, ending)
}

/// One thing less to wait for.
pub(super) fn meet(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let unmet = draft.task(id)?.unmet.saturating_sub(1);
    set_unmet(draft, id, unmet)
}

pub(super) fn set_unmet(draft: &mut Draft<'_>, id: TaskId, unmet: u32) -> Result<(), Reject> {
    let task = draft.task_mut(id)?;
    task.unmet = unmet;
    if unmet == 0 {
        draft.make_ready(id)?;
        draft.event(id, Fact::Unblocked)?;
    } else if unmet == 1 && task.spec.is_rendered_later() {
        draft.duty(id, DutyKind::Render);
    }
    Ok(())
}

/// Brings a dependent in line with how its need stands now. This may be done at any time and any number of times.
pub(super) fn follow(draft: &mut Draft<'_>, edge: &Edge) -> Result<(), Reject> {
    if refuses(draft.task(edge.need)?, edge.order_only) {
        // However the other needs stand, so that those need not even be loaded.
        return tell(draft, edge);
    }
    count_anew(draft, edge.task)
}

/// Brings a task in line with how its needs stand now, counting them anew. A task that was ended on account of a need
/// that was requeued since comes back.
pub(super) fn count_anew(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let task = draft.task(id)?;
    let (before, ended) = (task.unmet, ended_by_needs(task));
    if !ended && task.state != TaskState::Blocked {
        return Ok(());
    }
    let spec = task.spec.clone();
    let sum = outlook(draft, &spec, |need| gone(draft, need))?;
    match sum.verdict {
        Verdict::Fail(_) | Verdict::Skip(_) if ended => Ok(()),
        Verdict::Fail(error) => end_by_need(draft, id, Ending::Failed(error)),
        Verdict::Skip(reason) => end_by_need(draft, id, Ending::Skipped(reason)),
        Verdict::Open | Verdict::Met if ended => {
            if !may_return(draft, id)? {
                return Ok(());
            }
            bring_back(draft, id)?;
            set_unmet(draft, id, sum.unmet)?;
            follow_later(draft, id)
        }
        Verdict::Open | Verdict::Met if sum.unmet != before => set_unmet(draft, id, sum.unmet),
        Verdict::Open | Verdict::Met => Ok(()),
    }
}

/// A need that the store does not keep any more cannot be waited for.
pub(super) fn gone(draft: &Draft<'_>, need: TaskId) -> Result<Verdict, Reject> {
    if !draft.snapshot.knows_task(need) {
        return Err(Reject::NotLoaded(format!("task {need}")));
    }
    let message = format!("task {need}, which it needs, is no longer kept");
    Ok(Verdict::Fail(TaskError::new(ErrorClass::Upstream, message)))
}

/// Lets the parent know that one child less is open. That is never put off: so the number of open children
/// is always right.
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

/// Goes on with a cascade. Both kinds bring those concerned in line with how the task stands now, so a duty that is
/// done twice, or that was overtaken by a requeue, does no harm.
pub(super) fn go_on(draft: &mut Draft<'_>, duty: &Duty) -> Result<Reply, Reject> {
    draft.duty_done(duty.task, duty.kind);
    let state = match draft.find(duty.task) {
        Some(task) => task.state,
        // It was pruned, and what it left behind with it.
        None if draft.snapshot.knows_task(duty.task) => return Ok(Reply::Done { changed: false }),
        None => return Err(Reject::NotLoaded(format!("task {}", duty.task))),
    };
    match duty.kind {
        DutyKind::Propagate { after, parent: _ } => {
            each_dependent(draft, duty.task, after, follow)?;
        }
        DutyKind::CancelChildren { after } => match state {
            TaskState::Failed | TaskState::Cancelled => cancel::children(draft, duty.task, after)?,
            // It waits again: its children follow it there as well.
            TaskState::Waiting => requeue::children(draft, duty.task, after)?,
            TaskState::Blocked
            | TaskState::Ready
            | TaskState::Assigned
            | TaskState::Running
            | TaskState::Retrying
            | TaskState::Completed => {}
        },
        DutyKind::Render | DutyKind::Collect => {
            return Err(Reject::Invalid(format!(
                "`{}` is work for the engine, which answers it by `expand`",
                duty.kind.as_str()
            )));
        }
    }
    Ok(Reply::Done { changed: draft.rows() > 0 })
}
