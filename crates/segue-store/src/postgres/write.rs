//! What a batch changed, into the tables: each kind of row with one statement, all of them and the commit in one round trip.

use super::cells;
use super::line::Ask;
use super::load::Loader;
use super::put::{
    ATTEMPTS, BODIES, BODY_REFS, COUNTERS, EDGES, END_DUTIES, EVENTS, GUARD_CURSORS, IDEMPOTENCY,
    INSERT_TASKS, LETTERS, LOCK_BODIES, PROJECT, PUT_AGENTS, PUT_DUTIES, SETTLE, TOUCH_TASKS,
    UPDATE_AGENTS, UPDATE_FIXED, UPDATE_TASKS,
};
use super::state;
use super::trouble::Trouble;
use crate::rows::decode;
use crate::rows::encode::{self, Bodies, number};
use rustc_hash::FxHashMap;
use segue_core::agent::Agent;
use segue_core::changes::{Edge, IdempotencyRecord};
use segue_core::command::Duty;
use segue_core::event::Event;
use segue_core::ids::{InstanceId, TaskId};
use segue_core::letter::{Address, Letter, LetterBody};
use segue_core::payload::{Hash, Payload};
use segue_core::snapshot::{DutyChange, Writes};
use segue_core::task::{Attempt, AttemptRecord, Task, TaskState};
use segue_core::time::Time;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Row;
use uuid::Uuid;

/// "Segu": the class of the advisory locks by which writers say which cursors they may issue. See [`cursor_class`].
const CURSOR_CLASS: i32 = 0x5365_0000;
/// Rows of counters that a project has at most.
pub(super) const SHARDS: i32 = 64;

/// The class of the advisory locks of a project's writers.
pub(super) fn cursor_class(project: i32) -> i32 {
    CURSOR_CLASS | (project & 0xffff)
}

/// How the tasks in each state changed.
pub(super) type Moved = [i64; 9];

/// The statement that counts.
pub(super) fn count<'a>(project: i32, shard: i32, at: Time, moved: &Moved) -> Ask<'a> {
    let ask = Ask::new(COUNTERS).with(project).with(shard).with(at.0);
    moved.iter().fold(ask, |ask, by| ask.with(*by))
}

/// Writes a batch.
pub(super) struct Pen<'a> {
    pub(super) project: i32,
    pub(super) shard: i32,
    /// The open store to which the letters belong.
    pub(super) owner: Uuid,
    pub(super) now: Time,
    pub(super) loader: &'a Loader<'a>,
    moved: Moved,
    bodies: Bodies,
}

/// A task as the store has it, and as it is kept from now on.
type Changed<'a> = (&'a Arc<Task>, Arc<Task>);

/// What was written.
pub(super) struct Written {
    /// The numbers of the letters, in their order.
    pub(super) letters: Vec<u64>,
}

impl<'a> Pen<'a> {
    pub(super) fn new(loader: &'a Loader<'a>, shard: i32, owner: Uuid, now: Time) -> Pen<'a> {
        let project = loader.project;
        Pen { project, shard, owner, now, loader, moved: [0; 9], bodies: Bodies::default() }
    }

    /// Writes all of it, and commits.
    pub(super) async fn write(mut self, writes: Writes) -> Result<Written, Trouble> {
        let Writes {
            inserted,
            updated,
            edges,
            attempts,
            agents,
            events,
            letters,
            settled,
            duties,
            idempotency,
            project_events,
            state: mut shared,
        } = writes;
        let inserted: Vec<Arc<Task>> =
            inserted.into_iter().map(|task| self.taken_in(task)).collect();
        let updated = self.changed(updated)?;
        let mut events = events;
        for event in &mut events {
            self.bodies.keep_fact(event.run, &mut event.fact);
        }
        state::keep_bodies(&mut shared, &mut self.bodies);
        let mut asks = Vec::with_capacity(24);
        // Bodies first: whoever prunes waits for these rows, and they for nobody who waits for tasks.
        self.add_bodies(&mut asks);
        state::write(self.project, &shared, &mut asks)?;
        if !inserted.is_empty() {
            asks.push(self.insert(&inserted)?);
        }
        self.update(&updated, &mut asks)?;
        if !edges.is_empty() {
            asks.push(self.edges(&edges));
        }
        if !attempts.is_empty() {
            asks.push(self.attempts(&attempts)?);
        }
        self.agents(&agents, project_events, &mut asks)?;
        self.duties(&duties, &mut asks);
        if !idempotency.is_empty() {
            asks.push(self.idempotency(&idempotency));
        }
        if !settled.is_empty() {
            let numbers = settled.iter().map(|seq| number(*seq));
            asks.push(Ask::new(SETTLE).with(self.project).column(numbers));
        }
        let at_letters = asks.len();
        let has_letters = !letters.is_empty();
        if has_letters {
            asks.push(self.letters(&letters)?);
        }
        if !events.is_empty() {
            asks.push(Ask::new(GUARD_CURSORS).with(cursor_class(self.project)));
            asks.push(self.events(&events)?);
        }
        asks.push(count(self.project, self.shard, self.now, &self.moved));
        asks.push(Ask::new("COMMIT"));
        segue_core::failpoint::pass("before-commit");
        let answers = self.loader.line.flight(&asks).await;
        segue_core::failpoint::pass("after-commit");
        let mut answers = answers?;
        let rows = if has_letters { std::mem::take(&mut answers[at_letters]) } else { Vec::new() };
        let numbers = |rows: Vec<Row>| -> Result<Vec<u64>, Trouble> {
            rows.iter().map(|row| Ok(decode::unsigned(row, 0)?)).collect()
        };
        Ok(Written { letters: numbers(rows)? })
    }

    fn taken_in(&mut self, task: Arc<Task>) -> Arc<Task> {
        self.moved[state_place(task.state)] += 1;
        self.bodies.keep_task(task, None)
    }

    /// The tasks as they are kept, each with how it was before.
    fn changed(&mut self, tasks: Vec<Arc<Task>>) -> Result<Vec<Changed<'a>>, Trouble> {
        let loader = self.loader;
        tasks
            .into_iter()
            .map(|task| {
                let before = loader.origin.get(&task.id()).ok_or_else(|| {
                    Trouble::data(format!(
                        "task {} was changed and never loaded: a defect",
                        task.id()
                    ))
                })?;
                self.moved[state_place(before.state)] -= 1;
                self.moved[state_place(task.state)] += 1;
                Ok((before, self.bodies.keep_task(task, Some(before))))
            })
            .collect()
    }

    fn insert<'t>(&self, tasks: &'t [Arc<Task>]) -> Result<Ask<'t>, Trouble> {
        let specs = || tasks.iter().map(|task| task.spec.as_ref());
        let rest = specs().map(encode::rest).collect::<Result<Vec<_>, _>>()?;
        let ask = Ask::new(INSERT_TASKS)
            .with(self.project)
            .column(specs().map(|spec| spec.id.0))
            .column(specs().map(|spec| spec.parent.map(|parent| parent.0)))
            .column(tasks.iter().map(|task| (!task.is_root()).then_some(task.spec.root.0)))
            .column(specs().map(|spec| spec.name.as_ref()))
            .column(specs().map(|spec| spec.key.as_deref()))
            .column(specs().map(|spec| spec.route.to_string()))
            .column(specs().map(|spec| i16::from(spec.priority.number())))
            .column(specs().map(|spec| i16::try_from(spec.hops).unwrap_or(i16::MAX)))
            .with(rest)
            .column(tasks.iter().map(|task| task.created_at.0))
            .column(tasks.iter().map(|task| cells::payload(&task.input)));
        moving(ask, &tasks.iter().collect::<Vec<_>>())
    }

    fn update<'t>(&self, tasks: &'t [Changed<'_>], asks: &mut Vec<Ask<'t>>) -> Result<(), Trouble> {
        let (mut touched, mut renewed, mut fixed) = (Vec::new(), Vec::new(), Vec::new());
        for (before, task) in tasks {
            if encode::is_touched_only(before, task) && is_listed_alike(before.state, task.state) {
                touched.push(task);
            } else {
                renewed.push(task);
            }
            // What is fixed at submit changes with a fan-out (the task becomes a group), a rendered input and a requeue.
            if !Arc::ptr_eq(&before.spec, &task.spec)
                || before.input != task.input
                || before.created_at != task.created_at
            {
                fixed.push(task);
            }
        }
        if !touched.is_empty() {
            asks.push(touch(self.project, &touched));
        }
        if !renewed.is_empty() {
            let ids: Vec<Uuid> = renewed.iter().map(|task| task.id().0).collect();
            asks.push(moving(Ask::new(UPDATE_TASKS).with(self.project).with(ids), &renewed)?);
        }
        if !fixed.is_empty() {
            asks.push(fix(self.project, &fixed)?);
        }
        Ok(())
    }

    fn edges<'t>(&self, edges: &[Edge]) -> Ask<'t> {
        // The same need twice in a task is one edge that counts twice: `unmet` would never be met. The stricter one stays.
        let mut once: BTreeMap<(TaskId, TaskId), bool> = BTreeMap::new();
        for edge in edges {
            let order_only = once.entry((edge.need, edge.task)).or_insert(edge.order_only);
            *order_only &= edge.order_only;
        }
        Ask::new(EDGES)
            .with(self.project)
            .column(once.keys().map(|(need, _)| need.0))
            .column(once.keys().map(|(_, task)| task.0))
            .column(once.values().copied())
    }

    fn attempts<'t>(&self, records: &[AttemptRecord]) -> Result<Ask<'t>, Trouble> {
        // The last word on each counts.
        let last: BTreeMap<(TaskId, u32), &AttemptRecord> =
            records.iter().map(|record| ((record.task, record.attempt.number), record)).collect();
        let attempts = || last.values().map(|record| &record.attempt);
        let error = |record: &&AttemptRecord| record.error.as_ref().map(encode::json).transpose();
        let usage = |record: &&AttemptRecord| record.usage.as_ref().map(encode::json).transpose();
        let errors = last.values().map(error).collect::<Result<Vec<_>, _>>()?;
        let usages = last.values().map(usage).collect::<Result<Vec<_>, _>>()?;
        Ok(Ask::new(ATTEMPTS)
            .with(self.project)
            .column(last.values().map(|record| record.task.0))
            .column(attempts().map(|attempt| int4(attempt.number)))
            .column(attempts().map(|attempt| attempt.id.0))
            .column(attempts().map(|attempt| attempt.secret_hash.0.to_vec()))
            .column(attempts().map(|attempt| attempt.instance.0))
            .column(attempts().map(|attempt| attempt.incarnation.0))
            .column(attempts().map(|attempt| attempt.assigned_at.0))
            .column(attempts().map(|attempt| attempt.started_at.map(|at| at.0)))
            .column(attempts().map(|attempt| attempt.process.map(|process| int4(process.pid))))
            .column(attempts().map(|attempt| attempt.process.map(|it| number(it.start_time))))
            .column(attempts().map(|attempt| attempt.end.map(ending)))
            .column(attempts().map(|attempt| attempt.ended_at.map(|at| at.0)))
            .with(errors)
            .with(usages))
    }

    fn agents<'t>(
        &self,
        agents: &'t [Agent],
        project_events: Option<u64>,
        asks: &mut Vec<Ask<'t>>,
    ) -> Result<(), Trouble> {
        let known = |instance: InstanceId| self.loader.specs.last(instance);
        let stood = |instance: InstanceId| self.loader.stood.get(&instance).copied();
        // Whoever reads who the agents are goes by the version: it grows with what they say, and when they are drained or go.
        let is_no_news = |agent: &&Agent| {
            known(agent.spec.instance).is_some_and(|spec| Arc::ptr_eq(spec, &agent.spec))
                && stood(agent.spec.instance) == Some((agent.drained, agent.gone))
        };
        let (same, new): (Vec<&Agent>, Vec<&Agent>) = agents.iter().partition(is_no_news);
        if !same.is_empty() {
            asks.push(standing(Ask::new(UPDATE_AGENTS).with(self.project), &same));
        }
        let version = self.loader.agents_version + i64::from(!new.is_empty());
        if !new.is_empty() {
            let specs = new.iter().map(|agent| encode::json(&agent.spec));
            let specs = specs.collect::<Result<Vec<_>, _>>()?;
            let ask = standing(Ask::new(PUT_AGENTS).with(self.project).with(version), &new);
            asks.push(
                ask.column(new.iter().map(|agent| int4(agent.spec.max_concurrency))).with(specs),
            );
        }
        if project_events.is_some() || !new.is_empty() {
            if !self.loader.holds_project {
                return Err(Trouble::data(
                    "the project's log was written without its lock: a defect",
                ));
            }
            asks.push(
                Ask::new(PROJECT).with(self.project).with(project_events.map(number)).with(version),
            );
        }
        Ok(())
    }

    fn events<'t>(&self, events: &[Event]) -> Result<Ask<'t>, Trouble> {
        let facts = events.iter().map(|event| encode::fact(&event.fact));
        let facts = facts.collect::<Result<Vec<_>, _>>()?;
        let (kinds, data): (Vec<String>, Vec<String>) = facts.into_iter().unzip();
        Ok(Ask::new(EVENTS)
            .with(self.project)
            .column(events.iter().map(|event| event.run.0))
            .column(events.iter().map(|event| number(event.run_seq)))
            .column(events.iter().map(|event| (event.task != event.run).then_some(event.task.0)))
            .column(events.iter().map(|event| event.at.0))
            .with(kinds)
            .with(data))
    }

    fn letters<'t>(&self, letters: &[Letter]) -> Result<Ask<'t>, Trouble> {
        let mut rows = Vec::with_capacity(letters.len());
        for letter in letters {
            rows.push(match (&letter.body, &letter.to) {
                (LetterBody::TaskRequest(request), Address::Host(host)) => {
                    (Some(request.attempt.0), Some(host.0), None)
                }
                _ => {
                    encode::refuse_secret(&letter.body)?;
                    (None, None, Some(encode::json(letter)?))
                }
            });
        }
        Ok(Ask::new(LETTERS)
            .with(self.project)
            .with(self.owner)
            .with(self.now.0)
            .column(letters.iter().map(|letter| letter.task.map(|task| task.0)))
            .column(rows.iter().map(|(attempt, _, _)| *attempt))
            .column(rows.iter().map(|(_, host, _)| *host))
            .column(rows.into_iter().map(|(_, _, body)| body)))
    }

    fn duties(&self, changes: &[DutyChange], asks: &mut Vec<Ask<'_>>) {
        // A later entry for the same task and kind wins.
        let mut last: FxHashMap<(TaskId, &'static str), Option<Duty>> = FxHashMap::default();
        for change in changes {
            match change {
                DutyChange::Add(duty) => {
                    last.insert((duty.task, duty.kind.as_str()), Some(duty.clone()))
                }
                DutyChange::Done(task, kind) => last.insert((*task, kind), None),
            };
        }
        let mut last: Vec<_> = last.into_iter().collect();
        last.sort_unstable_by_key(|(key, _)| *key);
        let done: Vec<_> =
            last.iter().filter(|(_, duty)| duty.is_none()).map(|(key, _)| *key).collect();
        if !done.is_empty() {
            asks.push(
                Ask::new(END_DUTIES)
                    .with(self.project)
                    .column(done.iter().map(|(task, _)| task.0))
                    .column(done.iter().map(|(_, kind)| *kind)),
            );
        }
        let left: Vec<(TaskId, &'static str, Option<TaskId>, Option<bool>)> = last
            .iter()
            .filter_map(|((task, kind), duty)| {
                let (after, parent) = encode::duty(duty.as_ref()?);
                Some((*task, *kind, after, parent))
            })
            .collect();
        if !left.is_empty() {
            asks.push(
                Ask::new(PUT_DUTIES)
                    .with(self.project)
                    .column(left.iter().map(|(task, ..)| task.0))
                    .column(left.iter().map(|(_, kind, ..)| *kind))
                    .column(left.iter().map(|(_, _, after, _)| after.map(|after| after.0)))
                    .column(left.iter().map(|(.., parent)| *parent)),
            );
        }
    }

    fn idempotency<'t>(&self, records: &'t [IdempotencyRecord]) -> Ask<'t> {
        Ask::new(IDEMPOTENCY)
            .with(self.project)
            .column(records.iter().map(|record| record.key.as_ref()))
            .column(records.iter().map(|record| record.task.0))
            .column(records.iter().map(|record| record.body.0.to_vec()))
    }

    fn add_bodies(&mut self, asks: &mut Vec<Ask<'_>>) {
        let refs = std::mem::take(&mut self.bodies.refs);
        if refs.is_empty() {
            return;
        }
        // In the order of the hashes, so that two who keep the same bodies do not wait for each other in a circle.
        let mut bodies: BTreeMap<Hash, String> = BTreeMap::new();
        let mut elsewhere: Vec<Hash> = Vec::new();
        for (_, hash, body) in &refs {
            match body.as_ref().and_then(Payload::text) {
                Some(text) => {
                    bodies.entry(*hash).or_insert_with(|| text.to_owned());
                }
                None => elsewhere.push(*hash),
            }
        }
        if !bodies.is_empty() {
            asks.push(
                Ask::new(BODIES)
                    .with(self.project)
                    .column(bodies.keys().map(|hash| hash.0.to_vec()))
                    .column(bodies.into_values()),
            );
        }
        if !elsewhere.is_empty() {
            elsewhere.sort_unstable();
            elsewhere.dedup();
            let hashes = elsewhere.iter().map(|hash| hash.0.to_vec());
            asks.push(Ask::new(LOCK_BODIES).with(self.project).column(hashes));
        }
        asks.push(
            Ask::new(BODY_REFS)
                .with(self.project)
                .column(refs.iter().map(|(run, ..)| run.0))
                .column(refs.iter().map(|(_, hash, _)| hash.0.to_vec())),
        );
    }
}

/// Whether `queued` and `listed` stay as they are.
fn is_listed_alike(before: TaskState, after: TaskState) -> bool {
    before == after || (before.holds_slot() && after.holds_slot())
}

fn state_place(state: TaskState) -> usize {
    encode::state_number(state) as usize
}

/// A count as a column holds it.
fn int4(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn state(task: &Task) -> i16 {
    encode::state_number(task.state) as i16
}

fn ending(end: segue_core::task::AttemptEnd) -> i16 {
    encode::end_number(end) as i16
}

/// The columns that move, in the order of the statements that write them.
fn moving<'t>(ask: Ask<'t>, tasks: &[&'t Arc<Task>]) -> Result<Ask<'t>, Trouble> {
    let error = |task: &&Arc<Task>| task.error.as_ref().map(encode::json).transpose();
    let errors = tasks.iter().map(error).collect::<Result<Vec<_>, _>>()?;
    let held_by = |task: &&Arc<Task>| {
        task.attempt.as_ref().filter(|_| task.state.holds_slot()).map(|attempt| attempt.instance.0)
    };
    let instance = |task: &&Arc<Task>| {
        task.attempt.as_ref().filter(|_| !task.state.holds_slot()).map(|attempt| attempt.instance.0)
    };
    let attempts = || tasks.iter().map(|task| task.attempt.as_ref());
    fn process(attempt: Option<&Attempt>) -> Option<segue_core::task::ProcessRef> {
        attempt.and_then(|attempt| attempt.process)
    }
    let cell = |payload: &'t Option<Payload>| -> Option<Cow<'t, str>> {
        payload.as_ref().map(cells::payload)
    };
    Ok(ask
        .column(tasks.iter().map(|task| state(task)))
        .column(tasks.iter().map(|task| int4(task.unmet)))
        .column(tasks.iter().map(|task| task.rank))
        .column(tasks.iter().map(|task| task.due_at().map(|at| at.0)))
        .column(tasks.iter().map(|task| int4(task.attempts)))
        .column(tasks.iter().map(|task| int4(task.tried)))
        .column(tasks.iter().map(|task| int4(task.lost)))
        .column(tasks.iter().map(|task| int4(task.open_children)))
        .column(tasks.iter().map(|task| int4(task.children)))
        .column(tasks.iter().map(|task| int4(task.dependents)))
        .column(tasks.iter().map(|task| task.wait_for.map(|it| encode::wait_number(it) as i16)))
        .column(tasks.iter().map(|task| cell(&task.continuation)))
        .column(tasks.iter().map(|task| task.prefer.map(|instance| instance.0)))
        .column(tasks.iter().map(|task| task.ready_at.map(|at| at.0)))
        .column(tasks.iter().map(|task| task.retry_at.map(|at| at.0)))
        .column(tasks.iter().map(|task| task.finished_at.map(|at| at.0)))
        .column(tasks.iter().map(|task| cell(&task.output)))
        .with(errors)
        .column(tasks.iter().map(|task| number(task.run_events)))
        .column(tasks.iter().map(held_by))
        .column(attempts().map(|attempt| attempt.map(|attempt| attempt.id.0)))
        .column(attempts().map(|attempt| attempt.map(|attempt| int4(attempt.number))))
        .column(attempts().map(|attempt| attempt.map(|attempt| attempt.secret_hash.0.to_vec())))
        .column(tasks.iter().map(instance))
        .column(attempts().map(|attempt| attempt.map(|attempt| attempt.incarnation.0)))
        .column(attempts().map(|attempt| attempt.map(|attempt| attempt.assigned_at.0)))
        .column(attempts().map(|attempt| attempt.and_then(|it| it.started_at).map(|at| at.0)))
        .column(attempts().map(|attempt| process(attempt).map(|process| int4(process.pid))))
        .column(attempts().map(|attempt| process(attempt).map(|it| number(it.start_time))))
        .column(attempts().map(|attempt| attempt.and_then(|it| it.end).map(ending)))
        .column(attempts().map(|attempt| attempt.and_then(|it| it.ended_at).map(|at| at.0))))
}

fn touch<'t>(project: i32, tasks: &[&Arc<Task>]) -> Ask<'t> {
    let attempts = || tasks.iter().map(|task| task.attempt.as_ref());
    let process = || attempts().map(|attempt| attempt.and_then(|attempt| attempt.process));
    Ask::new(TOUCH_TASKS)
        .with(project)
        .column(tasks.iter().map(|task| task.id().0))
        .column(tasks.iter().map(|task| state(task)))
        .column(tasks.iter().map(|task| int4(task.unmet)))
        .column(tasks.iter().map(|task| int4(task.open_children)))
        .column(tasks.iter().map(|task| int4(task.children)))
        .column(tasks.iter().map(|task| int4(task.dependents)))
        .column(tasks.iter().map(|task| number(task.run_events)))
        .column(attempts().map(|attempt| attempt.and_then(|it| it.started_at).map(|at| at.0)))
        .column(process().map(|process| process.map(|process| int4(process.pid))))
        .column(process().map(|process| process.map(|process| number(process.start_time))))
}

fn fix<'t>(project: i32, tasks: &[&'t Arc<Task>]) -> Result<Ask<'t>, Trouble> {
    let specs = || tasks.iter().map(|task| task.spec.as_ref());
    let rest = specs().map(encode::rest).collect::<Result<Vec<_>, _>>()?;
    Ok(Ask::new(UPDATE_FIXED)
        .with(project)
        .column(specs().map(|spec| spec.id.0))
        .column(tasks.iter().map(|task| task.spec.name.as_ref()))
        .column(specs().map(|spec| spec.route.to_string()))
        .column(specs().map(|spec| i16::from(spec.priority.number())))
        .column(specs().map(|spec| i16::try_from(spec.hops).unwrap_or(i16::MAX)))
        .with(rest)
        .column(tasks.iter().map(|task| cells::payload(&task.input)))
        .column(tasks.iter().map(|task| task.created_at.0)))
}

/// How agents stand, in the order of the statements that write it.
fn standing<'t>(ask: Ask<'t>, agents: &[&Agent]) -> Ask<'t> {
    ask.column(agents.iter().map(|agent| agent.spec.instance.0))
        .column(agents.iter().map(|agent| agent.host.0))
        .column(agents.iter().map(|agent| agent.incarnation.0))
        .column(agents.iter().map(|agent| int4(agent.slots_used)))
        .column(agents.iter().map(|agent| agent.drained))
        .column(agents.iter().map(|agent| agent.lease_until.0))
        .column(agents.iter().map(|agent| agent.gone))
}
