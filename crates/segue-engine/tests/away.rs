//! The bus is away, and comes back: nothing that runs is given up, and nothing that ended is done twice.

mod team;

use segue_agent::host::{Host, HostParts, Hosted};
use segue_agent::runner::{End, Job, Ran, Runner};
use segue_bus::in_process::InProcessBus;
use segue_core::command::Command;
use segue_core::ids::{HostId, Incarnation};
use segue_core::letter::{Address, Letter};
use segue_core::payload::Payload;
use segue_core::ports::{BusError, Clock, Consumer, DeadLetter, Fut, OwnHost, WorkBus};
use segue_core::task::{Route, TaskState};
use segue_core::time::Time;
use segue_core::worker::{TokenMaker, host_of};
use segue_engine::{HostBus, LocalHost};
use segue_testkit::bus_suite::FlakyBus;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;
use team::{Now, PROJECT, Team, WorkerRig, eventually, life, outcome_of, spec_on, task};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// The store's clock, which is put forward so that leases end at once.
#[derive(Default)]
struct Hurried(AtomicI64);

impl Clock for Hurried {
    fn now(&self) -> Time {
        Time(Now(0).now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// A host that never beats: when its agents are taken for gone, leases were looked at.
async fn register_silent(team: &Team, host: HostId) {
    let agents = vec![spec_on(host, "nobody")];
    let register = Command::Register { host, incarnation: life(1), agents, lease_ms: 1 };
    team.engine(0).command(register).await.unwrap();
}

async fn is_gone(team: &Team, host: HostId) -> bool {
    let agents = team.engine(0).store().agents().await.unwrap();
    agents.iter().find(|agent| agent.host == host).unwrap().gone
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_could_not_be_heard_keep_what_they_have() {
    let (bus, clock) = (InProcessBus::new(), Arc::new(Hurried::default()));
    let way = FlakyBus::over(bus.clone());
    let maker = TokenMaker::new(PROJECT, team::KEY);
    let team = Team::over(1, Some(maker), bus, way.clone(), clock.clone()).await;
    // A node that has just begun gives workers a lease's time, too; from here on that is over.
    let silent = host_of(PROJECT, "silent");
    register_silent(&team, silent).await;
    eventually("silence means something", async || is_gone(&team, silent).await).await;

    let worker = WorkerRig::start(&team, "red", life(1)).await;
    let host = worker.token.host();
    worker.bus.cut.store(true, Ordering::SeqCst);
    let mut one = task("one", &json!(1));
    // The worker keeps to it; here it is over long before the outcome can be delivered.
    one.spec.timeouts.run_ms = Some(60_000);
    let id = team.engine(0).submit(vec![one]).await.unwrap();
    eventually("the outcome is on the disk", async || worker.spool.waiting() == 1).await;
    way.break_off();
    clock.0.store(10 * 60_000, Ordering::SeqCst);
    // A node renews its lease in the tables, so that its silence means something all the same.
    let node = HostId(Uuid::new_v4());
    register_silent(&team, node).await;
    eventually("leases were looked at", async || is_gone(&team, node).await).await;
    assert!(!is_gone(&team, host).await);
    assert_eq!(team.state(id).await, TaskState::Assigned);

    way.mend();
    worker.bus.cut.store(false, Ordering::SeqCst);
    let presence = worker.presence.clone();
    let stay = tokio::spawn(async move { presence.stay().await });
    assert_eq!(team.output(id).await, json!({ "by": "red", "got": 1 }));
    assert_eq!(team.engine(0).store().attempts(id).await.unwrap().len(), 1);
    stay.abort();
    worker.host.stop().await;
    team.stop().await;
}

/// Ends as often as it is let, or when it is told to.
struct Gated(Arc<Semaphore>);

impl Runner for Gated {
    fn run(&self, mut job: Job) -> Fut<'_, Ran> {
        Box::pin(async move {
            tokio::select! {
                _ = job.control.cancelled() => Ran::plain(End::Cancelled),
                permit = self.0.acquire() => {
                    permit.unwrap().forget();
                    Ran::plain(End::Complete("\"done\"".into()))
                }
            }
        })
    }
}

/// A host in the process of the team's engine, with one agent that ends as often as it is let.
async fn gated_host(team: &Team, own: Arc<HostBus>) -> (Arc<Host>, Arc<Semaphore>) {
    own.set_engine(team.engine(0));
    let local =
        LocalHost { host: HostId(Uuid::new_v4()), incarnation: Incarnation(Uuid::new_v4()) };
    let parts = HostParts {
        host: local.host,
        incarnation: local.incarnation,
        bus: own,
        blobs: team.parts.blobs.clone(),
        clock: Arc::new(Now(0)),
    };
    let (spec, gate) = (spec_on(local.host, "a"), Arc::new(Semaphore::new(0)));
    let hosted = vec![Hosted { spec: spec.clone(), runner: Arc::new(Gated(gate.clone())) }];
    let host = Host::start(parts, hosted).await.unwrap();
    team.engine(0).register(&local, vec![spec]).await.unwrap();
    (host, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_attempts_of_a_node_report_is_written_while_the_bus_is_away() {
    let bus = InProcessBus::new();
    let way = FlakyBus::over(bus.clone());
    let team = Team::over(1, None, bus, way.clone(), Arc::new(Now(0))).await;
    let (host, gate) = gated_host(&team, HostBus::over(way.clone())).await;

    let id = team.engine(0).submit(vec![task("one", &json!(1))]).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while host.running() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it runs");
    way.break_off();
    gate.add_permits(1);
    assert_eq!(team.output(id).await, json!("done"));
    // And over the bus again, once it is back.
    way.mend();
    gate.add_permits(1);
    let id = team.engine(0).submit(vec![task("two", &json!(2))]).await.unwrap();
    assert_eq!(team.output(id).await, json!("done"));
    host.stop().await;
    team.stop().await;
}

/// Counts the letters that go over a bus to engines, and those that go to hosts.
struct Counting {
    inner: Arc<dyn WorkBus>,
    to_engines: AtomicUsize,
    to_hosts: AtomicUsize,
    /// Whoever publishes waits, as while a broker is short of memory.
    full: watch::Sender<bool>,
}

impl Counting {
    fn over(inner: Arc<dyn WorkBus>) -> Arc<Counting> {
        Arc::new(Counting {
            inner,
            to_engines: AtomicUsize::new(0),
            to_hosts: AtomicUsize::new(0),
            full: watch::Sender::new(false),
        })
    }

    /// To engines, and to hosts.
    fn counted(&self) -> (usize, usize) {
        (self.to_engines.load(Ordering::SeqCst), self.to_hosts.load(Ordering::SeqCst))
    }
}

impl WorkBus for Counting {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        for letter in &letters {
            match letter.to {
                Address::Engine => self.to_engines.fetch_add(1, Ordering::SeqCst),
                Address::Host(_) => self.to_hosts.fetch_add(1, Ordering::SeqCst),
                _ => 0,
            };
        }
        let mut full = self.full.subscribe();
        Box::pin(async move {
            full.wait_for(|full| !full).await.expect("the bus is there");
            self.inner.publish(letters).await
        })
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.inner.consume(queue)
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.inner.consume_dead()
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        self.inner.look_at_dead(limit)
    }

    fn comebacks(&self) -> Option<u64> {
        self.inner.comebacks()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_attempts_of_a_node_report_takes_no_way_round_by_the_bus() {
    let bus = InProcessBus::new();
    let counting = Counting::over(bus.clone());
    let team = Team::over(1, None, bus, counting.clone(), Arc::new(Now(0))).await;
    let own = HostBus::beside(counting.clone());
    let (host, gate) = gated_host(&team, own.clone()).await;
    gate.add_permits(3);
    for number in 0..3 {
        let id = team.engine(0).submit(vec![task("one", &json!(number))]).await.unwrap();
        assert_eq!(team.output(id).await, json!("done"));
    }
    assert_eq!(counting.counted(), (0, 3));
    // What the engine refuses is left to be looked at, and that is over the bus.
    own.publish(vec![outcome_of(Payload::null())]).await.unwrap();
    assert_eq!(counting.counted(), (1, 3));
    eventually("it is with the dead letters", async || {
        team.parts.bus.look_at_dead(10).await.is_ok_and(|dead| dead.len() == 1)
    })
    .await;
    host.stop().await;
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_a_node_go_on_without_the_bus_and_others_are_reached_over_it() {
    let bus = InProcessBus::new();
    let way = FlakyBus::over(bus.clone());
    let counting = Counting::over(way.clone());
    let team = Team::over(1, None, bus, counting.clone(), Arc::new(Now(0))).await;
    let (host, gate) = gated_host(&team, HostBus::beside(counting.clone())).await;
    team.engine(0).set_own_host(&(host.clone() as Arc<dyn OwnHost>));
    way.break_off();
    gate.add_permits(3);
    for number in 0..3 {
        let id = team.engine(0).submit(vec![task("one", &json!(number))]).await.unwrap();
        assert_eq!(team.output(id).await, json!("done"));
    }
    assert_eq!(counting.counted(), (0, 0));
    // A cancellation goes the same way.
    let id = team.engine(0).submit(vec![task("long", &json!(4))]).await.unwrap();
    eventually("it runs", async || host.running() == 1).await;
    let cancel = Command::Cancel { task: id, reason: "no need".into() };
    team.engine(0).command(cancel).await.unwrap();
    eventually("it is cancelled", async || team.state(id).await == TaskState::Cancelled).await;
    // What was handed over is settled like what the bus has taken.
    let store = &team.parts.store;
    eventually("the outbox is empty", async || store.unsent(0, 10).await.unwrap().is_empty()).await;

    // Work for a host elsewhere waits for the bus, and holds up nobody here: nor what was handed over, nor what is found in the outbox.
    way.mend();
    let (_, elsewhere) = team::local_host_of(&team, team.engine(0), "b", "far").await;
    counting.full.send_replace(true);
    let mut far = task("far", &json!(5));
    far.spec.route = Route::agent("b");
    let far = team.engine(0).submit(vec![far]).await.unwrap();
    eventually("it is on its way", async || counting.counted().1 == 1).await;
    gate.add_permits(2);
    for number in 6..8 {
        let near = team.engine(0).submit(vec![task("near", &json!(number))]).await.unwrap();
        assert_eq!(team.output(near).await, json!("done"));
    }
    eventually("one letter is left", async || store.unsent(0, 10).await.unwrap().len() == 1).await;
    assert_eq!(team.state(far).await, TaskState::Assigned);
    counting.full.send_replace(false);
    assert_eq!(team.output(far).await, json!({ "by": "far", "got": 5 }));
    eventually("it is settled", async || store.unsent(0, 10).await.unwrap().is_empty()).await;
    assert_eq!(counting.counted(), (0, 1), "it went once");
    host.stop().await;
    elsewhere.stop().await;
    team.stop().await;
}
