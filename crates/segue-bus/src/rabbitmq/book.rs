//! What a consumer holds: which letters wait to be taken, which are open, and when a message is done with.

use lapin::Channel;
use rustc_hash::FxHashMap;
use segue_core::letter::Letter;
use segue_core::ports::Delivery;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// The letters that a consumer was sent over one connection.
#[derive(Default)]
pub(super) struct Book {
    /// The channel over which they came; nothing while there is no connection.
    pub(super) channel: Option<Channel>,
    /// Read, and not handed over yet.
    ready: VecDeque<Delivery>,
    open: FxHashMap<u64, Place>,
    messages: BTreeMap<u64, Message>,
    /// Messages that go back, whole or in part, and of which the broker has not been told.
    returning: BTreeSet<u64>,
    tokens: u64,
    /// The first token of this connection. Earlier ones mean nothing any more.
    first: u64,
}

/// Where the text of an open letter stands.
struct Place {
    tag: u64,
    at: Range<usize>,
    work: bool,
}

struct Message {
    data: Arc<Vec<u8>>,
    /// Letters that are neither done nor given back.
    left: usize,
    /// Those that were given back.
    returned: Vec<Range<usize>>,
    /// Whether some of them are done.
    some_done: bool,
}

/// A letter that is to be buried, while its token stays open.
pub(super) struct Condemned {
    data: Arc<Vec<u8>>,
    at: Range<usize>,
    /// Whether an attempt hangs on it.
    pub(super) work: bool,
}

impl Condemned {
    pub(super) fn text(&self) -> &[u8] {
        &self.data[self.at.clone()]
    }
}

/// What has to be told to the broker.
#[derive(Default)]
pub(super) struct Settled {
    /// Messages that are done.
    pub(super) done: Vec<u64>,
    /// Whether the last of them stands for all that came before it.
    pub(super) all_before: bool,
    /// Messages that go back to the queue whole.
    pub(super) back: Vec<u64>,
    /// Messages of which these letters go back: they are published again, and the message is done.
    pub(super) rest: Vec<(u64, Rest)>,
}

/// Letters of a message that go back to the queue without the others.
pub(super) struct Rest {
    data: Arc<Vec<u8>>,
    at: Vec<Range<usize>>,
}

impl Rest {
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.at.iter().map(|at| &self.data[at.clone()])
    }

    pub(super) fn count(&self) -> usize {
        self.at.len()
    }
}

/// A token of a connection that is gone.
pub(super) struct Gone;

impl Book {
    /// Begins anew over this channel: what was open comes again.
    pub(super) fn begin(&mut self, channel: Option<Channel>) {
        self.ready.clear();
        self.open.clear();
        self.messages.clear();
        self.returning.clear();
        self.first = self.tokens + 1;
        self.channel = channel;
    }

    /// Takes a message with these letters in. `extra` letters of it are being buried and settle later.
    pub(super) fn add(
        &mut self,
        tag: u64,
        data: Vec<u8>,
        letters: Vec<(Letter, Range<usize>)>,
        extra: usize,
        redelivered: bool,
        dead: Option<&str>,
    ) {
        let left = letters.len() + extra;
        let data = Arc::new(data);
        let message = Message { data, left, returned: Vec::new(), some_done: false };
        self.messages.insert(tag, message);
        for (letter, at) in letters {
            self.tokens += 1;
            let token = self.tokens;
            self.open.insert(token, Place { tag, at, work: super::dead::is_work(&letter) });
            let dead = dead.map(str::to_owned);
            self.ready.push_back(Delivery { token, letter, redelivered, dead });
        }
    }

    /// Letters that wait to be taken, at most so many.
    pub(super) fn take(&mut self, max: usize) -> Vec<Delivery> {
        let count = max.min(self.ready.len());
        self.ready.drain(..count).collect()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The letters of these tokens are done.
    pub(super) fn done(&mut self, tokens: &[u64]) -> (Settled, Result<(), Gone>) {
        let mut settled = Settled::default();
        let mut result = Ok(());
        for token in tokens {
            match self.open.remove(token) {
                Some(place) => self.settle_one(place.tag, &mut settled),
                None if self.is_gone(*token) => result = Err(Gone),
                None => {}
            }
        }
        self.finish(&mut settled);
        (settled, result)
    }

    /// One letter of this message that was never handed over is done: it is among the dead.
    pub(super) fn buried(&mut self, tag: u64) -> Settled {
        let mut settled = Settled::default();
        self.settle_one(tag, &mut settled);
        self.finish(&mut settled);
        settled
    }

    fn settle_one(&mut self, tag: u64, settled: &mut Settled) {
        let Some(message) = self.messages.get_mut(&tag) else { return };
        message.left -= 1;
        message.some_done = true;
        self.close(tag, settled);
    }

    /// The letter of this token goes back to the queue.
    pub(super) fn give_back(&mut self, token: u64) -> Result<Settled, Gone> {
        let mut settled = Settled::default();
        let Some(place) = self.open.remove(&token) else {
            return if self.is_gone(token) { Err(Gone) } else { Ok(settled) };
        };
        if let Some(message) = self.messages.get_mut(&place.tag) {
            message.left -= 1;
            message.returned.push(place.at);
            self.close(place.tag, &mut settled);
        }
        self.finish(&mut settled);
        Ok(settled)
    }

    /// The letter of this token comes again to the same consumer, who alone has its queue.
    pub(super) fn hand_over_again(&mut self, token: u64, letter: Letter) {
        let Some(place) = self.open.remove(&token) else { return };
        self.tokens += 1;
        let token = self.tokens;
        self.open.insert(token, place);
        self.ready.push_front(Delivery { token, letter, redelivered: true, dead: None });
    }

    /// The text of an open letter.
    pub(super) fn condemn(&self, token: u64) -> Result<Option<Condemned>, Gone> {
        let Some(place) = self.open.get(&token) else {
            return if self.is_gone(token) { Err(Gone) } else { Ok(None) };
        };
        let message = self.messages.get(&place.tag);
        Ok(message.map(|message| Condemned {
            data: message.data.clone(),
            at: place.at.clone(),
            work: place.work,
        }))
    }

    /// What is left when the consumer goes: of a message that is done in part, the rest goes back alone. Whole ones go back with the channel.
    pub(super) fn leave(&mut self) -> Settled {
        self.ready.clear();
        let mut rest: BTreeMap<u64, Vec<Range<usize>>> = BTreeMap::new();
        for place in std::mem::take(&mut self.open).into_values() {
            rest.entry(place.tag).or_default().push(place.at);
        }
        let mut settled = Settled::default();
        for (tag, message) in std::mem::take(&mut self.messages) {
            let mut at = rest.remove(&tag).unwrap_or_default();
            // One of which a letter is being buried right now goes back whole: that letter may die twice.
            if message.some_done && at.len() == message.left {
                at.extend(message.returned);
                at.sort_unstable_by_key(|at| at.start);
                settled.rest.push((tag, Rest { data: message.data, at }));
            }
        }
        settled
    }

    /// The broker has been told of a message that goes back.
    pub(super) fn told(&mut self, tag: u64) {
        self.returning.remove(&tag);
    }

    fn is_gone(&self, token: u64) -> bool {
        token > 0 && token < self.first
    }

    /// Notes what becomes of a message none of whose letters is open.
    fn close(&mut self, tag: u64, settled: &mut Settled) {
        let Some(message) = self.messages.get(&tag).filter(|message| message.left == 0) else {
            return;
        };
        if message.returned.is_empty() {
            self.messages.remove(&tag);
            settled.done.push(tag);
        } else if !message.some_done {
            self.messages.remove(&tag);
            self.returning.insert(tag);
            settled.back.push(tag);
        } else if let Some(mut message) = self.messages.remove(&tag) {
            self.returning.insert(tag);
            message.returned.sort_unstable_by_key(|at| at.start);
            settled.rest.push((tag, Rest { data: message.data, at: message.returned }));
        }
    }

    /// Where nothing older is open, one word to the broker is enough for many messages.
    fn finish(&self, settled: &mut Settled) {
        settled.done.sort_unstable();
        let open = self.messages.keys().next().into_iter().chain(self.returning.first());
        let oldest = open.copied().min().unwrap_or(u64::MAX);
        settled.all_before = settled.done.last().is_some_and(|last| *last < oldest);
    }
}
