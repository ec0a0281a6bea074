//! Taking in a task or a whole graph.

use super::draft::Draft;
use super::ended::{self, Ending, Verdict};
use crate::changes::{Edge, IdempotencyRecord};
use crate::command::{DutyKind, HOPS_MAX, NewTask, Reject, Reply, SUBMIT_MAX, Submit};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::payload::{Hash, Payload};
use crate::state::check_state_keys;
use crate::task::{Route, Task, TaskSpec, TaskState, WaitFor};
use crate::time::Time;
use rustc_hash::{FxHashMap, FxHashSet};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Needs that the tasks of one submit or delegation may have together: what a cascade has to look at stays bounded.
pub(super) const NEEDS_MAX: usize = 10 * SUBMIT_MAX;

/// Longest name of a task in bytes.
pub(super) const NAME_MAX: usize = 200;

pub(super) fn submit(draft: &mut Draft<'_>, submit: &Submit) -> Result<Reply, Reject> {
    let first = submit.tasks.first().ok_or_else(|| Reject::Invalid("nothing to submit".into()))?;
    if submit.tasks.len() > SUBMIT_MAX {
        return Err(Reject::Invalid(format!(
            "{} tasks are too many for one submit (at most {SUBMIT_MAX}): submit them in parts",
            submit.tasks.len()
        )));
    }
    if let Some(existing) = known_already(draft, first, submit)? {
        return Ok(Reply::Existing { root: existing });
    }
    check(draft, submit)?;
    for task in &submit.tasks {
        take_in(draft, Arc::new(task.spec.clone()), task.input.clone())?;
    }
    for task in submit.tasks.iter().filter(|task| task.spec.route == Route::Group) {
        start_group(draft, task.spec.id)?;
    }
    Ok(Reply::Submitted { root: first.spec.id, count: submit.tasks.len() })
}

/// The same key with the same body finds the task of the earlier submit; with another body it is a conflict.
fn known_already(
    draft: &mut Draft<'_>,
    first: &NewTask,
    submit: &Submit,
) -> Result<Option<TaskId>, Reject> {
    let Some(key) = &first.spec.idempotency_key else { return Ok(None) };
    let body = body_hash(submit);
    let known = draft
        .snapshot
        .idempotency(key)
        .ok_or_else(|| Reject::NotLoaded(format!("idempotency key `{key}`")))?;
    match known {
        Some(record) if record.body == body => Ok(Some(record.task)),
        Some(record) => Err(Reject::Conflict(format!(
            "the idempotency key `{key}` belongs to task {} with another body: use a new key for new work",
            record.task
        ))),
        None => {
            let task = first.spec.id;
            draft.add_idempotency(IdempotencyRecord { key: key.clone(), task, body });
            Ok(None)
        }
    }
}

/// What a submit asks for, without the ids that its sender made up for it.
fn body_hash(submit: &Submit) -> Hash {
    let nil = TaskId(uuid::Uuid::nil());
    let order: FxHashMap<TaskId, u128> =
        submit.tasks.iter().enumerate().map(|(i, task)| (task.spec.id, i as u128 + 1)).collect();
    let plain = |id: TaskId| match order.get(&id) {
        Some(place) => TaskId(uuid::Uuid::from_u128(*place)),
        None => id,
    };
    let mut digest = Sha256::new();
    for task in &submit.tasks {
        let mut spec = task.spec.clone();
        spec.id = nil;
        // Who asks again asks in another span.
        spec.traceparent = None;
        spec.root = nil;
        spec.parent = spec.parent.map(plain);
        for need in &mut spec.needs {
            need.task = plain(need.task);
        }
        // Serializing plain data with string keys into memory cannot fail.
        digest.update(serde_json::to_vec(&spec).unwrap_or_default());
        digest.update(task.input.hash().0);
    }
    Hash(digest.finalize().into())
}

fn check(draft: &Draft<'_>, submit: &Submit) -> Result<(), Reject> {
    let mut places = FxHashMap::default();
    let mut depths = Vec::with_capacity(submit.tasks.len());
    let mut keys = FxHashSet::default();
    for (place, task) in submit.tasks.iter().enumerate() {
        let spec = &task.spec;
        if places.insert(spec.id, place).is_some() {
            return Err(Reject::Conflict(format!("task {} stands twice in this submit", spec.id)));
        }
        check_name(&spec.name)?;
        check_state_keys(&spec.state_keys)
            .map_err(|wrong| Reject::Invalid(format!("`{}`: {wrong}", spec.name)))?;
        if draft.find(spec.id).is_some() {
            return Err(Reject::Conflict(format!("task {} exists already", spec.id)));
        }
        if let (Some(parent), Some(key)) = (spec.parent, &spec.key)
            && !keys.insert((parent, key))
        {
            return Err(Reject::Conflict(format!(
                "the key `{key}` stands twice under task {parent}"
            )));
        }
        if spec.traceparent.is_some() && spec.parent.is_some() {
            return Err(Reject::Invalid(format!(
                "`{}` is not the root of its run: the traceparent of a run stands there alone",
                spec.name
            )));
        }
        let parent = check_parent(submit, place, &places)?;
        depths.push(parent.map_or(0, |parent| depths[parent] + 1));
        if depths[place] > HOPS_MAX {
            return Err(Reject::Invalid(format!(
                "`{}` lies under more than {HOPS_MAX} groups: make the workflow flatter",
                spec.name
            )));
        }
    }
    check_size(submit.tasks.iter().map(|task| task.spec.needs.len()).sum())?;
    for task in &submit.tasks {
        check_needs(draft, &task.spec, &places)?;
    }
    check_cycles(&submit.tasks, &places)
}

/// Finds the place of a task's parent, which has to be a group before it.
fn check_parent(
    submit: &Submit,
    place: usize,
    places: &FxHashMap<TaskId, usize>,
) -> Result<Option<usize>, Reject> {
    let spec = &submit.tasks[place].spec;
    let parent = match spec.parent.map(|id| (id, places.get(&id).copied())) {
        None => None,
        Some((_, Some(parent)))
            if parent < place && submit.tasks[parent].spec.route == Route::Group =>
        {
            Some(parent)
        }
        Some((id, _)) => {
            return Err(Reject::Invalid(format!(
                "the parent {id} of `{}` is no group that stands before it in this submit; an agent adds tasks under its own by delegating",
                spec.name
            )));
        }
    };
    let root = parent.map_or(spec.id, |parent| submit.tasks[parent].spec.root);
    if spec.root != root {
        return Err(Reject::Invalid(format!("the root of `{}` has to be {root}", spec.name)));
    }
    Ok(parent)
}

pub(super) fn check_size(needs: usize) -> Result<(), Reject> {
    if needs > NEEDS_MAX {
        return Err(Reject::Invalid(format!(
            "{needs} needs are too many for one graph (at most {NEEDS_MAX}): put a task between, that needs the one side and is needed by the other"
        )));
    }
    Ok(())
}

fn check_needs(
    draft: &Draft<'_>,
    spec: &TaskSpec,
    places: &FxHashMap<TaskId, usize>,
) -> Result<(), Reject> {
    if spec.route == Route::Group && !spec.needs.is_empty() {
        return Err(Reject::Invalid(format!(
            "the group `{}` cannot have needs: give them to its children",
            spec.name
        )));
    }
    let mut known = FxHashSet::default();
    for need in &spec.needs {
        if !known.insert(need.task) {
            return Err(Reject::Invalid(format!(
                "`{}` needs task {} twice: name it once",
                spec.name, need.task
            )));
        }
        if !places.contains_key(&need.task) && draft.find(need.task).is_none() {
            return Err(Reject::Unknown { what: "task", id: need.task.to_string() });
        }
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), Reject> {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Reject::Invalid(format!(
            "{name:?} cannot be the name of a task: it has 1 to {NAME_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}

/// Refuses needs that lead back to where they began, and a child that waits for its own ancestor.
fn check_cycles(tasks: &[NewTask], places: &FxHashMap<TaskId, usize>) -> Result<(), Reject> {
    // A group ends after its children, so it waits for them as it waits for its needs.
    let mut waits: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (place, task) in tasks.iter().enumerate() {
        waits[place].extend(task.spec.needs.iter().filter_map(|need| places.get(&need.task)));
        if let Some(parent) = task.spec.parent.and_then(|parent| places.get(&parent)) {
            waits[*parent].push(place);
        }
    }
    match find_cycle(&waits) {
        None => Ok(()),
        Some(cycle) => {
            let path = cycle.into_iter().map(|place| tasks[place].spec.name.to_string()).collect();
            Err(Reject::Cycle { path })
        }
    }
}

/// A closed path in this graph, its first node repeated at the end. Iterative depth-first search, so that a
/// long chain needs no deep stack.
pub(super) fn find_cycle(waits: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; waits.len()];
    for start in 0..waits.len() {
        if marks[start] != Mark::New {
            continue;
        }
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        marks[start] = Mark::Open;
        while let Some((node, next)) = path.last_mut() {
            let Some(target) = waits[*node].get(*next).copied() else {
                marks[*node] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match marks[target] {
                Mark::New => {
                    marks[target] = Mark::Open;
                    path.push((target, 0));
                }
                Mark::Open => {
                    let from = path.iter().position(|(node, _)| *node == target)?;
                    let mut cycle: Vec<usize> =
                        path[from..].iter().map(|(node, _)| *node).collect();
                    cycle.push(target);
                    return Some(cycle);
                }
                Mark::Done => {}
            }
        }
    }
    None
}

/// Adds one task, with its edges, in the state that its needs leave it in.
pub(super) fn take_in(
    draft: &mut Draft<'_>,
    spec: Arc<TaskSpec>,
    input: Payload,
) -> Result<(), Reject> {
    let now = draft.now();
    let id = spec.id;
    // A need further down in the same submit is not there yet: it cannot have ended.
    let outlook = ended::outlook(draft, &spec, |_| Ok(Verdict::Open))?;
    let unmet = outlook.unmet;
    for need in &spec.needs {
        // The edge stands even where the need has ended: if that is requeued, this task follows it.
        draft.add_edge(Edge { need: need.task, task: id, order_only: need.order_only });
    }
    let state = if unmet == 0 { TaskState::Ready } else { TaskState::Blocked };
    let only_rendering = unmet == 1 && spec.is_rendered_later();
    draft.add_task(new_task(spec.clone(), input, state, unmet, now));
    count_dependents(draft, &spec)?;
    let fact = Fact::Submitted {
        name: spec.name.clone(),
        route: spec.route.clone(),
        state,
        parent: spec.parent,
    };
    if let Some(parent) = spec.parent {
        let parent = draft.task_mut(parent)?;
        parent.children += 1;
        parent.open_children += 1;
    }
    draft.event(id, fact)?;
    match outlook.verdict {
        Verdict::Fail(error) => ended::end_by_need(draft, id, Ending::Failed(error)),
        Verdict::Skip(reason) => ended::end_by_need(draft, id, Ending::Skipped(reason)),
        Verdict::Open | Verdict::Met => {
            if only_rendering {
                draft.duty(id, DutyKind::Render);
            }
            Ok(())
        }
    }
}

fn new_task(spec: Arc<TaskSpec>, input: Payload, state: TaskState, unmet: u32, now: Time) -> Task {
    let ready = state == TaskState::Ready;
    Task {
        rank: if ready { crate::route::rank(now, spec.priority) } else { 0 },
        spec,
        state,
        unmet,
        input,
        attempts: 0,
        tried: 0,
        lost: 0,
        attempt: None,
        open_children: 0,
        children: 0,
        dependents: 0,
        wait_for: None,
        continuation: None,
        prefer: None,
        created_at: now,
        ready_at: ready.then_some(now),
        retry_at: None,
        finished_at: None,
        output: None,
        error: None,
        run_events: 0,
    }
}

/// Counts this task with those that it needs; and with it those that were taken in before it and need it.
fn count_dependents(draft: &mut Draft<'_>, spec: &TaskSpec) -> Result<(), Reject> {
    for need in &spec.needs {
        if draft.find(need.task).is_some() {
            draft.task_mut(need.task)?.dependents += 1;
        }
    }
    let waiting = draft.edges_to(spec.id);
    if waiting > 0 {
        draft.task_mut(spec.id)?.dependents += waiting;
    }
    Ok(())
}

/// A group waits for its children from the start; one without children has nothing to wait for.
fn start_group(draft: &mut Draft<'_>, id: TaskId) -> Result<(), Reject> {
    let group = draft.task_mut(id)?;
    group.state = TaskState::Waiting;
    group.wait_for = Some(WaitFor::Collect);
    let children = group.open_children;
    draft.event(id, Fact::Waiting { number: 0, children })?;
    if children == 0 {
        ended::children_ended(draft, id)?;
    }
    Ok(())
}
