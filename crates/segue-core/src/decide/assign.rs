//! Giving ready tasks to instances with free slots.

use super::draft::Draft;
use super::secret_of;
use crate::command::{Assign, Reject, Reply};
use crate::event::Fact;
use crate::fleet::Takers;
use crate::ids::{InstanceId, TaskId};
use crate::letter::{LetterBody, Resume, TaskRequest};
use crate::payload::Hash;
use crate::state::GivenState;
use crate::task::{Attempt, Route, Task, TaskState};

/// Assigns the ready tasks of the snapshot in the order of their ranks, as long as there are slots.
///
/// The adapter has loaded the head of the queue of every open route, as many as it has free slots; so a
/// task that the batch itself made ready is compared with those that wait longer, and jumps none of them.
pub(super) fn assign(draft: &mut Draft<'_>, assign: &Assign) -> Result<Reply, Reject> {
    let fleet = draft.snapshot.agents();
    let mut ready: Vec<(i64, TaskId)> = draft
        .snapshot
        .tasks()
        .filter(|task| task.state == TaskState::Ready && fleet.is_open(&task.spec.route))
        .map(|task| (task.rank, task.id()))
        .collect();
    if ready.is_empty() {
        return Ok(Reply::Assigned(0));
    }
    ready.sort_unstable();
    let mut takers = Takers::new(fleet, &assign.candidates);
    let mut assigned = 0;
    for (_, id) in ready {
        if assigned == assign.limit {
            break;
        }
        let Some(instance) = takers.take(draft.task(id)?, |agent| draft.agent(agent)) else {
            continue;
        };
        give(draft, id, instance)?;
        assigned += 1;
    }
    Ok(Reply::Assigned(assigned))
}

fn give(draft: &mut Draft<'_>, id: TaskId, instance: InstanceId) -> Result<(), Reject> {
    let now = draft.now();
    let attempt_id = draft.ctx.chance.attempt_id(now);
    let secret = secret_of(&draft.ctx.key, attempt_id);
    let (incarnation, agent) = match draft.agent(instance) {
        Some(agent) => (agent.incarnation, agent.spec.name.clone()),
        None => return Err(Reject::Unknown { what: "agent instance", id: instance.to_string() }),
    };
    let task = draft.task_mut(id)?;
    task.state = TaskState::Assigned;
    task.attempts += 1;
    let number = task.attempts;
    task.attempt = Some(Attempt {
        id: attempt_id,
        number,
        secret_hash: Hash::of(&secret.0),
        instance,
        incarnation,
        assigned_at: now,
        started_at: None,
        process: None,
        end: None,
        ended_at: None,
    });
    let task = task.clone();
    draft.move_slots(instance, true);
    // Where the run has a trace of its own it follows from the ids, which the event tells.
    let traced = draft.find(task.spec.root).is_some_and(|root| root.spec.traceparent.is_some());
    let traceparent = traced.then(|| draft.span_of(&task, attempt_id));
    draft
        .event(id, Fact::Assigned { attempt: attempt_id, number, agent, instance, traceparent })?;
    if let Some(request) = task_request(&task, &draft.ctx.key) {
        draft.letter(instance, &task, LetterBody::TaskRequest(Box::new(request)));
    }
    Ok(())
}

/// The letter's content for the current attempt of a task, from the task alone: an outbox need keep no more
/// than which attempt it is for. `None` where no attempt is current.
pub fn task_request(task: &Task, key: &[u8; 32]) -> Option<TaskRequest> {
    let attempt = task.current_attempt()?;
    Some(TaskRequest {
        attempt: attempt.id,
        number: attempt.number,
        secret: secret_of(key, attempt.id),
        instance: attempt.instance,
        incarnation: attempt.incarnation,
        run: task.spec.root,
        name: task.spec.name.clone(),
        capability: match &task.spec.route {
            Route::Capability(name) => Some(name.clone()),
            Route::Agent(_) | Route::Group => None,
        },
        input: task.input.clone(),
        run_ms: task.spec.timeouts.run_ms,
        workspace: task.spec.workspace,
        resume: task
            .resumes()
            .then(|| Resume { continuation: task.continuation.clone(), children: Vec::new() }),
        state: (!task.spec.state_keys.is_empty()).then(|| {
            let keys = task.spec.state_keys.clone();
            Box::new(GivenState { keys, values: Vec::new(), more: false })
        }),
        team: Vec::new(),
    })
}
