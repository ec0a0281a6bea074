//! The bus as a whole: its connections, how it stands, how it ends.

use super::link::{BACKOFF, Link, Purpose};
use super::names::Names;
use super::options::Options;
use super::probe::{Probe, probe};
use super::standing::Standing;
use super::{consume, dead, link, publish};
use lapin::tcp::OwnedTLSConfig;
use parking_lot::Mutex;
use segue_core::letter::{Address, Letter};
use segue_core::ports::{BusError, Consumer, DeadLetter, Fut, WorkBus};
use std::fmt;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The bus over RabbitMQ. Ends with [`RabbitBus::close`], which has to be called before the runtime ends.
pub struct RabbitBus {
    shared: Arc<Shared>,
    keepers: Mutex<Vec<JoinHandle<()>>>,
}

/// What everything on the bus shares.
pub(super) struct Shared {
    pub(super) options: Arc<Options>,
    pub(super) names: Names,
    pub(super) publishing: Arc<Link>,
    pub(super) consuming: Arc<Link>,
    pub(super) lanes: publish::Lanes,
    /// Room for letters that wait to be taken by the broker.
    pub(super) room: Semaphore,
    pub(super) leaving: consume::Leaving,
    pub(super) closing: watch::Sender<bool>,
}

/// How the bus stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether letters can be published.
    pub publishing: bool,
    /// Whether letters can be taken.
    pub consuming: bool,
    /// The node of the broker, without user and password, or what went wrong last.
    pub place: String,
    /// Why the broker takes nothing for now, while it does not (its memory or its disk is short). Publishing waits.
    pub blocked: Option<String>,
    /// Addresses whose letters wait to be taken by the broker.
    pub waiting: usize,
    /// Bytes of the letters that wait.
    pub waiting_bytes: usize,
    /// How often a connection was lost and made again.
    pub reconnects: u64,
}

impl Shared {
    pub(super) fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}

impl RabbitBus {
    /// Connects, and makes the exchanges and the queues of dead letters where they are missing. Later it connects again by itself.
    ///
    /// # Errors
    /// When the settings are wrong, or no node of the broker answers in time.
    pub async fn connect(options: Options) -> Result<Arc<RabbitBus>, BusError> {
        let nodes = options.nodes()?;
        let tries = nodes.len() as u32;
        let tls = trusted(&options).await?;
        let options = Arc::new(options);
        let closing = watch::Sender::new(false);
        let standing = Standing::new();
        let link = || Link::new(closing.subscribe(), standing.clone());
        let (publishing, consuming) = (link(), link());
        let links = [(&publishing, Purpose::Publishing), (&consuming, Purpose::Consuming)];
        let keepers = links.map(|(link, purpose)| {
            let (options, nodes, tls) = (options.clone(), nodes.clone(), tls.clone());
            tokio::spawn(link::supervise(link.clone(), purpose, options, nodes, tls))
        });
        let shared = Arc::new(Shared {
            names: Names::of(&options),
            room: Semaphore::new(publish::rooms(&options)),
            options,
            publishing,
            consuming,
            lanes: Mutex::default(),
            leaving: consume::Leaving::default(),
            closing,
        });
        let bus = Arc::new(RabbitBus { shared, keepers: Mutex::new(keepers.into()) });
        if let Err(error) = bus.connected(tries).await {
            bus.close().await;
            return Err(error);
        }
        Ok(bus)
    }

    /// Waits until both connections stand. Each of so many nodes of the broker gets its chance, also after those that say nothing until their time is up.
    async fn connected(&self, tries: u32) -> Result<(), BusError> {
        let timeout = self.shared.options.connect_timeout.saturating_mul(tries) + BACKOFF.1;
        let until = Instant::now() + timeout;
        for link in [&self.shared.publishing, &self.shared.consuming] {
            let mut live = link.live();
            let standing = live.wait_for(Option::is_some);
            if !matches!(tokio::time::timeout_at(until, standing).await, Ok(Ok(_))) {
                return Err(link.away());
            }
        }
        Ok(())
    }

    /// Ends every wait with [`BusError::Closed`], and every later call too. What was not acknowledged goes back to its queue.
    pub async fn close(&self) {
        self.shared.closing.send_replace(true);
        let keepers = std::mem::take(&mut *self.keepers.lock());
        for keeper in keepers {
            let _ = keeper.await;
        }
    }

    /// How the bus stands.
    pub fn status(&self) -> Status {
        let Shared { publishing, consuming, lanes, room, options, .. } = &*self.shared;
        let rooms = publish::rooms(options).saturating_sub(room.available_permits());
        let place = match publishing.now() {
            Ok(live) => live.place.clone(),
            Err(error) => error.to_string(),
        };
        Status {
            publishing: publishing.now().is_ok(),
            consuming: consuming.now().is_ok(),
            place,
            blocked: publishing.blocked.borrow().clone(),
            waiting: lanes.lock().len(),
            waiting_bytes: rooms * publish::ROOM_BYTES,
            reconnects: (publishing.made() + consuming.made()).saturating_sub(2),
        }
    }

    /// Asks the broker how it is: its version, how long an answer takes, what of the topology is missing.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn probe(&self) -> Result<Probe, BusError> {
        probe(&self.shared).await
    }
}

/// The certificates to trust: those of a file, or the system's.
async fn trusted(options: &Options) -> Result<OwnedTLSConfig, BusError> {
    let Some(file) = &options.ca_file else { return Ok(OwnedTLSConfig::default()) };
    match tokio::fs::read_to_string(file).await {
        Ok(certificates) => Ok(OwnedTLSConfig { identity: None, cert_chain: Some(certificates) }),
        Err(error) => Err(BusError::Away(format!(
            "the certificates in {} cannot be read: {error}",
            file.display()
        ))),
    }
}

impl WorkBus for RabbitBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(publish::publish(&self.shared, letters))
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(consume::open(&self.shared, Some(queue)))
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(consume::open(&self.shared, None))
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        Box::pin(dead::look(&self.shared, limit))
    }

    fn comebacks(&self) -> Option<u64> {
        let Shared { publishing, consuming, .. } = &*self.shared;
        let stands = publishing.now().is_ok()
            && consuming.now().is_ok()
            && publishing.blocked.borrow().is_none();
        stands.then(|| (publishing.made() + consuming.made()).saturating_sub(2))
    }

    fn trouble(&self) -> Option<String> {
        let Shared { publishing, consuming, .. } = &*self.shared;
        if let Some(error) = publishing.now().err().or(consuming.now().err()) {
            return Some(format!("RabbitMQ: {error}"));
        }
        let blocked = publishing.blocked.borrow();
        blocked.as_ref().map(|reason| format!("RabbitMQ takes no letters: {reason}"))
    }
}

impl Drop for RabbitBus {
    fn drop(&mut self) {
        // Whoever forgot to close lets the connections end at least.
        self.shared.closing.send_replace(true);
    }
}

impl fmt::Debug for RabbitBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitBus")
            .field("options", &self.shared.options)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
