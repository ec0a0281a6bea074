//! What a batch needs to know, from the tables into a [`Snapshot`]: all that can be asked for together is one round trip.
//!
//! Whatever is decided on is locked until the commit, tasks in the order of their ids. Lists are read by a statement after the one that
//! locks the row on which they hang, so that they are as the last one who held the lock has left them.

mod agents;
mod ahead;

pub(super) use self::ahead::Ahead;
use super::cells::{can_be_kept, read};
use super::line::{Ask, Line};
use super::select::{
    AGENTS_OF, ANYTHING, CALLS, CANDIDATES, CHILDREN, CLOCK, DEPENDENTS, DUE, EXPIRED, FREE_HEADS,
    HEADS, HELD, IDEMPOTENCY, OLD_ATTEMPTS, PROJECT_LOCK, READY_ROUTES, ROOTS, STAMP, TASKS,
};
use super::specs::Specs;
use super::state;
use super::trouble::Trouble;
use crate::rows::decode;
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::changes::{Edge, IdempotencyRecord};
use segue_core::command::{CASCADE_MAX, Command};
use segue_core::ids::{AttemptId, HostId, InstanceId, TaskId};
use segue_core::payload::Hash;
use segue_core::scope::{Load, missing};
use segue_core::snapshot::{Page, Snapshot};
use segue_core::state::StateVersion;
use segue_core::task::{Task, TaskState};
use segue_core::time::Time;
use std::sync::Arc;
use tokio_postgres::Row;
use uuid::Uuid;

/// Rows that a page is read with: one more than it holds tells whether there are more.
const PAGE_MAX: i64 = CASCADE_MAX as i64 + 1;

/// Rounds of loading for one batch. A handful are enough, but for a requeue that climbs a deep tree; a command that asks for
/// more is refused by `decide`, which finds something missing.
const ROUNDS_MAX: usize = 256;

/// Loads from the tables, and remembers what it found.
pub(super) struct Loader<'a> {
    pub(super) line: &'a Line,
    pub(super) project: i32,
    pub(super) specs: &'a mut Specs,
    pub(super) snapshot: Snapshot,
    /// The tasks that were loaded, as the store has them.
    pub(super) origin: FxHashMap<TaskId, Arc<Task>>,
    /// Instances that were asked for and are locked, or are not there.
    pub(super) known_agents: FxHashSet<InstanceId>,
    /// Of these, whether they were drained and had gone when they were loaded.
    pub(super) stood: FxHashMap<InstanceId, (bool, bool)>,
    /// Routes that had ready tasks when the transaction began.
    pub(super) ready_routes: FxHashSet<Arc<str>>,
    /// The time of tests.
    pub(super) fixed_now: Option<Time>,
    pub(super) now: Time,
    /// The number of the transaction, once it has one.
    pub(super) number: Option<i64>,
    /// Whether the transaction has begun.
    pub(super) is_begun: bool,
    pub(super) agents_version: i64,
    pub(super) holds_project: bool,
    /// What came along before it was asked for.
    pub(super) ahead: Ahead,
    /// Newest versions of keys that wait for the list of those that are kept.
    pub(super) latest: FxHashMap<Arc<str>, StateVersion>,
}

/// What one flight is to bring besides the loads.
#[derive(Default)]
pub(super) struct Along {
    /// The transaction begins; it needs a number in any case.
    pub(super) begin: Option<bool>,
    pub(super) lock_project: bool,
    pub(super) routes: bool,
    /// Hosts and instances whose agents are to be found.
    pub(super) agents_of: Option<(Vec<HostId>, Vec<InstanceId>)>,
    pub(super) expired: bool,
    /// Candidates to be locked at once, but for those that somebody else holds: only where nothing is locked afterwards that anybody waits for.
    pub(super) candidates: Vec<InstanceId>,
    /// Tasks among the loads that probably end: what hangs on them comes along, which otherwise is asked for once they are known.
    pub(super) ends: Vec<TaskId>,
    /// Tasks among the loads that go on: their roots and parents come along.
    pub(super) goes_on: Vec<TaskId>,
}

/// What a flight brought besides the loads.
#[derive(Default)]
pub(super) struct Brought {
    pub(super) found_agents: Vec<InstanceId>,
    /// The rows of the candidates that are locked now.
    pub(super) candidates: Vec<Row>,
}

/// What an answer of a flight is about.
enum About {
    Nothing,
    Stamp,
    Clock,
    Project,
    Tasks(Vec<TaskId>),
    Dependents(Vec<TaskId>),
    TasksAhead,
    DependentsAhead(Vec<TaskId>),
    Children(Vec<TaskId>),
    Calls(Vec<(TaskId, Arc<str>)>),
    Idempotency(Vec<Arc<str>>),
    OldAttempts(Vec<(TaskId, AttemptId)>),
    Held(Vec<InstanceId>),
    Due,
    Routes,
    FoundAgents,
    Candidates,
    State(state::About),
}

impl Loader<'_> {
    /// What these commands still miss, each thing once.
    pub(super) fn missing<'c>(&self, commands: impl Iterator<Item = &'c Command>) -> Vec<Load> {
        let mut loads = Vec::new();
        let mut seen: FxHashSet<Load> = FxHashSet::default();
        // Of two pages of one list the first that was asked for counts, as it would one command after another.
        let mut pages: FxHashSet<(bool, TaskId)> = FxHashSet::default();
        let mut due = false;
        for command in commands {
            for load in missing(&self.snapshot, command, self.now) {
                let first = match &load {
                    Load::Dependents(id, _) => pages.insert((true, *id)),
                    Load::Children(id, _) => pages.insert((false, *id)),
                    Load::Due(_) => !std::mem::replace(&mut due, true),
                    _ => true,
                };
                if first && seen.insert(load.clone()) {
                    loads.push(load);
                }
            }
        }
        loads
    }

    /// Loads all that this one command needs.
    pub(super) async fn all_of(&mut self, command: &Command) -> Result<(), Trouble> {
        self.rounds(std::iter::once(command)).await
    }

    /// Loads all that these commands need, as far as that can be known beforehand.
    pub(super) async fn rounds<'c>(
        &mut self,
        commands: impl Iterator<Item = &'c Command> + Clone,
    ) -> Result<(), Trouble> {
        for _ in 0..ROUNDS_MAX {
            let mut loads = self.missing(commands.clone());
            if loads.is_empty() {
                break;
            }
            loads.retain(|load| !self.comes_from_ahead(load));
            if !loads.is_empty() {
                self.flight(loads, Along::default()).await?;
            }
        }
        Ok(())
    }

    /// Whether anything is ready, where that is asked, or due or expired, where that is.
    pub(super) async fn finds_anything(&mut self, ready: bool, due: bool) -> Result<bool, Trouble> {
        let ask = Ask::new(ANYTHING).with(self.project).with(ready).with(due);
        let ask = ask.with(self.fixed_now.map(|now| now.0)).with(i64::MIN);
        let rows = self.line.ask(ask).await?;
        let row = first(&rows)?;
        self.now = self.fixed_now.unwrap_or(Time(read(row, 0)?)).max(Time(read(row, 1)?));
        let found: bool = read(row, 2)?;
        if due && !found {
            self.snapshot.set_due(Vec::new());
        }
        Ok(found)
    }

    /// One round trip.
    pub(super) async fn flight(
        &mut self,
        loads: Vec<Load>,
        along: Along,
    ) -> Result<Brought, Trouble> {
        let project = self.project;
        let mut asks = Vec::new();
        if along.begin.is_some() {
            asks.push((About::Nothing, Ask::new("BEGIN")));
            self.is_begun = true;
        }
        if along.lock_project {
            asks.push((About::Project, Ask::new(PROJECT_LOCK).with(project)));
        }
        let fixed = self.fixed_now.map(|now| now.0);
        if let Some((hosts, instances)) = &along.agents_of {
            let ask = Ask::new(AGENTS_OF)
                .with(project)
                .column(hosts.iter().map(|host| host.0))
                .column(instances.iter().map(|instance| instance.0));
            asks.push((About::FoundAgents, ask));
        }
        if along.expired {
            asks.push((About::FoundAgents, Ask::new(EXPIRED).with(project).with(fixed)));
        }
        self.asks(loads, &mut asks);
        self.around(along.ends, along.goes_on, &mut asks);
        if along.routes {
            asks.push((About::Routes, Ask::new(READY_ROUTES).with(project)));
        }
        if !along.candidates.is_empty() {
            let mut candidates = along.candidates;
            candidates.sort_unstable();
            let ask = Ask::new(CANDIDATES).with(project).column(candidates.iter().map(|it| it.0));
            asks.push((About::Candidates, ask));
        }
        match along.begin {
            Some(numbered) => asks
                .push((About::Stamp, Ask::new(STAMP).with(project).with(numbered).with(i64::MIN))),
            None => asks.push((About::Clock, Ask::new(CLOCK))),
        }
        let (abouts, asks): (Vec<About>, Vec<Ask<'_>>) = asks.into_iter().unzip();
        let answers = self.line.flight(&asks).await?;
        drop(asks);
        let mut brought = Brought::default();
        for (about, rows) in abouts.into_iter().zip(answers) {
            match about {
                About::Candidates => brought.candidates = rows,
                about => self.take_in(about, &rows, &mut brought)?,
            }
        }
        Ok(brought)
    }

    /// Statements for these loads: rows that are locked before lists that hang on them.
    fn asks(&self, loads: Vec<Load>, asks: &mut Vec<(About, Ask<'static>)>) {
        let project = self.project;
        let nil = |after: Option<TaskId>| after.map_or(Uuid::nil(), |id| id.0);
        let (mut tasks, mut dependents, mut children) = (Vec::new(), Vec::new(), Vec::new());
        let (mut calls, mut keys, mut attempts, mut held) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let loads = state::asks(project, loads, |about, ask| asks.push((About::State(about), ask)));
        let mut due = None;
        for load in loads {
            match load {
                Load::Task(id) => tasks.push(id),
                Load::Dependents(id, after) => dependents.push((id, nil(after))),
                Load::Children(id, after) => children.push((id, nil(after))),
                Load::Call(parent, key) => calls.push((parent, key)),
                Load::Idempotency(key) => keys.push(key),
                Load::OldAttempt(task, attempt) => attempts.push((task, attempt)),
                Load::Held(instance) => held.push(instance),
                Load::Due(limit) => due = Some(i64::try_from(limit).unwrap_or(i64::MAX)),
                // Taken already.
                Load::Stamp
                | Load::StateKey(_)
                | Load::StateVersion(_)
                | Load::Policies
                | Load::Lock(_) => {}
            }
        }
        if !tasks.is_empty() {
            tasks.sort_unstable();
            let ask = Ask::new(&TASKS).with(project).column(tasks.iter().map(|id| id.0));
            asks.push((About::Tasks(tasks), ask));
        }
        let ids = |wanted: Vec<(TaskId, Uuid)>| wanted.into_iter().map(|(id, _)| id).collect();
        if !dependents.is_empty() {
            let ask = self.pages(DEPENDENTS, &dependents);
            asks.push((About::Dependents(ids(dependents)), ask));
        }
        if !children.is_empty() {
            let ask = self.pages(CHILDREN, &children);
            asks.push((About::Children(ids(children)), ask));
        }
        if !calls.is_empty() {
            let storable = || calls.iter().zip(0_i64..).filter(|((_, key), _)| can_be_kept(key));
            let ask = Ask::new(CALLS)
                .with(project)
                .column(storable().map(|(_, place)| place))
                .column(storable().map(|((parent, _), _)| parent.0))
                .column(storable().map(|((_, key), _)| key.to_string()));
            asks.push((About::Calls(calls), ask));
        }
        if !keys.is_empty() {
            let ask = Ask::new(IDEMPOTENCY)
                .with(project)
                .column(keys.iter().filter(|key| can_be_kept(key)).map(|key| key.to_string()));
            asks.push((About::Idempotency(keys), ask));
        }
        if !attempts.is_empty() {
            let ask = Ask::new(&OLD_ATTEMPTS)
                .with(project)
                .column(attempts.iter().map(|(task, _)| task.0))
                .column(attempts.iter().map(|(_, attempt)| attempt.0));
            asks.push((About::OldAttempts(attempts), ask));
        }
        if !held.is_empty() {
            asks.push(self.held(held));
        }
        if let Some(limit) = due {
            let fixed = self.fixed_now.map(|now| now.0);
            asks.push((About::Due, Ask::new(DUE).with(project).with(fixed).with(limit)));
        }
    }

    fn pages(&self, sql: &'static str, wanted: &[(TaskId, Uuid)]) -> Ask<'static> {
        Ask::new(sql)
            .with(self.project)
            .column(wanted.iter().map(|(id, _)| id.0))
            .column(wanted.iter().map(|(_, after)| *after))
            .with(PAGE_MAX)
    }

    fn held(&self, instances: Vec<InstanceId>) -> (About, Ask<'static>) {
        let ask =
            Ask::new(HELD).with(self.project).column(instances.iter().map(|instance| instance.0));
        (About::Held(instances), ask)
    }

    fn take_in(
        &mut self,
        about: About,
        rows: &[Row],
        brought: &mut Brought,
    ) -> Result<(), Trouble> {
        match about {
            About::Nothing => {}
            About::State(about) => {
                state::take_in(&mut self.snapshot, &mut self.latest, about, rows)?;
            }
            About::Stamp => {
                let row = first(rows)?;
                self.agents_version = read(row, 1)?;
                let committed = Time(read(row, 2)?);
                self.now = self.fixed_now.unwrap_or(Time(read(row, 0)?)).max(committed);
                self.number = read(row, 3)?;
            }
            About::Clock => {
                let row = first(rows)?;
                if self.fixed_now.is_none() {
                    self.now = self.now.max(Time(read(row, 0)?));
                }
                self.number = self.number.or(read(row, 1)?);
            }
            About::Project => {
                let row = first(rows)?;
                self.snapshot.set_project_events(decode::unsigned(row, 0)?);
                self.agents_version = read(row, 1)?;
                self.holds_project = true;
            }
            About::Routes => {
                for row in rows {
                    self.ready_routes.insert(read::<&str>(row, 0)?.into());
                }
            }
            About::FoundAgents => {
                for row in rows {
                    brought.found_agents.push(InstanceId(read(row, 0)?));
                }
            }
            About::TasksAhead => self.ahead.take_in_tasks(rows)?,
            About::DependentsAhead(ids) => self.ahead.take_in_dependents(ids, rows)?,
            About::Tasks(ids) => {
                for row in rows {
                    self.add_task(row)?;
                }
                for id in ids {
                    if !self.snapshot.knows_task(id) {
                        self.snapshot.add_absent(id);
                    }
                }
            }
            about => self.take_in_list(about, rows)?,
        }
        Ok(())
    }

    fn take_in_list(&mut self, about: About, rows: &[Row]) -> Result<(), Trouble> {
        match about {
            About::Dependents(ids) => {
                for (id, page) in pages_of_dependents(ids, rows)? {
                    self.snapshot.add_dependents(id, page);
                }
            }
            About::Children(ids) => self.take_in_children(ids, rows)?,
            About::Calls(calls) => {
                let mut found: FxHashMap<i64, TaskId> = FxHashMap::default();
                for row in rows {
                    found.insert(read(row, 0)?, TaskId(read(row, 1)?));
                }
                for ((parent, key), place) in calls.into_iter().zip(0..) {
                    self.snapshot.add_call(parent, key, found.get(&place).copied());
                }
            }
            About::Idempotency(keys) => {
                for row in rows {
                    let key: Arc<str> = read::<&str>(row, 0)?.into();
                    let body = Hash(decode::bytes(row, 2)?);
                    let record =
                        IdempotencyRecord { key: key.clone(), task: TaskId(read(row, 1)?), body };
                    self.snapshot.add_idempotency(key, Some(record));
                }
                for key in keys {
                    // What was found stays.
                    self.snapshot.add_idempotency(key, None);
                }
            }
            About::OldAttempts(ids) => {
                for row in rows {
                    let record = decode::record(row)?;
                    let (task, attempt) = (record.task, record.attempt.id);
                    self.snapshot.add_old_attempt(task, attempt, Some(record));
                }
                for (task, attempt) in ids {
                    self.snapshot.add_old_attempt(task, attempt, None);
                }
            }
            About::Held(instances) => {
                let mut found: FxHashMap<InstanceId, Vec<TaskId>> = FxHashMap::default();
                for row in rows {
                    found.entry(InstanceId(read(row, 0)?)).or_default().push(TaskId(read(row, 1)?));
                }
                for instance in instances {
                    let held = found.remove(&instance).unwrap_or_default();
                    self.snapshot.add_held(instance, held);
                }
            }
            About::Due => {
                let due = rows.iter().map(|row| read(row, 0).map(TaskId));
                self.snapshot.set_due(due.collect::<Result<_, Trouble>>()?);
            }
            About::Nothing
            | About::State(_)
            | About::Stamp
            | About::Clock
            | About::Project
            | About::Routes
            | About::FoundAgents
            | About::Candidates
            | About::TasksAhead
            | About::DependentsAhead(_)
            | About::Tasks(_) => {}
        }
        Ok(())
    }

    fn take_in_children(&mut self, ids: Vec<TaskId>, rows: &[Row]) -> Result<(), Trouble> {
        let mut found: FxHashMap<TaskId, Vec<TaskId>> = FxHashMap::default();
        for row in rows {
            found.entry(TaskId(read(row, 0)?)).or_default().push(TaskId(read(row, 1)?));
        }
        for id in ids {
            let page = page(found.remove(&id).unwrap_or_default());
            self.snapshot.add_children(id, page);
        }
        Ok(())
    }

    fn add_task(&mut self, row: &Row) -> Result<(), Trouble> {
        let (_, task) = decode::task(row)?;
        self.add(Arc::new(task));
        Ok(())
    }

    fn add(&mut self, task: Arc<Task>) {
        self.origin.entry(task.id()).or_insert_with(|| task.clone());
        self.snapshot.add_task(task);
    }

    /// Reads what agents say anew, as far as that is newer than what is known.
    pub(super) async fn refresh_specs(&mut self) -> Result<(), Trouble> {
        self.specs.refresh(self.line, self.project, self.agents_version).await
    }

    /// Locks the tasks that these instances hold as far as is known without a lock, so that the instances can be locked after
    /// them, in the order in which everybody locks.
    pub(super) async fn tasks_held_by(&mut self, instances: &[InstanceId]) -> Result<(), Trouble> {
        let (_, ask) = self.held(instances.to_vec());
        let rows = self.line.ask(ask).await?;
        let held = rows.iter().map(|row| read(row, 1).map(|id| Load::Task(TaskId(id))));
        let held: Vec<Load> = held.collect::<Result<_, Trouble>>()?;
        if !held.is_empty() {
            self.flight(held, Along::default()).await?;
        }
        Ok(())
    }

    /// Loads the first tasks of these queues, so many of each, that nobody else holds, with the roots of their runs. Returns whether somebody
    /// else was in the way.
    pub(super) async fn heads(&mut self, wanted: Vec<(String, usize)>) -> Result<bool, Trouble> {
        let known: Vec<Uuid> = self
            .origin
            .values()
            .filter(|task| task.state == TaskState::Ready)
            .map(|task| task.id().0)
            .collect();
        let of = |sql: &'static str| {
            Ask::new(sql)
                .with(self.project)
                .column(wanted.iter().map(|(route, _)| route.as_str()))
                .column(wanted.iter().map(|(_, count)| i64::try_from(*count).unwrap_or(i64::MAX)))
                .with(known.clone())
        };
        let asks = [of(&HEADS), of(FREE_HEADS), Ask::new(CLOCK)];
        let [rows, free, clock] = self.line.flight(&asks).await?.try_into().unwrap_or_default();
        self.take_in(About::Clock, &clock, &mut Brought::default())?;
        let mut heads = Vec::with_capacity(rows.len());
        for row in &rows {
            heads.push(Arc::new(decode::task(row)?.1));
        }
        let mut roots: Vec<Uuid> = heads
            .iter()
            .filter(|task| !task.is_root() && !self.snapshot.knows_task(task.spec.root))
            .map(|task| task.spec.root.0)
            .collect();
        roots.sort_unstable();
        roots.dedup();
        if !roots.is_empty() {
            for row in self.line.ask(Ask::new(&ROOTS).with(self.project).with(roots)).await? {
                self.add_task(&row)?;
            }
        }
        let taken: FxHashSet<TaskId> = heads.iter().map(|task| task.id()).collect();
        let mut kept_out = false;
        for row in &free {
            kept_out |= !taken.contains(&TaskId(read(row, 0)?));
        }
        for task in heads {
            if task.is_root() || self.snapshot.knows_task(task.spec.root) {
                self.add(task);
            } else {
                kept_out = true;
            }
        }
        Ok(kept_out)
    }
}

fn first(rows: &[Row]) -> Result<&Row, Trouble> {
    rows.first().ok_or_else(|| Trouble::data("the project is not in the database any more"))
}

/// The dependents of these tasks, a page of each.
fn pages_of_dependents(
    ids: Vec<TaskId>,
    rows: &[Row],
) -> Result<Vec<(TaskId, Page<Edge>)>, Trouble> {
    let mut found: FxHashMap<TaskId, Vec<Edge>> = FxHashMap::default();
    for row in rows {
        let need = TaskId(read(row, 0)?);
        let edge = Edge { need, task: TaskId(read(row, 1)?), order_only: read(row, 2)? };
        found.entry(need).or_default().push(edge);
    }
    Ok(ids.into_iter().map(|id| (id, page(found.remove(&id).unwrap_or_default()))).collect())
}

/// A page of one row more than it may hold, cut.
fn page<T>(mut items: Vec<T>) -> Page<T> {
    let more = items.len() > CASCADE_MAX;
    items.truncate(CASCADE_MAX);
    Page { items, more }
}
