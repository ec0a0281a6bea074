//! An agent hands out parts of its task.

use super::draft::Draft;
use super::report::{self, Standing};
use super::{ended, finish, submit};
use crate::command::{HOPS_MAX, Proof, Reject, Reply, SUBMIT_MAX};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::outcome::Delegated;
use crate::payload::Payload;
use crate::task::{
    AttemptEnd, ErrorClass, Need, Route, TaskError, TaskSpec, TaskState, Template, Usage, WaitFor,
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What an outcome asks for.
pub(super) struct Wish<'a> {
    pub(super) tasks: &'a [Delegated],
    pub(super) resume: bool,
    pub(super) continuation: &'a Option<Payload>,
}

/// The attempt ends, its task waits for the children and gives its slot back.
/// A wish that cannot be granted is an error of the attempt.
pub(super) fn park(
    draft: &mut Draft<'_>,
    id: TaskId,
    wish: &Wish<'_>,
    usage: Option<Usage>,
) -> Result<(), Reject> {
    if let Err(message) = check(draft, id, wish.tasks)? {
        let error = TaskError::new(ErrorClass::Permanent, message);
        return finish::fail(draft, id, &error, None, usage);
    }
    draft.end_attempt(id, AttemptEnd::Delegated, None, usage)?;
    add_children(draft, id, wish.tasks)?;
    let task = draft.task_mut(id)?;
    task.state = TaskState::Waiting;
    task.wait_for = Some(if wish.resume { WaitFor::Resume } else { WaitFor::Collect });
    task.continuation.clone_from(wish.continuation);
    task.prefer = task.attempt.as_ref().map(|attempt| attempt.instance);
    let number = task.attempt.as_ref().map_or(0, |attempt| attempt.number);
    let children = task.open_children;
    draft.event(id, Fact::Waiting { number, children })?;
    if children == 0 {
        ended::children_ended(draft, id)?;
    }
    Ok(())
}

/// New tasks under a task whose attempt goes on.
pub(super) fn call(
    draft: &mut Draft<'_>,
    proof: &Proof,
    tasks: &[Delegated],
) -> Result<Reply, Reject> {
    match report::standing(draft, proof.task, proof.attempt, &proof.secret)? {
        Standing::Latest(attempt) if attempt.end.is_none() => {}
        Standing::Latest(_) | Standing::Superseded(_) => return Ok(Reply::Late),
    }
    if let Err(message) = check(draft, proof.task, tasks)? {
        return Err(Reject::Invalid(message));
    }
    Ok(Reply::Delegated(add_children(draft, proof.task, tasks)?))
}

/// Whether the wish can be granted; if not, why.
fn check(draft: &Draft<'_>, id: TaskId, tasks: &[Delegated]) -> Result<Result<(), String>, Reject> {
    let hops = draft.task(id)?.spec.hops;
    if tasks.is_empty() {
        return Ok(Err("it delegated nothing: name at least one task".into()));
    }
    if tasks.len() > SUBMIT_MAX {
        return Ok(Err(format!("it delegated {} tasks, more than {SUBMIT_MAX}", tasks.len())));
    }
    if hops >= HOPS_MAX {
        return Ok(Err(format!("it delegated over more than {HOPS_MAX} hops: a loop, it seems")));
    }
    let mut places: FxHashMap<&str, usize> = FxHashMap::default();
    for (place, task) in tasks.iter().enumerate() {
        let name = task.name.as_ref().unwrap_or(&task.key);
        if let Err(reject) = submit::check_name(name).and(submit::check_name(&task.key)) {
            return Ok(Err(reject.to_string()));
        }
        if task.route == Route::Group {
            return Ok(Err(format!("`{name}` names neither an agent nor a capability")));
        }
        if places.insert(&task.key, place).is_some() {
            return Ok(Err(format!("the key `{}` stands twice in the delegation", task.key)));
        }
    }
    let mut waits = vec![Vec::new(); tasks.len()];
    for (place, task) in tasks.iter().enumerate() {
        for need in &task.needs {
            match places.get(need.as_ref()) {
                Some(target) => waits[place].push(*target),
                None => {
                    return Ok(Err(format!(
                        "`{}` needs `{need}`, which is not among the tasks of this delegation",
                        task.key
                    )));
                }
            }
        }
    }
    Ok(match submit::find_cycle(&waits) {
        None => Ok(()),
        Some(cycle) => {
            let path = cycle.into_iter().map(|place| tasks[place].key.to_string()).collect();
            Err(Reject::Cycle { path }.to_string())
        }
    })
}

/// Adds the children that are not there yet, and returns all of them in the order asked for.
fn add_children(
    draft: &mut Draft<'_>,
    id: TaskId,
    tasks: &[Delegated],
) -> Result<Vec<TaskId>, Reject> {
    let now = draft.now();
    let parent = draft.task(id)?.spec.clone();
    let mut ids: FxHashMap<Arc<str>, TaskId> = FxHashMap::default();
    let mut new = Vec::new();
    for task in tasks {
        let known = draft
            .snapshot
            .call(id, &task.key)
            .ok_or_else(|| Reject::NotLoaded(format!("call `{}` of task {id}", task.key)))?;
        let child = known.unwrap_or_else(|| draft.ctx.chance.task_id(now));
        if known.is_none() {
            new.push((task, child));
        }
        ids.insert(task.key.clone(), child);
    }
    for (task, child) in new {
        let needs = task
            .needs
            .iter()
            .filter_map(|key| {
                let need = *ids.get(key)?;
                Some(Need { task: need, name: Some(key.clone()), order_only: false })
            })
            .collect();
        let template =
            task.template.then(|| Box::new(Template { input: true, ..Template::default() }));
        let spec = TaskSpec {
            id: child,
            parent: Some(id),
            root: parent.root,
            name: task.name.clone().unwrap_or_else(|| task.key.clone()),
            key: Some(task.key.clone()),
            route: task.route.clone(),
            needs,
            priority: task.priority.unwrap_or(parent.priority),
            on_failure: task.on_failure,
            retry: task.retry,
            timeouts: task.timeouts,
            workspace: task.workspace,
            template,
            hops: parent.hops + 1,
            idempotency_key: None,
        };
        submit::take_in(draft, Arc::new(spec), task.input.clone())?;
    }
    Ok(tasks.iter().filter_map(|task| ids.get(&task.key).copied()).collect())
}
