//! Fenced locks in the tables of the store: nothing forgets them, and a fence is checked in the commit that writes under it.

use crate::engine::Parts;
use segue_core::command::{Command, Reject, Reply};
use segue_core::ports::{
    Fence, Fut, Held, LockError, Locks, Signals, Store, StoreError, Topic, check_lock,
};
use segue_core::state::{Claim, Lock, StateCommand};
use std::sync::Arc;

/// Locks over any store.
pub struct StoreLocks {
    store: Arc<dyn Store>,
    signals: Arc<dyn Signals>,
}

impl StoreLocks {
    /// The locks of the project that these parts belong to.
    pub fn of(parts: &Parts) -> StoreLocks {
        StoreLocks::new(parts.store.clone(), parts.signals.clone())
    }

    /// The locks in this store; whoever watches is told by these signals.
    pub fn new(store: Arc<dyn Store>, signals: Arc<dyn Signals>) -> StoreLocks {
        StoreLocks { store, signals }
    }

    async fn change(&self, name: &str, change: StateCommand) -> Result<Reply, LockError> {
        let batch = vec![Command::State(Box::new(change))];
        let decision = self.store.apply(batch).await.map_err(away)?.pop();
        match decision {
            Some(Ok(effects)) => {
                if effects.state_changed {
                    self.signals.hint(Topic::State);
                }
                Ok(effects.reply)
            }
            Some(Err(Reject::Held { lock, .. })) => Err(LockError::Held(held(&lock))),
            Some(Err(Reject::Fenced(_))) => Err(LockError::Lost(name.to_owned())),
            Some(Err(other)) => Err(LockError::Invalid(other.to_string())),
            None => Err(LockError::Away("the store gave no answer to a command".to_owned())),
        }
    }

    async fn fence(&self, name: &str, change: StateCommand) -> Result<Fence, LockError> {
        match self.change(name, change).await? {
            Reply::Locked { token, until } => Ok(Fence { token, until }),
            other => Err(LockError::Away(format!("the store answered a lock with {other:?}"))),
        }
    }
}

fn away(error: StoreError) -> LockError {
    LockError::Away(error.to_string())
}

fn held(lock: &Lock) -> Held {
    let fence = Fence { token: lock.token, until: lock.until };
    Held { holder: lock.holder.to_string(), fence }
}

fn claim(name: &str, token: u64) -> Claim {
    Claim { name: name.into(), token }
}

impl Locks for StoreLocks {
    fn lock<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(async move {
            check_lock(name, Some(holder), Some(ttl_ms))?;
            let change = StateCommand::Lock { name: name.into(), holder: holder.into(), ttl_ms };
            self.fence(name, change).await
        })
    }

    fn renew<'a>(
        &'a self,
        name: &'a str,
        token: u64,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(async move {
            check_lock(name, None, Some(ttl_ms))?;
            self.fence(name, StateCommand::RenewLock { fence: claim(name, token), ttl_ms }).await
        })
    }

    fn release<'a>(&'a self, name: &'a str, token: u64) -> Fut<'a, Result<(), LockError>> {
        Box::pin(async move {
            check_lock(name, None, None)?;
            let change = StateCommand::ReleaseLock { fence: claim(name, token) };
            match self.change(name, change).await? {
                Reply::Done { changed: true } => Ok(()),
                _ => Err(LockError::Lost(name.to_owned())),
            }
        })
    }

    fn holder<'a>(&'a self, name: &'a str) -> Fut<'a, Result<Option<Held>, LockError>> {
        Box::pin(async move {
            check_lock(name, None, None)?;
            let lock = self.store.lock_of(name.into()).await.map_err(away)?;
            let now = self.store.now();
            Ok(lock.filter(|lock| lock.is_held(now)).as_ref().map(held))
        })
    }
}
