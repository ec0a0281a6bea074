//! All rows of a project in maps, and the loop that every store adapter has to run.
//!
//! This file depends on `segue-core` and the standard library alone: the tests of `segue-core` include
//! it by its path.

use segue_core::changes::{Edge, IdempotencyRecord};
use segue_core::command::{Assign, CASCADE_MAX, Command, Duty, Reject};
use segue_core::decide::{Ctx, decide};
use segue_core::event::Event;
use segue_core::fleet::{Candidates, Fleet};
use segue_core::ids::{AttemptId, InstanceId, PROJECT_LOG, TaskId};
use segue_core::letter::Letter;
use segue_core::ports::{Decision, Effects};
use segue_core::scope::{Load, missing};
use segue_core::snapshot::{DutyChange, Page, Snapshot, Writes};
use segue_core::state::{KeyRow, Lock, Policy, StateChanges, StateVersion};
use segue_core::task::{AttemptRecord, Route, Task, TaskState};
use segue_core::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// All rows of a project.
///
/// It panics where a command would break a constraint that a database has (a key that stands twice, an update of
/// a row that is not there): that is a defect of the rules, and a test has to see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// Every task.
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    /// Every edge of the graph of needs, by the task needed, then by the task that needs it.
    pub edges: BTreeMap<(TaskId, TaskId), Edge>,
    /// The children of each task.
    pub children: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// Children by the key that they have among their siblings.
    pub calls: BTreeMap<(TaskId, Arc<str>), TaskId>,
    /// Records of attempts that have ended.
    pub attempts: BTreeMap<AttemptId, AttemptRecord>,
    /// Every agent instance.
    pub agents: Fleet,
    /// The log, in the order of its cursors: the first has cursor 1.
    pub events: Vec<Event>,
    /// Letters that are not settled, by number.
    pub letters: BTreeMap<u64, Letter>,
    /// Work left behind, by task and word of its kind.
    pub duties: BTreeMap<(TaskId, &'static str), Duty>,
    /// Idempotency keys.
    pub idempotency: BTreeMap<Arc<str>, IdempotencyRecord>,
    /// Events of the project's own log so far.
    pub project_events: u64,
    /// Every version of shared state that is kept.
    pub state: BTreeMap<u64, StateVersion>,
    /// The versions of each key, rising.
    pub state_keys: BTreeMap<Arc<str>, Vec<u64>>,
    /// Policies by pattern.
    pub policies: BTreeMap<Arc<str>, Policy>,
    /// Locks by name, free ones among them.
    pub locks: BTreeMap<Arc<str>, Lock>,
    /// The last stamp that was issued.
    pub stamp: u64,
    /// The number of the last letter.
    pub letters_written: u64,
    /// The queue of each route: rank, then id.
    pub ready: BTreeMap<Route, BTreeSet<(i64, TaskId)>>,
    /// When a timer has to look at which task.
    pub due: BTreeSet<(Time, TaskId)>,
    /// The cursor of the last event; pruning takes none back.
    pub cursor: u64,
    /// The most rounds of loading that one command has taken.
    pub rounds_max: usize,
    /// The most task rows that one command has changed.
    pub rows_max: usize,
}

impl World {
    /// A project with nothing in it.
    pub fn new() -> World {
        World::default()
    }

    /// Decides these commands in order, `Assign` last, and keeps what was accepted.
    ///
    /// This is the whole duty of a store adapter: load what is missing for all commands (few rounds, whatever the
    /// size of the batch), then, command by command, load what the earlier ones have made necessary besides, decide,
    /// absorb; and write once.
    pub fn run(&mut self, commands: &[Command], ctx: &mut Ctx) -> Vec<Decision> {
        let agents = std::mem::take(&mut self.agents);
        let mut snapshot = Snapshot::new(agents, self.project_events);
        for command in commands {
            self.load_missing(&mut snapshot, command, ctx.now);
        }
        let is_assign = |place: &usize| matches!(commands[*place], Command::Assign(_));
        let (last, first): (Vec<usize>, Vec<usize>) = (0..commands.len()).partition(is_assign);
        let mut decisions: Vec<Option<Decision>> = commands.iter().map(|_| None).collect();
        for place in first.into_iter().chain(last) {
            let command = &commands[place];
            if let Command::Assign(assign) = command {
                self.load_heads(&mut snapshot, assign);
            }
            self.load_missing(&mut snapshot, command, ctx.now);
            decisions[place] = Some(self.decide_one(&mut snapshot, command, ctx));
        }
        let writes = snapshot.take_writes();
        (self.agents, self.project_events) = snapshot.into_agents();
        self.keep(writes);
        decisions.into_iter().flatten().collect()
    }

    fn decide_one(
        &mut self,
        snapshot: &mut Snapshot,
        command: &Command,
        ctx: &mut Ctx,
    ) -> Decision {
        let mut changes = decide(snapshot, command, ctx)?;
        for letter in &mut changes.letters {
            self.letters_written += 1;
            letter.seq = self.letters_written;
        }
        self.rows_max = self.rows_max.max(changes.tasks.len());
        let effects = Effects::of(&changes);
        snapshot.absorb(changes);
        Ok(effects)
    }

    fn load_missing(&mut self, snapshot: &mut Snapshot, command: &Command, now: Time) {
        let mut rounds = 0;
        loop {
            let loads = missing(snapshot, command, now);
            if loads.is_empty() {
                self.rounds_max = self.rounds_max.max(rounds);
                return;
            }
            rounds += 1;
            assert!(rounds < 100, "`{}` asks for ever: {loads:?}", command.name());
            for load in loads {
                self.load(snapshot, load, now);
            }
        }
    }

    fn load(&self, snapshot: &mut Snapshot, load: Load, now: Time) {
        match load {
            Load::Task(id) => match self.tasks.get(&id) {
                Some(task) => snapshot.add_task(task.clone()),
                None => snapshot.add_absent(id),
            },
            Load::Dependents(id, after) => {
                // The nil id sorts before every other.
                let from = after.map_or(Included((id, PROJECT_LOG)), |it| Excluded((id, it)));
                let edges = self.edges.range((from, Unbounded));
                let page = page(edges.take_while(|(key, _)| key.0 == id).map(|(_, edge)| *edge));
                snapshot.add_dependents(id, page);
            }
            Load::Children(id, after) => {
                let from = after.map_or(Unbounded, Excluded);
                let children = self.children.get(&id);
                let ids = children.into_iter().flat_map(|ids| ids.range((from, Unbounded)));
                snapshot.add_children(id, page(ids.copied()));
            }
            Load::Call(parent, key) => {
                let child = self.calls.get(&(parent, key.clone())).copied();
                snapshot.add_call(parent, key, child);
            }
            Load::Idempotency(key) => {
                let record = self.idempotency.get(&key).cloned();
                snapshot.add_idempotency(key, record);
            }
            Load::OldAttempt(task, attempt) => {
                let record = self.attempts.get(&attempt).filter(|record| record.task == task);
                snapshot.add_old_attempt(task, attempt, record.cloned());
            }
            Load::Held(instance) => snapshot.add_held(instance, self.held(instance)),
            Load::Due(limit) => {
                let due = self.due.iter().take_while(|(at, _)| *at <= now).take(limit);
                snapshot.set_due(due.map(|(_, id)| *id).collect());
            }
            Load::Stamp => snapshot.state_mut().set_stamp(self.stamp),
            Load::StateKey(key) => {
                let kept = self.state_keys.get(&key).cloned().unwrap_or_default();
                let latest = kept.last().map(|version| self.state[version].clone());
                snapshot.state_mut().add_key(key, KeyRow { latest, kept });
            }
            Load::StateVersion(version) => {
                let row = self.state.get(&version).cloned();
                snapshot.state_mut().add_version(version, row);
            }
            Load::Policies => snapshot.state_mut().set_policies(self.policies.clone()),
            Load::Lock(name) => {
                let lock = self.locks.get(&name).cloned();
                snapshot.state_mut().add_lock(name, lock);
            }
        }
    }

    /// The tasks that hold a slot of an instance.
    pub fn held(&self, instance: InstanceId) -> Vec<TaskId> {
        let holds = |task: &&Arc<Task>| {
            let attempt = task.attempt.as_ref();
            task.state.holds_slot() && attempt.is_some_and(|it| it.instance == instance)
        };
        self.tasks.values().filter(holds).map(|task| task.id()).collect()
    }

    /// The heads of the queues of every open route, as many as there are free slots. What the batch has taken out of
    /// a queue does not count: otherwise a cancelled head would hide those behind it.
    fn load_heads(&self, snapshot: &mut Snapshot, assign: &Assign) {
        if self.ready.is_empty() {
            return;
        }
        let candidates = Candidates::new(&assign.candidates);
        let is_ready = |route: &Route| self.ready.contains_key(route);
        let fleet = snapshot.agents();
        for (route, free) in
            fleet.open_queues(&candidates, assign.limit, self.ready.keys(), is_ready)
        {
            let queue = self.ready.get(&route).into_iter().flatten();
            let heads: Vec<&Arc<Task>> = queue
                .filter(|(_, id)| {
                    snapshot.task(*id).is_none_or(|task| task.state == TaskState::Ready)
                })
                .take(free)
                .map(|(_, id)| &self.tasks[id])
                .collect();
            for task in heads {
                snapshot.add_task(task.clone());
            }
        }
    }

    fn keep(&mut self, writes: Writes) {
        for task in writes.inserted {
            self.insert(task);
        }
        for task in writes.updated {
            self.update(task);
        }
        for edge in writes.edges {
            let doubled = self.edges.insert((edge.need, edge.task), edge);
            assert!(doubled.is_none(), "edge {edge:?} was written twice");
        }
        for record in writes.attempts {
            assert!(record.attempt.end.is_some(), "the record of an attempt that goes on");
            self.attempts.insert(record.attempt.id, record);
        }
        // The agents came back with the snapshot; a store with rows would write these.
        for agent in &writes.agents {
            assert_eq!(self.agents.get(&agent.spec.instance), Some(agent));
        }
        for mut event in writes.events {
            self.cursor += 1;
            event.cursor = self.cursor;
            self.events.push(event);
        }
        for letter in writes.letters {
            self.letters.insert(letter.seq, letter);
        }
        for seq in writes.settled {
            self.letters.remove(&seq);
        }
        for change in writes.duties {
            match change {
                DutyChange::Add(duty) => {
                    self.duties.insert((duty.task, duty.kind.as_str()), duty);
                }
                DutyChange::Done(task, kind) => {
                    self.duties.remove(&(task, kind));
                }
            }
        }
        for record in writes.idempotency {
            let doubled = self.idempotency.insert(record.key.clone(), record);
            assert!(doubled.is_none(), "idempotency key {doubled:?} was written twice");
        }
        self.keep_state(writes.state);
    }

    fn keep_state(&mut self, changes: StateChanges) {
        for version in changes.versions {
            self.state_keys.entry(version.key.clone()).or_default().push(version.version);
            let doubled = self.state.insert(version.version, version);
            assert!(doubled.is_none(), "a version was issued twice: {doubled:?}");
        }
        for version in changes.forgotten {
            let row = self.state.remove(&version);
            let row =
                row.unwrap_or_else(|| panic!("version {version} is not there to be forgotten"));
            if let Some(kept) = self.state_keys.get_mut(&row.key) {
                kept.retain(|kept| *kept != version);
            }
        }
        for (pattern, policy) in changes.policies {
            match policy {
                Some(policy) => self.policies.insert(pattern, policy),
                None => self.policies.remove(&pattern),
            };
        }
        for (name, lock) in changes.locks {
            match lock {
                Some(lock) => self.locks.insert(name, lock),
                None => self.locks.remove(&name),
            };
        }
        if let Some(stamp) = changes.stamp {
            assert!(stamp > self.stamp, "stamps only grow");
            self.stamp = stamp;
        }
    }

    fn insert(&mut self, task: Arc<Task>) {
        let id = task.id();
        assert!(!self.tasks.contains_key(&id), "task {id} was inserted twice");
        if let Some(parent) = task.spec.parent {
            self.children.entry(parent).or_default().insert(id);
            if let Some(key) = &task.spec.key {
                let doubled = self.calls.insert((parent, key.clone()), id);
                assert!(doubled.is_none(), "key {key} stands twice under {parent}");
            }
        }
        self.index(&task, true);
        self.tasks.insert(id, task);
    }

    fn update(&mut self, task: Arc<Task>) {
        let id = task.id();
        let before = self.tasks.remove(&id);
        let before = before.unwrap_or_else(|| panic!("task {id} was updated and is not there"));
        self.index(&before, false);
        self.index(&task, true);
        self.tasks.insert(id, task);
    }

    fn index(&mut self, task: &Task, on: bool) {
        if task.state == TaskState::Ready {
            let queue = self.ready.entry(task.spec.route.clone()).or_default();
            if on {
                queue.insert((task.rank, task.id()));
            } else {
                queue.remove(&(task.rank, task.id()));
            }
            if queue.is_empty() {
                self.ready.remove(&task.spec.route);
            }
        }
        if let Some(due) = task.due_at() {
            if on {
                self.due.insert((due, task.id()));
            } else {
                self.due.remove(&(due, task.id()));
            }
        }
    }

    /// Whether two worlds hold the same rows, whatever it took to get there; if not, the first difference.
    pub fn same_rows(&self, other: &World) -> Result<(), String> {
        same("tasks", &self.tasks, &other.tasks)?;
        same("edges", &self.edges, &other.edges)?;
        same("attempts", &self.attempts, &other.attempts)?;
        same("agents", &self.agents, &other.agents)?;
        same("letters", &self.letters, &other.letters)?;
        same("duties", &self.duties, &other.duties)?;
        same("idempotency", &self.idempotency, &other.idempotency)?;
        same("state", &self.state, &other.state)?;
        same("keys", &self.state_keys, &other.state_keys)?;
        same("policies", &self.policies, &other.policies)?;
        same("locks", &self.locks, &other.locks)?;
        if self.stamp != other.stamp {
            return Err(format!("the stamps differ: {} and {}", self.stamp, other.stamp));
        }
        for (ours, theirs) in self.events.iter().zip(&other.events) {
            if ours != theirs {
                return Err(format!("events differ:\n  {ours:?}\n  {theirs:?}"));
            }
        }
        if self.events.len() != other.events.len() {
            return Err(format!("{} events and {}", self.events.len(), other.events.len()));
        }
        if self.project_events != other.project_events {
            return Err("the counters of the project's log differ".into());
        }
        Ok(())
    }

    /// The task, which has to be there.
    pub fn task(&self, id: TaskId) -> &Task {
        self.tasks.get(&id).unwrap_or_else(|| panic!("there is no task {id}"))
    }

    /// The events about one task, oldest first.
    pub fn events_of(&self, id: TaskId) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.task == id)
    }

    /// The duties that are left, as the engine reads them.
    pub fn duty_list(&self) -> Vec<Duty> {
        self.duties.values().cloned().collect()
    }

    /// What a single command leads to.
    ///
    /// # Errors
    /// The reject, where the command is refused.
    pub fn one(&mut self, command: Command, ctx: &mut Ctx) -> Result<Effects, Reject> {
        self.run(std::slice::from_ref(&command), ctx).remove(0)
    }
}

fn page<T>(items: impl Iterator<Item = T>) -> Page<T> {
    let mut items: Vec<T> = items.take(CASCADE_MAX + 1).collect();
    let more = items.len() > CASCADE_MAX;
    items.truncate(CASCADE_MAX);
    Page { items, more }
}

fn same<K, V>(what: &str, ours: &BTreeMap<K, V>, theirs: &BTreeMap<K, V>) -> Result<(), String>
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    for key in ours.keys().chain(theirs.keys()) {
        let (one, two) = (ours.get(key), theirs.get(key));
        if one != two {
            return Err(format!("{what} differ at {key:?}:\n  {one:?}\n  {two:?}"));
        }
    }
    Ok(())
}
