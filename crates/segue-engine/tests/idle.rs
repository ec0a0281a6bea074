//! What a node costs the database while there is nothing to do.

use segue_bus::in_process::InProcessBus;
use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId};
use segue_core::ports::{Beat, Everybody, Fut, Presence, SeenInstance, SoftError};
use segue_engine::{Config, Engine, LocalHost, Parts};
use segue_store::objects::{self, ObjectBlobs, Objects};
use segue_store::postgres::{Options, PostgresStore};
use segue_store::soft::InProcessSoft;
use segue_testkit::servers::{Postgres, PostgresOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// Statements of an idle node in a second, at most.
const STATEMENTS_PER_SECOND: f64 = 2.0;
/// Beats that are watched: two of the slow rounds, at which leases are renewed, and more.
const BEATS: usize = 12;
/// How PostgreSQL's log begins a statement, whichever way it came.
const STATEMENTS: [&str; 2] = ["LOG:  execute ", "LOG:  statement: "];

/// A directory that counts the beats of its one node.
struct Counting {
    inner: Arc<InProcessSoft>,
    beats: watch::Sender<usize>,
}

impl Presence for Counting {
    fn beat(&self, beat: Beat) -> Fut<'_, Result<(), SoftError>> {
        self.beats.send_modify(|beats| *beats += 1);
        self.inner.beat(beat)
    }

    fn remove(&self, instances: Vec<InstanceId>) -> Fut<'_, Result<(), SoftError>> {
        self.inner.remove(instances)
    }

    fn leave(&self, node: HostId) -> Fut<'_, Result<(), SoftError>> {
        self.inner.leave(node)
    }

    fn everybody(&self) -> Fut<'_, Result<Everybody, SoftError>> {
        self.inner.everybody()
    }

    fn capable<'a>(&'a self, capability: &'a str) -> Fut<'a, Result<Vec<SeenInstance>, SoftError>> {
        self.inner.capable(capability)
    }
}

impl Counting {
    /// Waits for so many beats more.
    async fn pass(&self, beats: usize) {
        let mut count = self.beats.subscribe();
        let end = *count.borrow_and_update() + beats;
        let patience = Duration::from_secs(120);
        let passed = count.wait_for(|count| *count >= end);
        tokio::time::timeout(patience, passed).await.expect("it beats").expect("it is there");
    }
}

/// Everything that the server was asked so far.
fn asked(server: &Postgres) -> Vec<String> {
    let said = server.log();
    let is_asked = |line: &&str| STATEMENTS.iter().any(|sign| line.contains(sign));
    said.lines().filter(is_asked).map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_asks_hardly_anything_on_postgres() {
    let log = vec!["log_statement = 'all'".to_owned()];
    let options = PostgresOptions { configuration: log, ..PostgresOptions::default() };
    let server = Postgres::start_with(options).await;
    let folder = tempfile::tempdir().unwrap();
    let bodies = folder.path().join("bodies");
    let objects = Objects::open(&bodies.to_string_lossy(), &objects::Options::default()).unwrap();
    let blobs = Arc::new(ObjectBlobs::new(objects));
    let url = server.database().await;
    let options = Options::new(url, ProjectId(Uuid::now_v7()), [7; 32], blobs);
    let store = PostgresStore::connect(options).await.unwrap();
    let (beats, _) = watch::channel(0);
    let presence = Arc::new(Counting { inner: InProcessSoft::new(), beats });
    let parts = Parts {
        store: store.clone(),
        blobs: store.clone(),
        bus: InProcessBus::new(),
        signals: store.signals(),
        presence: presence.clone(),
    };
    // As a node of a cluster is set up, with the beats and leases of its default.
    let config = Config { has_peers: true, ..Config::default() };
    let engine = Engine::start(parts, config).await.unwrap();
    let agent = AgentSpec {
        instance: InstanceId(Uuid::now_v7()),
        name: "idle".into(),
        kind: AgentKind::Builtin,
        description: "has nothing to do".into(),
        capabilities: Arc::from([]),
        max_concurrency: 4,
        delegates: true,
    };
    let host = LocalHost { host: HostId(Uuid::now_v7()), incarnation: Incarnation(Uuid::now_v7()) };
    engine.register(&host, vec![agent]).await.unwrap();
    engine.keep_alive(host);
    // The start is no idleness.
    presence.pass(2).await;
    let (before, at) = (asked(&server).len(), Instant::now());
    presence.pass(BEATS).await;
    let (all, took) = (asked(&server), at.elapsed());
    let rate = (all.len() - before) as f64 / took.as_secs_f64();
    eprintln!("{rate:.2} statements a second, of {:.1} s", took.as_secs_f64());
    assert!(all.len() > before, "it lives, and its server tells");
    assert!(rate <= STATEMENTS_PER_SECOND, "{rate:.2} a second:\n{}", all[before..].join("\n"));
    engine.stop().await;
}
