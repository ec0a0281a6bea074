//! The store itself: what the port asks for, handed to the lanes and the readers.

use super::asked::Asked;
use super::lane::{Call, Desk, Lane};
use super::line::{Line, Target};
use super::options::Options;
use super::outside::LargeBodies;
use super::readers::Readers;
use super::signals::PostgresSignals;
use super::trouble::Trouble;
use super::{queries, schema, state};
use crate::failure::{Failure, Kind};
use parking_lot::Mutex;
use segue_core::agent::Agent;
use segue_core::command::{Command, Duty};
use segue_core::event::Event;
use segue_core::ids::{HostId, InstanceId, ProjectId, TaskId};
use segue_core::letter::Letter;
use segue_core::outage::{Outage, Words};
use segue_core::payload::{DATABASE_MAX, Hash, Payload};
use segue_core::ports::{
    Blobs, Clock, Decision, EventFilter, Fut, Pruned, Signals, Store, StoreError, TaskFilter,
};
use segue_core::state::{Lock, Policy, StateVersion};
use segue_core::task::{AttemptRecord, Task, TaskState};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

/// What the lanes, the readers and the callers share.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) project: i32,
    pub(super) key: [u8; 32],
    /// This open store: its letters are its own to publish for a while.
    pub(super) owner: Uuid,
    pub(super) patience: Duration,
    pub(super) letters_grace: Duration,
    clock: Option<Arc<dyn Clock>>,
    /// Time of the last commit of this store, in milliseconds.
    committed_at: AtomicI64,
    /// What the server's clock said, and when that was by the clock of this process that never goes back.
    heard: Mutex<(Time, Instant)>,
    trouble: Mutex<Option<Noted>>,
    outage: Outage,
}

const AWAY: Words = Words {
    begins: "the database is away; it is tried again and again",
    goes_on: "the database is still away",
    is_over: "the database is back",
};

/// What is wrong.
struct Noted {
    error: StoreError,
    /// Nothing is written any more until the store is opened again.
    fatal: bool,
}

impl Shared {
    pub(super) fn fixed_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// The time of a test.
    pub(super) fn fixed_now(&self) -> Option<Time> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    /// Now by the server's clock, as far as it is known without asking, and never behind the last commit.
    pub(super) fn now(&self) -> Time {
        let now = match &self.clock {
            Some(clock) => clock.now(),
            None => {
                let (time, since) = *self.heard.lock();
                time.plus_ms(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
            }
        };
        now.max(Time(self.committed_at.load(Ordering::Acquire)))
    }

    /// The server's clock said this just now.
    pub(super) fn heard(&self, time: Time) {
        if self.clock.is_none() {
            *self.heard.lock() = (time, Instant::now());
        }
    }

    pub(super) fn committed(&self, at: Time) {
        self.committed_at.fetch_max(at.0, Ordering::AcqRel);
    }

    /// The database does not answer. It is tried again; nobody has to do anything.
    pub(super) fn away(&self, detail: &str) {
        if let Some(words) = self.outage.failed() {
            tracing::warn!(detail, place = %self.target.place, "{words}");
        }
        let mut noted = self.trouble.lock();
        if noted.is_none() {
            let error = Failure::new(Kind::Away, detail).of(&self.target.place);
            *noted = Some(Noted { error, fatal: false });
        }
    }

    /// The database answers again.
    pub(super) fn back(&self) {
        // At the level of the first line: whoever read that one wants to read this.
        if let Some(words) = self.outage.worked() {
            tracing::warn!(place = %self.target.place, "{words}");
        }
        let mut noted = self.trouble.lock();
        if noted.as_ref().is_some_and(|noted| !noted.fatal) {
            *noted = None;
        }
    }

    /// Something went wrong: the error for the caller.
    pub(super) fn failed(&self, trouble: Trouble) -> StoreError {
        let is_told = matches!(trouble, Trouble::Dead(_));
        let failure = trouble.failure();
        let kind = failure.kind;
        let error = failure.of(&self.target.place);
        if kind == Kind::Away && !is_told {
            tracing::warn!(%error, "the database is there, and could not do that now");
        }
        if matches!(kind, Kind::Corrupt | Kind::Version) {
            tracing::error!(%error, "the store has stopped");
            *self.trouble.lock() = Some(Noted { error: error.clone(), fatal: true });
        }
        error
    }

    fn health(&self) -> Result<(), StoreError> {
        match self.trouble.lock().as_ref() {
            Some(noted) => Err(noted.error.clone()),
            None => Ok(()),
        }
    }

    /// Whether a write may be tried.
    fn writable(&self) -> Result<(), StoreError> {
        match self.trouble.lock().as_ref() {
            Some(noted) if noted.fatal => Err(StoreError::Stopped(noted.error.to_string())),
            Some(_) | None => Ok(()),
        }
    }
}

/// The state of one project in PostgreSQL. See the [module](crate::postgres).
pub struct PostgresStore {
    pub(super) shared: Arc<Shared>,
    desk: mpsc::UnboundedSender<Call>,
    pub(super) readers: Arc<Readers>,
    asked: Arc<Asked>,
    pub(super) blobs: Arc<dyn LargeBodies>,
    pub(super) project_id: ProjectId,
    /// Ends them with it.
    _lanes: watch::Sender<()>,
}

impl PostgresStore {
    /// Connects, brings the tables to this version, and starts the lanes, each on a thread of its own. They end with the store.
    ///
    /// # Errors
    /// [`StoreError::Away`] where nobody answers or takes writes, [`StoreError::Version`] where the server is too old or the tables are of a newer
    /// version, [`StoreError::Io`] for what has to be mended by hand: a URL, a password, a right.
    pub async fn connect(options: Options) -> Result<Arc<PostgresStore>, StoreError> {
        let target = Target::of(&options).map_err(|failure| failure.of(&"PostgreSQL"))?;
        let place = target.place.clone();
        let opened = Self::open(options, target).await;
        opened.map(Arc::new).map_err(|trouble| trouble.failure().of(&place))
    }

    async fn open(options: Options, target: Target) -> Result<PostgresStore, Trouble> {
        let line = target.open([], "").await?;
        schema::migrate(&line).await?;
        let project = schema::project_number(&line, &options).await?;
        let heard = queries::clock(&line, project).await?;
        let seed = match options.seed {
            Some(seed) => seed,
            None => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).map_err(|error| {
                    Trouble::data(format!("the system gives no random numbers: {error}"))
                })?;
                u64::from_le_bytes(bytes)
            }
        };
        let began = Instant::now();
        let shared = Arc::new(Shared {
            project,
            key: options.key,
            owner: Uuid::now_v7(),
            patience: options.away_patience,
            letters_grace: options.letters_grace,
            clock: options.clock.clone(),
            committed_at: AtomicI64::new(heard.committed.0),
            heard: Mutex::new((heard.now, Instant::now())),
            trouble: Mutex::new(None),
            outage: Outage::new(AWAY, move || began.elapsed()),
            target,
        });
        let (desk, calls) = mpsc::unbounded_channel();
        let calls: Desk = Arc::new(tokio::sync::Mutex::new(calls));
        let (lanes, ending) = watch::channel(());
        for at in 0..options.lanes.max(1) as u64 {
            // Seeds far apart, so that no lane makes the ids of another.
            let seed = seed.wrapping_add(at.wrapping_mul(0xd6e8_feb8_6659_fd93));
            let lane = Lane::new(shared.clone(), seed).run(calls.clone());
            on_a_thread(format!("segue-lane-{at}"), lane, ending.clone())?;
        }
        Ok(PostgresStore {
            readers: Arc::new(Readers::new(shared.clone(), options.readers)),
            asked: Arc::default(),
            shared,
            desk,
            blobs: options.blobs,
            project_id: options.project,
            _lanes: lanes,
        })
    }

    /// Hints to everybody who has this project open, over LISTEN and NOTIFY. One for a node: each has two connections of its own.
    pub fn signals(&self) -> Arc<dyn Signals> {
        Arc::new(PostgresSignals::start(&self.shared, self.project_id))
    }

    /// Round trips to the server and statements so far, readers included.
    pub fn traffic(&self) -> (u64, u64) {
        let traffic = &self.shared.target.traffic;
        (traffic.trips.load(Ordering::Relaxed), traffic.statements.load(Ordering::Relaxed))
    }

    /// Asks something of a reader; anew, where its connection is gone.
    pub(super) async fn read<T, F, R>(&self, query: F) -> Result<T, StoreError>
    where
        F: Fn(Arc<Line>) -> R,
        R: Future<Output = Result<T, Trouble>>,
    {
        self.readers.run(query).await.map_err(|trouble| self.shared.failed(trouble))
    }
}

/// Runs a lane on a thread of its own until the store ends: what comes in on its connection is taken up where it is waited for, without waking another thread.
fn on_a_thread(
    name: String,
    lane: impl Future<Output = ()> + Send + 'static,
    mut ending: watch::Receiver<()>,
) -> Result<(), Trouble> {
    let failed = |error: std::io::Error| Trouble::data(format!("{name} does not start: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let until_the_end = async move {
        tokio::select! {
            () = lane => {}
            // The sender goes with the store.
            _ = ending.changed() => {}
        }
    };
    let thread = std::thread::Builder::new().name(name.clone());
    thread.spawn(move || runtime.block_on(until_the_end)).map(drop).map_err(failed)
}

fn stopped() -> StoreError {
    StoreError::Stopped("the lanes have ended".into())
}

impl Store for PostgresStore {
    fn apply(&self, batch: Vec<Command>) -> Fut<'_, Result<Vec<Decision>, StoreError>> {
        Box::pin(async move {
            self.shared.writable()?;
            let (answer, receive) = oneshot::channel();
            self.desk.send(Call { commands: batch, answer }).map_err(|_| stopped())?;
            receive.await.map_err(|_| stopped())?
        })
    }

    fn now(&self) -> Time {
        self.shared.now()
    }

    fn task(&self, id: TaskId) -> Fut<'_, Result<Option<Arc<Task>>, StoreError>> {
        Box::pin(self.asked.task(&self.readers, id))
    }

    fn tasks_by_id(&self, ids: Vec<TaskId>) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let ids = &ids;
            self.read(|line| async move { queries::tasks_by_id(&line, project, ids).await }).await
        })
    }

    fn tasks(&self, filter: TaskFilter) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let filter = &filter;
            self.read(|line| async move { queries::tasks(&line, project, filter).await }).await
        })
    }

    fn counts(&self) -> Fut<'_, Result<BTreeMap<TaskState, u64>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let counts =
                self.read(|line| async move { queries::counts(&line, project).await }).await?;
            let counts = TaskState::ALL.into_iter().zip(counts);
            Ok(counts.filter(|(_, count)| *count > 0).collect())
        })
    }

    fn attempts(&self, task: TaskId) -> Fut<'_, Result<Vec<AttemptRecord>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { queries::attempts(&line, project, task).await }).await
        })
    }

    fn agents(&self) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { queries::agents(&line, project).await }).await
        })
    }

    fn agents_of(&self, host: HostId) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { queries::agents_of(&line, project, host).await }).await
        })
    }

    fn agents_since(&self, version: u64) -> Fut<'_, Result<(u64, Vec<Agent>), StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { queries::agents_since(&line, project, version).await })
                .await
        })
    }

    fn leases(&self) -> Fut<'_, Result<Vec<(InstanceId, Time)>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { queries::leases(&line, project).await }).await
        })
    }

    fn events(&self, filter: EventFilter) -> Fut<'_, Result<Vec<Event>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let filter = &filter;
            self.read(|line| async move { queries::events(&line, project, filter).await }).await
        })
    }

    fn unsent(&self, after: u64, limit: usize) -> Fut<'_, Result<Vec<Letter>, StoreError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let now = shared.now();
            let read =
                self.read(
                    |line| async move { queries::unsent(&line, shared, now, after, limit).await },
                );
            let (letters, stale) = read.await?;
            if !stale.is_empty() {
                // Nobody will ever settle these. Where it fails, the next look finds them again.
                let _ = self.apply(vec![Command::Settle { letters: stale }]).await;
            }
            Ok(letters)
        })
    }

    fn duties(&self, limit: usize) -> Fut<'_, Result<Vec<Duty>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { queries::duties(&line, project, limit).await }).await
        })
    }

    fn next_due(&self) -> Fut<'_, Result<Option<Time>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { queries::next_due(&line, project).await }).await
        })
    }

    fn state_get(
        &self,
        key: Arc<str>,
        version: Option<u64>,
    ) -> Fut<'_, Result<Option<StateVersion>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let key = key.as_ref();
            self.read(|line| async move { state::get(&line, project, key, version).await }).await
        })
    }

    fn state_list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let (prefix, after) = (prefix.as_ref(), after.as_deref().unwrap_or_default());
            self.read(|line| async move { state::list(&line, project, prefix, after, limit).await })
                .await
        })
    }

    fn state_history(
        &self,
        key: Arc<str>,
        before: Option<u64>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let key = key.as_ref();
            self.read(
                |line| async move { state::history(&line, project, key, before, limit).await },
            )
            .await
        })
    }

    fn state_changes(
        &self,
        prefix: Arc<str>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let prefix = prefix.as_ref();
            self.read(
                |line| async move { state::changes(&line, project, prefix, after, limit).await },
            )
            .await
        })
    }

    fn state_stamp(&self) -> Fut<'_, Result<u64, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { state::stamp(&line, project).await }).await
        })
    }

    fn state_policies(&self) -> Fut<'_, Result<BTreeMap<Arc<str>, Policy>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            self.read(|line| async move { state::policies(&line, project).await }).await
        })
    }

    fn locks(
        &self,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Lock>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let after = after.as_deref().unwrap_or_default();
            self.read(|line| async move { state::locks(&line, project, after, limit).await }).await
        })
    }

    fn lock_of(&self, name: Arc<str>) -> Fut<'_, Result<Option<Lock>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            let name = name.as_ref();
            self.read(|line| async move { state::lock(&line, project, name).await }).await
        })
    }

    fn prune(&self, before: Time) -> Fut<'_, Result<Pruned, StoreError>> {
        Box::pin(self.prune_all(before))
    }

    fn health(&self) -> Result<(), StoreError> {
        self.shared.health()
    }
}

impl Blobs for PostgresStore {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(async move {
            // A small JSON text goes with the row that refers to it. Anything else stands outside the database.
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
            self.blobs.put(bytes).await
        })
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        let project = self.shared.project;
        Box::pin(async move {
            match self.read(|line| async move { queries::body(&line, project, hash).await }).await?
            {
                Some(body) => Ok(body),
                None => self.blobs.get(hash).await,
            }
        })
    }
}
