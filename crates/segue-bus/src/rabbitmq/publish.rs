//! Letters on their way out. Each address has a lane with one message in flight: so its letters keep their order also when the broker refuses
//! one of a full queue, and what comes meanwhile shares the next message.

use super::Shared;
use super::link::Live;
use super::names::{Target, short};
use super::options::Options;
use crate::wire;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHasher};
use segue_core::letter::{Address, Letter};
use segue_core::ports::BusError;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, SemaphorePermit};
use uuid::Uuid;

/// The first wait for room in a full queue, and the longest one.
const ROOM: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Room for letters that wait is given out in pieces of so many bytes.
pub(super) const ROOM_BYTES: usize = 1_024;

/// The pieces of room that there are.
pub(super) fn rooms(options: &Options) -> usize {
    (options.waiting_bytes_max / ROOM_BYTES).clamp(1, u32::MAX as usize)
}

/// What the broker said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It answers for it.
    Taken,
    /// Nobody has a queue for it.
    Nobody,
    /// The queue is full.
    Full,
}

/// Letters of one call to one address that fit into a message.
struct Parcel {
    call: Weak<Call>,
    numbers: Vec<u64>,
    texts: Vec<Vec<u8>>,
    bytes: usize,
}

/// What waits for one address. A lane is there while something does.
#[derive(Default)]
pub(super) struct Lane {
    waiting: VecDeque<Parcel>,
}

/// The lanes by address.
pub(super) type Lanes = Mutex<FxHashMap<Address, Lane>>;

/// One call of `publish`.
#[derive(Default)]
struct Call {
    state: Mutex<CallState>,
    done: Notify,
}

#[derive(Default)]
struct CallState {
    open: usize,
    addresses: Vec<String>,
    letters: Vec<u64>,
    error: Option<BusError>,
}

impl Call {
    fn settle(&self, parcel: &Parcel, address: &Address, said: &Result<Said, BusError>) {
        let mut state = self.state.lock();
        match said {
            Ok(Said::Taken | Said::Full) => {}
            Ok(Said::Nobody) => {
                state.addresses.push(address.to_string());
                state.letters.extend(&parcel.numbers);
            }
            Err(error) => state.error = Some(error.clone()),
        }
        state.open -= 1;
        if state.open == 0 {
            self.done.notify_one();
        }
    }

    fn result(&self) -> Result<(), BusError> {
        let mut state = self.state.lock();
        if let Some(error) = state.error.take() {
            // Which letters were taken is not known, so all of them come again.
            return Err(error);
        }
        if state.letters.is_empty() {
            return Ok(());
        }
        let mut addresses = std::mem::take(&mut state.addresses);
        addresses.sort_unstable();
        addresses.dedup();
        Err(BusError::Unroutable { addresses, letters: std::mem::take(&mut state.letters) })
    }
}

/// Publishes these letters and waits for the broker to answer for them.
pub(super) async fn publish(shared: &Arc<Shared>, letters: Vec<Letter>) -> Result<(), BusError> {
    if shared.is_closed() {
        return Err(BusError::Closed);
    }
    if letters.is_empty() {
        return Ok(());
    }
    shared.publishing.now()?;
    let call = Arc::new(Call::default());
    let parcels = pack(shared, &call, letters).await?;
    let mut closing = shared.closing();
    let bytes: usize = parcels.iter().map(|(_, parcel)| parcel.bytes).sum();
    let _room = tokio::select! {
        biased;
        room = room_for(shared, bytes) => room?,
        _ = closing.wait_for(|closing| *closing) => return Err(BusError::Closed),
    };
    call.state.lock().open = parcels.len();
    // Before the room is given back.
    let _left = Left { shared, call: &call, addresses: addresses_of(&parcels) };
    for (address, parcel) in parcels {
        enqueue(shared, address, parcel);
    }
    tokio::select! {
        biased;
        () = wait_for(&call) => call.result(),
        _ = closing.wait_for(|closing| *closing) => Err(BusError::Closed),
    }
}

/// Waits for room for so many bytes; as much as there is at all for more than that.
async fn room_for(shared: &Shared, bytes: usize) -> Result<SemaphorePermit<'_>, BusError> {
    let pieces = bytes.div_ceil(ROOM_BYTES).min(rooms(&shared.options));
    let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
    shared.room.acquire_many(pieces).await.map_err(|_| BusError::Closed)
}

fn addresses_of(parcels: &[(Address, Parcel)]) -> Vec<Address> {
    parcels.iter().map(|(address, _)| address.clone()).collect()
}

/// Takes what a call that is given up left in its lanes out of them: it would stay there for as long as the broker takes nothing.
struct Left<'a> {
    shared: &'a Shared,
    call: &'a Arc<Call>,
    addresses: Vec<Address>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if self.call.state.lock().open == 0 {
            return;
        }
        let mut lanes = self.shared.lanes.lock();
        for address in &self.addresses {
            if let Some(lane) = lanes.get_mut(address) {
                lane.waiting
                    .retain(|parcel| !std::ptr::eq(parcel.call.as_ptr(), Arc::as_ptr(self.call)));
            }
        }
    }
}

async fn wait_for(call: &Call) {
    while call.state.lock().open > 0 {
        call.done.notified().await;
    }
}

/// Sorts letters by address, in their order, into parcels of which each fits into a message.
async fn pack(
    shared: &Arc<Shared>,
    call: &Arc<Call>,
    letters: Vec<Letter>,
) -> Result<Vec<(Address, Parcel)>, BusError> {
    let options = &shared.options;
    let mut parcels: Vec<(Address, Parcel)> = Vec::new();
    let mut last: FxHashMap<Address, usize> = FxHashMap::default();
    for letter in letters {
        let Some(text) = fitting(shared, &letter).await? else { continue };
        let at = last.get(&letter.to).copied().filter(|at| {
            let parcel = &parcels[*at].1;
            parcel.texts.len() < options.letters_max
                && parcel.bytes + text.len() < options.shared_bytes_max
        });
        let at = at.unwrap_or_else(|| {
            let call = Arc::downgrade(call);
            let parcel = Parcel { call, numbers: Vec::new(), texts: Vec::new(), bytes: 0 };
            parcels.push((letter.to.clone(), parcel));
            last.insert(letter.to.clone(), parcels.len() - 1);
            parcels.len() - 1
        });
        let parcel = &mut parcels[at].1;
        parcel.bytes += text.len() + 1;
        parcel.texts.push(text);
        parcel.numbers.push(letter.seq);
    }
    Ok(parcels)
}

/// The text of a letter. One that is too large for the broker becomes one that says so, or a dead letter.
async fn fitting(shared: &Arc<Shared>, letter: &Letter) -> Result<Option<Vec<u8>>, BusError> {
    let project = &shared.options.project;
    let unwritable = |error| BusError::Away(format!("letter {} has no JSON: {error}", letter.seq));
    let text = wire::letter_text(project, letter).map_err(unwritable)?;
    let max = shared.options.message_bytes_max - wire::FRAME_MAX;
    if text.len() <= max {
        return Ok(Some(text));
    }
    let (small, dead) = wire::shrunk(letter, text.len(), max);
    let text = wire::letter_text(project, &small).map_err(unwritable)?;
    let Some(reason) = dead else { return Ok(Some(text)) };
    tracing::warn!(to = %letter.to, letter = letter.seq, %reason, "a letter is dead before it went out");
    super::dead::bury(shared, &reason, wire::Dead::Letter(&text), super::dead::is_work(letter))
        .await?;
    Ok(None)
}

fn enqueue(shared: &Arc<Shared>, address: Address, parcel: Parcel) {
    let mut lanes = shared.lanes.lock();
    match lanes.get_mut(&address) {
        Some(lane) => lane.waiting.push_back(parcel),
        None => {
            lanes.insert(address.clone(), Lane { waiting: VecDeque::from([parcel]) });
            tokio::spawn(run(shared.clone(), address));
        }
    }
}

/// Sends what waits in a lane, a message at a time, until nothing does.
async fn run(shared: Arc<Shared>, address: Address) {
    while let Some(batch) = take(&shared, &address) {
        deliver(&shared, &address, batch).await;
    }
}

/// As much as fits into the next message; nothing, and no lane any more, where nothing waits.
fn take(shared: &Shared, address: &Address) -> Option<Vec<Parcel>> {
    let mut lanes = shared.lanes.lock();
    let lane = lanes.get_mut(address)?;
    let (mut batch, mut letters, mut bytes) = (Vec::new(), 0, 0);
    while let Some(parcel) = lane.waiting.front() {
        let fits = letters + parcel.texts.len() <= shared.options.letters_max
            && bytes + parcel.bytes <= shared.options.shared_bytes_max;
        if !fits && letters > 0 {
            break;
        }
        letters += parcel.texts.len();
        bytes += parcel.bytes;
        batch.extend(lane.waiting.pop_front());
    }
    if batch.is_empty() {
        lanes.remove(address);
        return None;
    }
    Some(batch)
}

/// Sends one message until the broker has said something of it that lasts.
async fn deliver(shared: &Arc<Shared>, address: &Address, mut batch: Vec<Parcel>) {
    let target = shared.names.target(address);
    let id = Uuid::new_v4();
    let mut wait = ROOM.0;
    let said = loop {
        // Whoever has given up waits for nothing any more.
        batch.retain(|parcel| parcel.call.strong_count() > 0);
        if batch.is_empty() {
            return;
        }
        let texts = batch.iter().flat_map(|parcel| parcel.texts.iter().map(Vec::as_slice));
        let count = batch.iter().map(|parcel| parcel.texts.len()).sum();
        let body = wire::message(texts, false);
        match send(shared, &target, &body, count, id).await {
            Ok(Said::Full) => {
                let mut closing = shared.closing();
                tokio::select! {
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(ROOM.1),
                    _ = closing.wait_for(|closing| *closing) => break Err(BusError::Closed),
                }
            }
            said => break said,
        }
    };
    for parcel in batch {
        if let Some(call) = parcel.call.upgrade() {
            call.settle(&parcel, address, &said);
        }
    }
}

/// Publishes one message and waits for its confirmation. While the broker takes nothing because its memory or disk is short, it waits.
pub(super) async fn send(
    shared: &Shared,
    target: &Target,
    body: &[u8],
    letters: usize,
    id: Uuid,
) -> Result<Said, BusError> {
    let said = confirmed(shared, target, body, letters, id).await;
    // Closing takes the connection away as well.
    if said.is_err() && shared.is_closed() { Err(BusError::Closed) } else { said }
}

async fn confirmed(
    shared: &Shared,
    target: &Target,
    body: &[u8],
    letters: usize,
    id: Uuid,
) -> Result<Said, BusError> {
    let live = shared.publishing.now()?;
    let mut lost = shared.publishing.live();
    let mut blocked = shared.publishing.blocked.subscribe();
    let mut closing = shared.closing();
    let mut work = std::pin::pin!(publish_one(&live, target, body, letters, id));
    let timeout = shared.options.confirm_timeout;
    loop {
        let is_blocked = blocked.borrow_and_update().is_some();
        tokio::select! {
            biased;
            said = &mut work => return said.map_err(|error| {
                let why = format!("{}: {error}", live.place);
                shared.publishing.give_up(live.epoch, why.clone());
                BusError::Away(why)
            }),
            _ = closing.wait_for(|closing| *closing) => return Err(BusError::Closed),
            _ = lost.wait_for(|now| now.as_ref().is_none_or(|now| now.epoch != live.epoch)) => {
                return Err(shared.publishing.away());
            }
            _ = blocked.changed() => {}
            () = tokio::time::sleep(timeout), if !is_blocked => {
                let why = format!("{}: no confirmation within {} s", live.place, timeout.as_secs_f32());
                shared.publishing.give_up(live.epoch, why.clone());
                return Err(BusError::Away(why));
            }
        }
    }
}

async fn publish_one(
    live: &Live,
    target: &Target,
    body: &[u8],
    letters: usize,
    id: Uuid,
) -> Result<Said, lapin::Error> {
    // One queue is always written to over the same channel, so that the broker knows one writer of it.
    let mut hasher = FxHasher::default();
    (target.exchange.as_str(), target.key.as_str()).hash(&mut hasher);
    let channel = &live.publishing[hasher.finish() as usize % live.publishing.len()];
    let mut headers = FieldTable::default();
    headers.insert(short("segue-version"), AMQPValue::LongInt(1));
    headers.insert(short("segue-letters"), AMQPValue::LongInt(letters as i32));
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type(short("application/json"))
        .with_message_id(short(&id.to_string()))
        .with_user_id(short(&live.user))
        .with_headers(headers);
    let options = BasicPublishOptions { mandatory: target.mandatory, immediate: false };
    let (exchange, key) = (target.exchange.clone(), target.key.clone());
    let channel = channel.lock().await;
    let confirm = channel.basic_publish(exchange, key, options, body, properties).await?.await?;
    Ok(match confirm {
        Confirmation::Ack(None) | Confirmation::NotRequested => Said::Taken,
        Confirmation::Ack(Some(_)) => Said::Nobody,
        Confirmation::Nack(returned) => {
            if returned.is_some() {
                Said::Nobody
            } else {
                Said::Full
            }
        }
    })
}
