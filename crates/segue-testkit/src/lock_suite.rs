//! What every keeper of fenced locks is asked, whichever adapter stands behind it: `lock_suite::ask_all(|| a_rig(&server)).await`.

use crate::keeper_rig::KeeperOf;
use crate::questions::ask_each;
use futures_util::future::join_all;
use segue_core::ports::{Fence, LOCK_TTL_MS_MAX, LockError, Locks, SOFT_NAME_MAX};
use segue_engine::lock_within;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A time to live that does not end while a question is asked, unless its rig lets it.
const LONG_MS: u64 = 600_000;
/// One that its rig lets end. Long enough for what is asked before, also on a busy machine.
const SHORT_MS: u64 = 60_000;
/// After this long a lock is taken not to become free at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A keeper of locks that holds none, and the ways around the port that a suite needs.
pub trait LockRig: KeeperOf<dyn Locks> {}

impl<R: KeeperOf<dyn Locks>> LockRig for R {}

/// Asks every question in one test, each on a rig of its own that `make` makes.
///
/// # Panics
/// At the end, naming every question that was answered wrongly.
pub async fn ask_all<R: LockRig, F: Future<Output = R>>(
    make: impl Fn() -> F + Send + Sync + 'static,
) {
    ask_each!(make:
        a_lock_is_held_by_one_and_says_by_whom,
        of_many_at_once_one_gets_it,
        whoever_waits_gets_it_in_the_end,
        waiting_has_a_bound,
        a_lock_expires,
        a_renewed_lock_lasts_longer,
        only_its_token_renews_and_releases,
        tokens_only_grow,
        tokens_grow_although_everything_was_forgotten,
        locks_of_other_names_are_other_locks,
        what_is_not_possible_is_refused,
    );
}

async fn take(locks: &Arc<dyn Locks>, name: &str, holder: &str, ttl_ms: u64) -> Fence {
    locks.lock(name, holder, ttl_ms).await.expect("the lock is free")
}

fn is_held_by(result: Result<Fence, LockError>, who: &str) {
    match result {
        Err(LockError::Held(held)) => assert_eq!(held.holder, who),
        other => panic!("it is held by {who}, and was answered with {other:?}"),
    }
}

fn is_lost<T: std::fmt::Debug>(result: Result<T, LockError>) {
    assert!(matches!(result, Err(LockError::Lost(_))), "{result:?}");
}

/// Nobody gets what somebody holds, also not the same one again.
pub async fn a_lock_is_held_by_one_and_says_by_whom(rig: &dyn LockRig) {
    let (here, there) = (rig.connect().await, rig.connect().await);
    assert_eq!(here.holder("prune").await.unwrap(), None);
    let fence = take(&here, "prune", "left", LONG_MS).await;
    is_held_by(there.lock("prune", "right", LONG_MS).await, "left");
    is_held_by(here.lock("prune", "left", LONG_MS).await, "left");
    let held = there.holder("prune").await.unwrap().expect("it is held");
    assert_eq!((&*held.holder, held.fence), ("left", fence));
    here.release("prune", fence.token).await.unwrap();
    assert_eq!(there.holder("prune").await.unwrap(), None);
    take(&there, "prune", "right", LONG_MS).await;
}

/// However many ask at once.
pub async fn of_many_at_once_one_gets_it(rig: &dyn LockRig) {
    for round in 0..10 {
        let name = format!("round-{round}");
        let askers = (0..16).map(|number| {
            let name = name.clone();
            async move {
                let locks = rig.connect().await;
                locks.lock(&name, &format!("asker-{number}"), LONG_MS).await
            }
        });
        let answers = join_all(askers).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    }
}

/// Eight who take turns never meet inside, and each comes with a greater token.
pub async fn whoever_waits_gets_it_in_the_end(rig: &dyn LockRig) {
    let inside = Arc::new(AtomicU64::new(0));
    let latest = Arc::new(AtomicU64::new(0));
    let workers = (0..8).map(|number| {
        let (inside, latest) = (inside.clone(), latest.clone());
        async move {
            let locks = rig.connect().await;
            let holder = format!("worker-{number}");
            for _ in 0..5 {
                let fence = lock_within(&*locks, "turns", &holder, LONG_MS, PATIENCE)
                    .await
                    .expect("its turn comes");
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                tokio::task::yield_now().await;
                let before = latest.swap(fence.token, Ordering::SeqCst);
                assert!(before < fence.token, "{before} came before {}", fence.token);
                inside.fetch_sub(1, Ordering::SeqCst);
                locks.release("turns", fence.token).await.expect("it holds the lock");
            }
        }
    });
    join_all(workers).await;
}

/// Whoever waits in vain is told who holds it.
pub async fn waiting_has_a_bound(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    take(&locks, "prune", "left", LONG_MS).await;
    let patience = Duration::from_millis(50);
    is_held_by(lock_within(&*locks, "prune", "right", LONG_MS, patience).await, "left");
    is_held_by(lock_within(&*locks, "prune", "right", LONG_MS, Duration::ZERO).await, "left");
}

/// A holder that went away holds up nobody for longer than its time to live.
pub async fn a_lock_expires(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    let gone = take(&locks, "prune", "left", SHORT_MS).await;
    rig.pass(SHORT_MS + 1).await;
    assert_eq!(locks.holder("prune").await.unwrap(), None);
    is_lost(locks.renew("prune", gone.token, LONG_MS).await);
    is_lost(locks.release("prune", gone.token).await);
    let next = take(&locks, "prune", "right", LONG_MS).await;
    assert!(next.token > gone.token);
    is_lost(locks.renew("prune", gone.token, LONG_MS).await);
    is_lost(locks.release("prune", gone.token).await);
    assert_eq!(locks.holder("prune").await.unwrap().unwrap().fence, next);
}

/// A renewal counts from when it is asked for.
pub async fn a_renewed_lock_lasts_longer(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    let first = take(&locks, "prune", "left", SHORT_MS).await;
    let renewed = locks.renew("prune", first.token, LONG_MS).await.unwrap();
    assert_eq!(renewed.token, first.token);
    assert!(renewed.until > first.until);
    rig.pass(SHORT_MS + 1).await;
    is_held_by(locks.lock("prune", "right", LONG_MS).await, "left");
    let shorter = locks.renew("prune", first.token, SHORT_MS).await.unwrap();
    assert!(shorter.until < renewed.until, "a renewal may also shorten");
    rig.pass(SHORT_MS + 1).await;
    take(&locks, "prune", "right", LONG_MS).await;
}

/// The token, not the name of the holder, is what counts.
pub async fn only_its_token_renews_and_releases(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    is_lost(locks.renew("prune", 1, LONG_MS).await);
    is_lost(locks.release("prune", 1).await);
    let fence = take(&locks, "prune", "left", LONG_MS).await;
    let others = [0, 1, fence.token - 1, fence.token + 1, u64::MAX];
    for wrong in others.into_iter().filter(|other| *other != fence.token) {
        is_lost(locks.renew("prune", wrong, LONG_MS).await);
        is_lost(locks.release("prune", wrong).await);
    }
    assert_eq!(locks.holder("prune").await.unwrap().unwrap().fence, fence);
    locks.release("prune", fence.token).await.unwrap();
    is_lost(locks.release("prune", fence.token).await);
}

/// Over every lock of the project, so that one fence sorts whatever was given out.
pub async fn tokens_only_grow(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    let mut last = 0;
    for number in 0..50 {
        let name = format!("lock-{}", number % 3);
        let fence = take(&locks, &name, "left", LONG_MS).await;
        assert!(fence.token > last, "{} after {last}", fence.token);
        last = fence.token;
        locks.release(&name, fence.token).await.unwrap();
    }
}

/// Also when their keeper does not know the last one any more.
pub async fn tokens_grow_although_everything_was_forgotten(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    let mut last = 0;
    for _ in 0..5 {
        for _ in 0..20 {
            let fence = take(&locks, "prune", "left", LONG_MS).await;
            assert!(fence.token > last, "{} after {last}", fence.token);
            last = fence.token;
            locks.release("prune", fence.token).await.unwrap();
        }
        rig.forget().await;
    }
}

/// Names are data.
pub async fn locks_of_other_names_are_other_locks(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    let long = "x".repeat(SOFT_NAME_MAX);
    let names = ["a", "a:b", "a b", "{a}", "*", "ü", &long];
    for name in names {
        take(&locks, name, name, LONG_MS).await;
    }
    for name in names {
        assert_eq!(locks.holder(name).await.unwrap().unwrap().holder, name);
    }
}

/// And says so.
pub async fn what_is_not_possible_is_refused(rig: &dyn LockRig) {
    let locks = rig.connect().await;
    let long = "x".repeat(SOFT_NAME_MAX + 1);
    for (name, holder, ttl_ms) in [
        ("", "left", LONG_MS),
        ("prune", "", LONG_MS),
        (&*long, "left", LONG_MS),
        ("prune", &*long, LONG_MS),
        ("prune", "left", 0),
        ("prune", "left", LOCK_TTL_MS_MAX + 1),
    ] {
        let refused = locks.lock(name, holder, ttl_ms).await;
        assert!(matches!(refused, Err(LockError::Invalid(_))), "{refused:?}");
    }
    let fence = take(&locks, "prune", "left", LONG_MS).await;
    let refused = locks.renew("prune", fence.token, 0).await;
    assert!(matches!(refused, Err(LockError::Invalid(_))), "{refused:?}");
}
