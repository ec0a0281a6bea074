//! How a node or worker ends that was told to: within its patience and [`LAST_STEPS`], whichever server is away.
//!
//! What could not be said or handed over by then is no loss: leases end, letters are in the outbox, a worker's outcomes in its spool.

use crate::failure::{Exit, Failure, Outcome};
use crate::screen::text::duration;
use std::time::Duration;

/// When the patience is over, everything that is left to do takes no longer than this. Then the process ends as it stands.
pub const LAST_STEPS: Duration = Duration::from_secs(25);
/// Attempts that were told to end have so long; what is left of them is killed when the process ends, by their supervisors.
pub const ATTEMPTS: Duration = Duration::from_secs(8);
/// So long a word to the others may take: that this one takes no more, that it has gone.
pub const WORD: Duration = Duration::from_secs(2);

/// Takes one step of an ending, and goes on without it where it takes longer than this.
pub async fn within<T>(limit: Duration, what: &str, step: impl Future<Output = T>) -> Option<T> {
    let done = tokio::time::timeout(limit, step).await;
    if done.is_err() {
        tracing::warn!("{what}: it took longer than {}, and is left", told(limit));
    }
    done.ok()
}

/// Takes all steps of an ending.
///
/// # Errors
/// When they take longer than the patience and [`LAST_STEPS`].
pub async fn bounded<T>(patience: Duration, steps: impl Future<Output = T>) -> Outcome<T> {
    let limit = patience.saturating_add(LAST_STEPS);
    tokio::time::timeout(limit, steps).await.map_err(|_| {
        let message = format!("it did not come to its end within {}, and is cut off", told(limit));
        Failure::new(Exit::Node, message).hint(
            "what it had is given to others when its lease ends; `segue doctor` asks the servers",
        )
    })
}

fn told(limit: Duration) -> String {
    duration(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}
