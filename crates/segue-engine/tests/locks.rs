//! Locks in the tables, and duties that one does at a time.

use segue_bus::signals::InProcessSignals;
use segue_core::ports::{Fence, Fut, Held, LockError, Locks, Store};
use segue_engine::{Lease, Single, StoreLocks, run_single};
use segue_store::sqlite::{Options, SqliteStore, Sync};
use segue_testkit::keeper_rig::{Keeper, KeeperOf};
use segue_testkit::lock_suite;
use segue_testkit::memory::MemoryStore;
use segue_testkit::simulator::SimClock;
use segue_testkit::store_suite::{KEY, TestClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

struct Rig {
    clock: Arc<TestClock>,
    locks: Arc<dyn Locks>,
    _folder: Option<tempfile::TempDir>,
}

impl KeeperOf<dyn Locks> for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn Locks>> {
        Box::pin(std::future::ready(self.locks.clone()))
    }
}

impl Keeper for Rig {
    fn pass(&self, ms: u64) -> Fut<'_, ()> {
        self.clock.advance(i64::try_from(ms).expect("a short time"));
        Box::pin(std::future::ready(()))
    }

    /// A store forgets nothing.
    fn forget(&self) -> Fut<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn locks_in(store: Arc<dyn Store>) -> Arc<dyn Locks> {
    Arc::new(StoreLocks::new(store, InProcessSignals::new()))
}

#[test]
fn locks_in_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(lock_suite::ask_all(|| async {
        let clock = TestClock::new();
        let store = Arc::new(MemoryStore::new(clock.clone(), 1, KEY));
        Rig { clock, locks: locks_in(store), _folder: None }
    }));
}

#[test]
fn locks_in_sqlite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(lock_suite::ask_all(|| async {
        let clock = TestClock::new();
        let folder = tempfile::tempdir().expect("a folder");
        let project = segue_core::ids::ProjectId(Uuid::from_u128(1));
        let options = Options {
            clock: clock.clone(),
            sync: Sync::Off,
            ..Options::new(folder.path(), project, KEY)
        };
        let store = SqliteStore::open(options).expect("opens");
        Rig { clock, locks: locks_in(store), _folder: Some(folder) }
    }));
}

// ---- duties that one does at a time, in virtual time -------------------------------------------

const TTL_MS: u64 = 30_000;
/// How long a turn takes that ends.
const TURN: Duration = Duration::from_millis(10);

/// The line of one node to its locks, which can be cut.
struct Line {
    locks: Arc<dyn Locks>,
    cut: AtomicBool,
}

impl Line {
    fn open(&self) -> Result<(), LockError> {
        match self.cut.load(Ordering::SeqCst) {
            true => Err(LockError::Away("the line is cut".to_owned())),
            false => Ok(()),
        }
    }
}

impl Locks for Line {
    fn lock<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(async move {
            self.open()?;
            self.locks.lock(name, holder, ttl_ms).await
        })
    }

    fn renew<'a>(
        &'a self,
        name: &'a str,
        token: u64,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(async move {
            self.open()?;
            self.locks.renew(name, token, ttl_ms).await
        })
    }

    fn release<'a>(&'a self, name: &'a str, token: u64) -> Fut<'a, Result<(), LockError>> {
        Box::pin(async move {
            self.open()?;
            self.locks.release(name, token).await
        })
    }

    fn holder<'a>(&'a self, name: &'a str) -> Fut<'a, Result<Option<Held>, LockError>> {
        self.locks.holder(name)
    }
}

/// A turn as it stands: who is at it, under which token; nobody after its end, however it ended.
struct Turn(watch::Sender<Option<(usize, u64)>>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

struct Team {
    lines: Vec<Arc<Line>>,
    nodes: Vec<tokio::task::JoinHandle<()>>,
    stop: watch::Sender<bool>,
    at_it: watch::Receiver<Option<(usize, u64)>>,
    /// Whether two were ever at it at once.
    clash: Arc<AtomicBool>,
}

impl Team {
    /// So many nodes, each of which would do the duty. A turn lasts for ever, or a moment.
    fn start(size: usize, endless: bool) -> Team {
        let store = Arc::new(MemoryStore::new(SimClock::start(), 1, KEY));
        let (sender, at_it) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let clash = Arc::new(AtomicBool::new(false));
        let (mut lines, mut nodes) = (Vec::new(), Vec::new());
        for number in 0..size {
            let line =
                Arc::new(Line { locks: locks_in(store.clone()), cut: AtomicBool::new(false) });
            lines.push(line.clone());
            let (sender, stopping) = (sender.clone(), stopping.clone());
            let clash = clash.clone();
            let job = move |lease: Lease| -> Fut<'static, ()> {
                let (sender, clash) = (sender.clone(), clash.clone());
                Box::pin(async move {
                    let before = sender.send_replace(Some((number, lease.claim.token)));
                    clash.fetch_or(before.is_some(), Ordering::SeqCst);
                    let _turn = Turn(sender);
                    let turn = std::future::pending::<()>();
                    match endless {
                        true => turn.await,
                        false => drop(tokio::time::timeout(TURN, turn).await),
                    }
                })
            };
            let duty = Single { name: "prune".into(), ttl_ms: TTL_MS, every_ms: 1_000 };
            nodes.push(tokio::spawn(async move {
                let holder = format!("node-{number}");
                run_single(line.as_ref(), &duty, &holder, stopping, Arc::new(job)).await;
            }));
        }
        Team { lines, nodes, stop, at_it, clash }
    }

    /// Waits until somebody else than this one is at it.
    async fn other_than(&mut self, before: Option<usize>) -> (usize, u64) {
        let other = |now: &Option<(usize, u64)>| now.is_some_and(|(who, _)| Some(who) != before);
        let found =
            tokio::time::timeout(Duration::from_secs(600), self.at_it.wait_for(other)).await;
        assert!(!self.clash.load(Ordering::SeqCst), "two are at it");
        (*found.expect("somebody takes over").expect("the team lives")).expect("somebody")
    }
}

#[tokio::test(start_paused = true)]
async fn one_does_it_and_another_takes_over_when_it_dies() {
    let mut team = Team::start(3, true);
    let (mut who, mut token) = team.other_than(None).await;
    for _ in 0..2 {
        let died = Instant::now();
        team.nodes[who].abort();
        let (next, greater) = team.other_than(Some(who)).await;
        assert!(greater > token, "{greater} after {token}");
        let waited = died.elapsed();
        assert!(waited <= Duration::from_millis(TTL_MS * 4 / 3 + 1), "it took {waited:?}");
        (who, token) = (next, greater);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_stops_before_another_begins() {
    let mut team = Team::start(2, true);
    let (who, token) = team.other_than(None).await;
    let cut = Instant::now();
    team.lines[who].cut.store(true, Ordering::SeqCst);
    team.at_it.wait_for(Option::is_none).await.expect("the team lives");
    let stopped = cut.elapsed();
    assert!(stopped < Duration::from_millis(TTL_MS), "it went on for {stopped:?}");
    let (other, greater) = team.other_than(None).await;
    assert!(other != who && greater > token);
    team.lines[who].cut.store(false, Ordering::SeqCst);
    team.nodes[other].abort();
    assert_eq!(team.other_than(Some(other)).await.0, who, "it is back");
}

#[tokio::test(start_paused = true)]
async fn who_holds_it_keeps_it_turn_after_turn_and_gives_it_back_at_the_end() {
    let mut team = Team::start(2, false);
    let (who, token) = team.other_than(None).await;
    for _ in 0..200 {
        let next = team.at_it.wait_for(Option::is_some).await.expect("the team lives");
        assert_eq!(*next, Some((who, token)));
        drop(next);
        team.at_it.wait_for(Option::is_none).await.expect("the team lives");
    }
    team.stop.send_replace(true);
    for node in team.nodes {
        node.await.expect("it ends");
    }
    assert_eq!(team.lines[0].holder("prune").await, Ok(None), "it is given back at once");
}
