//! Hints to every node over one channel of Redis.

use super::link::Link;
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::PubSub;
use segue_core::ports::{Listener, Signals, Topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

/// After something was published, hints are gathered for this long.
const GATHER: Duration = Duration::from_millis(2);
/// The pause before the second try to subscribe. It doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two tries to subscribe.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A subscription on which our own words do not come back for this long is dead.
const ECHO: Duration = Duration::from_secs(5);
/// Bytes of a message that are looked at.
const MESSAGE_MAX: usize = 256;

/// Hints to the listeners of this process at once, and to those of other processes by way of Redis.
pub struct RedisSignals {
    here: Arc<dyn Signals>,
    shared: Arc<Shared>,
    listening: watch::Receiver<bool>,
    /// Ends them with it.
    _tasks: JoinSet<()>,
}

struct Shared {
    link: Arc<Link>,
    channel: String,
    /// By this we know our own words.
    me: String,
    pending: Mutex<Vec<Topic>>,
    wake: Notify,
    /// The oldest of our words that did not come back yet.
    unheard: Mutex<Option<Instant>>,
}

impl RedisSignals {
    /// Carries the hints of `here` to every other process, and theirs to it.
    pub(super) fn start(link: Arc<Link>, here: Arc<dyn Signals>) -> Arc<RedisSignals> {
        let shared = Arc::new(Shared {
            channel: link.key("hints"),
            link,
            me: Uuid::new_v4().simple().to_string(),
            pending: Mutex::default(),
            wake: Notify::new(),
            unheard: Mutex::default(),
        });
        let (listens, listening) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(publish_loop(shared.clone()));
        tasks.spawn(listen_loop(shared.clone(), here.clone(), listens));
        Arc::new(RedisSignals { here, shared, listening, _tasks: tasks })
    }

    /// Whether hints of others come in.
    pub fn is_listening(&self) -> bool {
        *self.listening.borrow()
    }

    /// Waits until hints of others come in.
    pub async fn listening(&self) {
        let mut listening = self.listening.clone();
        // The sender ends only with this.
        let _ = listening.wait_for(|listening| *listening).await;
    }
}

impl Signals for RedisSignals {
    fn hint(&self, topic: Topic) {
        self.here.hint(topic);
        self.tell_others(topic);
    }

    fn tell_others(&self, topic: Topic) {
        let mut pending = self.shared.pending.lock();
        if !pending.contains(&topic) {
            pending.push(topic);
            drop(pending);
            self.shared.wake.notify_one();
        }
    }

    fn listen(&self) -> Box<dyn Listener> {
        // Hints of others end up here as well.
        self.here.listen()
    }
}

impl Shared {
    /// Tells the others of these topics; of none, only to hear whether our own words come back.
    async fn publish(&self, topics: &[Topic]) {
        let words: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.channel).arg(format!("{} {}", self.me, words.join(" ")));
        // Before it is said: where it cannot be said, the subscription is most likely dead as well.
        self.unheard.lock().get_or_insert_with(Instant::now);
        if let Err(error) = self.link.command::<()>(&publish).await {
            tracing::debug!(%error, "a hint was not passed on");
        }
    }
}

/// Publishes what was hinted, many hints as one. What cannot be published is lost, as hints may be.
async fn publish_loop(shared: Arc<Shared>) {
    loop {
        shared.wake.notified().await;
        let topics = std::mem::take(&mut *shared.pending.lock());
        if topics.is_empty() {
            continue;
        }
        shared.publish(&topics).await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Hears what others hint, for as long as the process lives.
async fn listen_loop(shared: Arc<Shared>, here: Arc<dyn Signals>, listens: watch::Sender<bool>) {
    let mut failures = 0_usize;
    loop {
        match shared.link.listen(&shared.channel, failures).await {
            Ok(subscription) => {
                failures = 0;
                *shared.unheard.lock() = None;
                listens.send_replace(true);
                // Nobody knows what was said while we did not hear it.
                for topic in Topic::ALL {
                    here.hint(topic);
                }
                hear(&shared, &*here, subscription).await;
                listens.send_replace(false);
                tracing::debug!("hints of other nodes do not come in for now");
            }
            Err(error) => tracing::debug!(%error, "cannot listen for the hints of other nodes"),
        }
        let doublings = u32::try_from(failures.min(16)).unwrap_or(16);
        failures += 1;
        tokio::time::sleep(PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX)).await;
    }
}

/// Hears until the subscription ends, or our own words do not come back.
async fn hear(shared: &Shared, here: &dyn Signals, mut subscription: PubSub) {
    let mut messages = subscription.on_message();
    loop {
        match tokio::time::timeout(ECHO, messages.next()).await {
            Ok(Some(message)) => {
                let text = message.get_payload_bytes();
                let text = std::str::from_utf8(&text[..text.len().min(MESSAGE_MAX)]).unwrap_or("");
                let mut words = text.split(' ');
                if words.next() == Some(&shared.me) {
                    *shared.unheard.lock() = None;
                    continue;
                }
                words.filter_map(Topic::named).for_each(|topic| here.hint(topic));
            }
            Ok(None) => return,
            // Silence is good news or a dead line. A word of our own tells which.
            Err(_) if shared.unheard.lock().is_none() => shared.publish(&[]).await,
            Err(_) => {}
        }
        if shared.unheard.lock().is_some_and(|since| since.elapsed() >= ECHO) {
            return;
        }
    }
}
