//! What attempts report, on its way to the bus.

use crate::host::{BACKOFF, BATCH_MAX};
use crate::spool::{Batch, Spool};
use segue_core::letter::Letter;
use segue_core::outage::{Outage, Words};
use segue_core::ports::{Blobs, BusError, WorkBus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What has been reported when the host is told to stop has this long to be handed over, all of it together.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// How it is told that nobody takes what is reported.
const WAITING: Words = Words {
    begins: "what attempts report cannot be published; it waits",
    goes_on: "what attempts report still waits",
    is_over: "what attempts report is published again",
};

/// Whether nobody takes what is reported.
pub(crate) fn outage() -> Outage {
    let began = Instant::now();
    Outage::new(WAITING, move || began.elapsed())
}

/// Waits until the host was told to stop.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Keeps outcomes on the disk until they are delivered.
#[derive(Clone)]
pub struct Outlet {
    /// Where they are kept.
    pub spool: Arc<Spool>,
    /// Where the bodies go to which they refer.
    pub bodies: Arc<dyn Blobs>,
}

/// Publishes what attempts report, many in one message; keeps it while the bus is away.
pub(crate) struct Reporter {
    pub(crate) bus: Arc<dyn WorkBus>,
    pub(crate) reports: Reports,
    /// Letters that were reported and are not published.
    pub(crate) backlog: Arc<AtomicUsize>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Whether nobody takes what is reported.
    pub(crate) outage: Outage,
    /// Until then something may be handed over; known once the host was told to stop.
    pub(crate) until: Option<Instant>,
}

/// Where letters come from: as they are reported, or from the spool, where they are on the disk already.
pub(crate) enum Reports {
    Direct(mpsc::UnboundedReceiver<Letter>),
    Spooled { outlet: Outlet, kept: mpsc::UnboundedReceiver<Kept> },
}

/// Letters that were reported together, and where their outcomes are kept.
pub(crate) type Kept = (Vec<Letter>, Option<Batch>);

/// Writes outcomes to the spool before they may be published. It does so while the bus is away, too.
pub(crate) async fn spool_loop(
    spool: Arc<Spool>,
    mut reports: mpsc::UnboundedReceiver<Letter>,
    kept: mpsc::UnboundedSender<Kept>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let mut letters = Vec::new();
        tokio::select! {
            biased;
            count = reports.recv_many(&mut letters, BATCH_MAX) => if count == 0 { return },
            // Nothing waits at this moment, and nothing comes any more.
            () = stopped(&mut stopping) => return,
        }
        let batch = spool.keep(&letters).await.unwrap_or_else(|error| {
            tracing::error!(%error, "outcomes cannot be kept on the disk; they wait in memory alone");
            None
        });
        if kept.send((letters, batch)).is_err() {
            return;
        }
    }
}

impl Reporter {
    /// Publishes until the host was told to stop and nothing is left, or cannot be handed over.
    pub(crate) async fn run(mut self) {
        while let Some((letters, kept)) = self.next().await {
            while let Err(error) = self.publish(&letters).await {
                let closed = error == BusError::Closed;
                if closed || *self.stopping.borrow() {
                    let letters = self.backlog.load(Ordering::Relaxed);
                    match self.reports {
                        Reports::Direct(_) => {
                            tracing::warn!(%error, letters, "what attempts reported is lost with this host");
                        }
                        Reports::Spooled { .. } => {
                            tracing::warn!(%error, letters, "what attempts reported is delivered by the next life of this host");
                        }
                    }
                    return;
                }
                if let Some(words) = self.outage.failed() {
                    tracing::warn!(%error, "{words}");
                }
                let _ = tokio::time::timeout(BACKOFF, stopped(&mut self.stopping)).await;
            }
            if let Some(words) = self.outage.worked() {
                tracing::warn!("{words}");
            }
            self.backlog.fetch_sub(letters.len(), Ordering::Relaxed);
            if let (Reports::Spooled { outlet, .. }, Some(batch)) = (&self.reports, kept) {
                outlet.spool.done(batch).await;
            }
        }
    }

    /// What is to be published next; `None` where nothing is left and nothing comes any more.
    async fn next(&mut self) -> Option<Kept> {
        match &mut self.reports {
            Reports::Direct(reports) => {
                let mut letters = Vec::new();
                tokio::select! {
                    biased;
                    count = reports.recv_many(&mut letters, BATCH_MAX) => {
                        (count > 0).then_some((letters, None))
                    }
                    () = stopped(&mut self.stopping) => None,
                }
            }
            // It ends with the spool's loop, which ends when the host stops.
            Reports::Spooled { kept, .. } => kept.recv().await,
        }
    }

    /// Publishes, and gives up some time after the host was told to stop.
    async fn publish(&mut self, batch: &[Letter]) -> Result<(), BusError> {
        let last_chance = async {
            stopped(&mut self.stopping).await;
            let until = *self.until.get_or_insert_with(|| Instant::now() + LAST_CHANCE);
            tokio::time::sleep_until(until).await;
        };
        let handed_over = async {
            if let Reports::Spooled { outlet, .. } = &self.reports {
                let handed_in = outlet.spool.hand_in(batch, outlet.bodies.as_ref()).await;
                handed_in.map_err(|error| BusError::Away(error.to_string()))?;
            }
            self.bus.publish(batch.to_vec()).await
        };
        tokio::select! {
            biased;
            published = handed_over => published,
            () = last_chance => Err(BusError::Away("it did not take the letters in time".into())),
        }
    }
}
