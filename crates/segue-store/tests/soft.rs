//! Soft state of one process, asked everything that every adapter is asked.

use segue_core::ports::{Clock, Fut, Gates, Locks, Presence};
use segue_core::time::Time;
use segue_store::soft::{InProcessSoft, MonotonicClock, PRESENCE_TTL_MS};
use segue_testkit::keeper_rig::{Keeper, KeeperOf};
use segue_testkit::presence_suite::{self, PresenceRig};
use segue_testkit::{gate_suite, lock_suite};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that only goes on when it is told to.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Time {
        Time(1_700_000_000_000).plus_ms(self.0.load(Ordering::SeqCst))
    }
}

struct Rig {
    clock: Arc<Hand>,
    soft: Arc<InProcessSoft>,
}

impl Rig {
    fn new() -> Rig {
        let clock = Arc::new(Hand::default());
        Rig { clock: clock.clone(), soft: InProcessSoft::with_clock(clock) }
    }
}

impl Keeper for Rig {
    fn pass(&self, ms: u64) -> Fut<'_, ()> {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
        Box::pin(ready(()))
    }

    fn forget(&self) -> Fut<'_, ()> {
        self.soft.forget();
        Box::pin(ready(()))
    }
}

impl KeeperOf<dyn Presence> for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn Presence>> {
        let soft: Arc<dyn Presence> = self.soft.clone();
        Box::pin(ready(soft))
    }
}

impl PresenceRig for Rig {
    fn ttl_ms(&self) -> u64 {
        PRESENCE_TTL_MS
    }
}

impl KeeperOf<dyn Locks> for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn Locks>> {
        let soft: Arc<dyn Locks> = self.soft.clone();
        Box::pin(ready(soft))
    }
}

impl KeeperOf<dyn Gates> for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn Gates>> {
        let soft: Arc<dyn Gates> = self.soft.clone();
        Box::pin(ready(soft))
    }
}

#[tokio::test]
async fn presence() {
    presence_suite::ask_all(|| ready(Rig::new())).await;
}

#[tokio::test]
async fn locks() {
    lock_suite::ask_all(|| ready(Rig::new())).await;
}

#[tokio::test]
async fn gates() {
    gate_suite::ask_all(|| ready(Rig::new())).await;
}

#[tokio::test]
async fn tokens_grow_over_restarts_of_the_process() {
    let token = |clock: Arc<MonotonicClock>| async move {
        InProcessSoft::with_clock(clock).lock("a", "b", 1_000).await.unwrap().token
    };
    let first = MonotonicClock::start();
    let before = token(first.clone()).await;
    let began = first.now();
    while first.now() == began {
        tokio::task::yield_now().await;
    }
    assert!(token(MonotonicClock::start()).await > before);
}
