//! The engine: what it holds, how it starts and stops, and the one way in which it applies commands.

use crate::complain::complain;
use crate::directory::Directory;
use crate::dispatch::Outbox;
use crate::roster::Roster;
use crate::wait::Waiters;
use crate::workers::Desk;
use crate::{dead_letters, dispatch, duties, intake, presence, timers, wait};
use futures_util::FutureExt;
use parking_lot::Mutex;
use segue_core::agent::AgentSpec;
use segue_core::command::{Assign, Command, Duty, Reject, Reply};
use segue_core::ids::{HostId, TaskId};
use segue_core::ports::{
    Blobs, BusError, Decision, Effects, NodeBeat, Passing, Presence, Signals, Store, StoreError,
    Topic, WorkBus,
};
use segue_core::task::Task;
use segue_core::time::Time;
use segue_core::worker::TokenMaker;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

/// Tasks that one batch assigns at most.
pub const ASSIGN_MAX: usize = 1_024;

/// An engine that is told to stop has done so after this long, whatever is away.
pub const STOP_MAX: Duration = Duration::from_secs(5);

/// What an engine stands on.
#[derive(Clone)]
pub struct Parts {
    /// Keeps the state.
    pub store: Arc<dyn Store>,
    /// Keeps large payloads.
    pub blobs: Arc<dyn Blobs>,
    /// Carries letters.
    pub bus: Arc<dyn WorkBus>,
    /// Carries hints.
    pub signals: Arc<dyn Signals>,
    /// Knows who is there, also elsewhere.
    pub presence: Arc<dyn Presence>,
}

/// How an engine behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long the engine goes without looking at the tables when nobody hints, in milliseconds.
    pub beat_ms: u64,
    /// How long the lease of a host's instances lasts, in milliseconds. Renewed three times as often.
    pub lease_ms: u64,
    /// Bytes of each child's output that a resumed task gets at most.
    pub child_output_max: usize,
    /// Whether other engines work on the same tables.
    pub has_peers: bool,
    /// By what workers are known; without it, none are taken.
    pub workers: Option<TokenMaker>,
    /// What this node says of itself to the others; its load and whether it drains are filled in at each beat. Where there is nothing, it is not
    /// listed.
    pub node: Option<NodeBeat>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            beat_ms: 2_000,
            lease_ms: 30_000,
            child_output_max: 1024 * 1024,
            has_peers: false,
            workers: None,
            node: None,
        }
    }
}

/// Why the engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus cannot.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The command was refused.
    #[error(transparent)]
    Rejected(#[from] Reject),
}

/// Commands that wait for a batch which carries them.
#[derive(Default)]
struct Riders {
    commands: Vec<Command>,
    since: Option<Instant>,
}

/// A running engine. Cheap to share; ends with [`Engine::stop`].
pub struct Engine {
    me: Weak<Engine>,
    id: HostId,
    pub(crate) parts: Parts,
    pub(crate) config: Config,
    /// Soft state of the agents.
    pub directory: Directory,
    pub(crate) roster: Roster,
    pub(crate) outbox: Outbox,
    pub(crate) duties: mpsc::UnboundedSender<Duty>,
    /// What the hosts of this process said last that they have.
    pub(crate) hosted: tokio::sync::Mutex<BTreeMap<HostId, Vec<AgentSpec>>>,
    /// What rides in the next batch and gates nothing.
    riders: Mutex<Riders>,
    riders_came: Notify,
    pub(crate) desk: Desk,
    /// The hosts of this process that somebody drained.
    pub(crate) leaving: watch::Sender<BTreeSet<HostId>>,
    pub(crate) waiters: Waiters,
    next_due: AtomicI64,
    assigning: AtomicBool,
    stopping: watch::Sender<bool>,
    failure: watch::Sender<Option<StoreError>>,
    loops: Mutex<JoinSet<()>>,
}

impl Engine {
    /// Starts the loops of an engine: publishing, intake, timers, duties. What an earlier life left in the tables is taken up at once.
    ///
    /// # Errors
    /// When the store cannot be read or the bus cannot be reached.
    pub async fn start(parts: Parts, config: Config) -> Result<Arc<Engine>, EngineError> {
        let (duty_sender, duty_receiver) = mpsc::unbounded_channel();
        let (outbox, for_bus, for_host) = Outbox::new();
        let id = config.node.as_ref().map_or_else(|| HostId(Uuid::new_v4()), |node| node.node);
        let engine = Arc::new_cyclic(|me| Engine {
            me: me.clone(),
            id,
            directory: Directory::new(),
            roster: Roster::default(),
            parts,
            config,
            outbox,
            duties: duty_sender,
            hosted: tokio::sync::Mutex::default(),
            riders: Mutex::default(),
            riders_came: Notify::new(),
            desk: Desk::default(),
            leaving: watch::Sender::default(),
            waiters: Waiters::default(),
            next_due: AtomicI64::new(i64::MIN),
            assigning: AtomicBool::new(true),
            stopping: watch::Sender::new(false),
            failure: watch::Sender::new(None),
            loops: Mutex::new(JoinSet::new()),
        });
        let intake = intake::Intake::open(&engine).await?;
        let dead = engine.parts.bus.consume_dead().await?;
        engine.supervise("dispatch", dispatch::send_loop(engine.clone(), for_bus));
        engine.supervise("handing over", dispatch::send_loop(engine.clone(), for_host));
        engine.supervise("looking again", dispatch::look_loop(engine.clone()));
        engine.supervise("intake", intake.run());
        engine.supervise("dead letters", dead_letters::dead_letter_loop(engine.clone(), dead));
        engine.supervise("timers", timers::timer_loop(engine.clone()));
        engine.supervise("duties", duties::duty_loop(engine.clone(), duty_receiver));
        if engine.config.has_peers {
            engine.supervise("waiting", wait::watch_loop(engine.clone()));
        }
        engine.supervise("presence", presence::presence_loop(engine.clone()));
        Ok(engine)
    }

    /// By this other nodes know what this one tells them: the id of its node, or one for this life where it has none.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// What the engine stands on.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// How the engine behaves.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// Now, by the store's clock.
    pub fn now(&self) -> Time {
        self.parts.store.now()
    }

    /// Applies one command and does what it led to.
    ///
    /// # Errors
    /// When the store cannot, or the command is refused.
    pub async fn command(&self, command: Command) -> Result<Reply, EngineError> {
        let mut decisions = self.apply(vec![command]).await?;
        match decisions.pop() {
            Some(Ok(effects)) => Ok(effects.reply),
            Some(Err(reject)) => Err(reject.into()),
            None => Err(StoreError::Io("it gave no answer to a command".into()).into()),
        }
    }

    /// Applies commands in one batch, together with what rides along and an assignment of whatever is ready then;
    /// after the commit hands letters to dispatch, duties to their loop, and hints to whoever waits.
    ///
    /// # Errors
    /// When the store cannot. Refused commands are in the answer.
    pub async fn apply(&self, batch: Vec<Command>) -> Result<Vec<Decision>, StoreError> {
        // In a task of its own: whoever asked may go away half-way (a client that hangs up), and what the commit led to must happen
        // all the same.
        let Some(engine) = self.me.upgrade() else {
            return Err(StoreError::Stopped("the engine has ended".into()));
        };
        tokio::spawn(async move { engine.apply_now(batch).await })
            .await
            .unwrap_or_else(|error| Err(StoreError::Stopped(format!("the engine: {error}"))))
    }

    async fn apply_now(&self, mut batch: Vec<Command>) -> Result<Vec<Decision>, StoreError> {
        let asked = batch.len();
        let riders = std::mem::take(&mut *self.riders.lock()).commands;
        batch.extend(riders.iter().cloned());
        if self.assigning.load(Ordering::Relaxed) {
            let candidates = self.directory.candidates();
            if !candidates.is_empty() {
                batch.push(Command::Assign(Assign { candidates, limit: ASSIGN_MAX }));
            }
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut decisions = match self.parts.store.apply(batch).await {
            Ok(decisions) => decisions,
            Err(error) => {
                self.ride(riders);
                self.note_failure(&error);
                return Err(error);
            }
        };
        for effects in decisions.iter_mut().flatten() {
            self.carry_out(effects);
        }
        decisions.truncate(asked);
        Ok(decisions)
    }

    /// A store that cannot keep anything more ends the work: nothing is given out that could not be written down.
    fn note_failure(&self, error: &StoreError) {
        if self.store_has_stopped() {
            self.fail(error.clone());
        }
    }

    /// Whether the store takes no more writes, until somebody mends it. One that is only away comes back by itself: nothing is given out
    /// meanwhile, since nothing is committed, and the next beat goes on.
    pub(crate) fn store_has_stopped(&self) -> bool {
        self.parts.store.health().is_err_and(|error| !error.is_passing())
    }

    /// Nothing more can be done: gives out no more work, and tells those who wait for [`Engine::failed`].
    fn fail(&self, error: StoreError) {
        self.stop_assigning();
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(%error, "this node takes no more work");
                *failure = Some(error);
            }
            first
        });
    }

    /// Runs a loop of the engine. A loop that ends by a defect would leave a node that looks well and does nothing: it ends the node.
    pub(crate) fn supervise(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let me = self.me.clone();
        self.loops.lock().spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err()
                && let Some(engine) = me.upgrade()
            {
                engine.fail(StoreError::Stopped(format!(
                    "the {name} of the engine ended by a defect"
                )));
            }
        });
    }

    /// Waits until the store has stopped for good, and says why. Never returns while it works.
    pub async fn failed(&self) -> StoreError {
        let mut failure = self.failure.subscribe();
        let found = failure.wait_for(Option::is_some).await.map(|failure| failure.clone());
        match found {
            Ok(Some(error)) => error,
            // The sender lives as long as the engine.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Applies what rides along and assigns what is ready.
    pub(crate) async fn look_again(&self) {
        if let Err(error) = self.apply(Vec::new()).await {
            complain(&error, "could not assign");
        }
    }

    fn carry_out(&self, effects: &mut Effects) {
        if !effects.letters.is_empty() {
            self.outbox.send(std::mem::take(&mut effects.letters));
        }
        for duty in effects.duties.drain(..) {
            // The loop ends only with the engine; what it misses is in the table.
            let _ = self.duties.send(duty);
        }
        if !effects.ended.is_empty() {
            self.waiters.ended(&effects.ended);
            self.parts.signals.tell_others(Topic::Ended);
        }
        if let Some(due) = effects.next_due
            && due.0 < self.next_due.fetch_min(due.0, Ordering::SeqCst)
        {
            self.parts.signals.hint(Topic::Due);
        }
        if effects.look_again || effects.reply == Reply::Assigned(ASSIGN_MAX) {
            self.parts.signals.hint(Topic::Ready);
        }
        if effects.state_changed {
            self.parts.signals.hint(Topic::State);
        }
        let silent = Reply::Done { changed: false };
        let events = match &effects.reply {
            Reply::Assigned(0) | Reply::Stored { .. } | Reply::Locked { .. } => false,
            reply => *reply != silent,
        };
        if events {
            self.parts.signals.hint(Topic::Events);
        }
    }

    /// Waits until a task is terminal, and returns it. What ends through this engine is noticed at once; what ends through another one when it
    /// hints, or on the slow beat.
    ///
    /// # Errors
    /// When there is no such task, or the store cannot be read.
    pub async fn wait_for(&self, task: TaskId) -> Result<Arc<Task>, EngineError> {
        loop {
            let mut ended = self.waiters.wait(task);
            match self.parts.store.task(task).await? {
                None => {
                    return Err(Reject::Unknown { what: "task", id: task.to_string() }.into());
                }
                Some(task) if task.state.is_terminal() => return Ok(task),
                Some(_) => {}
            }
            let beat = Duration::from_millis(self.config.beat_ms);
            if let Ok(Ok(())) = tokio::time::timeout(beat, ended.changed()).await
                && let Some(task) = ended.borrow_and_update().clone()
            {
                return Ok(task);
            }
        }
    }

    /// Lets these commands ride in the next batch.
    pub(crate) fn ride(&self, commands: impl IntoIterator<Item = Command>) {
        let mut riders = self.riders.lock();
        riders.commands.extend(commands);
        if riders.since.is_none() && !riders.commands.is_empty() {
            riders.since = Some(Instant::now());
            self.riders_came.notify_one();
        }
    }

    /// Since when something waits for a batch that carries it, where something does.
    pub(crate) fn riding_since(&self) -> Option<Instant> {
        self.riders.lock().since
    }

    /// Waits until something does; it may be gone by then.
    pub(crate) async fn riders_come(&self) {
        self.riders_came.notified().await;
    }

    /// Sets when the next timer is due; `None` is never.
    pub(crate) fn set_next_due(&self, due: Option<Time>) {
        self.next_due.store(due.map_or(i64::MAX, |due| due.0), Ordering::SeqCst);
    }

    pub(crate) fn lower_next_due(&self, due: Time) {
        self.next_due.fetch_min(due.0, Ordering::SeqCst);
    }

    pub(crate) fn next_due(&self) -> Time {
        Time(self.next_due.load(Ordering::SeqCst))
    }

    /// Whether the engine was told to stop; can be waited for.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.supervise("keeper of a lease", work);
    }

    /// Gives out no more work from now on; what runs goes on.
    pub fn stop_assigning(&self) {
        self.assigning.store(false, Ordering::SeqCst);
    }

    /// Whether it gives out work.
    pub fn is_assigning(&self) -> bool {
        self.assigning.load(Ordering::SeqCst)
    }

    /// Gives out work again.
    pub async fn resume_assigning(&self) {
        self.assigning.store(true, Ordering::SeqCst);
        self.look_again().await;
    }

    /// Waits until the reports of attempts that have ended are written, as far as this process knows of them; at most a moment.
    pub async fn drain_reports(&self) {
        let quiet = async {
            while self.outbox.is_waiting() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), quiet).await;
    }

    /// Ends the loops. What was committed and not published goes out with the next start. Takes [`STOP_MAX`] at most, also while the store is away.
    pub async fn stop(&self) {
        self.stop_assigning();
        let until = Instant::now() + STOP_MAX;
        if tokio::time::timeout(STOP_MAX / 2, self.look_again()).await.is_err() {
            tracing::warn!("what was to ride in the last batch could not be written");
        }
        self.stopping.send_replace(true);
        let mut loops = std::mem::take(&mut *self.loops.lock());
        let wait = async { while loops.join_next().await.is_some() {} };
        if tokio::time::timeout_at(until, wait).await.is_err() {
            tracing::warn!("a loop of the engine did not end in time and was cut off");
        }
    }
}

/// Waits until the engine was told to stop.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
