//! How the broker stands for both connections together, and what of it the log hears.

use segue_core::outage::{Outage, Words};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections of a bus: one for publishing, one for taking.
const LINKS: usize = 2;

const AWAY: Words = Words {
    begins: "RabbitMQ is away; it is tried again and again",
    goes_on: "RabbitMQ is still away",
    is_over: "RabbitMQ is back",
};
const FULL: Words = Words {
    begins: "RabbitMQ takes no letters: it is short of memory or disk; publishing waits",
    goes_on: "RabbitMQ still takes no letters: it is short of memory or disk; publishing waits",
    is_over: "RabbitMQ takes letters again",
};

/// How the broker stands.
pub(super) struct Standing {
    away: Outage,
    full: Outage,
    up: AtomicUsize,
}

impl Standing {
    pub(super) fn new() -> Arc<Standing> {
        let began = Instant::now();
        let clock = move || -> Duration { began.elapsed() };
        let (away, full) = (Outage::new(AWAY, clock), Outage::new(FULL, clock));
        Arc::new(Standing { away, full, up: AtomicUsize::new(0) })
    }

    /// A connection stands.
    pub(super) fn rises(&self, node: &str) {
        let up = self.up.fetch_add(1, Ordering::SeqCst) + 1;
        // At the level of the first line: whoever read that one wants to read this.
        if up == LINKS
            && let Some(words) = self.away.worked()
        {
            tracing::warn!(node, "{words}");
        }
    }

    /// A connection that stood does not any more.
    pub(super) fn falls(&self) {
        self.up.fetch_sub(1, Ordering::SeqCst);
    }

    /// It cannot be reached, or the connection to it was lost.
    pub(super) fn is_away(&self, trouble: &str) {
        if let Some(words) = self.away.failed() {
            tracing::warn!(trouble, "{words}");
        }
    }

    /// It takes no letters, still.
    pub(super) fn is_full(&self, reason: &str) {
        if let Some(words) = self.full.failed() {
            tracing::warn!(reason, "{words}");
        }
    }

    /// The connection over which it said that it takes no letters is gone: whether it takes some is for the next one to hear.
    pub(super) fn is_not_known(&self) {
        let _ = self.full.worked();
    }

    /// It takes letters again.
    pub(super) fn has_room(&self) {
        if let Some(words) = self.full.worked() {
            tracing::warn!("{words}");
        }
    }
}
