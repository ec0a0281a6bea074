//! Which attempts a host runs, and which it has seen: a letter that comes twice runs once.

use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::ids::AttemptId;
use std::collections::VecDeque;
use tokio::sync::watch;

/// Attempts remembered, so that a letter that comes twice does not run twice.
const REMEMBERED_MAX: usize = 100_000;

/// What a host knows of attempts.
#[derive(Default)]
pub(crate) struct Attempts {
    pub(crate) running: FxHashMap<AttemptId, watch::Sender<Option<String>>>,
    known: FxHashSet<AttemptId>,
    order: VecDeque<AttemptId>,
}

impl Attempts {
    /// Remembers an attempt; false where it is known already. One that runs is known however many came since.
    pub(crate) fn remember(&mut self, attempt: AttemptId) -> bool {
        if self.running.contains_key(&attempt) || !self.known.insert(attempt) {
            return false;
        }
        self.order.push_back(attempt);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn attempt(n: usize) -> AttemptId {
        AttemptId(Uuid::from_u128(n as u128))
    }

    #[test]
    fn an_attempt_that_runs_is_known_however_many_came_since() {
        let mut attempts = Attempts::default();
        assert!(attempts.remember(attempt(0)) && attempts.remember(attempt(1)));
        attempts.running.insert(attempt(0), watch::Sender::new(None));
        for n in 2..REMEMBERED_MAX + 10 {
            assert!(attempts.remember(attempt(n)));
        }
        assert!(!attempts.remember(attempt(0)), "it would run twice at a time");
        // One that has ended is forgotten in the end, so that memory is bounded.
        assert!(attempts.remember(attempt(1)));
        assert!(attempts.known.len() <= REMEMBERED_MAX && attempts.order.len() <= REMEMBERED_MAX);
    }
}
