//! What a batch changed, into the tables: each kind of row with one statement, prepared once.

use super::encode::{self, Bodies, Cell, number};
use super::error::{Failure, Kind};
use super::hot::Stored;
use super::state;
use rusqlite::{Connection, params};
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::agent::{Agent, AgentSpec};
use segue_core::changes::{Edge, IdempotencyRecord};
use segue_core::command::Duty;
use segue_core::event::Event;
use segue_core::ids::{InstanceId, TaskId};
use segue_core::letter::{Address, Letter, LetterBody};
use segue_core::payload::Payload;
use segue_core::snapshot::{DutyChange, Writes};
use segue_core::task::{Attempt, AttemptRecord, Route, Task, TaskState};
use segue_core::time::Time;
use std::sync::Arc;

/// What the writer counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) committed_at: Time,
    pub(super) next_cursor: u64,
    pub(super) next_letter: u64,
    pub(super) next_task: i64,
    pub(super) project_events: u64,
    /// Tasks in each state, in the order of [`TaskState::ALL`].
    pub(super) states: [u64; 9],
}

impl Counters {
    fn moved(&mut self, from: Option<TaskState>, to: Option<TaskState>) {
        if let Some(from) = from {
            let count = &mut self.states[encode::state_number(from) as usize];
            *count = count.saturating_sub(1);
        }
        if let Some(to) = to {
            self.states[encode::state_number(to) as usize] += 1;
        }
    }

    /// A task has gone.
    pub(super) fn gone(&mut self, state: TaskState) {
        self.moved(Some(state), None);
    }

    /// Writes the row of the project.
    pub(super) fn write(&self, conn: &Connection, project: i64) -> Result<(), Failure> {
        let mut statement = conn.prepare_cached(
            "UPDATE counters SET committed_at = ?2, next_cursor = ?3, next_letter = ?4, next_task = ?5, \
             project_events = ?6, states = ?7 WHERE project = ?1",
        )?;
        statement.execute(params![
            project,
            self.committed_at.0,
            number(self.next_cursor),
            number(self.next_letter),
            self.next_task,
            number(self.project_events),
            encode::json(&self.states)?,
        ])?;
        Ok(())
    }
}

/// What was written, for what the writer keeps in memory.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Tasks as the store has them now.
    pub(super) tasks: Vec<Stored>,
    /// Routes that have ready tasks now.
    pub(super) ready: FxHashSet<Route>,
    /// The greatest id of a new task.
    pub(super) last_id: Option<TaskId>,
    /// What instances say of themselves, where that is new.
    pub(super) specs: Vec<Arc<AgentSpec>>,
}

/// Writes a batch into the open transaction.
pub(super) struct Pen<'a> {
    pub(super) conn: &'a Connection,
    pub(super) project: i64,
    /// Tasks as the store had them before the batch.
    pub(super) origin: &'a FxHashMap<TaskId, Stored>,
    /// What instances say of themselves, as the store has it.
    pub(super) specs: &'a FxHashMap<InstanceId, Arc<AgentSpec>>,
    pub(super) counters: &'a mut Counters,
    pub(super) written: Written,
    pub(super) bodies: Bodies,
}

impl Pen<'_> {
    /// Writes all of it.
    pub(super) fn write(mut self, writes: Writes) -> Result<Written, Failure> {
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
            state,
        } = writes;
        self.insert(inserted)?;
        self.update(updated)?;
        self.edges(&edges)?;
        self.attempts(&attempts)?;
        self.agents(&agents)?;
        self.events(events)?;
        self.letters(&letters, settled)?;
        self.duties(&duties)?;
        self.idempotency(&idempotency)?;
        state::write(self.conn, self.project, &mut self.bodies, &state)?;
        self.bodies()?;
        state::forget(self.conn, &state.forgotten)?;
        if let Some(count) = project_events {
            self.counters.project_events = count;
        }
        self.counters.write(self.conn, self.project)?;
        Ok(self.written)
    }

    fn insert(&mut self, tasks: Vec<Arc<Task>>) -> Result<(), Failure> {
        if tasks.is_empty() {
            return Ok(());
        }
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO tasks (n, project, id, parent, root, name, call_key, route, priority, hops, spec, created_at, input, \
             state, unmet, rank, due_at, attempts, tried, lost, open_children, children, dependents, wait_for, continuation, \
             prefer, ready_at, retry_at, finished_at, output, error, run_events, held_by, attempt, number, secret_hash, instance, \
             incarnation, assigned_at, started_at, pid, pid_start, ending, ended_at) \
             VALUES (?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43, ?44, ?32, \
             ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, \
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?1)",
        )?;
        for task in tasks {
            let task = self.bodies.keep_task(task, None);
            let n = self.counters.next_task;
            self.counters.next_task += 1;
            let spec = &task.spec;
            let moving = Moving::of(&task)?;
            moving.bind(&mut insert)?;
            insert.raw_bind_parameter(32, Cell::of(&task.input))?;
            insert.raw_bind_parameter(33, n)?;
            insert.raw_bind_parameter(34, self.project)?;
            insert.raw_bind_parameter(35, spec.id.as_bytes())?;
            insert.raw_bind_parameter(36, spec.parent.as_ref().map(TaskId::as_bytes))?;
            insert.raw_bind_parameter(37, (!task.is_root()).then(|| spec.root.as_bytes()))?;
            insert.raw_bind_parameter(38, spec.name.as_ref())?;
            insert.raw_bind_parameter(39, spec.key.as_deref())?;
            insert.raw_bind_parameter(40, spec.route.to_string())?;
            insert.raw_bind_parameter(41, spec.priority.number())?;
            insert.raw_bind_parameter(42, spec.hops)?;
            insert.raw_bind_parameter(43, encode::rest(spec)?)?;
            insert.raw_bind_parameter(44, task.created_at.0)?;
            insert.raw_execute()?;
            self.counters.moved(None, Some(task.state));
            self.written.last_id = self.written.last_id.max(Some(task.id()));
            self.note(Stored { n, task });
        }
        Ok(())
    }

    fn note(&mut self, stored: Stored) {
        if stored.task.state == TaskState::Ready
            && !self.written.ready.contains(&stored.task.spec.route)
        {
            self.written.ready.insert(stored.task.spec.route.clone());
        }
        self.written.tasks.push(stored);
    }

    fn update(&mut self, tasks: Vec<Arc<Task>>) -> Result<(), Failure> {
        if tasks.is_empty() {
            return Ok(());
        }
        let mut touch = self.conn.prepare_cached(
            "UPDATE tasks SET state = ?2, unmet = ?3, open_children = ?4, children = ?5, dependents = ?6, run_events = ?7, \
             started_at = ?8, pid = ?9, pid_start = ?10 WHERE n = ?1",
        )?;
        let mut renew = self.conn.prepare_cached(
            "UPDATE tasks SET ended_at = ?1, state = ?2, unmet = ?3, rank = ?4, due_at = ?5, attempts = ?6, tried = ?7, lost = ?8, \
             open_children = ?9, children = ?10, dependents = ?11, wait_for = ?12, continuation = ?13, prefer = ?14, \
             ready_at = ?15, retry_at = ?16, finished_at = ?17, output = ?18, error = ?19, run_events = ?20, held_by = ?21, \
             attempt = ?22, number = ?23, secret_hash = ?24, instance = ?25, incarnation = ?26, assigned_at = ?27, \
             started_at = ?28, pid = ?29, pid_start = ?30, ending = ?31 WHERE n = ?32",
        )?;
        for task in tasks {
            let Some(before) = self.origin.get(&task.id()) else {
                let detail = format!("task {} was changed and never loaded: a defect", task.id());
                return Err(Failure::new(Kind::Data, detail));
            };
            let n = before.n;
            let task = self.bodies.keep_task(task, Some(&before.task));
            self.counters.moved(Some(before.task.state), Some(task.state));
            if encode::is_touched_only(&before.task, &task) {
                let attempt = task.attempt.as_ref();
                let process = attempt.and_then(|attempt| attempt.process);
                touch.execute(params![
                    n,
                    encode::state_number(task.state),
                    task.unmet,
                    task.open_children,
                    task.children,
                    task.dependents,
                    number(task.run_events),
                    attempt.and_then(|attempt| attempt.started_at).map(|at| at.0),
                    process.map(|process| process.pid),
                    process.map(|process| number(process.start_time)),
                ])?;
            } else {
                Moving::of(&task)?.bind(&mut renew)?;
                renew.raw_bind_parameter(32, n)?;
                renew.raw_execute()?;
            }
            self.update_fixed(n, &before.task, &task)?;
            self.note(Stored { n, task });
        }
        Ok(())
    }

    /// What is fixed at submit changes with a fan-out (the task becomes a group), a rendered input and a requeue.
    fn update_fixed(&self, n: i64, before: &Task, task: &Task) -> Result<(), Failure> {
        if !Arc::ptr_eq(&before.spec, &task.spec) {
            let mut statement = self.conn.prepare_cached(
                "UPDATE tasks SET name = ?2, route = ?3, priority = ?4, hops = ?5, spec = ?6 WHERE n = ?1",
            )?;
            let spec = &task.spec;
            statement.execute(params![
                n,
                spec.name.as_ref(),
                spec.route.to_string(),
                spec.priority.number(),
                spec.hops,
                encode::rest(spec)?,
            ])?;
        }
        if before.input != task.input || before.created_at != task.created_at {
            let mut statement = self
                .conn
                .prepare_cached("UPDATE tasks SET input = ?2, created_at = ?3 WHERE n = ?1")?;
            statement.execute(params![n, Cell::of(&task.input), task.created_at.0])?;
        }
        Ok(())
    }

    fn edges(&self, edges: &[Edge]) -> Result<(), Failure> {
        if edges.is_empty() {
            return Ok(());
        }
        // The same need twice in a task is one edge that counts twice: `unmet` would never be met. The stricter one stays.
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO edges (need, task, project, order_only) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (need, task) DO UPDATE SET order_only = min(order_only, excluded.order_only)",
        )?;
        for edge in edges {
            insert.execute(params![
                edge.need.as_bytes(),
                edge.task.as_bytes(),
                self.project,
                edge.order_only
            ])?;
        }
        Ok(())
    }

    fn attempts(&self, records: &[AttemptRecord]) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let mut upsert = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO attempts (task, number, project, attempt, secret_hash, instance, incarnation, assigned_at, \
             started_at, pid, pid_start, ending, ended_at, error, usage) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?;
        for AttemptRecord { task, attempt, error, usage } in records {
            upsert.execute(params![
                task.as_bytes(),
                attempt.number,
                self.project,
                attempt.id.as_bytes(),
                attempt.secret_hash.0,
                attempt.instance.as_bytes(),
                attempt.incarnation.as_bytes(),
                attempt.assigned_at.0,
                attempt.started_at.map(|at| at.0),
                attempt.process.map(|process| process.pid),
                attempt.process.map(|process| number(process.start_time)),
                attempt.end.map(encode::end_number),
                attempt.ended_at.map(|at| at.0),
                error.as_ref().map(encode::json).transpose()?,
                usage.as_ref().map(encode::json).transpose()?,
            ])?;
        }
        Ok(())
    }

    fn agents(&mut self, agents: &[Agent]) -> Result<(), Failure> {
        for agent in agents {
            let instance = agent.spec.instance;
            let same_spec =
                self.specs.get(&instance).is_some_and(|spec| Arc::ptr_eq(spec, &agent.spec));
            let sql = if same_spec {
                "UPDATE agents SET host = ?2, incarnation = ?3, slots_used = ?4, drained = ?5, lease_until = ?6, gone = ?7 \
                 WHERE instance = ?1"
            } else {
                "INSERT OR REPLACE INTO agents (instance, host, incarnation, slots_used, drained, lease_until, gone, project, spec) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            };
            let mut statement = self.conn.prepare_cached(sql)?;
            statement.raw_bind_parameter(1, instance.as_bytes())?;
            statement.raw_bind_parameter(2, agent.host.as_bytes())?;
            statement.raw_bind_parameter(3, agent.incarnation.as_bytes())?;
            statement.raw_bind_parameter(4, agent.slots_used)?;
            statement.raw_bind_parameter(5, agent.drained)?;
            statement.raw_bind_parameter(6, agent.lease_until.0)?;
            statement.raw_bind_parameter(7, agent.gone)?;
            if !same_spec {
                statement.raw_bind_parameter(8, self.project)?;
                statement.raw_bind_parameter(9, encode::json(&agent.spec)?)?;
                self.written.specs.push(agent.spec.clone());
            }
            statement.raw_execute()?;
        }
        Ok(())
    }

    fn events(&mut self, events: Vec<Event>) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO events (cursor, project, run, run_seq, task, at, kind, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for mut event in events {
            self.bodies.keep_fact(event.run, &mut event.fact);
            let (kind, data) = encode::fact(&event.fact)?;
            insert.execute(params![
                number(event.cursor),
                self.project,
                event.run.as_bytes(),
                number(event.run_seq),
                (event.task != event.run).then(|| event.task.as_bytes()),
                event.at.0,
                kind,
                data,
            ])?;
        }
        Ok(())
    }

    /// Letters that are settled by the batch that writes them never touch the table.
    fn letters(&self, letters: &[Letter], mut settled: Vec<u64>) -> Result<(), Failure> {
        settled.sort_unstable();
        settled.dedup();
        if !letters.is_empty() {
            let mut insert = self.conn.prepare_cached(
                "INSERT INTO letters (seq, project, task, attempt, host, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for letter in letters {
                if settled.binary_search(&letter.seq).is_ok() {
                    continue;
                }
                let task = letter.task.as_ref().map(TaskId::as_bytes);
                match (&letter.body, &letter.to) {
                    (LetterBody::TaskRequest(request), Address::Host(host)) => {
                        insert.execute(params![
                            number(letter.seq),
                            self.project,
                            task,
                            request.attempt.as_bytes(),
                            host.as_bytes(),
                            None::<&str>,
                        ])?
                    }
                    _ => {
                        encode::refuse_secret(&letter.body)?;
                        let body = encode::json(letter)?;
                        let none = None::<&[u8]>;
                        insert.execute(params![
                            number(letter.seq),
                            self.project,
                            task,
                            none,
                            none,
                            body
                        ])?
                    }
                };
            }
        }
        let mut rest = settled.as_slice();
        while let Some(first) = rest.first() {
            let length =
                rest.iter().zip(*first..).take_while(|(seq, expected)| **seq == *expected).count();
            let last = first + (length as u64 - 1);
            let mut delete =
                self.conn.prepare_cached("DELETE FROM letters WHERE seq BETWEEN ?1 AND ?2")?;
            delete.execute(params![number(*first), number(last)])?;
            rest = &rest[length..];
        }
        Ok(())
    }

    fn duties(&self, changes: &[DutyChange]) -> Result<(), Failure> {
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
        for ((task, kind), duty) in last {
            match duty {
                Some(duty) => {
                    let (after, parent) = encode::duty(&duty);
                    let after = after.as_ref().map(TaskId::as_bytes);
                    let mut upsert = self.conn.prepare_cached(
                        "INSERT OR REPLACE INTO duties (task, kind, project, after, parent) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?;
                    upsert.execute(params![task.as_bytes(), kind, self.project, after, parent])?;
                }
                None => {
                    let mut delete = self
                        .conn
                        .prepare_cached("DELETE FROM duties WHERE task = ?1 AND kind = ?2")?;
                    delete.execute(params![task.as_bytes(), kind])?;
                }
            }
        }
        Ok(())
    }

    fn idempotency(&self, records: &[IdempotencyRecord]) -> Result<(), Failure> {
        for IdempotencyRecord { key, task, body } in records {
            let mut insert = self.conn.prepare_cached(
                "INSERT INTO idempotency (project, key, task, body) VALUES (?1, ?2, ?3, ?4)",
            )?;
            insert.execute(params![self.project, key.as_ref(), task.as_bytes(), body.0])?;
        }
        Ok(())
    }

    fn bodies(&self) -> Result<(), Failure> {
        for (run, hash, body) in &self.bodies.refs {
            if let Some(text) = body.as_ref().and_then(Payload::text) {
                let mut insert = self.conn.prepare_cached(
                    "INSERT OR IGNORE INTO payloads (hash, body) VALUES (?1, ?2)",
                )?;
                insert.execute(params![hash.0, text])?;
            }
            let mut insert = self.conn.prepare_cached(
                "INSERT OR IGNORE INTO payload_refs (run, hash, project) VALUES (?1, ?2, ?3)",
            )?;
            insert.execute(params![run.as_bytes(), hash.0, self.project])?;
        }
        Ok(())
    }
}

/// The columns that move, as parameters 1 to 31 of the statements that write them.
struct Moving<'a> {
    task: &'a Task,
    error: Option<String>,
}

impl<'a> Moving<'a> {
    fn of(task: &'a Task) -> Result<Moving<'a>, Failure> {
        Ok(Moving { task, error: task.error.as_ref().map(encode::json).transpose()? })
    }

    fn bind(&self, to: &mut rusqlite::Statement<'_>) -> Result<(), Failure> {
        let task = self.task;
        to.raw_bind_parameter(2, encode::state_number(task.state))?;
        to.raw_bind_parameter(3, task.unmet)?;
        to.raw_bind_parameter(4, task.rank)?;
        to.raw_bind_parameter(5, task.due_at().map(|at| at.0))?;
        to.raw_bind_parameter(6, task.attempts)?;
        to.raw_bind_parameter(7, task.tried)?;
        to.raw_bind_parameter(8, task.lost)?;
        to.raw_bind_parameter(9, task.open_children)?;
        to.raw_bind_parameter(10, task.children)?;
        to.raw_bind_parameter(11, task.dependents)?;
        to.raw_bind_parameter(12, task.wait_for.map(encode::wait_number))?;
        to.raw_bind_parameter(13, Cell::of_option(task.continuation.as_ref()))?;
        to.raw_bind_parameter(14, task.prefer.as_ref().map(InstanceId::as_bytes))?;
        to.raw_bind_parameter(15, task.ready_at.map(|at| at.0))?;
        to.raw_bind_parameter(16, task.retry_at.map(|at| at.0))?;
        to.raw_bind_parameter(17, task.finished_at.map(|at| at.0))?;
        to.raw_bind_parameter(18, Cell::of_option(task.output.as_ref()))?;
        to.raw_bind_parameter(19, self.error.as_deref())?;
        to.raw_bind_parameter(20, number(task.run_events))?;
        self.bind_attempt(task.attempt.as_ref(), to)
    }

    fn bind_attempt(
        &self,
        attempt: Option<&Attempt>,
        to: &mut rusqlite::Statement<'_>,
    ) -> Result<(), Failure> {
        let holds = self.task.state.holds_slot();
        let instance = attempt.map(|attempt| attempt.instance.as_bytes());
        let process = attempt.and_then(|attempt| attempt.process);
        to.raw_bind_parameter(21, instance.filter(|_| holds))?;
        to.raw_bind_parameter(22, attempt.map(|attempt| attempt.id.as_bytes()))?;
        to.raw_bind_parameter(23, attempt.map(|attempt| attempt.number))?;
        to.raw_bind_parameter(24, attempt.map(|attempt| attempt.secret_hash.0))?;
        to.raw_bind_parameter(25, instance.filter(|_| !holds))?;
        to.raw_bind_parameter(26, attempt.map(|attempt| attempt.incarnation.as_bytes()))?;
        to.raw_bind_parameter(27, attempt.map(|attempt| attempt.assigned_at.0))?;
        to.raw_bind_parameter(28, attempt.and_then(|attempt| attempt.started_at).map(|at| at.0))?;
        to.raw_bind_parameter(29, process.map(|process| process.pid))?;
        to.raw_bind_parameter(30, process.map(|process| number(process.start_time)))?;
        let end = attempt.and_then(|attempt| attempt.end).map(encode::end_number);
        to.raw_bind_parameter(31, end)?;
        to.raw_bind_parameter(1, attempt.and_then(|attempt| attempt.ended_at).map(|at| at.0))?;
        Ok(())
    }
}
