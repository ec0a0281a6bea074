//! Waiting for a lock, with a bound.

use segue_core::ports::{Fence, LockError, Locks};
use std::time::Duration;
use tokio::time::Instant;

/// The pause after the first vain try. It doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Takes a lock, and waits for it as long as `patience` where somebody holds it or its keeper is away. Whoever waits longest has no
/// better chance than others.
///
/// # Errors
/// What the last try said.
pub async fn lock_within(
    locks: &dyn Locks,
    name: &str,
    holder: &str,
    ttl_ms: u64,
    patience: Duration,
) -> Result<Fence, LockError> {
    let end = Instant::now() + patience;
    let mut pause = PAUSE_MIN;
    loop {
        let error = match locks.lock(name, holder, ttl_ms).await {
            Ok(fence) => return Ok(fence),
            Err(error @ (LockError::Held(_) | LockError::Away(_))) => error,
            Err(error @ (LockError::Lost(_) | LockError::Invalid(_))) => return Err(error),
        };
        let now = Instant::now();
        if now >= end {
            return Err(error);
        }
        tokio::time::sleep_until(end.min(now + pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
