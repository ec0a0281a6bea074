//! A clock that goes with the timer of tokio, and jumps when it is told to.

use crate::store_suite::BEGIN;
use segue_core::ports::Clock;
use segue_core::time::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::time::Instant;

/// The clock of a simulated machine: as long as the timer of tokio is paused, so is it.
#[derive(Debug)]
pub struct SimClock {
    began: Instant,
    jumped_ms: AtomicI64,
}

impl SimClock {
    /// A clock that stands at [`BEGIN`] now.
    pub fn start() -> Arc<SimClock> {
        Arc::new(SimClock { began: Instant::now(), jumped_ms: AtomicI64::new(0) })
    }

    /// Somebody sets it: forward, or back where the number is negative.
    pub fn jump(&self, ms: i64) {
        self.jumped_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Milliseconds since it was started, whatever was set.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        let elapsed = i64::try_from(self.elapsed_ms()).unwrap_or(i64::MAX);
        Time(BEGIN.0 + elapsed + self.jumped_ms.load(Ordering::SeqCst))
    }
}
