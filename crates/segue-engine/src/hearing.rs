//! Whom this node could hear. The silence of somebody who could not be heard means nothing, and ends no lease.

use segue_core::command::Excused;
use std::time::Duration;
use tokio::time::Instant;

/// Which leases this node may end, by what it knows of its bus and its store.
#[derive(Debug)]
pub(crate) struct Hearing {
    /// How long whoever is heard again has to say that it is there.
    lease: Duration,
    /// How often the bus had come back when that was asked last; nothing where it was away.
    comebacks: Option<u64>,
    /// Until then the silence of workers means nothing.
    workers: Instant,
    /// Until then nobody's does.
    everybody: Instant,
}

impl Hearing {
    /// Of a node that begins. It has heard no worker yet: those that went on while there was no node get the time to say so.
    pub(crate) fn new(lease: Duration, comebacks: Option<u64>) -> Hearing {
        let now = Instant::now();
        Hearing { lease, comebacks, workers: now + lease, everybody: now }
    }

    /// The store was away: whoever has a lease could not renew it.
    pub(crate) fn store_was_away(&mut self) {
        self.everybody = Instant::now() + self.lease;
    }

    /// Whose leases do not end now, as the bus stands.
    pub(crate) fn excused(&mut self, comebacks: Option<u64>) -> Excused {
        let now = Instant::now();
        if comebacks.is_none() || comebacks != self.comebacks {
            self.workers = now + self.lease;
        }
        self.comebacks = comebacks;
        if now < self.everybody {
            Excused::Everybody
        } else if now < self.workers {
            Excused::Workers
        } else {
            Excused::Nobody
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn workers_are_excused_until_the_bus_has_been_back_for_a_lease() {
        let mut hearing = Hearing::new(LEASE, Some(0));
        assert_eq!(hearing.excused(Some(0)), Excused::Workers, "it has only begun");
        tokio::time::advance(LEASE).await;
        assert_eq!(hearing.excused(Some(0)), Excused::Nobody);
        assert_eq!(hearing.excused(None), Excused::Workers);
        tokio::time::advance(LEASE * 10).await;
        assert_eq!(hearing.excused(None), Excused::Workers);
        tokio::time::advance(LEASE * 9 / 10).await;
        assert_eq!(hearing.excused(Some(1)), Excused::Workers);
        tokio::time::advance(LEASE * 9 / 10).await;
        assert_eq!(hearing.excused(Some(1)), Excused::Workers);
        tokio::time::advance(LEASE / 10).await;
        assert_eq!(hearing.excused(Some(1)), Excused::Nobody);
        // It was away and back between two looks.
        assert_eq!(hearing.excused(Some(2)), Excused::Workers);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_is_excused_until_the_store_has_been_back_for_a_lease() {
        let mut hearing = Hearing::new(LEASE, Some(0));
        tokio::time::advance(LEASE).await;
        hearing.store_was_away();
        assert_eq!(hearing.excused(Some(0)), Excused::Everybody);
        tokio::time::advance(LEASE).await;
        assert_eq!(hearing.excused(Some(0)), Excused::Nobody);
    }
}
