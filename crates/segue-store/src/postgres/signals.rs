//! Hints over LISTEN and NOTIFY, where there is no Redis.

use super::line::{Ask, Line, Target};
use super::store::Shared;
use super::trouble::Trouble;
use parking_lot::Mutex;
use segue_core::ids::ProjectId;
use segue_core::ports::{Fut, Listener, Signals, Topic};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_postgres::AsyncMessage;

/// Hints of a topic that come within this time leave as one.
const GATHER: Duration = Duration::from_millis(2);
/// Pause before a lost listener connects anew. Hints that are missed meanwhile are made up for by the slow beat.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

const NOTIFY: &str = "SELECT pg_notify('segue', $1 || topic) FROM unnest($2::text[]) AS topic";

/// A place for each topic.
const TOPICS: usize = Topic::ALL.len();

fn place(topic: Topic) -> usize {
    topic as usize
}

/// How often each topic was hinted at.
type Counts = [u64; TOPICS];

struct Hub {
    counts: watch::Sender<Counts>,
    /// Topics that are to be told to the other nodes.
    leaving: Mutex<[bool; TOPICS]>,
    wake: Notify,
}

impl Hub {
    fn heard(&self, topic: Topic) {
        self.counts.send_modify(|counts| counts[place(topic)] += 1);
    }
}

/// Hints to whoever has this project's store open, on any node.
pub struct PostgresSignals {
    hub: Arc<Hub>,
    _tasks: JoinSet<()>,
}

impl PostgresSignals {
    /// Listens and tells on two connections of its own, which come back by themselves.
    pub(super) fn start(shared: &Shared, project: ProjectId) -> PostgresSignals {
        let hub = Arc::new(Hub {
            counts: watch::Sender::new([0; TOPICS]),
            leaving: Mutex::new([false; TOPICS]),
            wake: Notify::new(),
        });
        let prefix = format!("{project} {} ", shared.owner);
        let mut tasks = JoinSet::new();
        tasks.spawn(tell(shared.target.clone(), hub.clone(), prefix));
        tasks.spawn(hear(
            shared.target.clone(),
            hub.clone(),
            project.to_string(),
            shared.owner.to_string(),
        ));
        PostgresSignals { hub, _tasks: tasks }
    }
}

impl Signals for PostgresSignals {
    fn hint(&self, topic: Topic) {
        // Whoever listens here hears it at once.
        self.hub.heard(topic);
        self.tell_others(topic);
    }

    fn tell_others(&self, topic: Topic) {
        let mut leaving = self.hub.leaving.lock();
        if !std::mem::replace(&mut leaving[place(topic)], true) {
            self.hub.wake.notify_one();
        }
    }

    fn listen(&self) -> Box<dyn Listener> {
        let counts = self.hub.counts.subscribe();
        let seen = *counts.borrow();
        Box::new(Ear { counts, seen })
    }
}

struct Ear {
    counts: watch::Receiver<Counts>,
    seen: Counts,
}

impl Listener for Ear {
    fn next<'a>(&'a mut self, topics: &'a [Topic]) -> Fut<'a, Topic> {
        Box::pin(async move {
            loop {
                let now = *self.counts.borrow_and_update();
                for topic in topics {
                    let place = place(*topic);
                    if now[place] > self.seen[place] {
                        self.seen[place] = now[place];
                        return *topic;
                    }
                }
                if self.counts.changed().await.is_err() {
                    // Nobody hints any more.
                    std::future::pending::<()>().await;
                }
            }
        })
    }
}

/// Tells the other nodes what was hinted at here, once a topic and moment.
async fn tell(target: Target, hub: Arc<Hub>, prefix: String) {
    let mut line: Option<Line> = None;
    loop {
        hub.wake.notified().await;
        tokio::time::sleep(GATHER).await;
        let leaving = std::mem::take(&mut *hub.leaving.lock());
        let topics = Topic::ALL.into_iter().filter(|topic| leaving[place(*topic)]);
        let topics: Vec<&str> = topics.map(Topic::as_str).collect();
        if line.as_ref().is_none_or(Line::is_closed) {
            // What cannot be told now is lost, as hints may be.
            line = target.open([NOTIFY], "SET synchronous_commit = off").await.ok();
        }
        let Some(open) = &line else { continue };
        if open.ask(Ask::new(NOTIFY).with(prefix.as_str()).with(topics)).await.is_err() {
            line = None;
        }
    }
}

/// Hears what other nodes tell.
async fn hear(target: Target, hub: Arc<Hub>, project: String, me: String) {
    loop {
        if let Err(trouble) = hear_until_lost(&target, &hub, &project, &me).await {
            tracing::debug!(?trouble, "hints are not heard for now");
        }
        // Something may have been missed meanwhile.
        for topic in Topic::ALL {
            hub.heard(topic);
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn hear_until_lost(
    target: &Target,
    hub: &Hub,
    project: &str,
    me: &str,
) -> Result<(), Trouble> {
    let (client, mut wire) = target.connect().await?;
    let messages = poll_fn(|context| wire.poll_message(context));
    let mut messages =
        std::pin::pin!(futures_util::stream::unfold(messages, |mut messages| async {
            let message = (&mut messages).await;
            message.map(|message| (message, messages))
        }));
    let listen = client.batch_execute("LISTEN segue");
    let mut listen = std::pin::pin!(listen);
    let mut listening = false;
    loop {
        use futures_util::StreamExt;
        tokio::select! {
            done = &mut listen, if !listening => {
                done?;
                listening = true;
            }
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(note))) => {
                    if let Some(topic) = topic_of(note.payload(), project, me) {
                        hub.heard(topic);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
    }
}

/// The topic of a hint of this project that another told.
fn topic_of(payload: &str, project: &str, me: &str) -> Option<Topic> {
    let rest = payload.strip_prefix(project)?.strip_prefix(' ')?;
    let (sender, word) = rest.split_once(' ')?;
    if sender == me {
        return None;
    }
    Topic::named(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_heard_by_the_others_of_its_project() {
        assert_eq!(topic_of("p a ready", "p", "b"), Some(Topic::Ready));
        assert_eq!(topic_of("p b ready", "p", "b"), None, "its own");
        assert_eq!(topic_of("q a ready", "p", "b"), None, "of another project");
        assert_eq!(topic_of("p a nonsense", "p", "b"), None);
    }

    #[test]
    fn every_topic_has_its_place() {
        for (at, topic) in Topic::ALL.into_iter().enumerate() {
            assert_eq!(place(topic), at);
        }
    }
}
