//! The store itself: what the port asks for, handed to the writer and the readers.

use super::blobs::{self, DirBlobs};
use super::copies::Copies;
use super::encode::state_number;
use super::error::{Failure, Kind};
use super::options::{Options, Threads};
use super::pool::Pool;
use super::prune::{self, Step};
use super::schema;
use super::write::Counters;
use super::writer::{self, Writer};
use super::{decode, load, queries, state};
use crate::rows::{WEIGHT_MAX, weight};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use segue_core::agent::Agent;
use segue_core::command::{Command, Duty};
use segue_core::event::Event;
use segue_core::ids::{HostId, ProjectId, TaskId};
use segue_core::letter::Letter;
use segue_core::payload::{DATABASE_MAX, Hash, Payload};
use segue_core::ports::{
    Blobs, Clock, Decision, EventFilter, Fut, Pruned, Store, StoreError, TaskFilter,
};
use segue_core::state::{Lock, Policy, StateVersion};
use segue_core::task::{AttemptRecord, Task, TaskState};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// What the writer, the readers and the callers share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    clock: Arc<dyn Clock>,
    /// Time of the last commit, in milliseconds.
    committed_at: AtomicI64,
    /// Tasks in each state after the last commit.
    states: Mutex<[u64; 9]>,
    /// Whether `trouble` holds anything, so that a commit need not lock it.
    troubled: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
}

/// What went wrong last.
struct Trouble {
    error: StoreError,
    /// Nothing is written any more until the store is opened again.
    fatal: bool,
}

impl Shared {
    pub(super) fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Shared {
        Shared {
            path,
            clock,
            committed_at: AtomicI64::new(i64::MIN),
            states: Mutex::new([0; 9]),
            troubled: AtomicBool::new(false),
            trouble: Mutex::new(None),
        }
    }

    /// Now, and never behind the last commit.
    pub(super) fn now(&self) -> Time {
        self.clock.now().max(Time(self.committed_at.load(Ordering::Acquire)))
    }

    /// A commit went well.
    pub(super) fn committed(&self, counters: &Counters) {
        self.committed_at.store(counters.committed_at.0, Ordering::Release);
        *self.states.lock() = counters.states;
        if self.troubled.load(Ordering::Acquire) {
            let mut trouble = self.trouble.lock();
            if trouble.as_ref().is_some_and(|trouble| !trouble.fatal) {
                *trouble = None;
                self.troubled.store(false, Ordering::Release);
            }
        }
    }

    /// A commit went wrong: the error for the caller.
    pub(super) fn failed(&self, failure: Failure) -> StoreError {
        let (kind, error) = (failure.kind, failure.at(&self.path));
        match kind {
            Kind::Data | Kind::NotEmpty | Kind::Away => {}
            Kind::Full | Kind::Locked => self.trouble(&error, false),
            Kind::Corrupt | Kind::ReadOnly | Kind::Io | Kind::Version => self.trouble(&error, true),
        }
        error
    }

    /// SQLite knows one reason for a full disk; quotas and remote file systems have others, which a small file shows.
    pub(super) fn look_closer(&self, failure: Failure) -> Failure {
        if failure.kind != Kind::Io {
            return failure;
        }
        let probe = self.path.with_extension("db-probe");
        let written = fs::write(&probe, [0; 64 * 1024]).map_err(Failure::from);
        let _ = fs::remove_file(&probe);
        match written {
            Err(second) if second.kind == Kind::Full => {
                Failure::new(Kind::Full, format!("{} ({})", second.detail, failure.detail))
            }
            Ok(()) | Err(_) => failure,
        }
    }

    fn trouble(&self, error: &StoreError, fatal: bool) {
        tracing::error!(%error, fatal, "the store has trouble");
        let mut trouble = self.trouble.lock();
        if trouble.as_ref().is_none_or(|earlier| !earlier.fatal) {
            *trouble = Some(Trouble { error: error.clone(), fatal });
            self.troubled.store(true, Ordering::Release);
        }
    }

    /// A query went wrong: a damaged file takes no more writes, either.
    pub(super) fn read_failed(&self, failure: Failure) -> StoreError {
        match failure.kind {
            Kind::Corrupt => self.failed(failure),
            _ => failure.at(&self.path),
        }
    }

    fn health(&self) -> Result<(), StoreError> {
        match self.trouble.lock().as_ref() {
            Some(trouble) => Err(trouble.error.clone()),
            None => Ok(()),
        }
    }

    /// Whether a write may be tried.
    pub(super) fn writable(&self) -> Result<(), StoreError> {
        if !self.troubled.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.trouble.lock().as_ref() {
            Some(trouble) if trouble.fatal => Err(StoreError::Stopped(trouble.error.to_string())),
            Some(_) | None => Ok(()),
        }
    }
}

/// What the writer's thread is asked.
enum Message {
    Apply { commands: Vec<Command>, answer: oneshot::Sender<Result<Vec<Decision>, StoreError>> },
    Prune { before: Time, after: i64, answer: oneshot::Sender<Result<Step, StoreError>> },
    Stop,
}

/// Where the writer is.
enum Desk {
    Thread { send: Sender<Message>, thread: Option<JoinHandle<()>> },
    Callers(Box<Mutex<Writer>>),
}

/// The state of one project in SQLite. See the [module](crate::sqlite).
pub struct SqliteStore {
    // Dropped in this order: the connections before the lock.
    desk: Desk,
    readers: Pool<Connection>,
    files: Pool<()>,
    pub(super) blobs: Arc<DirBlobs>,
    pub(super) shared: Arc<Shared>,
    pub(super) copies: Copies,
    pub(super) project_id: ProjectId,
    project: i64,
    key: [u8; 32],
    _lock: File,
}

impl SqliteStore {
    /// Opens the store in `options.dir`; makes what is missing, and brings older tables to this version.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where a process has it open already, [`StoreError::ReadOnly`], [`StoreError::Full`] and [`StoreError::Corrupt`]
    /// as they say, [`StoreError::Version`] where the file is of a newer version, another project or another program.
    pub fn open(options: Options) -> Result<Arc<SqliteStore>, StoreError> {
        let path = options.dir.join(schema::FILE);
        Self::open_at(&path, options).map(Arc::new).map_err(|failure| failure.at(&path))
    }

    fn open_at(path: &Path, options: Options) -> Result<SqliteStore, Failure> {
        fs::create_dir_all(&options.dir)?;
        let lock = lock(&options.dir)?;
        let shared = Arc::new(Shared::new(path.to_owned(), options.clock.clone()));
        let writer = writer::open(&options, shared.clone())?;
        let project = writer.project;
        let blobs = DirBlobs::open(options.dir.join(blobs::FOLDER), options.sync)?;
        let (desk, readers, files) = match options.threads {
            Threads::Callers => (
                Desk::Callers(Box::new(Mutex::new(writer))),
                Pool::Callers(Mutex::new(schema::open_reader(path)?)),
                Pool::Callers(Mutex::new(())),
            ),
            Threads::Own { readers } => {
                let connections = (0..readers.max(1)).map(|_| schema::open_reader(path));
                let connections = connections.collect::<Result<_, _>>()?;
                (
                    desk(writer)?,
                    Pool::threads("segue-read", connections)?,
                    Pool::threads("segue-files", vec![()])?,
                )
            }
        };
        let blobs = Arc::new(blobs);
        Ok(SqliteStore {
            desk,
            readers,
            files,
            blobs,
            shared,
            copies: Copies::default(),
            project_id: options.project,
            project,
            key: options.key,
            _lock: lock,
        })
    }

    /// Whether it works on threads of its own.
    pub(super) fn has_threads(&self) -> bool {
        matches!(self.desk, Desk::Thread { .. })
    }

    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        self.readers.run(query).await.map_err(|failure| self.shared.read_failed(failure))
    }

    async fn prune_step(&self, before: Time, after: i64) -> Result<Step, StoreError> {
        match &self.desk {
            Desk::Callers(writer) => writer.lock().prune(before, after),
            Desk::Thread { send, .. } => {
                let (answer, receive) = oneshot::channel();
                send.send(Message::Prune { before, after, answer }).map_err(|_| stopped())?;
                receive.await.map_err(|_| stopped())?
            }
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Stopped("the writer has ended".into())
}

/// Takes the lock that keeps a second store out. The system gives it back when the process ends, however that happens.
pub(super) fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(schema::LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Kind::Locked,
            format!("another process has the store open ({} is locked)", path.display()),
        )),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Starts the writer's thread.
fn desk(writer: Writer) -> Result<Desk, Failure> {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("segue-write".into())
        .spawn(move || work(writer, &receive))?;
    Ok(Desk::Thread { send, thread: Some(thread) })
}

/// Says that the writer has ended, should it end by a defect.
struct Sentinel(Arc<Shared>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.trouble(&StoreError::Stopped("the writer ended by a defect".into()), true);
        }
    }
}

/// The writer's thread: whatever came while a transaction was written goes into the next one together.
fn work(mut writer: Writer, messages: &Receiver<Message>) {
    let _sentinel = Sentinel(writer.shared.clone());
    let mut next = messages.recv().ok();
    while let Some(message) = next.take() {
        match message {
            Message::Stop => return,
            Message::Prune { before, after, answer } => {
                let _ = answer.send(writer.prune(before, after));
            }
            Message::Apply { commands, answer } => {
                let mut total = weight(&commands);
                let (mut calls, mut answers) = (vec![commands], vec![answer]);
                while total < WEIGHT_MAX {
                    match messages.try_recv() {
                        Ok(Message::Apply { commands, answer }) => {
                            total += weight(&commands);
                            calls.push(commands);
                            answers.push(answer);
                        }
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                for (result, answer) in writer.commit(&calls).into_iter().zip(answers) {
                    // Whoever asked may not wait any more; what was committed stays.
                    let _ = answer.send(result);
                }
            }
        }
        if next.is_none() {
            next = messages.recv().ok();
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Of two connections that close at once each takes the other for somebody who goes on, and neither moves the log into the
        // database: so readers end first, and the writer closes alone.
        self.readers.end();
        if let Desk::Thread { send, thread } = &mut self.desk {
            let _ = send.send(Message::Stop);
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Store for SqliteStore {
    fn apply(&self, batch: Vec<Command>) -> Fut<'_, Result<Vec<Decision>, StoreError>> {
        Box::pin(async move {
            match &self.desk {
                Desk::Callers(writer) => {
                    let answers = writer.lock().commit(&[batch]);
                    answers.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))
                }
                Desk::Thread { send, .. } => {
                    let (answer, receive) = oneshot::channel();
                    send.send(Message::Apply { commands: batch, answer }).map_err(|_| stopped())?;
                    receive.await.map_err(|_| stopped())?
                }
            }
        })
    }

    fn now(&self) -> Time {
        self.shared.now()
    }

    fn task(&self, id: TaskId) -> Fut<'_, Result<Option<Arc<Task>>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| queries::task(conn, project, id)))
    }

    fn tasks_by_id(&self, ids: Vec<TaskId>) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| queries::tasks_by_id(conn, project, &ids)))
    }

    fn tasks(&self, filter: TaskFilter) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        let (project, counts) = (self.project, *self.shared.states.lock());
        Box::pin(self.read(move |conn| queries::tasks(conn, project, &filter, &counts)))
    }

    fn counts(&self) -> Fut<'_, Result<BTreeMap<TaskState, u64>, StoreError>> {
        // They are counted with every commit, so that nobody has to look at a million rows.
        let states = *self.shared.states.lock();
        let count = |state: TaskState| states[state_number(state) as usize];
        let counts = TaskState::ALL
            .into_iter()
            .map(|state| (state, count(state)))
            .filter(|(_, count)| *count > 0)
            .collect();
        Box::pin(std::future::ready(Ok(counts)))
    }

    fn attempts(&self, task: TaskId) -> Fut<'_, Result<Vec<AttemptRecord>, StoreError>> {
        Box::pin(self.read(move |conn| queries::attempts(conn, task)))
    }

    fn agents(&self) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| load::agents(conn, project, None)))
    }

    fn agents_of(&self, host: HostId) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| load::agents(conn, project, Some(host))))
    }

    fn events(&self, filter: EventFilter) -> Fut<'_, Result<Vec<Event>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| queries::events(conn, project, &filter)))
    }

    fn unsent(&self, after: u64, limit: usize) -> Fut<'_, Result<Vec<Letter>, StoreError>> {
        let (project, key) = (self.project, self.key);
        Box::pin(async move {
            let read = self.read(move |conn| queries::unsent(conn, project, &key, after, limit));
            let (letters, stale) = read.await?;
            if !stale.is_empty() {
                // Nobody will ever settle these. Where it fails, the next look finds them again.
                let _ = self.apply(vec![Command::Settle { letters: stale }]).await;
            }
            Ok(letters)
        })
    }

    fn duties(&self, limit: usize) -> Fut<'_, Result<Vec<Duty>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| queries::duties(conn, project, limit)))
    }

    fn next_due(&self) -> Fut<'_, Result<Option<Time>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| queries::next_due(conn, project)))
    }

    fn state_get(
        &self,
        key: Arc<str>,
        version: Option<u64>,
    ) -> Fut<'_, Result<Option<StateVersion>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| state::get(conn, project, &key, version)))
    }

    fn state_list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| {
            state::list(conn, project, &prefix, after.as_deref().unwrap_or_default(), limit)
        }))
    }

    fn state_history(
        &self,
        key: Arc<str>,
        before: Option<u64>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| state::history(conn, project, &key, before, limit)))
    }

    fn state_changes(
        &self,
        prefix: Arc<str>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| state::changes(conn, project, &prefix, after, limit)))
    }

    fn state_stamp(&self) -> Fut<'_, Result<u64, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| state::stamp(conn, project)))
    }

    fn state_policies(&self) -> Fut<'_, Result<BTreeMap<Arc<str>, Policy>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| state::policies(conn, project)))
    }

    fn locks(
        &self,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Lock>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| {
            state::locks(conn, project, after.as_deref().unwrap_or_default(), limit)
        }))
    }

    fn lock_of(&self, name: Arc<str>) -> Fut<'_, Result<Option<Lock>, StoreError>> {
        let project = self.project;
        Box::pin(self.read(move |conn| state::lock(conn, project, &name)))
    }

    fn prune(&self, before: Time) -> Fut<'_, Result<Pruned, StoreError>> {
        Box::pin(async move {
            let mut total = Pruned::default();
            let mut next = Some(prune::BEGINNING);
            while let Some(after) = next {
                let step = self.prune_step(before, after).await?;
                crate::rows::add(&mut total, step.pruned);
                next = step.next;
                let (blobs, copies) = (self.blobs.clone(), self.copies.clone());
                let gone = self
                    .files
                    .run(move |()| prune::remove_files(&blobs, &copies, &step.unreferred))
                    .await
                    .map_err(|failure| self.shared.read_failed(failure))?;
                crate::rows::add(&mut total, gone);
            }
            let (blobs, copies) = (self.blobs.clone(), self.copies.clone());
            let swept = self.read(move |conn| prune::sweep(conn, &blobs, &copies)).await?;
            crate::rows::add(&mut total, swept);
            Ok(total)
        })
    }

    fn health(&self) -> Result<(), StoreError> {
        self.shared.health()
    }
}

impl Blobs for SqliteStore {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(async move {
            // A small JSON text goes with the row that refers to it. Anything else is a file.
            let bytes = if bytes.len() <= DATABASE_MAX {
                match String::from_utf8(bytes) {
                    Ok(text) => match Payload::of_text(text.as_str()) {
                        Ok(payload) => return Ok(payload),
                        Err(_) => text.into_bytes(),
                    },
                    Err(error) => error.into_bytes(),
                }
            } else {
                bytes
            };
            let blobs = self.blobs.clone();
            let size = bytes.len() as u64;
            let hash = self.files.run(move |()| blobs.keep(&bytes)).await;
            let hash = hash.map_err(|failure| failure.at(&self.shared.path))?;
            Ok(Payload::Stored { hash, size })
        })
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(async move {
            if let Some(body) = self.read(move |conn| body(conn, hash)).await? {
                return Ok(body);
            }
            let blobs = self.blobs.clone();
            let found = self.files.run(move |()| blobs.read(hash)).await;
            let found = found.map_err(|failure| failure.at(&self.shared.path))?;
            found.ok_or_else(|| StoreError::MissingPayload(hash.hex()))
        })
    }
}

/// A body in the table `payloads`, checked against its hash.
fn body(conn: &Connection, hash: Hash) -> Result<Option<Vec<u8>>, Failure> {
    let mut statement = conn.prepare_cached("SELECT body FROM payloads WHERE hash = ?1")?;
    let mut rows = statement.query(params![hash.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let body = decode::text(row, 0)?.as_bytes().to_vec();
    if Hash::of(&body) != hash {
        return Err(Failure::corrupt(format!("payload {} is not what its hash says", hash.hex())));
    }
    Ok(Some(body))
}
