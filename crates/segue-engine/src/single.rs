//! Duties that must be done by one node at a time: whoever holds a fenced lease does them.

use crate::complain::complain;
use crate::engine::{Engine, stopped};
use crate::locks::StoreLocks;
use segue_core::ports::{Fence, Fut, LockError, Locks};
use segue_core::state::Claim;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A renewal is due after this part of the lease; two of them may fail.
const RENEWALS: u32 = 3;
/// A holder that could not renew stops so much of the lease before its end, since its work does not end in no time.
const MARGIN: u32 = 10;

/// A duty that must be single in the project.
#[derive(Clone, Debug)]
pub struct Single {
    /// The lock under which it is done.
    pub name: Arc<str>,
    /// How long a holder that has gone keeps it from the others, in milliseconds.
    pub ttl_ms: u64,
    /// The pause between two turns of its holder, in milliseconds.
    pub every_ms: u64,
}

/// What the holder is given for a turn.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The lock and its token: what is written under it is refused once somebody else has the lease.
    pub claim: Claim,
}

/// One turn of a duty. It is dropped where the lease is lost meanwhile.
pub type Job = Arc<dyn Fn(Lease) -> Fut<'static, ()> + Send + Sync>;

impl Engine {
    /// Does a duty whenever this node is the one whose turn it is, until the engine stops.
    pub fn keep_single(self: &Arc<Self>, duty: Single, holder: String, job: Job) {
        let locks = Arc::new(StoreLocks::of(&self.parts));
        let stopping = self.stopping();
        self.supervise("keeper of a duty", async move {
            run_single(locks.as_ref(), &duty, &holder, stopping, job).await;
        });
    }
}

/// Waits for the lease of a duty, does the duty turn by turn while it is held, and begins anew where it is lost. Ends once it is told to stop, and
/// gives the lease back.
pub async fn run_single(
    locks: &dyn Locks,
    duty: &Single,
    holder: &str,
    mut stopping: watch::Receiver<bool>,
    job: Job,
) {
    let ttl = Duration::from_millis(duty.ttl_ms);
    loop {
        // By the own monotonic clock, from before it is asked for: by then the keeper's has not run out.
        let asked = Instant::now();
        let taken = tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            taken = locks.lock(&duty.name, holder, duty.ttl_ms) => taken,
        };
        match taken {
            Ok(fence) => {
                tracing::debug!(duty = %duty.name, token = fence.token, "this node does the duty now");
                let lease = Lease { claim: Claim { name: duty.name.clone(), token: fence.token } };
                let stop = tokio::select! {
                    biased;
                    () = stopped(&mut stopping) => true,
                    () = keep(locks, duty, fence, asked) => false,
                    () = turns(duty, &lease, &job) => false,
                };
                if stop {
                    // Where it fails, the lease ends by itself.
                    let _ = locks.release(&duty.name, fence.token).await;
                    return;
                }
                tracing::warn!(duty = %duty.name, token = fence.token, "the lease of a duty was lost");
            }
            Err(LockError::Held(_)) => {}
            Err(error) => complain(&error, &format!("no lease for the duty {}", duty.name)),
        }
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            () = tokio::time::sleep(ttl / RENEWALS) => {}
        }
    }
}

/// Turn after turn, without end.
async fn turns(duty: &Single, lease: &Lease, job: &Job) {
    loop {
        job(lease.clone()).await;
        tokio::time::sleep(Duration::from_millis(duty.every_ms)).await;
    }
}

/// Renews a lease; returns once it is lost, or about to end without anybody having answered.
async fn keep(locks: &dyn Locks, duty: &Single, fence: Fence, asked: Instant) {
    let ttl = Duration::from_millis(duty.ttl_ms);
    let mut valid_until = asked + (ttl - ttl / MARGIN);
    loop {
        tokio::time::sleep_until(valid_until.min(Instant::now() + ttl / RENEWALS)).await;
        let asked = Instant::now();
        if asked >= valid_until {
            return;
        }
        let renewal = locks.renew(&duty.name, fence.token, duty.ttl_ms);
        match within(valid_until, renewal).await {
            Some(Ok(_)) => valid_until = asked + (ttl - ttl / MARGIN),
            Some(Err(error @ LockError::Away(_))) => {
                complain(
                    &error,
                    &format!("the lease of the duty {} could not be renewed", duty.name),
                );
            }
            Some(Err(LockError::Lost(_) | LockError::Held(_) | LockError::Invalid(_))) | None => {
                return;
            }
        }
    }
}

async fn within<T>(end: Instant, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(end, work).await.ok()
}
