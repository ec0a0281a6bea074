//! The one writer: gathers batches, decides, writes, commits.

use super::checkpoint::Checkpointer;
use super::error::{Failure, Kind};
use super::hot::Hot;
use super::load::{self, Loader};
use super::options::Options;
use super::store::Shared;
use super::write::{Counters, Pen, Written};
use super::{decode, schema};
use crate::rows::changes_anything;
use rusqlite::{Connection, params};
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::agent::AgentSpec;
use segue_core::command::{Assign, Command, Reply};
use segue_core::decide::{Chance, Ctx, decide};
use segue_core::failpoint;
use segue_core::fleet::Fleet;
use segue_core::ids::{InstanceId, TaskId};
use segue_core::ports::{Decision, Effects, StoreError};
use segue_core::snapshot::Snapshot;
use segue_core::task::{Route, TaskState};
use std::sync::Arc;

/// Tasks kept in memory between batches: about 1 KiB each.
const HOT_MAX: usize = 16_384;

/// Owns the writing connection and what is known without asking it.
pub(super) struct Writer {
    pub(super) conn: Connection,
    checkpointer: Checkpointer,
    pub(super) project: i64,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Counters,
    pub(super) hot: Hot,
    ctx: Ctx,
    agents: Fleet,
    specs: FxHashMap<InstanceId, Arc<AgentSpec>>,
    ready_routes: FxHashSet<Route>,
    last_id: TaskId,
    /// Changes when another connection has written: somebody with a shell, since the lock keeps other stores out.
    data_version: i64,
}

/// The decisions of one batch, in the order of its commands.
type Answer = Result<Vec<Decision>, StoreError>;

impl Writer {
    pub(super) fn new(
        mut conn: Connection,
        project: i64,
        shared: Arc<Shared>,
        options: &Options,
    ) -> Result<Writer, Failure> {
        let seed = match options.seed {
            Some(seed) => seed,
            None => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).map_err(|error| {
                    Failure::new(Kind::Io, format!("the system gives no random numbers: {error}"))
                })?;
                u64::from_le_bytes(bytes)
            }
        };
        let ctx = Ctx { now: shared.now(), chance: Chance::new(seed), key: options.key };
        let checkpointer = Checkpointer::start(&mut conn, options, &shared)?;
        let mut writer = Writer {
            conn,
            checkpointer,
            project,
            shared,
            counters: Counters::default(),
            hot: Hot::new(HOT_MAX),
            ctx,
            agents: Fleet::new(),
            specs: FxHashMap::default(),
            ready_routes: FxHashSet::default(),
            last_id: TaskId::from_bytes([0; 16]),
            data_version: 0,
        };
        writer.forget_stale_letters()?;
        writer.reload()?;
        Ok(writer)
    }

    /// Letters that give out an attempt which has ended meanwhile: nobody would accept what comes of them.
    fn forget_stale_letters(&self) -> Result<(), Failure> {
        self.conn.execute(
            "DELETE FROM letters WHERE attempt IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM tasks WHERE tasks.project = letters.project AND tasks.id = letters.task
                AND tasks.attempt = letters.attempt AND tasks.ending IS NULL)",
            [],
        )?;
        Ok(())
    }

    /// Reads all that is kept in memory, as the last commit left it.
    pub(super) fn reload(&mut self) -> Result<(), Failure> {
        self.hot.clear();
        self.counters = counters(&self.conn, self.project)?;
        self.agents = load::agents(&self.conn, self.project, None)?.into_iter().collect();
        self.specs =
            self.agents.iter().map(|(instance, agent)| (*instance, agent.spec.clone())).collect();
        self.ready_routes = load::ready_routes(&self.conn, self.project)?;
        let last: Option<TaskId> = self
            .conn
            .prepare_cached("SELECT id FROM tasks WHERE project = ?1 ORDER BY id DESC LIMIT 1")?
            .query_and_then(params![self.project], |row| decode::task_id(row, 0))?
            .next()
            .transpose()?;
        self.last_id = last.unwrap_or(TaskId::from_bytes([0; 16]));
        self.data_version = self.read_data_version()?;
        self.shared.committed(&self.counters);
        Ok(())
    }

    fn read_data_version(&self) -> Result<i64, Failure> {
        let mut statement = self.conn.prepare_cached("PRAGMA data_version")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// Commits what several callers want in one transaction, and answers each of them.
    pub(super) fn commit(&mut self, calls: &[Vec<Command>]) -> Vec<Answer> {
        if let Err(error) = self.shared.writable() {
            return calls.iter().map(|_| Err(error.clone())).collect();
        }
        match self.attempt(calls) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            // The data of one caller must not be the others' misfortune.
            Err(failure) if calls.len() > 1 && failure.kind == Kind::Data => {
                calls.iter().map(|call| self.alone(call)).collect()
            }
            Err(failure) => {
                let error = self.shared.failed(failure);
                calls.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn alone(&mut self, call: &Vec<Command>) -> Answer {
        self.shared.writable()?;
        let mut answers = self
            .attempt(std::slice::from_ref(call))
            .map_err(|failure| self.shared.failed(failure))?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// One transaction: all of it or nothing.
    fn attempt(&mut self, calls: &[Vec<Command>]) -> Result<Vec<Vec<Decision>>, Failure> {
        self.transact(calls).map_err(|failure| self.roll_back(failure))
    }

    /// Takes everything back to the last commit; returns what the caller has to know.
    pub(super) fn roll_back(&mut self, failure: Failure) -> Failure {
        let failure = self.shared.look_closer(failure);
        let rolled_back = if self.conn.is_autocommit() {
            Ok(())
        } else {
            self.conn.execute_batch("ROLLBACK").map_err(Failure::from)
        };
        if failure.kind.is_fatal() {
            // The connection is not used any more.
            return failure;
        }
        match rolled_back.and_then(|()| self.reload()) {
            Ok(()) => failure,
            // What is known no longer fits the file: only opening it again helps.
            Err(second) => {
                let detail = format!("{}; and then: {}", failure.detail, second.detail);
                Failure::new(Kind::Io, detail)
            }
        }
    }

    /// Begins a transaction, and looks whether the file is as it was left.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        if self.read_data_version()? != self.data_version {
            tracing::warn!("somebody else wrote to the database: reading it anew");
            self.reload()?;
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
        failpoint::pass("before-commit");
        self.conn.prepare_cached("COMMIT")?.execute([]).map_err(|error| {
            let mut failure = Failure::from(error);
            if failure.kind == Kind::Io {
                failure.detail.push_str(
                    ". Whether the last batch was kept shows when the store is opened again",
                );
            }
            failure
        })?;
        failpoint::pass("after-commit");
        // The batch is kept, whatever becomes of the checkpoint.
        if let Err(failure) = self.checkpointer.after_commit(&self.conn) {
            self.shared.failed(failure);
        }
        Ok(())
    }

    fn transact(&mut self, calls: &[Vec<Command>]) -> Result<Vec<Vec<Decision>>, Failure> {
        self.begin()?;
        let mut counters = self.counters.clone();
        self.ctx.now = self.shared.now().max(counters.committed_at);
        let agents = std::mem::take(&mut self.agents);
        let mut batch = Batch {
            snapshot: Snapshot::new(agents, counters.project_events),
            loader: Loader {
                conn: &self.conn,
                project: self.project,
                hot: &mut self.hot,
                ready_routes: &mut self.ready_routes,
                last_id: self.last_id,
                origin: FxHashMap::default(),
            },
            ctx: &mut self.ctx,
            counters: &mut counters,
            changed: false,
            exhausted: Vec::new(),
        };
        let answers = batch.decide_all(calls)?;
        let (mut snapshot, changed) = (batch.snapshot, batch.changed);
        let origin = batch.loader.origin;
        let mut written = Written::default();
        if changed {
            counters.committed_at = self.ctx.now;
            written = Pen {
                conn: &self.conn,
                project: self.project,
                origin: &origin,
                specs: &self.specs,
                counters: &mut counters,
                written: Written::default(),
                bodies: Default::default(),
            }
            .write(snapshot.take_writes())?;
        }
        self.end()?;
        (self.agents, _) = snapshot.into_agents();
        self.remember(counters, written);
        Ok(answers)
    }

    /// What was committed is now what is known.
    fn remember(&mut self, counters: Counters, written: Written) {
        for stored in written.tasks {
            self.hot.keep(stored);
        }
        for spec in written.specs {
            self.specs.insert(spec.instance, spec);
        }
        self.ready_routes.extend(written.ready);
        self.last_id = self.last_id.max(written.last_id.unwrap_or(self.last_id));
        self.counters = counters;
        self.shared.committed(&self.counters);
    }
}

/// A batch while it is decided.
struct Batch<'a> {
    snapshot: Snapshot,
    loader: Loader<'a>,
    ctx: &'a mut Ctx,
    counters: &'a mut Counters,
    /// Whether any command was accepted that changes something.
    changed: bool,
    /// Assignments that left nothing for another one with the same candidates.
    exhausted: Vec<Assign>,
}

impl Batch<'_> {
    /// Decides in order; every `Assign` of every caller comes last, so that it sees what the batch made ready.
    fn decide_all(&mut self, calls: &[Vec<Command>]) -> Result<Vec<Vec<Decision>>, Failure> {
        let mut answers: Vec<Vec<Option<Decision>>> =
            calls.iter().map(|call| call.iter().map(|_| None).collect()).collect();
        for last in [false, true] {
            for (call, answers) in calls.iter().zip(&mut answers) {
                for (command, answer) in call.iter().zip(answers) {
                    match command {
                        Command::Assign(assign) if last => {
                            *answer = Some(self.assign(command, assign)?)
                        }
                        Command::Assign(_) => {}
                        _ if last => {}
                        _ => {
                            self.loader.load(&mut self.snapshot, command, self.ctx.now)?;
                            *answer = Some(self.decide(command));
                        }
                    }
                }
            }
        }
        Ok(answers.into_iter().map(|call| call.into_iter().flatten().collect()).collect())
    }

    fn decide(&mut self, command: &Command) -> Decision {
        let mut changes = decide(&self.snapshot, command, self.ctx)?;
        for event in &mut changes.events {
            event.cursor = self.counters.next_cursor;
            self.counters.next_cursor += 1;
        }
        for letter in &mut changes.letters {
            letter.seq = self.counters.next_letter;
            self.counters.next_letter += 1;
        }
        let effects = Effects::of(&changes);
        self.changed |= changes_anything(&changes);
        self.snapshot.absorb(changes);
        Ok(effects)
    }

    fn assign(&mut self, command: &Command, assign: &Assign) -> Result<Decision, Failure> {
        if self.finds_nothing(assign) {
            return Ok(Ok(Effects {
                reply: Reply::Assigned(0),
                letters: Vec::new(),
                duties: Vec::new(),
                next_due: None,
                may_assign: false,
                look_again: false,
                ended: Vec::new(),
                attempts: Vec::new(),
                state_changed: false,
            }));
        }
        self.loader.heads(&mut self.snapshot, assign)?;
        self.loader.load(&mut self.snapshot, command, self.ctx.now)?;
        let decision = self.decide(command);
        if let Ok(Effects { reply: Reply::Assigned(count), .. }) = &decision
            && *count < assign.limit
        {
            self.exhausted.push(assign.clone());
        }
        Ok(decision)
    }

    /// Whether it is plain without a look that this assignment finds nothing.
    fn finds_nothing(&self, assign: &Assign) -> bool {
        let repeated = |done: &Assign| {
            Arc::ptr_eq(&done.candidates, &assign.candidates)
                || done.candidates == assign.candidates
        };
        self.exhausted.iter().any(repeated)
            || (self.loader.ready_routes.is_empty()
                && !self.snapshot.tasks().any(|task| task.state == TaskState::Ready))
    }
}

/// The row of the project.
pub(super) fn counters(conn: &Connection, project: i64) -> Result<Counters, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT committed_at, next_cursor, next_letter, next_task, project_events, states FROM counters WHERE project = ?1",
    )?;
    let mut rows = statement.query(params![project])?;
    let row = rows.next()?.ok_or_else(|| Failure::corrupt("the counters are missing"))?;
    Ok(Counters {
        committed_at: segue_core::time::Time(row.get(0)?),
        next_cursor: decode::unsigned(row, 1)?,
        next_letter: decode::unsigned(row, 2)?,
        next_task: row.get(3)?,
        project_events: decode::unsigned(row, 4)?,
        states: serde_json::from_str(decode::text(row, 5)?)
            .map_err(|error| Failure::corrupt(format!("the counters of states: {error}")))?,
    })
}

/// Opens the database for the writer.
pub(super) fn open(options: &Options, shared: Arc<Shared>) -> Result<Writer, Failure> {
    let (conn, project) = schema::open_writer(&shared.path, options)?;
    Writer::new(conn, project, shared, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::weight;
    use segue_core::command::{NewTask, Submit};
    use segue_core::ids::ProjectId;
    use segue_core::payload::Payload;
    use segue_core::task::TaskSpec;
    use uuid::Uuid;

    fn writer(dir: &std::path::Path) -> Writer {
        let options = Options::new(dir, ProjectId(Uuid::from_u128(1)), [1; 32]);
        let path = dir.join(schema::FILE);
        let shared = Arc::new(Shared::new(path, options.clock.clone()));
        open(&options, shared).expect("opens")
    }

    fn submit(name: &str) -> (TaskId, Vec<Command>) {
        let id = TaskId(Uuid::now_v7());
        let spec = TaskSpec::new(id, name, Route::agent("a"));
        let new = NewTask { spec, input: Payload::null() };
        (id, vec![Command::Submit(Submit { tasks: vec![new] })])
    }

    fn tasks(writer: &Writer) -> i64 {
        let sql = "SELECT count(*) FROM tasks";
        writer.conn.query_row(sql, [], |row| row.get(0)).expect("reads")
    }

    #[test]
    fn the_data_of_one_caller_is_not_the_misfortune_of_the_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut writer = writer(dir.path());
        writer
            .conn
            .execute_batch(
                "CREATE TEMP TRIGGER poison BEFORE INSERT ON tasks WHEN NEW.name = 'poison'
                 BEGIN SELECT raise(ABORT, 'poisoned'); END",
            )
            .expect("creates");
        let (_, one) = submit("good");
        let (_, two) = submit("poison");
        let (last, three) = submit("good");
        let answers = writer.commit(&[one, two, three]);
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        let error = answers[1].as_ref().expect_err("refused");
        assert!(matches!(error, StoreError::Io(text) if text.contains("poisoned")), "{error}");
        assert_eq!(tasks(&writer), 2);
        assert_eq!(writer.shared.writable(), Ok(()));
        assert_eq!(writer.counters.states.iter().sum::<u64>(), 2);
        assert_eq!(writer.last_id, last);
        // Numbers of the batch that was taken back are free again: nobody has seen them.
        assert_eq!(writer.counters.next_cursor, 3);
    }

    #[test]
    fn a_full_file_takes_nothing_of_a_batch_and_room_helps() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut writer = writer(dir.path());
        let pages: i64 =
            writer.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("reads");
        writer.conn.pragma_update(None, "max_page_count", pages + 20).expect("sets");
        let mut kept = 0;
        let error = loop {
            let batch = (0..20).flat_map(|_| submit("t").1).collect();
            match writer.commit(&[batch]).remove(0) {
                Ok(decisions) => kept += decisions.len(),
                Err(error) => break error,
            }
            assert!(kept < 10_000, "it is small");
        };
        assert!(matches!(error, StoreError::Full(_)), "{error}");
        assert_eq!(tasks(&writer) as usize, kept);
        assert_eq!(writer.counters.states.iter().sum::<u64>() as usize, kept);
        writer.conn.pragma_update(None, "max_page_count", 1_000_000).expect("sets");
        assert!(writer.commit(&[submit("t").1])[0].is_ok());
        assert_eq!(tasks(&writer) as usize, kept + 1);
    }

    #[test]
    fn the_log_begins_anew_before_it_is_long() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = Options {
            sync: super::super::options::Sync::Off,
            threads: super::super::options::Threads::Callers,
            ..Options::new(dir.path(), ProjectId(Uuid::from_u128(1)), [1; 32])
        };
        let path = dir.path().join(schema::FILE);
        let shared = Arc::new(Shared::new(path.clone(), options.clock.clone()));
        let mut writer = open(&options, shared).expect("opens");
        for _ in 0..60 {
            let batch = (0..100).flat_map(|_| submit("t").1).collect();
            assert!(writer.commit(&[batch])[0].is_ok());
        }
        let log = std::fs::metadata(path.with_extension("db-wal")).expect("is there").len();
        let database = std::fs::metadata(&path).expect("is there").len();
        assert!(log < 1_200 * 4_096, "{log} bytes of log");
        assert!(database > 200 * 4_096, "{database} bytes were moved");
    }

    #[test]
    fn a_batch_weighs_as_many_tasks_as_it_submits() {
        let (_, mut batch) = submit("one");
        batch.push(Command::Settle { letters: vec![1, 2, 3] });
        assert_eq!(weight(&batch), 2);
        assert_eq!(weight(&[]), 1);
    }
}
