//! A ChangeSet in the making.

use super::Ctx;
use crate::agent::Agent;
use crate::changes::{ChangeSet, Edge, IdempotencyRecord};
use crate::command::{Duty, DutyKind, Reject, Reply};
use crate::event::{Event, Fact};
use crate::ids::{AttemptId, InstanceId, PROJECT_LOG, TaskId};
use crate::letter::{Address, Letter, LetterBody, WIRE_VERSION};
use crate::snapshot::Snapshot;
use crate::state::StateChanges;
use crate::task::{AttemptEnd, AttemptRecord, Task, TaskError, TaskState, Usage};
use crate::time::Time;
use crate::trace::Traceparent;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// The rows of the snapshot, with what this command has changed so far.
pub(super) struct Draft<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) ctx: &'a mut Ctx,
    /// Many tasks may end in this command: what the end of each means for others is left to duties.
    pub(super) in_bulk: bool,
    tasks: Vec<Task>,
    position: FxHashMap<TaskId, usize>,
    agents: Vec<Agent>,
    agent_position: FxHashMap<InstanceId, usize>,
    edges: Vec<Edge>,
    edges_by_need: FxHashMap<TaskId, u32>,
    attempts: Vec<AttemptRecord>,
    events: Vec<Event>,
    letters: Vec<Letter>,
    settled: Vec<u64>,
    duties: Vec<Duty>,
    duties_done: Vec<(TaskId, &'static str)>,
    idempotency: Vec<IdempotencyRecord>,
    project_events: Option<u64>,
    state: Option<Box<StateChanges>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, ctx: &'a mut Ctx) -> Draft<'a> {
        Draft {
            snapshot,
            ctx,
            in_bulk: false,
            tasks: Vec::new(),
            position: FxHashMap::default(),
            agents: Vec::new(),
            agent_position: FxHashMap::default(),
            edges: Vec::new(),
            edges_by_need: FxHashMap::default(),
            attempts: Vec::new(),
            events: Vec::new(),
            letters: Vec::new(),
            settled: Vec::new(),
            duties: Vec::new(),
            duties_done: Vec::new(),
            idempotency: Vec::new(),
            project_events: None,
            state: None,
        }
    }

    pub(super) fn now(&self) -> Time {
        self.ctx.now
    }

    /// Tasks that this command has changed so far.
    pub(super) fn rows(&self) -> usize {
        self.tasks.len()
    }

    /// The task as this command has left it so far.
    pub(super) fn task(&self, id: TaskId) -> Result<&Task, Reject> {
        self.find(id).ok_or_else(|| self.unknown(id))
    }

    pub(super) fn find(&self, id: TaskId) -> Option<&Task> {
        match self.position.get(&id) {
            Some(position) => self.tasks.get(*position),
            None => self.snapshot.task(id).map(Arc::as_ref),
        }
    }

    fn unknown(&self, id: TaskId) -> Reject {
        if self.snapshot.knows_task(id) {
            Reject::Unknown { what: "task", id: id.to_string() }
        } else {
            Reject::NotLoaded(format!("task {id}"))
        }
    }

    /// The task, to be changed.
    pub(super) fn task_mut(&mut self, id: TaskId) -> Result<&mut Task, Reject> {
        let position = match self.position.get(&id) {
            Some(position) => *position,
            None => {
                let task = self.snapshot.task(id).ok_or_else(|| self.unknown(id))?;
                self.tasks.push(task.as_ref().clone());
                self.position.insert(id, self.tasks.len() - 1);
                self.tasks.len() - 1
            }
        };
        Ok(&mut self.tasks[position])
    }

    /// Adds a new task.
    pub(super) fn add_task(&mut self, task: Task) {
        self.position.insert(task.id(), self.tasks.len());
        self.tasks.push(task);
    }

    pub(super) fn add_edge(&mut self, edge: Edge) {
        *self.edges_by_need.entry(edge.need).or_default() += 1;
        self.edges.push(edge);
    }

    /// Tasks of this command that wait for `need`.
    pub(super) fn edges_to(&self, need: TaskId) -> u32 {
        self.edges_by_need.get(&need).copied().unwrap_or(0)
    }

    pub(super) fn add_idempotency(&mut self, record: IdempotencyRecord) {
        self.idempotency.push(record);
    }

    pub(super) fn agent(&self, id: InstanceId) -> Option<&Agent> {
        match self.agent_position.get(&id) {
            Some(position) => self.agents.get(*position),
            None => self.snapshot.agents().get(&id),
        }
    }

    /// Puts the instance as it stands now.
    pub(super) fn put_agent(&mut self, agent: Agent) {
        match self.agent_position.entry(agent.spec.instance) {
            Entry::Occupied(position) => self.agents[*position.get()] = agent,
            Entry::Vacant(place) => {
                place.insert(self.agents.len());
                self.agents.push(agent);
            }
        }
    }

    /// Changes the number of slots in use of an instance.
    pub(super) fn move_slots(&mut self, instance: InstanceId, taken: bool) {
        if let Some(mut agent) = self.agent(instance).cloned() {
            agent.slots_used = if taken {
                agent.slots_used.saturating_add(1)
            } else {
                agent.slots_used.saturating_sub(1)
            };
            self.put_agent(agent);
        }
    }

    /// Appends a fact to the log of the task's run.
    pub(super) fn event(&mut self, id: TaskId, fact: Fact) -> Result<(), Reject> {
        let run = self.task(id)?.spec.root;
        let at = self.now();
        let root = self.task_mut(run)?;
        root.run_events += 1;
        let run_seq = root.run_events;
        self.events.push(Event { cursor: 0, run, run_seq, task: id, at, fact });
        Ok(())
    }

    /// Appends a fact to the project's own log.
    pub(super) fn project_event(&mut self, fact: Fact) {
        let run_seq = self.project_events.unwrap_or(self.snapshot.project_events()) + 1;
        self.project_events = Some(run_seq);
        let at = self.now();
        self.events.push(Event {
            cursor: 0,
            run: PROJECT_LOG,
            run_seq,
            task: PROJECT_LOG,
            at,
            fact,
        });
    }

    /// The span of an attempt at a task. The root of the run is there wherever something happens in it: its events are counted there.
    pub(super) fn span_of(&self, task: &Task, attempt: AttemptId) -> Traceparent {
        let root = task.spec.root;
        let given = self.find(root).and_then(|root| root.spec.traceparent);
        Traceparent::of_attempt(root, given, attempt)
    }

    /// Writes a letter to the host of an instance.
    pub(super) fn letter(&mut self, instance: InstanceId, task: &Task, body: LetterBody) {
        // An instance that is not known any more has no queue to write to.
        let Some(agent) = self.agent(instance) else { return };
        let traceparent = task.attempt.as_ref().map(|attempt| self.span_of(task, attempt.id));
        let letter = Letter {
            seq: 0,
            version: WIRE_VERSION,
            from: "segue".into(),
            to: Address::Host(agent.host),
            task: Some(task.id()),
            reply_to: None,
            correlation: task.attempt.as_ref().map(|attempt| attempt.id.0.as_u128()),
            causation: task.spec.parent.map(|parent| parent.0.as_u128()),
            traceparent,
            hops: task.spec.hops,
            at: self.now(),
            body,
        };
        self.letters.push(letter);
    }

    pub(super) fn settle(&mut self, letters: &[u64]) -> Reply {
        self.settled.extend_from_slice(letters);
        Reply::Done { changed: !letters.is_empty() }
    }

    /// Changes shared state or a lock; once a command.
    pub(super) fn state(&mut self, changes: StateChanges) {
        self.state = Some(Box::new(changes));
    }

    pub(super) fn duty(&mut self, task: TaskId, kind: DutyKind) {
        self.duties.push(Duty { task, kind });
    }

    pub(super) fn duty_done(&mut self, task: TaskId, kind: DutyKind) {
        self.duties_done.push((task, kind.as_str()));
    }

    /// Ends the current attempt of a task, frees its slot and keeps its record. Does nothing where none is current.
    pub(super) fn end_attempt(
        &mut self,
        id: TaskId,
        end: AttemptEnd,
        error: Option<TaskError>,
        usage: Option<Usage>,
    ) -> Result<(), Reject> {
        let now = self.now();
        let task = self.task_mut(id)?;
        let Some(attempt) = task.attempt.as_mut() else { return Ok(()) };
        let held = attempt.end.is_none();
        attempt.end = Some(end);
        attempt.ended_at = Some(now);
        let record = AttemptRecord { task: id, attempt: attempt.clone(), error, usage };
        let instance = record.attempt.instance;
        self.attempts.push(record);
        if held {
            self.move_slots(instance, false);
        }
        Ok(())
    }

    /// Replaces the record of an attempt that has ended.
    pub(super) fn put_record(&mut self, record: AttemptRecord) {
        self.attempts.push(record);
    }

    /// Makes a task ready, ranked by this moment.
    pub(super) fn make_ready(&mut self, id: TaskId) -> Result<(), Reject> {
        let now = self.now();
        let task = self.task_mut(id)?;
        task.state = TaskState::Ready;
        task.retry_at = None;
        task.wait_for = None;
        task.ready_at = Some(now);
        task.rank = crate::route::rank(now, task.spec.priority);
        Ok(())
    }

    pub(super) fn finish(self, reply: Reply) -> ChangeSet {
        ChangeSet {
            tasks: self.tasks,
            edges: self.edges,
            attempts: self.attempts,
            agents: self.agents,
            events: self.events,
            letters: self.letters,
            settled: self.settled,
            duties: self.duties,
            duties_done: self.duties_done,
            idempotency: self.idempotency,
            project_events: self.project_events,
            state: self.state,
            reply,
        }
    }
}
