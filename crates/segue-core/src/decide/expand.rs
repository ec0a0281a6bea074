//! What the engine rendered between two commits.

use super::draft::Draft;
use super::ended::{self, Ending};
use super::submit;
use crate::command::{DutyKind, Reject, Rendered, Reply, SUBMIT_MAX};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::payload::Payload;
use crate::task::{
    ErrorClass, Need, Route, TaskError, TaskSpec, TaskState, Template, Timeouts, WaitFor,
};
use std::sync::Arc;

pub(super) fn expand(
    draft: &mut Draft<'_>,
    id: TaskId,
    rendered: &Result<Rendered, TaskError>,
) -> Result<Reply, Reject> {
    draft.duty_done(id, DutyKind::Render);
    draft.duty_done(id, DutyKind::Collect);
    let task = draft.task(id)?;
    let renders =
        task.state == TaskState::Blocked && task.unmet == 1 && task.spec.is_rendered_later();
    let collects = task.state == TaskState::Waiting && task.open_children == 0;
    if !renders && !collects {
        // Rendered twice (after a crash), or cancelled meanwhile.
        return Ok(Reply::Done { changed: false });
    }
    match rendered {
        Err(error) => ended::end(draft, id, Ending::Failed(error.clone()))?,
        Ok(Rendered::Input(input)) if renders => {
            draft.task_mut(id)?.input = input.clone();
            ended::meet(draft, id)?;
        }
        Ok(Rendered::Skip { reason }) if renders => {
            ended::end(draft, id, Ending::Skipped(reason.clone()))?;
        }
        Ok(Rendered::Items(items)) if renders => fan_out(draft, id, items)?,
        Ok(Rendered::Output(output)) if collects => {
            ended::end(draft, id, Ending::Completed(0, output.clone()))?;
        }
        Ok(
            Rendered::Input(_) | Rendered::Skip { .. } | Rendered::Items(_) | Rendered::Output(_),
        ) => {
            let task = draft.task(id)?;
            return Err(Reject::Illegal {
                task: id,
                state: task.state,
                command: "expand",
                hint: ": what was rendered does not fit what the task waits for",
            });
        }
    }
    Ok(Reply::Done { changed: true })
}

/// The task becomes a group with one child an item.
fn fan_out(draft: &mut Draft<'_>, id: TaskId, items: &[Payload]) -> Result<(), Reject> {
    if items.len() > SUBMIT_MAX {
        let message = format!(
            "`for_each` gave {} items, more than {SUBMIT_MAX}: split the list over several tasks",
            items.len()
        );
        let error = TaskError::new(ErrorClass::Template, message);
        return ended::end(draft, id, Ending::Failed(error));
    }
    let now = draft.now();
    let spec = draft.task(id)?.spec.clone();
    let lanes = spec
        .template
        .as_ref()
        .and_then(|template| template.max_parallel)
        .map_or(items.len(), |lanes| lanes.max(1) as usize);
    let children: Vec<TaskId> = items.iter().map(|_| draft.ctx.chance.task_id(now)).collect();
    for (place, input) in items.iter().enumerate() {
        // With n lanes the item waits for the end of the one n places before it, however that ended.
        let needs = place.checked_sub(lanes).map(|before| Need {
            task: children[before],
            name: None,
            order_only: true,
        });
        let child = item_spec(&spec, children[place], place, needs);
        submit::take_in(draft, Arc::new(child), input.clone())?;
    }
    let mut group = spec.as_ref().clone();
    group.route = Route::Group;
    if let Some(template) = group.template.as_mut() {
        **template = Template { for_each: template.for_each.clone(), ..Template::default() };
    }
    let task = draft.task_mut(id)?;
    task.spec = Arc::new(group);
    task.unmet = 0;
    task.state = TaskState::Waiting;
    task.wait_for = Some(WaitFor::Collect);
    let open = task.open_children;
    draft.event(id, Fact::Waiting { number: 0, children: open })?;
    if open == 0 {
        ended::children_ended(draft, id)?;
    }
    Ok(())
}

fn item_spec(group: &TaskSpec, id: TaskId, place: usize, need: Option<Need>) -> TaskSpec {
    TaskSpec {
        id,
        parent: Some(group.id),
        root: group.root,
        name: format!("{}[{place}]", group.name).into(),
        key: Some(format!("{place:05}").into()),
        route: group.route.clone(),
        needs: need.into_iter().collect(),
        priority: group.priority,
        on_failure: group.on_failure,
        retry: group.retry,
        timeouts: Timeouts { whole_ms: None, ..group.timeouts },
        workspace: group.workspace,
        template: None,
        state_keys: group.state_keys.clone(),
        hops: group.hops,
        traceparent: None,
        idempotency_key: None,
    }
}
