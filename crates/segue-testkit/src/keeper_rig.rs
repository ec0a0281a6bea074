//! What the suites of presence, locks and gates need of whoever keeps them, around the ports.

use segue_core::ports::Fut;
use std::sync::Arc;

/// A keeper that has nothing yet.
pub trait Keeper: Send + Sync {
    /// So much time passes for it.
    fn pass(&self, ms: u64) -> Fut<'_, ()>;

    /// It loses everything that it may lose. Nothing where it keeps what it has for good.
    fn forget(&self) -> Fut<'_, ()>;
}

/// A keeper that is reached by this port.
pub trait KeeperOf<P: ?Sized>: Keeper {
    /// A connection: another one each time, as another node has, where the adapter has connections at all.
    fn connect(&self) -> Fut<'_, Arc<P>>;
}
