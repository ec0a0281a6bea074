//! Two nodes over one store and one bus tell each other who is there, and go on when they cannot.

use parking_lot::Mutex;
use segue_agent::host::{Host, HostParts, Hosted};
use segue_agent::runner::{End, Job, Ran, Runner};
use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::command::NewTask;
use segue_core::ids::{HostId, Incarnation, InstanceId, TaskId};
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{
    Beat, Blobs, Clock, Everybody, Fut, NodeBeat, Presence, SeenInstance, Signals, SoftError,
    StoreError,
};
use segue_core::task::{ErrorClass, Route, TaskSpec, TaskState};
use segue_engine::directory::TTL;
use segue_engine::workflow::new_task_id;
use segue_engine::{Config, Engine, LocalHost, Parts};
use segue_store::soft::{InProcessSoft, Options, RedisSoft};
use segue_testkit::memory::MemoryStore;
use segue_testkit::servers::Redis;
use segue_testkit::simulator::SimClock;
use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use uuid::Uuid;

const BEAT: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct MapBlobs(Mutex<HashMap<Hash, Vec<u8>>>);

impl Blobs for MapBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        self.0.lock().insert(hash, bytes);
        Box::pin(ready(Ok(Payload::Stored { hash, size })))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        let found = self.0.lock().get(&hash).cloned();
        Box::pin(ready(found.ok_or_else(|| StoreError::MissingPayload(hash.hex()))))
    }
}

struct Done;

impl Runner for Done {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        Box::pin(ready(Ran::plain(End::Complete(format!("\"{}\"", job.name)))))
    }
}

/// A directory that can be away.
struct Flaky {
    inner: Arc<InProcessSoft>,
    away: AtomicBool,
}

impl Flaky {
    fn check(&self) -> Result<(), SoftError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(SoftError::Away("for this test".into()));
        }
        Ok(())
    }
}

impl Presence for Flaky {
    fn beat(&self, beat: Beat) -> Fut<'_, Result<(), SoftError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.beat(beat).await
        })
    }

    fn remove(&self, instances: Vec<InstanceId>) -> Fut<'_, Result<(), SoftError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.remove(instances).await
        })
    }

    fn leave(&self, node: HostId) -> Fut<'_, Result<(), SoftError>> {
        self.inner.leave(node)
    }

    fn everybody(&self) -> Fut<'_, Result<Everybody, SoftError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.everybody().await
        })
    }

    fn capable<'a>(&'a self, capability: &'a str) -> Fut<'a, Result<Vec<SeenInstance>, SoftError>> {
        self.inner.capable(capability)
    }
}

/// What two nodes share.
struct Shared {
    clock: Arc<SimClock>,
    store: Arc<MemoryStore>,
    blobs: Arc<MapBlobs>,
    bus: Arc<InProcessBus>,
}

struct Node {
    engine: Arc<Engine>,
    host: Arc<Host>,
    agent: InstanceId,
}

impl Shared {
    fn new() -> Shared {
        let clock = SimClock::start();
        let store = Arc::new(MemoryStore::new(clock.clone(), 7, [7; 32]));
        Shared { clock, store, blobs: Arc::default(), bus: InProcessBus::new() }
    }

    /// A node with one agent of its own, which has this name.
    async fn node(
        &self,
        name: &str,
        presence: Arc<dyn Presence>,
        signals: Arc<dyn Signals>,
    ) -> Node {
        let local =
            LocalHost { host: HostId(Uuid::new_v4()), incarnation: Incarnation(Uuid::new_v4()) };
        let parts = Parts {
            store: self.store.clone(),
            blobs: self.blobs.clone(),
            bus: self.bus.clone(),
            signals,
            presence,
        };
        let node = NodeBeat {
            node: local.host,
            name: name.into(),
            machine: "test".into(),
            version: "0".into(),
            started: self.clock.now(),
            roles: vec!["node".into()],
            address: None,
            load: 0.0,
            draining: false,
            trouble: None,
        };
        let config = Config {
            beat_ms: BEAT.as_millis() as u64,
            lease_ms: LEASE.as_millis() as u64,
            node: Some(node),
            ..Config::default()
        };
        let engine = Engine::start(parts, config).await.unwrap();
        let spec = AgentSpec {
            instance: InstanceId(Uuid::new_v4()),
            name: name.into(),
            kind: AgentKind::Builtin,
            description: "".into(),
            capabilities: Arc::from([Capability { name: "work".into(), ..Capability::default() }]),
            max_concurrency: 8,
            delegates: name == "left",
        };
        let agent = spec.instance;
        let parts = HostParts {
            host: local.host,
            incarnation: local.incarnation,
            bus: self.bus.clone(),
            blobs: self.blobs.clone(),
            clock: self.clock.clone(),
        };
        let hosted = vec![Hosted { spec: spec.clone(), runner: Arc::new(Done) }];
        let host = Host::start(parts, hosted).await.unwrap();
        engine.register(&local, vec![spec]).await.unwrap();
        engine.keep_alive(local);
        Node { engine, host, agent }
    }
}

impl Node {
    /// Submits so many tasks for the agent of this name and waits until they are completed.
    async fn have_done(&self, agent: &str, count: usize) {
        let mut ids: Vec<TaskId> = Vec::new();
        for _ in 0..count {
            let spec = TaskSpec::new(new_task_id(), "task", Route::agent(agent));
            ids.push(spec.id);
            self.engine.submit(vec![NewTask { spec, input: Payload::null() }]).await.unwrap();
        }
        for id in ids {
            let wait = tokio::time::timeout(Duration::from_secs(60), self.engine.wait_for(id));
            let task = wait.await.expect("it ends").unwrap();
            assert_eq!(task.state, TaskState::Completed, "{:?}", task.error);
        }
    }

    fn hears_of(&self, other: &Node) -> bool {
        let known = self.engine.directory.known(other.agent);
        known.is_some_and(|known| known.told_by == Some(other.engine.id()))
    }

    fn may_use(&self, other: &Node) -> bool {
        let candidates = self.engine.directory.candidates();
        candidates.iter().any(|candidate| candidate.instance == other.agent)
    }

    async fn stop(self) {
        self.engine.stop().await;
        self.host.stop().await;
    }
}

/// Looks again and again until it is so.
async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !look().await {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), looking).await.is_err() {
        panic!("in vain waited for: {what}");
    }
}

/// So much of the paused time passes for everybody, in steps in which everybody acts.
async fn pass(time: Duration) {
    let end = tokio::time::Instant::now() + time;
    let mut ticks = tokio::time::interval(BEAT);
    while tokio::time::Instant::now() < end {
        ticks.tick().await;
    }
}

fn flaky() -> Arc<Flaky> {
    Arc::new(Flaky { inner: InProcessSoft::new(), away: AtomicBool::new(false) })
}

#[tokio::test(start_paused = true)]
async fn nodes_give_work_to_each_others_agents() {
    let (shared, presence) = (Shared::new(), flaky());
    let left = shared.node("left", presence.clone(), InProcessSignals::new()).await;
    let right = shared.node("right", presence.clone(), InProcessSignals::new()).await;
    until("both to hear", async || left.hears_of(&right) && right.hears_of(&left)).await;
    let told = right.engine.directory.delegates(left.agent);
    assert_eq!(told, Some(true), "who delegates is told elsewhere, too");
    assert_eq!(left.engine.directory.delegates(right.agent), Some(false));
    assert_eq!(presence.capable("work").await.unwrap().len(), 2);
    // Only the left one assigns: what the right agent does, it was given by the left node.
    right.engine.stop_assigning();
    left.have_done("right", 20).await;
    until("draining to be told", async || {
        let nodes = presence.everybody().await.unwrap().nodes;
        nodes.get(&right.engine.id()).is_some_and(|node| node.beat.draining)
    })
    .await;
    let id = right.engine.id();
    right.stop().await;
    assert!(!presence.everybody().await.unwrap().nodes.contains_key(&id));
    left.stop().await;
}

#[tokio::test(start_paused = true)]
async fn health_is_told_and_heals() {
    let (shared, presence) = (Shared::new(), flaky());
    let left = shared.node("left", presence.clone(), InProcessSignals::new()).await;
    let right = shared.node("right", presence.clone(), InProcessSignals::new()).await;
    until("the right one to be heard", async || left.hears_of(&right)).await;
    for _ in 0..3 {
        left.engine.directory.failed(right.agent, ErrorClass::Transient);
        right.engine.directory.failed(right.agent, ErrorClass::Transient);
    }
    // Three failures each are six together: too many for more work.
    let health = |node: &Node| node.engine.directory.known(right.agent).unwrap().health;
    until("both to be told", async || health(&left) < 0.6 && health(&right) < 0.6).await;
    pass(Duration::from_secs(400)).await;
    assert!(health(&left) > 0.99 && health(&right) > 0.99);
    assert!(presence.everybody().await.unwrap().health.is_empty(), "who is well is not told of");
    left.stop().await;
    right.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leases_count_while_nobody_tells_anything() {
    let (shared, presence) = (Shared::new(), flaky());
    presence.away.store(true, Ordering::SeqCst);
    // From the first moment on.
    let left = shared.node("left", presence.clone(), InProcessSignals::new()).await;
    let right = shared.node("right", presence.clone(), InProcessSignals::new()).await;
    right.engine.stop_assigning();
    left.have_done("right", 5).await;
    presence.away.store(false, Ordering::SeqCst);
    until("it to be told", async || left.hears_of(&right)).await;
    // And when it goes away later, for longer than anything that was told lasts.
    presence.away.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        pass(TTL).await;
        assert!(left.may_use(&right));
        left.have_done("right", 5).await;
    }
    assert!(
        !left.hears_of(&right) || left.engine.directory.known(right.agent).unwrap().silent > TTL
    );
    // A lease that ends counts no more.
    let agent = right.agent;
    right.stop().await;
    pass(LEASE * 2).await;
    let candidates = left.engine.directory.candidates();
    assert!(candidates.iter().all(|candidate| candidate.instance != agent));
    left.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_forgot_everything_is_whole_again_after_a_beat() {
    let (shared, presence) = (Shared::new(), flaky());
    let left = shared.node("left", presence.clone(), InProcessSignals::new()).await;
    let right = shared.node("right", presence.clone(), InProcessSignals::new()).await;
    until("both to hear", async || left.hears_of(&right) && right.hears_of(&left)).await;
    presence.inner.forget();
    // And nobody loses sight of anybody meanwhile: not even the one who looks before the other has told again.
    let end = tokio::time::Instant::now() + BEAT + BEAT / 2;
    until("a beat to pass", async || {
        assert!(left.may_use(&right) && right.may_use(&left));
        tokio::time::Instant::now() >= end
    })
    .await;
    let everybody = presence.everybody().await.unwrap();
    assert_eq!((everybody.instances.len(), everybody.nodes.len()), (2, 2));
    assert!(left.may_use(&right) && right.may_use(&left));
    left.stop().await;
    right.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_removed_is_forgotten_until_it_beats_again() {
    let (shared, presence) = (Shared::new(), flaky());
    let left = shared.node("left", presence.clone(), InProcessSignals::new()).await;
    let right = shared.node("right", presence.clone(), InProcessSignals::new()).await;
    until("the right one to be heard", async || left.hears_of(&right)).await;
    right.engine.directory.remove(right.agent);
    until("it to be gone", async || {
        !presence.everybody().await.unwrap().instances.contains_key(&right.agent)
    })
    .await;
    pass(TTL + BEAT * 2).await;
    assert!(left.may_use(&right), "its host is alive and beats: it is back");
    left.stop().await;
    right.stop().await;
}

/// The path of every batch asks the directory, so it may cost next to nothing, also where there are ten thousand.
#[tokio::test(start_paused = true)]
async fn ten_thousand_candidates_are_made_once_for_many_batches() {
    let (shared, presence) = (Shared::new(), flaky());
    let left = shared.node("left", presence.clone(), InProcessSignals::new()).await;
    let instances: Vec<InstanceId> = (0..10_000).map(|_| InstanceId(Uuid::new_v4())).collect();
    left.engine.directory.beat(instances, 0.1);
    let first = left.engine.directory.candidates();
    assert_eq!(first.len(), 10_001);
    for candidate in first.iter().take(1_000) {
        left.engine.directory.failed(candidate.instance, ErrorClass::Transient);
        left.engine.directory.succeeded(candidate.instance);
        assert!(Arc::ptr_eq(&first, &left.engine.directory.candidates()));
    }
    assert!(first.is_sorted_by_key(|candidate| candidate.instance));
    left.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_go_on_whatever_happens_to_their_server_on_redis() {
    let server = Redis::start().await;
    let shared = Shared::new();
    let mut options = Options::new(server.url(), "neighbours");
    options.connect = Duration::from_millis(500);
    options.command = Duration::from_millis(500);
    let mut nodes = Vec::new();
    for name in ["left", "right"] {
        let soft = RedisSoft::connect(options.clone()).await.unwrap();
        let signals = soft.signals(InProcessSignals::new());
        nodes.push(shared.node(name, soft.presence(), signals).await);
    }
    let [left, right] = &nodes[..] else { panic!("two nodes") };
    until("both to hear", async || left.hears_of(right) && right.hears_of(left)).await;
    left.have_done("right", 20).await;
    right.have_done("left", 20).await;

    server.flush().await;
    left.have_done("right", 5).await;
    let soft = RedisSoft::connect(options.clone()).await.unwrap();
    until("all to be told again", async || {
        soft.everybody().await.is_ok_and(|all| all.instances.len() == 2 && all.nodes.len() == 2)
    })
    .await;

    server.kill().await;
    left.have_done("right", 20).await;
    right.have_done("left", 20).await;
    server.start_again().await;
    until("all to be told once more", async || {
        soft.everybody().await.is_ok_and(|all| all.instances.len() == 2 && all.nodes.len() == 2)
    })
    .await;
    left.have_done("right", 5).await;
    for node in nodes {
        node.stop().await;
    }
}
