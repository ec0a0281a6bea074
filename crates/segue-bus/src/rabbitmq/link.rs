//! A connection that is made again whenever it is lost: the driver's own recovery knows one address and waits without a bound.

use super::names::{Names, short};
use super::options::{Options, place};
use super::standing::Standing;
use super::topology;
use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::runtime::default_runtime;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Event};
use parking_lot::Mutex as Lock;
use segue_core::ports::BusError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};

/// The first wait between two tries, and the longest one.
pub(super) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(2));
/// A connection that is closed has so long to say good-bye.
const GOOD_BYE: Duration = Duration::from_secs(2);

/// Messages on their way to the broker at a time.
pub(super) const CHANNELS: usize = 16;

/// What a connection is for. The broker stops reading from those that publish when it runs out of memory, and acknowledgements must get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Publishing,
    Consuming,
}

/// A connection that stands.
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Where messages are published and confirmed, on the connection for that. Each carries one message at a time: the driver gives
    /// a message that comes back to whichever confirmation comes next.
    pub(super) publishing: Vec<Mutex<Channel>>,
    /// Its user, of whom the broker makes sure that messages say nothing else.
    pub(super) user: String,
    /// Where it is tried now and then whether the broker takes letters.
    probing: Option<Channel>,
    /// The node, without user and password.
    pub(super) place: String,
    /// Tells one connection from the next.
    pub(super) epoch: u64,
}

/// A connection that is made again whenever it is lost.
pub(super) struct Link {
    live: watch::Sender<Option<Arc<Live>>>,
    /// Why the broker takes nothing for now, while it does not.
    pub(super) blocked: watch::Sender<Option<String>>,
    closing: watch::Receiver<bool>,
    /// Somebody found the connection of this epoch to be of no use.
    broken: AtomicU64,
    kicked: Notify,
    /// How often a connection was made.
    made: AtomicU64,
    trouble: Lock<String>,
    standing: Arc<Standing>,
}

impl Link {
    pub(super) fn new(closing: watch::Receiver<bool>, standing: Arc<Standing>) -> Arc<Link> {
        Arc::new(Link {
            standing,
            live: watch::Sender::new(None),
            blocked: watch::Sender::new(None),
            closing,
            broken: AtomicU64::new(0),
            kicked: Notify::new(),
            made: AtomicU64::new(0),
            trouble: Lock::new("not connected yet".to_owned()),
        })
    }

    pub(super) fn live(&self) -> watch::Receiver<Option<Arc<Live>>> {
        self.live.subscribe()
    }

    /// The connection, if it stands.
    pub(super) fn now(&self) -> Result<Arc<Live>, BusError> {
        self.live.borrow().clone().ok_or_else(|| self.away())
    }

    /// What went wrong last.
    pub(super) fn away(&self) -> BusError {
        BusError::Away(self.trouble.lock().clone())
    }

    /// How often a connection was made.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// The connection of this epoch is of no use: makes another one.
    pub(super) fn give_up(&self, epoch: u64, why: String) {
        *self.trouble.lock() = why;
        self.broken.fetch_max(epoch, Ordering::SeqCst);
        self.kicked.notify_one();
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    async fn closed(&self) {
        let _ = self.closing.clone().wait_for(|closing| *closing).await;
    }
}

/// Keeps the connection until the bus is closed.
pub(super) async fn supervise(
    link: Arc<Link>,
    purpose: Purpose,
    options: Arc<Options>,
    nodes: Vec<AMQPUri>,
    tls: OwnedTLSConfig,
) {
    let mut wait = BACKOFF.0;
    for node in nodes.iter().cycle() {
        if link.is_closing() {
            return;
        }
        let connecting = connect(&link, purpose, &options, node, &tls);
        let made = tokio::select! {
            () = link.closed() => return,
            made = tokio::time::timeout(options.connect_timeout, connecting) => made,
        };
        let made = made.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        match made {
            Ok(live) => {
                wait = BACKOFF.0;
                hold(&link, live, &options).await;
            }
            Err(error) => {
                let trouble = format!("{}: {error}", place(node));
                link.standing.is_away(&trouble);
                *link.trouble.lock() = trouble;
                tokio::select! {
                    () = link.closed() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
}

async fn connect(
    link: &Link,
    purpose: Purpose,
    options: &Options,
    node: &AMQPUri,
    tls: &OwnedTLSConfig,
) -> Result<Live, String> {
    let said = |error: lapin::Error| error.to_string();
    let properties = ConnectionProperties::default()
        .with_connection_name(format!("segue {} {purpose:?}", options.project).into());
    let runtime = default_runtime().map_err(said)?;
    let connection =
        Connection::connect_uri_with_config(node.clone(), properties, tls.clone(), runtime)
            .await
            .map_err(said)?;
    let (mut publishing, mut probing) = (Vec::new(), None);
    if purpose == Purpose::Publishing {
        probing = Some(connection.create_channel().await.map_err(said)?);
        topology::declare(&connection, &Names::of(options)).await?;
        for _ in 0..CHANNELS {
            let channel = connection.create_channel().await.map_err(said)?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(said)?;
            publishing.push(Mutex::new(channel));
        }
    }
    Ok(Live {
        connection,
        publishing,
        probing,
        user: node.authority.userinfo.username.clone(),
        place: place(node),
        epoch: link.made.fetch_add(1, Ordering::SeqCst) + 1,
    })
}

/// Hands the connection out until it is lost or the bus is closed.
async fn hold(link: &Link, live: Live, options: &Options) {
    let live = Arc::new(live);
    let standing = &link.standing;
    tracing::info!(node = %live.place, "connected to RabbitMQ");
    standing.rises(&live.place);
    link.blocked.send_replace(None);
    link.live.send_replace(Some(live.clone()));
    let lost = watch_over(link, &live, options).await;
    standing.falls();
    link.live.send_replace(None);
    if link.blocked.send_replace(None).is_some() {
        standing.is_not_known();
    }
    if let Some(trouble) = lost {
        standing.is_away(&trouble);
    }
    // Also one that is of no use is closed: its thread would go on.
    let closing = live.connection.close(200, short("OK"));
    let _ = tokio::time::timeout(GOOD_BYE, closing).await;
}

/// Hears what becomes of a connection, until it is lost, which is told, or the bus is closed.
async fn watch_over(link: &Link, live: &Arc<Live>, options: &Options) -> Option<String> {
    let mut events = std::pin::pin!(live.connection.events_listener());
    let mut looks = tokio::time::interval(options.heartbeat);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let names = Names::of(options);
    loop {
        let event = tokio::select! {
            () = link.closed() => return None,
            () = link.kicked.notified() => {
                if link.broken.load(Ordering::SeqCst) >= live.epoch {
                    return Some(link.trouble.lock().clone());
                }
                continue;
            }
            _ = looks.tick() => {
                match link.blocked.borrow().as_deref() {
                    Some(reason) => link.standing.is_full(reason),
                    None => look(live, &names),
                }
                continue;
            }
            event = events.next() => event,
        };
        let trouble = match event {
            Some(Event::ConnectionBlocked(reason)) => {
                link.standing.is_full(&reason);
                link.blocked.send_replace(Some(reason));
                continue;
            }
            Some(Event::ConnectionUnblocked) => {
                link.standing.has_room();
                link.blocked.send_replace(None);
                continue;
            }
            Some(Event::Error(error)) if !live.connection.status().connected() => {
                format!("{}: {error}", live.place)
            }
            Some(_) if live.connection.status().connected() => continue,
            Some(_) | None => format!("{}: the connection ended", live.place),
        };
        (*link.trouble.lock()).clone_from(&trouble);
        return Some(trouble);
    }
}

/// Publishes nothing to nobody. The broker says that it is short of memory or disk to those alone who publish: without this, whoever does so
/// rarely would not know for hours.
fn look(live: &Arc<Live>, names: &Names) {
    let Some(channel) = live.probing.clone() else { return };
    let target = names.nowhere();
    tokio::spawn(async move {
        let options = BasicPublishOptions::default();
        let publishing = channel.basic_publish(
            target.exchange,
            target.key,
            options,
            &[],
            BasicProperties::default(),
        );
        // What becomes of the connection is heard elsewhere.
        let _ = tokio::time::timeout(GOOD_BYE, publishing).await;
    });
}
