//! What has to be loaded before a command can be decided.
//!
//! An adapter asks [`missing`] for every command of a batch, loads what is named, and asks again until
//! nothing is missing. Each round depends on what the last one found, and there are at most four, whatever the size of
//! the batch: so an adapter over a network makes a handful of round trips.

use crate::command::{Command, Duty, DutyKind};
use crate::ids::{AttemptId, InstanceId, TaskId};
use crate::letter::TaskResponse;
use crate::outcome::Outcome;
use crate::snapshot::Snapshot;
use crate::task::Task;
use crate::time::Time;
use std::sync::Arc;

/// Something to load into a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Load {
    /// A task, or that there is none.
    Task(TaskId),
    /// The tasks that need this one, after the given id, up to `CASCADE_MAX` of them.
    Dependents(TaskId, Option<TaskId>),
    /// The children of this one, after the given id, up to `CASCADE_MAX` of them.
    Children(TaskId, Option<TaskId>),
    /// The child of a task under a key.
    Call(TaskId, Arc<str>),
    /// What is known under an idempotency key.
    Idempotency(Arc<str>),
    /// The record of an attempt that is not the latest of its task.
    OldAttempt(TaskId, AttemptId),
    /// The tasks that hold a slot of an instance.
    Held(InstanceId),
    /// Up to so many tasks whose time has come.
    Due(usize),
}

/// What is still missing to decide this command. (`Assign` needs the heads of the queues of
/// [`open_routes`](crate::route::open_routes), which an adapter loads when the rest of the batch is decided.)
pub fn missing(snapshot: &Snapshot, command: &Command, now: Time) -> Vec<Load> {
    let mut want = Want { snapshot, loads: Vec::new() };
    match command {
        Command::Submit(submit) => {
            for task in &submit.tasks {
                want.submitted(&task.spec);
            }
        }
        Command::Assign(_) | Command::Renew { .. } | Command::Drain { .. } => {}
        Command::Settle { .. } => {}
        Command::Start { proof, .. }
        | Command::Progress { proof, .. }
        | Command::Reaped { proof, .. } => want.report(proof.task, proof.attempt),
        Command::Finish { task, response } => want.finish(*task, response),
        Command::Delegate { proof, tasks } => {
            want.report(proof.task, proof.attempt);
            for delegated in tasks {
                want.call(proof.task, &delegated.key);
            }
        }
        Command::Expand { task, .. } | Command::Resume { task } => want.with_neighbours(*task),
        Command::Retry { task } | Command::Requeue { task } => {
            want.family(*task);
        }
        Command::Cancel { task, .. } => {
            want.with_neighbours(*task);
            want.children(*task, None);
        }
        Command::Continue(duty) => want.duty(duty),
        Command::Tick { limit } => want.tick(*limit, now),
        Command::Register { host, incarnation, agents, .. } => {
            for agent in snapshot.agents().values().filter(|agent| agent.host == *host) {
                let kept = agent.incarnation == *incarnation
                    && agents.iter().any(|spec| spec.instance == agent.spec.instance);
                if !kept {
                    want.held(agent.spec.instance);
                }
            }
        }
        Command::ExpireAgent { instance, .. } => want.held(*instance),
    }
    want.loads
}

struct Want<'a> {
    snapshot: &'a Snapshot,
    loads: Vec<Load>,
}

impl Want<'_> {
    fn task(&mut self, id: TaskId) -> Option<Arc<Task>> {
        if !self.snapshot.knows_task(id) {
            self.loads.push(Load::Task(id));
        }
        self.snapshot.task(id).cloned()
    }

    /// A task, the root of its run (whose events are counted there) and its parent.
    fn family(&mut self, id: TaskId) -> Option<Arc<Task>> {
        let task = self.task(id)?;
        if !task.is_root() {
            self.task(task.spec.root);
        }
        if let Some(parent) = task.spec.parent {
            self.task(parent);
        }
        Some(task)
    }

    /// Everything that the end of a task touches.
    fn with_neighbours(&mut self, id: TaskId) {
        if self.family(id).is_some_and(|task| task.dependents > 0) {
            self.dependents(id, None);
        }
    }

    fn dependents(&mut self, id: TaskId, after: Option<TaskId>) {
        let snapshot = self.snapshot;
        match snapshot.dependents(id) {
            None => self.loads.push(Load::Dependents(id, after)),
            Some(page) => {
                for edge in &page.items {
                    self.task(edge.task);
                }
            }
        }
    }

    fn children(&mut self, id: TaskId, after: Option<TaskId>) {
        let snapshot = self.snapshot;
        let Some(task) = snapshot.task(id) else { return };
        if task.children == 0 {
            return;
        }
        match snapshot.children(id) {
            None => self.loads.push(Load::Children(id, after)),
            Some(page) => {
                for child in &page.items {
                    self.task(*child);
                }
            }
        }
    }

    fn call(&mut self, parent: TaskId, key: &Arc<str>) {
        match self.snapshot.call(parent, key) {
            None => self.loads.push(Load::Call(parent, key.clone())),
            Some(Some(child)) => {
                self.task(child);
            }
            Some(None) => {}
        }
    }

    fn report(&mut self, id: TaskId, attempt: AttemptId) {
        let Some(task) = self.family(id) else { return };
        let is_latest = task.attempt.as_ref().is_some_and(|latest| latest.id == attempt);
        if !is_latest && self.snapshot.old_attempt(attempt).is_none() {
            self.loads.push(Load::OldAttempt(id, attempt));
        }
    }

    fn finish(&mut self, id: TaskId, response: &TaskResponse) {
        self.report(id, response.attempt);
        self.with_neighbours(id);
        if let Outcome::Delegate { tasks, .. } = &response.outcome {
            for delegated in tasks {
                self.call(id, &delegated.key);
            }
        }
    }

    fn submitted(&mut self, spec: &crate::task::TaskSpec) {
        self.task(spec.id);
        if let Some(key) = &spec.idempotency_key
            && self.snapshot.idempotency(key).is_none()
        {
            self.loads.push(Load::Idempotency(key.clone()));
        }
        for need in &spec.needs {
            self.task(need.task);
        }
        if let Some(parent) = spec.parent {
            self.task(parent);
        }
    }

    fn duty(&mut self, duty: &Duty) {
        match duty.kind {
            DutyKind::Propagate { after, .. } => {
                if self.family(duty.task).is_some_and(|task| task.dependents > 0) {
                    self.dependents(duty.task, after);
                }
            }
            DutyKind::CancelChildren { after } => {
                self.family(duty.task);
                self.children(duty.task, after);
            }
            DutyKind::Render | DutyKind::Collect => {
                self.family(duty.task);
            }
        }
    }

    fn tick(&mut self, limit: usize, now: Time) {
        let snapshot = self.snapshot;
        for agent in snapshot.agents().values() {
            if !agent.gone && agent.lease_until < now {
                self.held(agent.spec.instance);
            }
        }
        if snapshot.due().is_none() {
            self.loads.push(Load::Due(limit));
        }
        for id in snapshot.due().unwrap_or_default() {
            self.with_neighbours(*id);
            if snapshot.task(*id).is_some_and(|task| task.spec.timeouts.whole_ms.is_some()) {
                self.children(*id, None);
            }
        }
    }

    fn held(&mut self, instance: InstanceId) {
        match self.snapshot.held(instance) {
            None => self.loads.push(Load::Held(instance)),
            Some(tasks) => {
                for id in self.snapshot.held_raw(instance).iter().chain(&tasks) {
                    self.with_neighbours(*id);
                }
            }
        }
    }
}
