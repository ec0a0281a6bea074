//! What has to be loaded before a command can be decided.
//!
//! An adapter asks [`missing`] for every command of a batch, loads what is named, and asks again until
//! nothing is missing. Each round depends on what the last one found, and there are at most five, whatever the size of
//! the batch: so an adapter over a network makes a handful of round trips. (A requeue climbs from a task to the root,
//! a round for each level that failed with it.) Then it decides command by command, and asks once more before each: what
//! an earlier command of the batch did may make another load necessary, which is rare.

use crate::command::{Command, Duty, DutyKind, Excused};
use crate::decide::{check_state, ended_by_needs, failed_waiting, refuses};
use crate::ids::{AttemptId, InstanceId, TaskId};
use crate::letter::TaskResponse;
use crate::outcome::Outcome;
use crate::snapshot::Snapshot;
use crate::state::{Expect, Policy, Put, StateCommand, Writer};
use crate::task::{Route, Task, TaskState};
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
    /// The record of an attempt of a task that is not its current one.
    OldAttempt(TaskId, AttemptId),
    /// The tasks that hold a slot of an instance.
    Held(InstanceId),
    /// Up to so many tasks whose time has come.
    Due(usize),
    /// The last stamp that was issued. It is asked for before anything else of shared state: an adapter with other writers beside it
    /// locks the counter until its commit, before it locks anything else of that round, and then needs no other lock for state.
    Stamp,
    /// A key: its newest version, whose value may be a reference, and the numbers of the versions that are kept.
    StateKey(Arc<str>),
    /// A version, with its body at hand where that is at most `DATABASE_MAX` bytes long, or that there is none.
    StateVersion(u64),
    /// Every policy of the project.
    Policies,
    /// A lock, or that there is none.
    Lock(Arc<str>),
}

/// What is still missing to decide this command. (`Assign` needs the heads of the queues of
/// [`open_queues`](crate::fleet::Fleet::open_queues), as many of each as there are free slots, which an adapter loads when the
/// rest of the batch is decided. A head that the batch has taken out of its queue does not count among them. Here `Assign`
/// asks for the roots of the runs of what is ready.)
pub fn missing(snapshot: &Snapshot, command: &Command, now: Time) -> Vec<Load> {
    let mut want = Want { snapshot, loads: Vec::new() };
    match command {
        Command::Submit(submit) => {
            for task in &submit.tasks {
                want.submitted(&task.spec);
            }
        }
        Command::Assign(_) => {
            for task in snapshot.tasks().filter(|task| task.state == TaskState::Ready) {
                want.task(task.spec.root);
            }
        }
        Command::Renew { .. } | Command::Drain { .. } | Command::Settle { .. } => {}
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
        Command::Expand { task, .. } => want.with_neighbours(*task),
        Command::Resume { task } | Command::Retry { task } => {
            want.family(*task);
        }
        Command::Requeue { task } => want.requeue(*task),
        Command::Cancel { task, .. } => {
            want.with_neighbours(*task);
            want.open_children(*task, None);
        }
        Command::Continue(duty) => want.duty(duty),
        Command::Tick { limit, excused } => want.tick(*limit, *excused, now),
        Command::Register { host, incarnation, agents, .. } => {
            for agent in snapshot.agents().of_host(*host) {
                let kept = agent.incarnation == *incarnation
                    && agents.iter().any(|spec| spec.instance == agent.spec.instance);
                if !kept {
                    want.held(agent.spec.instance);
                }
            }
        }
        Command::ExpireAgent { instance, .. } => want.held(*instance),
        Command::State(command) => want.state(command),
    }
    want.loads
}

/// Of which dependents of a task the needs will be counted.
#[derive(Clone, Copy)]
enum Count {
    /// All that wait for it or ended on its account.
    All,
    /// Those that the task, as it stands, does not end in any case.
    Unrefused,
    /// None: it ends for the first time.
    None,
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
        if let Some(task) = self.family(id) {
            // See `end_alone` in `decide`: only a first end leaves the needs of the dependents uncounted.
            let count = if task.error.is_some() { Count::All } else { Count::None };
            self.dependents(&task, None, count);
        }
    }

    /// The dependents of a task with their runs and parents; with their needs, where those are to be counted.
    fn dependents(&mut self, task: &Task, after: Option<TaskId>, count: Count) {
        if task.dependents == 0 {
            return;
        }
        let snapshot = self.snapshot;
        match snapshot.dependents(task.id()) {
            None => self.loads.push(Load::Dependents(task.id(), after)),
            Some(page) => {
                for edge in &page.items {
                    let Some(dependent) = self.family(edge.task) else { continue };
                    let counted = match count {
                        Count::All => true,
                        Count::Unrefused => !refuses(task, edge.order_only),
                        Count::None => false,
                    };
                    let ended = ended_by_needs(&dependent);
                    if counted && (ended || dependent.state == TaskState::Blocked) {
                        self.needs(&dependent);
                    }
                    if counted && ended {
                        self.above(&dependent);
                    }
                }
            }
        }
    }

    fn needs(&mut self, task: &Task) {
        for need in &task.spec.needs {
            self.task(need.task);
        }
    }

    /// Those above a task that come back with it.
    fn above(&mut self, task: &Task) {
        let mut above = task.spec.parent;
        while let Some(parent) = above.and_then(|id| self.task(id)) {
            above = if failed_waiting(&parent) { parent.spec.parent } else { None };
        }
    }

    fn requeue(&mut self, id: TaskId) {
        let Some(task) = self.family(id) else { return };
        self.above(&task);
        if task.spec.route == Route::Group {
            self.undone_children(id, None);
            return;
        }
        if task.resumes() {
            self.children(id, None);
        }
        self.needs(&task);
        self.dependents(&task, None, Count::All);
    }

    /// The children of a task that has open ones.
    fn open_children(&mut self, id: TaskId, after: Option<TaskId>) {
        if self.snapshot.task(id).is_some_and(|task| task.open_children > 0) {
            self.children(id, after);
        }
    }

    /// The children of a task with the needs of those that did not complete.
    fn undone_children(&mut self, id: TaskId, after: Option<TaskId>) {
        self.children(id, after);
        let snapshot = self.snapshot;
        for child in snapshot.children(id).into_iter().flat_map(|page| &page.items) {
            if let Some(child) = snapshot.task(*child)
                && matches!(child.state, TaskState::Failed | TaskState::Cancelled)
            {
                self.needs(child);
            }
        }
    }

    fn children(&mut self, id: TaskId, after: Option<TaskId>) {
        let snapshot = self.snapshot;
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
                // One that did not complete may be taken up again.
                if let Some(child) = self.task(child)
                    && matches!(child.state, TaskState::Failed | TaskState::Cancelled)
                {
                    self.needs(&child);
                }
            }
            Some(None) => {}
        }
    }

    fn report(&mut self, id: TaskId, attempt: AttemptId) {
        let Some(task) = self.family(id) else { return };
        let is_current = task.current_attempt().is_some_and(|current| current.id == attempt);
        if !is_current && self.snapshot.old_attempt(id, attempt).is_none() {
            self.loads.push(Load::OldAttempt(id, attempt));
        }
    }

    fn finish(&mut self, id: TaskId, response: &TaskResponse) {
        self.report(id, response.attempt);
        self.with_neighbours(id);
        match &response.outcome {
            Outcome::Fail { .. } | Outcome::Cancelled => return,
            Outcome::Complete { .. } => {}
            Outcome::Delegate { tasks, .. } => {
                for delegated in tasks {
                    self.call(id, &delegated.key);
                }
            }
        }
        self.outcome_state(id, response);
    }

    /// What an outcome writes: the stamp first of all, whatever becomes of it, and then the keys.
    fn outcome_state(&mut self, id: TaskId, response: &TaskResponse) {
        let state = &response.state;
        if state.is_empty() || state.check().is_err() {
            return;
        }
        if self.snapshot.state().stamp().is_none() {
            return self.loads.push(Load::Stamp);
        }
        let may = |task: &Arc<Task>| state.foreign(&task.spec.state_keys).is_none();
        if self.snapshot.task(id).is_some_and(may) {
            for put in &state.put {
                self.put(&put.by(Writer::Task { task: id, attempt: response.attempt }));
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
                if let Some(task) = self.family(duty.task) {
                    self.dependents(&task, after, Count::Unrefused);
                }
            }
            DutyKind::CancelChildren { after } => {
                let task = self.family(duty.task);
                if task.is_some_and(|task| task.state == TaskState::Waiting) {
                    self.undone_children(duty.task, after);
                } else {
                    self.open_children(duty.task, after);
                }
            }
            DutyKind::Render | DutyKind::Collect => {
                self.family(duty.task);
            }
        }
    }

    fn state(&mut self, command: &StateCommand) {
        // What is refused in any case needs nothing; and no adapter gets to see a key that is none.
        if check_state(command).is_err() {
            return;
        }
        if self.snapshot.state().stamp().is_none() {
            return self.loads.push(Load::Stamp);
        }
        match command {
            StateCommand::Put(put) => self.put(put),
            StateCommand::SetPolicy { .. } => self.policies(),
            StateCommand::Lock { name, .. } => self.lock(name),
            StateCommand::RenewLock { fence, .. } | StateCommand::ReleaseLock { fence } => {
                self.lock(&fence.name);
            }
        }
    }

    fn put(&mut self, put: &Put) {
        if let Some(fence) = &put.fence {
            self.lock(&fence.name);
        }
        let rows = self.snapshot.state();
        let Some(row) = rows.key(&put.key) else {
            return self.loads.push(Load::StateKey(put.key.clone()));
        };
        if row.fits(put.expect) {
            return;
        }
        match put.policy.or_else(|| rows.policy_of(&put.key)) {
            None => self.policies(),
            Some(Policy::Reject | Policy::LastWriter) => {}
            Some(Policy::Merge) => {
                let base = match put.expect {
                    Expect::Version(version) => Some(version),
                    Expect::Anything | Expect::Absent => None,
                };
                let current = row.current().map(|current| current.version);
                for version in [base, current].into_iter().flatten() {
                    if rows.version(version).is_none() {
                        self.loads.push(Load::StateVersion(version));
                    }
                }
            }
        }
    }

    fn policies(&mut self) {
        if self.snapshot.state().policies().is_none() {
            self.loads.push(Load::Policies);
        }
    }

    fn lock(&mut self, name: &Arc<str>) {
        if self.snapshot.state().lock(name).is_none() {
            self.loads.push(Load::Lock(name.clone()));
        }
    }

    fn tick(&mut self, limit: usize, excused: Excused, now: Time) {
        let snapshot = self.snapshot;
        let expired = snapshot.agents().expired(now);
        for agent in expired.filter(|agent| !excused.covers(agent.host)) {
            self.held(agent.spec.instance);
        }
        if snapshot.due().is_none() {
            self.loads.push(Load::Due(limit));
        }
        for id in snapshot.due().unwrap_or_default() {
            self.family(*id);
        }
        for task in snapshot.tasks().filter(|task| task.due_at().is_some_and(|at| at <= now)) {
            self.family(task.id());
        }
    }

    fn held(&mut self, instance: InstanceId) {
        match self.snapshot.held(instance) {
            None => self.loads.push(Load::Held(instance)),
            Some(tasks) => {
                for id in self.snapshot.held_raw(instance).iter().chain(&tasks) {
                    self.family(*id);
                }
            }
        }
    }
}
