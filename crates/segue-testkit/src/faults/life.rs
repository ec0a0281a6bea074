//! A process that can die at any point at which it asks something of the world.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

type Farewell = Box<dyn FnOnce() + Send>;

/// One life of a process. Where it ends, every port that belongs to it falls silent: no call is answered any more, and none has
/// any effect, so that what the process was about to do stays undone, as if it had been dropped where it stood.
#[derive(Clone, Default)]
pub struct Life(Arc<Inner>);

#[derive(Default)]
struct Inner {
    over: AtomicBool,
    ended: Notify,
    steps: AtomicU64,
    /// The step at which it ends; zero is none.
    last_step: AtomicU64,
    farewells: Mutex<Vec<Farewell>>,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("over", &self.is_over()).finish_non_exhaustive()
    }
}

impl Life {
    /// A process that has just begun.
    pub fn new() -> Life {
        Life::default()
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::SeqCst)
    }

    /// Ends it where it stands. What it held is let go.
    pub fn end(&self) {
        if self.0.over.swap(true, Ordering::SeqCst) {
            return;
        }
        let farewells = std::mem::take(&mut *self.0.farewells.lock());
        for farewell in farewells {
            farewell();
        }
        // In the order in which they wait: the same run ends in the same order.
        self.0.ended.notify_waiters();
    }

    /// Lets it end after so many more steps, at least one: at the end of a call of a port, or at its beginning.
    pub fn end_after_steps(&self, steps: u64) {
        let now = self.0.steps.load(Ordering::SeqCst);
        self.0.last_step.store(now + steps.max(1), Ordering::SeqCst);
    }

    /// Waits until it ends.
    pub async fn ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.is_over() {
                return;
            }
            ended.await;
        }
    }

    /// Does this when it ends; at once where it has ended.
    pub(super) fn on_end(&self, farewell: impl FnOnce() + Send + 'static) {
        let mut farewells = self.0.farewells.lock();
        if self.is_over() {
            drop(farewells);
            farewell();
        } else {
            farewells.push(Box::new(farewell));
        }
    }

    /// A point at which it may die. Never returns where it has.
    pub async fn step(&self) {
        let step = self.0.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if step == self.0.last_step.load(Ordering::SeqCst) {
            self.end();
        }
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_process_dies_at_the_step_that_was_set_and_says_goodbye_once() {
        let (life, goodbyes) = (Life::new(), Arc::new(AtomicU64::new(0)));
        let counted = goodbyes.clone();
        life.on_end(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        life.end_after_steps(2);
        assert!(life.step().now_or_never().is_some());
        assert!(life.ended().now_or_never().is_none());
        assert!(life.step().now_or_never().is_none());
        assert!(life.ended().now_or_never().is_some());
        life.end();
        assert_eq!(goodbyes.load(Ordering::SeqCst), 1);
        assert!(life.step().now_or_never().is_none(), "it stays dead");
    }
}
