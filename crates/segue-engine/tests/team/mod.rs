//! Engines over one store and one bus, with hosts and workers.
#![allow(dead_code, reason = "each test takes what it needs")]

use parking_lot::Mutex;
use segue_agent::host::{Host, HostParts, Hosted, Outlet};
use segue_agent::runner::{End, Job, Ran, Runner};
use segue_agent::spool::Spool;
use segue_agent::worker::{BusBlobs, Link, Presence, SpooledBlobs};
use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::NewTask;
use segue_core::ids::{AttemptId, HostId, Incarnation, ProjectId, TaskId};
use segue_core::letter::{Address, Letter, LetterBody, Secret, TaskResponse, WIRE_VERSION};
use segue_core::outcome::Outcome;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, BusError, Clock, Consumer, DeadLetter, Fut, StoreError, WorkBus};
use segue_core::state::OutcomeState;
use segue_core::task::{Route, TaskSpec, TaskState};
use segue_core::time::Time;
use segue_core::worker::{TokenMaker, WorkerToken, instance_of};
use segue_engine::workflow::new_task_id;
use segue_engine::{Config, Engine, LocalHost, Parts};
use segue_store::soft::InProcessSoft;
use segue_testkit::memory::MemoryStore;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use uuid::Uuid;

pub const PROJECT: ProjectId = ProjectId(Uuid::from_u128(77));
pub const KEY: [u8; 32] = [7; 32];
const PATIENCE: Duration = Duration::from_secs(30);

/// This machine's clock, or one that is off by so many milliseconds.
pub struct Now(pub i64);

impl Clock for Now {
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Time(since.as_millis() as i64 + self.0)
    }
}

#[derive(Default)]
pub struct MapBlobs(Mutex<HashMap<Hash, Vec<u8>>>);

impl Blobs for MapBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        self.0.lock().insert(hash, bytes);
        Box::pin(std::future::ready(Ok(Payload::Stored { hash, size })))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        let found = self.0.lock().get(&hash).cloned();
        let found = found.ok_or_else(|| StoreError::MissingPayload(hash.hex()));
        Box::pin(std::future::ready(found))
    }
}

/// A worker's way to the bus: while it is cut, nothing can be published.
pub struct Cuttable {
    bus: Arc<dyn WorkBus>,
    pub cut: AtomicBool,
}

impl WorkBus for Cuttable {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        if self.cut.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(BusError::Away("it is cut".into()))));
        }
        self.bus.publish(letters)
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.bus.consume(queue)
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.bus.consume_dead()
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        self.bus.look_at_dead(limit)
    }

    fn comebacks(&self) -> Option<u64> {
        self.bus.comebacks()
    }
}

/// Says who it is and what it got.
struct Echo(String);

impl Runner for Echo {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        let input: Value = serde_json::from_str(&job.input).unwrap();
        let end = End::Complete(json!({ "by": self.0, "got": input }).to_string());
        Box::pin(std::future::ready(Ran::plain(end)))
    }
}

/// Engines over one store and one bus.
pub struct Team {
    pub bus: Arc<InProcessBus>,
    pub parts: Parts,
    engines: Vec<Arc<Engine>>,
}

pub fn config(workers: Option<TokenMaker>) -> Config {
    Config { beat_ms: 100, lease_ms: 3_000, has_peers: true, workers, ..Config::default() }
}

impl Team {
    pub async fn new(engines: usize) -> Team {
        Team::with(engines, Some(TokenMaker::new(PROJECT, KEY))).await
    }

    pub async fn with(engines: usize, workers: Option<TokenMaker>) -> Team {
        let bus = InProcessBus::new();
        Team::over(engines, workers, bus.clone(), bus, Arc::new(Now(0))).await
    }

    /// Over this bus; the engines reach it by a way of their own.
    pub async fn over(
        engines: usize,
        workers: Option<TokenMaker>,
        bus: Arc<InProcessBus>,
        way: Arc<dyn WorkBus>,
        clock: Arc<dyn Clock>,
    ) -> Team {
        let parts = Parts {
            store: Arc::new(MemoryStore::new(clock, 7, KEY)),
            blobs: Arc::new(MapBlobs::default()),
            bus: way,
            signals: InProcessSignals::new(),
            presence: InProcessSoft::new(),
        };
        let mut team = Team { bus, parts, engines: Vec::new() };
        for _ in 0..engines {
            team.engines.push(team.start_engine(workers.clone()).await);
        }
        team
    }

    pub async fn start_engine(&self, workers: Option<TokenMaker>) -> Arc<Engine> {
        Engine::start(self.parts.clone(), config(workers)).await.unwrap()
    }

    pub fn engine(&self, n: usize) -> &Arc<Engine> {
        &self.engines[n]
    }

    pub async fn link(&self, token: WorkerToken, life: Incarnation) -> Link {
        Link::open(self.bus.clone(), Arc::new(Now(0)), token, life).await.unwrap()
    }

    /// The reasons of the dead letters.
    pub async fn dead(&self) -> Vec<String> {
        let dead = self.bus.look_at_dead(1_000).await.unwrap();
        dead.into_iter().map(|dead| dead.reason).collect()
    }

    pub async fn state(&self, id: TaskId) -> TaskState {
        self.parts.store.task(id).await.unwrap().unwrap().state
    }

    pub async fn output(&self, id: TaskId) -> Value {
        let engine = self.engines.last().unwrap();
        let wait = engine.wait_for(id);
        let task = tokio::time::timeout(PATIENCE, wait).await.expect("it ends").unwrap();
        assert_eq!(task.state, TaskState::Completed, "{:?}", task.error);
        let text = engine.text_of(task.output.as_ref().unwrap()).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub async fn stop(self) {
        for engine in self.engines {
            engine.stop().await;
        }
    }
}

/// A worker with everything that it stands on.
pub struct WorkerRig {
    pub token: WorkerToken,
    pub link: Arc<Link>,
    pub bus: Arc<Cuttable>,
    pub blobs: Arc<dyn Blobs>,
    pub spool: Arc<Spool>,
    pub host: Arc<Host>,
    pub presence: Arc<Presence>,
    folder: TempDir,
}

impl WorkerRig {
    pub async fn start(team: &Team, name: &str, life: Incarnation) -> WorkerRig {
        WorkerRig::of(team, name, life, tempfile::tempdir().unwrap(), 0).await
    }

    pub async fn start_in(
        team: &Team,
        name: &str,
        life: Incarnation,
        folder: TempDir,
    ) -> WorkerRig {
        WorkerRig::of(team, name, life, folder, 0).await
    }

    pub async fn with_clock(team: &Team, name: &str, life: Incarnation, off_ms: i64) -> WorkerRig {
        WorkerRig::of(team, name, life, tempfile::tempdir().unwrap(), off_ms).await
    }

    async fn of(
        team: &Team,
        name: &str,
        life: Incarnation,
        folder: TempDir,
        off: i64,
    ) -> WorkerRig {
        let token = TokenMaker::new(PROJECT, KEY).worker(name).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Now(off));
        let bus = Arc::new(Cuttable { bus: team.bus.clone(), cut: AtomicBool::new(false) });
        let link = Link::open(bus.clone(), clock.clone(), token.clone(), life).await.unwrap();
        let link = Arc::new(link);
        let remote: Arc<dyn Blobs> = Arc::new(BusBlobs::new(link.clone()));
        let (spool, left) = Spool::open(folder.path()).unwrap();
        spool.deliver(left, bus.as_ref(), remote.as_ref()).await.unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(SpooledBlobs::new(spool.clone(), remote.clone()));
        let parts = HostParts {
            host: token.host(),
            incarnation: life,
            bus: bus.clone(),
            blobs: blobs.clone(),
            clock,
        };
        let spec = spec_on(token.host(), "a");
        let hosted = vec![Hosted { spec: spec.clone(), runner: Arc::new(Echo(name.to_owned())) }];
        let outlet = Outlet { spool: spool.clone(), bodies: remote };
        let host = Host::start_with(parts, hosted, Some(outlet)).await.unwrap();
        let presence = Presence::new(link.clone(), host.clone(), vec![spec], 3_000, "test", "here");
        presence.hello().await.unwrap();
        WorkerRig { token, link, bus, blobs, spool, host, presence: Arc::new(presence), folder }
    }

    /// Ends as if killed: nothing more is said. What is on the disk stays.
    pub fn die(self) -> TempDir {
        // Its queue has to be free for the next life.
        let WorkerRig { host, folder, .. } = self;
        tokio::spawn(async move { host.stop().await });
        folder
    }
}

/// A host of an engine's process, with one agent.
pub async fn local_host(team: &Team, engine: &Arc<Engine>, name: &str) -> (LocalHost, Arc<Host>) {
    local_host_of(team, engine, "a", name).await
}

/// The same, with the agent of this name.
pub async fn local_host_of(
    team: &Team,
    engine: &Arc<Engine>,
    agent: &str,
    name: &str,
) -> (LocalHost, Arc<Host>) {
    let local =
        LocalHost { host: HostId(Uuid::new_v4()), incarnation: Incarnation(Uuid::new_v4()) };
    let parts = HostParts {
        host: local.host,
        incarnation: local.incarnation,
        bus: team.bus.clone(),
        blobs: team.parts.blobs.clone(),
        clock: Arc::new(Now(0)),
    };
    let spec = spec_on(local.host, agent);
    let hosted = vec![Hosted { spec: spec.clone(), runner: Arc::new(Echo(name.to_owned())) }];
    let host = Host::start(parts, hosted).await.unwrap();
    engine.register(&local, vec![spec]).await.unwrap();
    engine.keep_alive(local.clone());
    (local, host)
}

pub fn life(n: u128) -> Incarnation {
    Incarnation(Uuid::from_u128(n))
}

pub fn spec_on(host: HostId, name: &str) -> AgentSpec {
    AgentSpec {
        instance: instance_of(host, name),
        name: name.into(),
        kind: AgentKind::Builtin,
        description: "".into(),
        capabilities: Arc::from([]),
        max_concurrency: 4,
        delegates: false,
    }
}

pub fn task(name: &str, input: &Value) -> NewTask {
    let spec = TaskSpec::new(new_task_id(), name, Route::agent("a"));
    NewTask { spec, input: Payload::of(input).unwrap() }
}

/// A letter that says that an attempt completed with this output.
pub fn outcome_of(output: Payload) -> Letter {
    let response = TaskResponse {
        attempt: AttemptId(Uuid::from_u128(1)),
        secret: Secret([1; 32]),
        started_at: None,
        process: None,
        outcome: Outcome::Complete { output },
        state: OutcomeState::default(),
        usage: None,
        ended: Vec::new(),
    };
    Letter {
        seq: 0,
        version: WIRE_VERSION,
        from: "a".into(),
        to: Address::Engine,
        task: Some(TaskId(Uuid::from_u128(2))),
        reply_to: None,
        correlation: None,
        causation: None,
        traceparent: None,
        hops: 0,
        at: Time(1),
        body: LetterBody::TaskResponse(Box::new(response)),
    }
}

/// Waits until this is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "not so in time: {what}");
}
