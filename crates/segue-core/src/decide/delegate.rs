//! An agent hands out parts of its task.

use super::draft::Draft;
use super::report::{self, Standing};
use super::{ended, finish, requeue, state, submit};
use crate::command::{HOPS_MAX, Proof, Reject, Reply, SUBMIT_MAX};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::letter::TaskResponse;
use crate::outcome::Delegated;
use crate::payload::Payload;
use crate::state::{check_state_keys, covers};
use crate::task::{
    AttemptEnd, ErrorClass, Need, Route, Task, TaskError, TaskSpec, TaskState, Template, Usage,
    WaitFor,
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What an outcome asks for.
pub(super) struct Wish<'a> {
    pub(super) tasks: &'a [Delegated],
    pub(super) resume: bool,
    pub(super) continuation: &'a Option<Payload>,
    pub(super) response: &'a TaskResponse,
}

/// The attempt ends, its task waits for the children and gives its slot back.
/// A wish that cannot be granted is an error of the attempt.
pub(super) fn park(
    draft: &mut Draft<'_>,
    id: TaskId,
    wish: &Wish<'_>,
    usage: Option<Usage>,
) -> Result<(), Reject> {
    if let Err(reject) = check(draft, id, wish.tasks).and_then(|()| progress(draft, id, wish)) {
        if let Reject::NotLoaded(_) = reject {
            return Err(reject);
        }
        let error = TaskError::new(ErrorClass::Permanent, reject.to_string());
        return finish::fail(draft, id, &error, None, usage);
    }
    if let Err(error) = state::with_outcome(draft, id, wish.response)? {
        return finish::fail(draft, id, &error, None, usage);
    }
    draft.end_attempt(id, AttemptEnd::Delegated, None, usage)?;
    add_children(draft, id, wish.tasks)?;
    let task = draft.task_mut(id)?;
    task.state = TaskState::Waiting;
    // It may have been given up already, and be due for another attempt: that is not needed now.
    task.retry_at = None;
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
    check(draft, proof.task, tasks)?;
    Ok(Reply::Delegated(add_children(draft, proof.task, tasks)?))
}

/// Whether the tasks can be handed out; if not, why.
fn check(draft: &Draft<'_>, id: TaskId, tasks: &[Delegated]) -> Result<(), Reject> {
    let invalid = |message: String| Err(Reject::Invalid(message));
    if tasks.is_empty() {
        return invalid("it delegated nothing: name at least one task".into());
    }
    if tasks.len() > SUBMIT_MAX {
        return invalid(format!("it delegated {} tasks, more than {SUBMIT_MAX}", tasks.len()));
    }
    if draft.task(id)?.spec.hops >= HOPS_MAX {
        return invalid(format!("it delegated over more than {HOPS_MAX} hops: a loop, it seems"));
    }
    submit::check_size(tasks.iter().map(|task| task.needs.len()).sum())?;
    let mut places: FxHashMap<&str, usize> = FxHashMap::default();
    for (place, task) in tasks.iter().enumerate() {
        let name = task.name.as_ref().unwrap_or(&task.key);
        submit::check_name(name)?;
        submit::check_name(&task.key)?;
        check_keys(draft.task(id)?, task).map_err(Reject::Invalid)?;
        if task.route == Route::Group {
            return invalid(format!("`{name}` names neither an agent nor a capability"));
        }
        if places.insert(&task.key, place).is_some() {
            return invalid(format!("the key `{}` stands twice in the delegation", task.key));
        }
    }
    let mut waits = vec![Vec::new(); tasks.len()];
    for (place, task) in tasks.iter().enumerate() {
        for need in &task.needs {
            let Some(target) = places.get(need.as_ref()) else {
                return invalid(format!(
                    "`{}` needs `{need}`, which is not among the tasks of this delegation",
                    task.key
                ));
            };
            waits[place].push(*target);
        }
    }
    match submit::find_cycle(&waits) {
        None => Ok(()),
        Some(cycle) => {
            let path = cycle.into_iter().map(|place| tasks[place].key.to_string()).collect();
            Err(Reject::Cycle { path })
        }
    }
}

/// Refuses keys of shared state beyond those of the task that delegates: a right is handed on, and never grows.
fn check_keys(parent: &Task, task: &Delegated) -> Result<(), String> {
    check_state_keys(&task.state_keys).map_err(|wrong| format!("`{}`: {wrong}", task.key))?;
    match task.state_keys.iter().find(|key| !covers(&parent.spec.state_keys, key)) {
        None => Ok(()),
        Some(foreign) => Err(format!(
            "`{}` is to use the key `{foreign}` of shared state, which the task that delegates may not use itself: its `state_keys` {}",
            task.key,
            named(&parent.spec.state_keys)
        )),
    }
}

/// The keys that a task may use, in words.
pub(super) fn named(keys: &[Arc<str>]) -> String {
    match keys {
        [] => "are empty".to_owned(),
        keys => format!("are {}", keys.join(", ")),
    }
}

/// Refuses a wish to be resumed with nothing but results that this attempt was given when it was resumed itself: it would
/// go round for ever, at the speed of the machine.
fn progress(draft: &Draft<'_>, id: TaskId, wish: &Wish<'_>) -> Result<(), Reject> {
    let task = draft.task(id)?;
    if !wish.resume || !task.resumes() || task.open_children > 0 {
        return Ok(());
    }
    let began = task.attempt.as_ref().map(|attempt| attempt.assigned_at);
    for delegated in wish.tasks {
        let Some(child) = known_child(draft, id, &delegated.key)? else { return Ok(()) };
        let child = draft.task(child)?;
        // One that this attempt handed out itself, and that has ended since, is news.
        let is_news = child.finished_at > began || is_of_earlier_life(task, child);
        if is_news {
            return Ok(());
        }
    }
    Err(Reject::Invalid(
        "it was resumed with the results of these tasks, and delegated the same ones again: nothing new would come of that".into(),
    ))
}

/// The child under this key, if there is one.
fn known_child(draft: &Draft<'_>, id: TaskId, key: &Arc<str>) -> Result<Option<TaskId>, Reject> {
    let known = draft.snapshot.call(id, key);
    known.ok_or_else(|| Reject::NotLoaded(format!("call `{key}` of task {id}")))
}

/// Whether a child ended without its output before its parent was requeued. Such a child is not a result of the parent's
/// new life: handed out again, it is done again.
fn is_of_earlier_life(parent: &Task, child: &Task) -> bool {
    matches!(child.state, TaskState::Failed | TaskState::Cancelled)
        && child.finished_at.is_some_and(|at| at < parent.created_at)
}

/// Adds the children that are not there yet, takes up those again that an earlier life of the task left undone,
/// and returns all of them in the order asked for.
fn add_children(
    draft: &mut Draft<'_>,
    id: TaskId,
    tasks: &[Delegated],
) -> Result<Vec<TaskId>, Reject> {
    let now = draft.now();
    let mut ids: FxHashMap<Arc<str>, TaskId> = FxHashMap::default();
    let (mut new, mut undone) = (Vec::new(), Vec::new());
    for task in tasks {
        let child = match known_child(draft, id, &task.key)? {
            Some(child) => {
                if is_of_earlier_life(draft.task(id)?, draft.task(child)?) {
                    undone.push(child);
                }
                child
            }
            None => {
                let child = draft.ctx.chance.task_id(now);
                new.push((task, child));
                child
            }
        };
        ids.insert(task.key.clone(), child);
    }
    // First all of them come back, then their needs are counted: they may need each other in any order.
    for child in &undone {
        requeue::bring_back(draft, *child)?;
    }
    for child in &undone {
        requeue::count_back(draft, *child)?;
        ended::follow_later(draft, *child)?;
    }
    let parent = draft.task(id)?.spec.clone();
    for (task, child) in new {
        let spec = child_spec(&parent, child, task, &ids);
        submit::take_in(draft, Arc::new(spec), task.input.clone())?;
    }
    Ok(tasks.iter().filter_map(|task| ids.get(&task.key).copied()).collect())
}

fn child_spec(
    parent: &TaskSpec,
    id: TaskId,
    task: &Delegated,
    ids: &FxHashMap<Arc<str>, TaskId>,
) -> TaskSpec {
    let mut needs: Vec<Need> = Vec::with_capacity(task.needs.len());
    for key in &task.needs {
        // A plan that names a need twice means it once.
        if let Some(need) = ids.get(key)
            && needs.iter().all(|known| known.task != *need)
        {
            needs.push(Need { task: *need, name: Some(key.clone()), order_only: false });
        }
    }
    let template = task.template.then(|| Box::new(Template { input: true, ..Template::default() }));
    TaskSpec {
        id,
        parent: Some(parent.id),
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
        state_keys: task.state_keys.clone(),
        hops: parent.hops + 1,
        traceparent: None,
        idempotency_key: None,
    }
}
