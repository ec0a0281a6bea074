//! Letters on their way in. A task of its own holds the channel, makes it again when the connection was lost, and reads messages, so
//! that `next` only ever waits for letters that are read, and may be dropped at any time.

use super::Shared;
use super::book::{Book, Gone, Rest, Settled};
use super::dead::{bury, reason_of};
use super::link::Live;
use super::names::{Source, Target, short};
use super::publish::{Said, send};
use super::topology;
use crate::wire::{self, Dead, Expected};
use futures_util::StreamExt;
use lapin::message::Delivery as Came;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Error};
use parking_lot::Mutex;
use segue_core::letter::{Address, Letter};
use segue_core::ports::{BusError, Consumer, Delivery, Fut};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot, watch};
use uuid::Uuid;

/// After a channel could not be opened, or what was dead could not be buried, this long until the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// What a consumer and its task share.
struct Desk {
    shared: Arc<Shared>,
    /// Whose queue it is; nothing for the dead letters that brought work.
    address: Option<Address>,
    source: Source,
    book: Mutex<Book>,
    /// Letters are ready.
    ready: Notify,
    /// Held from noting what is done to telling the broker.
    telling: AsyncMutex<()>,
    /// Why the queue could not be opened last.
    trouble: Mutex<Option<String>>,
    /// The consumer was dropped.
    left: watch::Sender<bool>,
}

/// Opens a consumer, and returns once its queue is there.
pub(super) async fn open(
    shared: &Arc<Shared>,
    address: Option<Address>,
) -> Result<Box<dyn Consumer>, BusError> {
    if shared.is_closed() {
        return Err(BusError::Closed);
    }
    let source = match &address {
        Some(address) => shared.names.source(address, &shared.options),
        None => shared.names.dead_source(),
    };
    let timeout = shared.options.connect_timeout;
    // One that was dropped a moment ago must not take what this one waits for.
    let _ = tokio::time::timeout(timeout, shared.leaving.gone(source.queue.as_str())).await;
    let desk = Arc::new(Desk {
        shared: shared.clone(),
        address,
        source,
        book: Mutex::default(),
        ready: Notify::new(),
        telling: AsyncMutex::default(),
        trouble: Mutex::default(),
        left: watch::Sender::new(false),
    });
    let (opened, opens) = oneshot::channel();
    tokio::spawn(pump(desk.clone(), opened));
    let consumer = RabbitConsumer { desk: desk.clone() };
    let mut closing = shared.closing();
    tokio::select! {
        _ = opens => Ok(Box::new(consumer)),
        _ = closing.wait_for(|closing| *closing) => Err(BusError::Closed),
        // What was begun ends with the consumer.
        () = tokio::time::sleep(timeout) => Err(match desk.trouble.lock().take() {
            Some(trouble) => BusError::Away(trouble),
            None => shared.consuming.away(),
        }),
    }
}

/// Consumers that were dropped, by queue, until the broker knows.
#[derive(Default)]
pub(super) struct Leaving {
    queues: Mutex<Vec<String>>,
    changed: Notify,
}

impl Leaving {
    fn begin(&self, queue: &str) {
        self.queues.lock().push(queue.to_owned());
    }

    fn end(&self, queue: &str) {
        let mut queues = self.queues.lock();
        if let Some(at) = queues.iter().position(|other| other == queue) {
            queues.swap_remove(at);
        }
        drop(queues);
        self.changed.notify_waiters();
    }

    async fn gone(&self, queue: &str) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.queues.lock().iter().any(|other| other == queue) {
                return;
            }
            changed.await;
        }
    }
}

/// Takes messages from the broker until the consumer is dropped or the bus closed.
async fn pump(desk: Arc<Desk>, opened: oneshot::Sender<()>) {
    let mut opened = Some(opened);
    let mut left = desk.left.subscribe();
    let mut closing = desk.shared.closing();
    let mut links = desk.shared.consuming.live();
    loop {
        let ended = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => true,
            _ = left.wait_for(|left| *left) => true,
            _ = take_over(&desk, &mut links, &mut opened) => false,
        };
        let channel = desk.book.lock().channel.clone();
        if ended {
            if let Some(channel) = channel {
                leave(&desk, &channel).await;
            }
            break;
        }
        desk.book.lock().begin(None);
        // One channel may be lost while the connection stands.
        if let Some(channel) = channel {
            let _ = tokio::time::timeout(PAUSE, topology::close(&channel)).await;
        }
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => {}
            _ = left.wait_for(|left| *left) => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    if *left.borrow() {
        desk.shared.leaving.end(desk.source.queue.as_str());
    }
}

/// Opens a channel as soon as there is a connection, and reads what comes until it is lost.
async fn take_over(
    desk: &Arc<Desk>,
    links: &mut watch::Receiver<Option<Arc<super::link::Live>>>,
    opened: &mut Option<oneshot::Sender<()>>,
) {
    let Ok(live) = links.wait_for(Option::is_some).await.map(|live| live.clone()) else { return };
    let Some(live) = live else { return };
    let opening = tokio::time::timeout(desk.shared.options.connect_timeout, begin(desk, &live));
    let mut stream = match opening.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            if !topology::is_locked(&error) {
                tracing::warn!(queue = %desk.source.queue, %error, "a queue cannot be opened");
            }
            let trouble = format!("queue {} cannot be opened: {error}", desk.source.queue);
            *desk.trouble.lock() = Some(trouble);
            return;
        }
        Err(_) => return live_is_dead(desk, &live),
    };
    if let Some(opened) = opened.take() {
        let _ = opened.send(());
    }
    let lost = async {
        let _ = links.wait_for(|now| now.as_ref().is_none_or(|now| now.epoch != live.epoch)).await;
    };
    let mut lost = std::pin::pin!(lost);
    let mut seen = std::collections::VecDeque::new();
    loop {
        let came = tokio::select! {
            biased;
            () = &mut lost => return,
            came = stream.next() => came,
        };
        match came {
            Some(Ok(came)) => read(desk, came, &mut seen),
            // One of many, where the connection itself was lost, which is told already.
            Some(Err(error)) if !live.connection.status().connected() => {
                tracing::debug!(queue = %desk.source.queue, %error, "a queue waits for the next connection");
                return;
            }
            Some(Err(error)) => {
                tracing::warn!(queue = %desk.source.queue, %error, "the channel of a queue was lost");
                return;
            }
            None => return,
        }
    }
}

fn live_is_dead(desk: &Desk, live: &Live) {
    desk.shared.consuming.give_up(live.epoch, format!("{}: no answer in time", live.place));
}

async fn begin(desk: &Desk, live: &Live) -> Result<lapin::Consumer, Error> {
    topology::queue(&live.connection, &desk.source).await?;
    let channel = live.connection.create_channel().await?;
    let prefetch = desk.shared.options.prefetch;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    desk.book.lock().begin(Some(channel.clone()));
    let tag = short(&format!("segue-{}", Uuid::new_v4().simple()));
    let options = BasicConsumeOptions::default();
    let (queue, nothing) = (desk.source.queue.clone(), FieldTable::default());
    channel.basic_consume(queue, tag, options, nothing).await
}

/// Messages to all whose id is remembered: one that had to be published again comes twice to those who had room the first time.
const SEEN_MAX: usize = 1_024;

/// Reads a message. What is no letter of ours is buried, each on its own.
fn read(desk: &Arc<Desk>, came: Came, seen: &mut std::collections::VecDeque<String>) {
    let shared = &desk.shared;
    let tag = came.delivery_tag;
    if desk.address == Some(Address::All)
        && let Some(id) = came.properties.message_id()
    {
        let id = id.to_string();
        if seen.contains(&id) {
            desk.book.lock().add(tag, Vec::new(), Vec::new(), 1, true, None);
            let desk = desk.clone();
            tokio::spawn(async move { settle(&desk, |book| book.buried(tag)).await });
            return;
        }
        if seen.len() == SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(id);
    }
    let user = came.properties.user_id().as_ref().map(|user| user.as_str().to_owned());
    let engines = &shared.options.engine_users;
    let expected = Expected {
        project: &shared.options.project,
        to: desk.address.as_ref(),
        bytes_max: match desk.address {
            Some(_) => shared.options.message_bytes_max,
            None => 2 * shared.options.message_bytes_max,
        },
        from_engine: (!engines.is_empty() && desk.address.is_some())
            .then(|| user.is_some_and(|user| engines.contains(&user))),
    };
    let (mut letters, mut unreadable) = (Vec::new(), Vec::new());
    let broker = reason_of(came.properties.headers().as_ref());
    let (mut again, mut dead) = (false, broker.clone());
    match wire::read(&came.data, &expected) {
        Ok(message) => {
            again = message.again;
            dead = message.dead.or(broker);
            for found in message.letters {
                match found.letter {
                    Ok(letter) => letters.push((letter, found.at)),
                    Err(bad) => unreadable.push(bad),
                }
            }
            if let Some(excerpt) = message.excerpt {
                let reason = dead.clone().unwrap_or_default();
                unreadable.push(wire::Unreadable { reason, excerpt });
            }
        }
        Err(bad) => unreadable.push(bad),
    }
    // The dead letters that brought work are taken by the engine, which is to know why each is there.
    let dead = match desk.address {
        Some(_) => None,
        None => Some(dead.unwrap_or_else(|| "no reason was given".to_owned())),
    };
    let redelivered = came.redelivered || again;
    let count = unreadable.len();
    let some = !letters.is_empty();
    desk.book.lock().add(tag, came.data, letters, count, redelivered, dead.as_deref());
    if some {
        desk.ready.notify_one();
    }
    if count > 0 {
        tokio::spawn(bury_these(desk.clone(), tag, unreadable, came.acker));
    }
}

/// Buries what was no letter, and lets the rest of its message go on.
async fn bury_these(
    desk: Arc<Desk>,
    tag: u64,
    unreadable: Vec<wire::Unreadable>,
    acker: lapin::Acker,
) {
    for bad in unreadable {
        tracing::warn!(queue = %desk.source.queue, reason = %bad.reason, "what came is no letter of ours");
        // As long as it cannot be buried it stays with the broker, and comes again after the connection.
        while let Err(error) =
            bury(&desk.shared, &bad.reason, Dead::Excerpt(&bad.excerpt), false).await
        {
            if error == BusError::Closed || !acker.usable() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if !acker.usable() {
            // The connection over which it came is gone: this tag may be another message now.
            return;
        }
        let _ = settle(&desk, |book| book.buried(tag)).await;
    }
}

/// Notes what is done or goes back, and tells the broker. One at a time from the note to the word: a word that stands for all earlier messages
/// must not overtake the word on one of these.
async fn settle(desk: &Arc<Desk>, note: impl FnOnce(&mut Book) -> Settled) -> Result<(), Error> {
    let turn = desk.telling.lock().await;
    let (settled, channel) = {
        let mut book = desk.book.lock();
        (note(&mut book), book.channel.clone())
    };
    // Without a channel everything comes again.
    let Some(channel) = channel else { return Ok(()) };
    match settled.done.last() {
        Some(last) if settled.all_before => {
            channel.basic_ack(*last, BasicAckOptions { multiple: true }).await?;
        }
        _ => {
            for tag in &settled.done {
                channel.basic_ack(*tag, BasicAckOptions::default()).await?;
            }
        }
    }
    for tag in settled.back {
        let requeue = BasicNackOptions { multiple: false, requeue: true };
        channel.basic_nack(tag, requeue).await?;
        desk.book.lock().told(tag);
    }
    // Publishing may have to wait for room, which others make meanwhile.
    drop(turn);
    give_back_rest(desk, &channel, settled.rest).await
}

async fn give_back_rest(
    desk: &Arc<Desk>,
    channel: &Channel,
    rest: Vec<(u64, Rest)>,
) -> Result<(), Error> {
    for (tag, rest) in rest {
        // Where that cannot be, the whole message stays open, and comes again after the connection.
        if publish_rest(desk, &rest).await {
            let _turn = desk.telling.lock().await;
            channel.basic_ack(tag, BasicAckOptions::default()).await?;
            desk.book.lock().told(tag);
        }
    }
    Ok(())
}

/// Publishes letters again that go back without the others of their message. False when that cannot be.
async fn publish_rest(desk: &Arc<Desk>, rest: &Rest) -> bool {
    let names = &desk.shared.names;
    let target: Target = match &desk.address {
        Some(address) => names.target(address),
        None => names.dead_target(super::names::WORK),
    };
    let body = wire::message(rest.texts(), true);
    let (shared, count) = (desk.shared.clone(), rest.count());
    let sending = tokio::spawn(async move {
        loop {
            match send(&shared, &target, &body, count, Uuid::new_v4()).await {
                Ok(Said::Taken) => return true,
                Ok(Said::Full) => tokio::time::sleep(PAUSE).await,
                Ok(Said::Nobody) | Err(_) => return false,
            }
        }
    });
    sending.await.unwrap_or(false)
}

/// Leaves the queue: what is not done goes back to it.
async fn leave(desk: &Arc<Desk>, channel: &Channel) {
    let settled = desk.book.lock().leave();
    let leaving = async {
        if !desk.source.exclusive {
            let _ = give_back_rest(desk, channel, settled.rest).await;
        }
        topology::close(channel).await;
    };
    let _ = tokio::time::timeout(desk.shared.options.confirm_timeout, leaving).await;
}

/// One who takes letters from a queue of the broker.
struct RabbitConsumer {
    desk: Arc<Desk>,
}

fn gone() -> BusError {
    BusError::Away("the connection over which these letters came is gone; they come again".into())
}

impl RabbitConsumer {
    async fn take(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let mut closing = self.desk.shared.closing();
        loop {
            let taken = self.desk.book.lock().take(max.max(1));
            if !taken.is_empty() {
                return Ok(taken);
            }
            tokio::select! {
                biased;
                () = self.desk.ready.notified() => {}
                _ = closing.wait_for(|closing| *closing) => {
                    if !self.desk.book.lock().has_ready() {
                        return Err(BusError::Closed);
                    }
                }
            }
        }
    }

    /// Notes and tells in a task of its own: what was begun is told to the broker whole, also if whoever waits goes away.
    async fn settle<T: Send + 'static>(
        &self,
        note: impl FnOnce(&mut Book) -> (Settled, Result<T, Gone>) + Send + 'static,
    ) -> Result<T, BusError> {
        let desk = self.desk.clone();
        let telling = tokio::spawn(async move {
            let mut result = Err(Gone);
            let noting = |book: &mut Book| {
                let (settled, noted) = note(book);
                result = noted;
                settled
            };
            let told = settle(&desk, noting).await;
            (told, result)
        });
        match telling.await {
            Ok((Ok(()), Ok(noted))) => Ok(noted),
            Ok(_) => Err(gone()),
            Err(_) => Err(BusError::Closed),
        }
    }

    async fn give_back(&self, token: u64) -> Result<(), BusError> {
        if self.desk.source.exclusive {
            let mut book = self.desk.book.lock();
            let Some(condemned) = book.condemn(token).map_err(|Gone| gone())? else {
                return Ok(());
            };
            // It was read before, so it can be read again.
            if let Ok(letter) = serde_json::from_slice::<Letter>(condemned.text()) {
                book.hand_over_again(token, letter);
                self.desk.ready.notify_one();
            }
            return Ok(());
        }
        self.settle(move |book| match book.give_back(token) {
            Ok(settled) => (settled, Ok(())),
            Err(Gone) => (Settled::default(), Err(Gone)),
        })
        .await
    }

    async fn bury(&self, token: u64, reason: &str) -> Result<(), BusError> {
        let condemned = self.desk.book.lock().condemn(token).map_err(|Gone| gone())?;
        let Some(condemned) = condemned else { return Ok(()) };
        // What is refused among the dead is left to be looked at.
        let work = condemned.work && self.desk.address.is_some();
        bury(&self.desk.shared, reason, Dead::Letter(condemned.text()), work).await?;
        self.done(vec![token]).await
    }

    async fn done(&self, tokens: Vec<u64>) -> Result<(), BusError> {
        self.settle(move |book| book.done(&tokens)).await
    }
}

impl Consumer for RabbitConsumer {
    fn next(&mut self, max: usize) -> Fut<'_, Result<Vec<Delivery>, BusError>> {
        Box::pin(self.take(max))
    }

    fn ack(&mut self, tokens: Vec<u64>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move { self.done(tokens).await })
    }

    fn reject(&mut self, token: u64, dead: Option<String>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move {
            match dead {
                Some(reason) => self.bury(token, &reason).await,
                None => self.give_back(token).await,
            }
        })
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        self.desk.shared.leaving.begin(self.desk.source.queue.as_str());
        self.desk.left.send_replace(true);
    }
}
