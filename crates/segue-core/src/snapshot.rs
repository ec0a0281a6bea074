//! What a store has loaded for a batch of commands, with what the batch has changed so far.

use crate::agent::Agent;
use crate::changes::{ChangeSet, Edge, IdempotencyRecord};
use crate::command::Duty;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::ids::{AttemptId, InstanceId, TaskId};
use crate::letter::Letter;
use crate::state::{StateChanges, StateRows};
use crate::task::{AttemptRecord, Task};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A part of a long list, in the order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether there are more after these.
    pub more: bool,
}

impl<T: Ord> Page<T> {
    /// Adds an item in its place, unless that lies beyond the end of the page, where the next page finds it.
    fn insert(&mut self, item: T) {
        match self.items.binary_search(&item) {
            Ok(_) => {}
            Err(place) if place == self.items.len() && self.more => {}
            Err(place) => self.items.insert(place, item),
        }
    }
}

#[derive(Debug)]
struct Row {
    task: Arc<Task>,
    stored: bool,
    dirty: bool,
}

/// The rows that a batch needs, as the commands of the batch have left them so far.
///
/// A store adapter loads into it what [`missing`](crate::scope::missing) names, decides command by command, gives every
/// accepted [`ChangeSet`] to [`absorb`](Snapshot::absorb), and at the end writes what [`take_writes`](Snapshot::take_writes) hands out.
#[derive(Debug, Default)]
pub struct Snapshot {
    tasks: FxHashMap<TaskId, Row>,
    absent: FxHashSet<TaskId>,
    agents: Fleet,
    dirty_agents: BTreeSet<InstanceId>,
    dependents: FxHashMap<TaskId, Page<Edge>>,
    children: FxHashMap<TaskId, Page<TaskId>>,
    held: FxHashMap<InstanceId, Vec<TaskId>>,
    calls: FxHashMap<(TaskId, Arc<str>), Option<TaskId>>,
    idempotency: FxHashMap<Arc<str>, Option<IdempotencyRecord>>,
    old_attempts: FxHashMap<(TaskId, AttemptId), Option<AttemptRecord>>,
    due: Option<Vec<TaskId>>,
    project_events: u64,
    state: StateRows,
    writes: Writes,
}

/// What a batch has to write, each row once however many commands touched it.
#[derive(Debug, Default)]
pub struct Writes {
    /// Tasks that are not in the store yet.
    pub inserted: Vec<Arc<Task>>,
    /// Tasks that are.
    pub updated: Vec<Arc<Task>>,
    /// New edges.
    pub edges: Vec<Edge>,
    /// Records of attempts to insert or replace.
    pub attempts: Vec<AttemptRecord>,
    /// Agent instances to insert or replace.
    pub agents: Vec<Agent>,
    /// Events in order.
    pub events: Vec<Event>,
    /// Letters for the outbox.
    pub letters: Vec<Letter>,
    /// Letters that leave the outbox (possibly of this very batch).
    pub settled: Vec<u64>,
    /// Work left behind and work done, in order: a later entry for the same task and kind wins.
    pub duties: Vec<DutyChange>,
    /// New idempotency keys.
    pub idempotency: Vec<IdempotencyRecord>,
    /// The counter of the project's own log, where it changed.
    pub project_events: Option<u64>,
    /// Rows of shared state.
    pub state: StateChanges,
}

/// A duty that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DutyChange {
    /// Work left behind.
    Add(Duty),
    /// Work done: task and word of the kind.
    Done(TaskId, &'static str),
}

impl Snapshot {
    /// An empty snapshot over these agents; `project_events` is the counter of the project's own log.
    pub fn new(agents: impl Into<Fleet>, project_events: u64) -> Snapshot {
        Snapshot { agents: agents.into(), project_events, ..Snapshot::default() }
    }

    /// Adds an agent instance as the store has it, for an adapter that loads those alone that a batch concerns. One that the batch has
    /// changed already stays as it is.
    pub fn add_agent(&mut self, agent: Agent) {
        if !self.dirty_agents.contains(&agent.spec.instance) {
            self.agents.put(agent);
        }
    }

    /// Sets the counter of the project's own log as the store has it, unless the batch has moved it already.
    pub fn set_project_events(&mut self, count: u64) {
        if self.writes.project_events.is_none() {
            self.project_events = count;
        }
    }

    /// Whether the task was looked for already.
    pub fn knows_task(&self, id: TaskId) -> bool {
        self.tasks.contains_key(&id) || self.absent.contains(&id)
    }

    /// Adds a task as the store has it. A task that the batch has changed already stays as it is.
    pub fn add_task(&mut self, task: Arc<Task>) {
        self.tasks.entry(task.id()).or_insert(Row { task, stored: true, dirty: false });
    }

    /// Notes that the store has no such task.
    pub fn add_absent(&mut self, id: TaskId) {
        if !self.tasks.contains_key(&id) {
            self.absent.insert(id);
        }
    }

    /// Adds dependents of a task as the store has them, and those that the batch has made.
    pub fn add_dependents(&mut self, need: TaskId, mut page: Page<Edge>) {
        let last = page.items.last().map(|edge| edge.task);
        for edge in self.writes.edges.iter().filter(|edge| edge.need == need) {
            // Where the page is cut, what lies beyond the cut is found with the next page.
            if !page.more || last.is_some_and(|last| edge.task <= last) {
                page.items.push(*edge);
            }
        }
        page.items.sort_unstable();
        page.items.dedup();
        self.dependents.insert(need, page);
    }

    /// Adds children of a task as the store has them, and those that the batch has made.
    pub fn add_children(&mut self, parent: TaskId, mut page: Page<TaskId>) {
        let last = page.items.last().copied();
        for row in self.tasks.values().filter(|row| !row.stored) {
            let id = row.task.id();
            if row.task.spec.parent == Some(parent)
                && (!page.more || last.is_some_and(|last| id <= last))
            {
                page.items.push(id);
            }
        }
        page.items.sort_unstable();
        page.items.dedup();
        self.children.insert(parent, page);
    }

    /// Adds the tasks that hold a slot of an instance, as the store has them.
    pub fn add_held(&mut self, instance: InstanceId, tasks: Vec<TaskId>) {
        self.held.insert(instance, tasks);
    }

    /// Adds the child of `parent` under `key`, or that there is none.
    pub fn add_call(&mut self, parent: TaskId, key: Arc<str>, child: Option<TaskId>) {
        self.calls.entry((parent, key)).or_insert(child);
    }

    /// Adds what is known under an idempotency key.
    pub fn add_idempotency(&mut self, key: Arc<str>, record: Option<IdempotencyRecord>) {
        self.idempotency.entry(key).or_insert(record);
    }

    /// Adds the record of an attempt of this task that has ended, or that the task has none.
    pub fn add_old_attempt(
        &mut self,
        task: TaskId,
        attempt: AttemptId,
        record: Option<AttemptRecord>,
    ) {
        self.old_attempts.entry((task, attempt)).or_insert(record);
    }

    /// Sets the tasks that a timer has to look at.
    pub fn set_due(&mut self, due: Vec<TaskId>) {
        self.due = Some(due);
    }

    /// What was loaded of shared state.
    pub fn state(&self) -> &StateRows {
        &self.state
    }

    /// The same, to add what the store has.
    pub fn state_mut(&mut self) -> &mut StateRows {
        &mut self.state
    }

    /// The task, if it exists and was loaded.
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id).map(|row| &row.task)
    }

    /// Every task loaded.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values().map(|row| &row.task)
    }

    /// Every agent instance of the project.
    pub fn agents(&self) -> &Fleet {
        &self.agents
    }

    /// The dependents of a task, if they were loaded.
    pub fn dependents(&self, need: TaskId) -> Option<&Page<Edge>> {
        self.dependents.get(&need)
    }

    /// The children of a task, if they were loaded.
    pub fn children(&self, parent: TaskId) -> Option<&Page<TaskId>> {
        self.children.get(&parent)
    }

    /// The tasks that hold a slot of an instance: as loaded, and as the batch has assigned since.
    pub fn held(&self, instance: InstanceId) -> Option<Vec<TaskId>> {
        let mut held = self.held.get(&instance)?.clone();
        held.extend(self.tasks.values().filter(|row| row.dirty).map(|row| row.task.id()));
        held.sort_unstable();
        held.dedup();
        held.retain(|id| {
            self.task(*id).is_some_and(|task| {
                task.state.holds_slot()
                    && task.attempt.as_ref().is_some_and(|attempt| attempt.instance == instance)
            })
        });
        Some(held)
    }

    /// The tasks that held a slot of an instance when it was loaded, as far as they are not known as tasks yet.
    pub(crate) fn held_raw(&self, instance: InstanceId) -> &[TaskId] {
        self.held.get(&instance).map_or(&[], Vec::as_slice)
    }

    /// The child of `parent` under `key`: `None` where that was not loaded, `Some(None)` where there is none.
    pub fn call(&self, parent: TaskId, key: &Arc<str>) -> Option<Option<TaskId>> {
        self.calls.get(&(parent, key.clone())).copied()
    }

    /// What is known under an idempotency key; `None` where that was not loaded.
    pub fn idempotency(&self, key: &str) -> Option<&Option<IdempotencyRecord>> {
        self.idempotency.get(key)
    }

    /// The record of an attempt of this task that has ended; `None` where that was not loaded. A report that names another task says
    /// nothing of the one that brought it.
    pub fn old_attempt(&self, task: TaskId, attempt: AttemptId) -> Option<&Option<AttemptRecord>> {
        self.old_attempts.get(&(task, attempt))
    }

    /// The tasks that a timer has to look at; `None` where they were not loaded.
    pub fn due(&self) -> Option<&[TaskId]> {
        self.due.as_deref()
    }

    /// Events of the project's own log so far.
    pub fn project_events(&self) -> u64 {
        self.project_events
    }

    /// Takes in what an accepted command changed, so that the next command of the batch sees it.
    pub fn absorb(&mut self, changes: ChangeSet) {
        for task in changes.tasks {
            let id = task.id();
            let stored = self.tasks.get(&id).is_some_and(|row| row.stored);
            if let (false, Some(parent), Some(key)) = (stored, task.spec.parent, &task.spec.key) {
                self.calls.insert((parent, key.clone()), Some(id));
            }
            if let (false, Some(parent)) = (stored, task.spec.parent)
                && let Some(page) = self.children.get_mut(&parent)
            {
                page.insert(id);
            }
            self.absent.remove(&id);
            self.tasks.insert(id, Row { task: Arc::new(task), stored, dirty: true });
        }
        for edge in &changes.edges {
            if let Some(page) = self.dependents.get_mut(&edge.need) {
                page.insert(*edge);
            }
        }
        for (task, _) in &changes.duties_done {
            // A cascade that went on has left a page from the middle of the list, which would mislead the next command.
            self.dependents.remove(task);
            self.children.remove(task);
        }
        for agent in changes.agents {
            self.dirty_agents.insert(agent.spec.instance);
            self.agents.put(agent);
        }
        for record in &changes.attempts {
            self.old_attempts.insert((record.task, record.attempt.id), Some(record.clone()));
        }
        for record in &changes.idempotency {
            self.idempotency.insert(record.key.clone(), Some(record.clone()));
        }
        if let Some(count) = changes.project_events {
            self.project_events = count;
            self.writes.project_events = Some(count);
        }
        if let Some(state) = changes.state {
            self.state.absorb(*state);
        }
        let writes = &mut self.writes;
        writes.edges.extend(changes.edges);
        writes.attempts.extend(changes.attempts);
        writes.events.extend(changes.events);
        writes.letters.extend(changes.letters);
        writes.settled.extend(changes.settled);
        writes.duties.extend(changes.duties_done.into_iter().map(|(t, k)| DutyChange::Done(t, k)));
        writes.duties.extend(changes.duties.into_iter().map(DutyChange::Add));
        writes.idempotency.extend(changes.idempotency);
    }

    /// What the batch has to write. Tasks come in the order of their ids.
    pub fn take_writes(&mut self) -> Writes {
        let mut writes = std::mem::take(&mut self.writes);
        writes.state = self.state.take_writes();
        for row in self.tasks.values_mut().filter(|row| row.dirty) {
            let list = if row.stored { &mut writes.updated } else { &mut writes.inserted };
            list.push(row.task.clone());
            row.stored = true;
            row.dirty = false;
        }
        writes.inserted.sort_unstable_by_key(|task| task.id());
        writes.updated.sort_unstable_by_key(|task| task.id());
        for instance in std::mem::take(&mut self.dirty_agents) {
            writes.agents.extend(self.agents.get(&instance).cloned());
        }
        writes
    }

    /// Gives back the agents, for the next batch of an adapter that is the only writer.
    pub fn into_agents(self) -> (Fleet, u64) {
        (self.agents, self.project_events)
    }
}
