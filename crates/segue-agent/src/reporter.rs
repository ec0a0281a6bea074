//! What attempts report, on its way to the bus.

use crate::host::{BACKOFF, BATCH_MAX};
use segue_core::letter::Letter;
use segue_core::ports::{BusError, WorkBus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What has been reported when the host is told to stop has this long to be handed over.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Waits until the host was told to stop.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Publishes what attempts report, many in one message; keeps it while the bus is away.
pub(crate) struct Reporter {
    pub(crate) bus: Arc<dyn WorkBus>,
    pub(crate) reports: mpsc::UnboundedReceiver<Letter>,
    /// Letters that were reported and are not published.
    pub(crate) backlog: Arc<AtomicUsize>,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Reporter {
    /// Publishes until the host was told to stop and nothing is left, or cannot be handed over.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let count = tokio::select! {
                biased;
                count = self.reports.recv_many(&mut batch, BATCH_MAX) => count,
                // Nothing waits to be published at this moment, and nothing comes any more.
                () = stopped(&mut self.stopping) => return,
            };
            while let Err(error) = self.publish(&batch).await {
                let closed = error == BusError::Closed;
                if closed || *self.stopping.borrow() {
                    let letters = batch.len() + self.reports.len();
                    tracing::warn!(%error, letters, "what attempts reported is lost with this host");
                    return;
                }
                tracing::warn!(%error, "outcomes cannot be published for now; they wait");
                let _ = tokio::time::timeout(BACKOFF, stopped(&mut self.stopping)).await;
            }
            self.backlog.fetch_sub(count, Ordering::Relaxed);
            batch.clear();
        }
    }

    /// Publishes, and gives up some time after the host was told to stop.
    async fn publish(&mut self, batch: &[Letter]) -> Result<(), BusError> {
        let last_chance = async {
            stopped(&mut self.stopping).await;
            tokio::time::sleep(LAST_CHANCE).await;
        };
        tokio::select! {
            biased;
            published = self.bus.publish(batch.to_vec()) => published,
            () = last_chance => Err(BusError::Away("it did not take the letters in time".into())),
        }
    }
}
