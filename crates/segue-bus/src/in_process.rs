//! The bus within one process: bounded queues, at-least-once, acknowledged.
//!
//! It keeps nothing beyond the process: what was published and not done is lost with it, and the leases of the store bring the work back.

use futures_util::future::join_all;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use segue_core::letter::{Address, Letter, LetterBody};
use segue_core::ports::{BusError, Consumer, DeadLetter, Delivery, Fut, WorkBus};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

/// Letters of a queue that are not done before `publish` waits: those that wait to be taken and those that were taken and not acknowledged.
/// Bodies above [`DATABASE_MAX`](segue_core::payload::DATABASE_MAX) travel by reference, so this bounds the bytes as well.
pub const QUEUE_MAX: usize = 16 * 1024;
/// Dead letters that are kept; the oldest go first.
pub const DEAD_MAX: usize = 1_000;
/// Letters that one `publish` puts into a queue at a time, so that no lock is held for long.
const CHUNK_MAX: usize = 1_024;

/// The bus within one process.
pub struct InProcessBus {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Dead letters that brought work: somebody has to end their attempts.
    dead_work: Arc<Queue>,
    /// The other dead letters, and those that found no room there.
    dead: Mutex<VecDeque<DeadLetter>>,
    queue_max: usize,
}

#[derive(Default)]
struct State {
    closed: bool,
    queues: FxHashMap<Address, Arc<Queue>>,
    /// One queue for each consumer of what goes to all.
    everybody: Vec<Arc<Queue>>,
}

/// A queue. Two semaphores carry the waiting: they are fair, and give back what a caller that was dropped had been promised.
struct Queue {
    /// Whose it is; nothing for dead letters.
    address: Option<Address>,
    letters: Mutex<Letters>,
    /// As many permits as letters wait to be taken.
    ready: Semaphore,
    /// As many permits as letters still fit.
    room: Semaphore,
    consumers: AtomicUsize,
}

/// A letter in a queue.
#[derive(Clone)]
struct Kept {
    letter: Letter,
    /// Why it is dead, where it is.
    dead: Option<String>,
}

#[derive(Default)]
struct Letters {
    /// Letters that were never taken, each with its place in the queue.
    fresh: VecDeque<(u64, Kept)>,
    /// Letters that came back, by their place: all of them stand before the fresh ones.
    returned: BTreeMap<u64, Kept>,
    arrived: u64,
    tokens: u64,
}

impl InProcessBus {
    /// A bus without queues, each of which will hold [`QUEUE_MAX`] letters.
    pub fn new() -> Arc<InProcessBus> {
        InProcessBus::with_queue_max(QUEUE_MAX)
    }

    /// A bus without queues, each of which will hold so many letters, at least one.
    pub fn with_queue_max(queue_max: usize) -> Arc<InProcessBus> {
        let shared = Shared {
            state: Mutex::default(),
            dead_work: Queue::new(None, DEAD_MAX),
            dead: Mutex::default(),
            queue_max: queue_max.clamp(1, Semaphore::MAX_PERMITS),
        };
        Arc::new(InProcessBus { shared: Arc::new(shared) })
    }

    /// Every letter that was refused and is still here: first those that brought work, then the others, each oldest first.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let work = self.shared.dead_work.letters.lock();
        let work = work.returned.values().chain(work.fresh.iter().map(|(_, kept)| kept));
        let of_work = |kept: &Kept| DeadLetter {
            letter: Some(kept.letter.clone()),
            excerpt: None,
            reason: kept.dead.clone().unwrap_or_default(),
        };
        work.map(of_work).chain(self.shared.dead.lock().iter().cloned()).collect()
    }

    /// Ends every wait with [`BusError::Closed`], and every later call too. What was not taken by then is lost.
    pub fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        for queue in state.queues.values().chain(&state.everybody) {
            queue.close();
        }
        self.shared.dead_work.close();
    }
}

impl fmt::Debug for InProcessBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("InProcessBus")
            .field("closed", &state.closed)
            .field("queues", &state.queues.len())
            .field("everybody", &state.everybody.len())
            .finish_non_exhaustive()
    }
}

/// The letters of one `publish`, sorted by queue.
#[derive(Default)]
struct Sorted {
    groups: Vec<(Arc<Queue>, Vec<Letter>)>,
    nobody: Nobody,
}

/// Letters that nobody would ever take.
#[derive(Default)]
struct Nobody {
    addresses: Vec<String>,
    letters: Vec<u64>,
}

impl Nobody {
    fn add(&mut self, letter: &Letter) {
        let address = letter.to.to_string();
        if self.addresses.last() != Some(&address) {
            self.addresses.push(address);
        }
        self.letters.push(letter.seq);
    }

    fn into_result(mut self) -> Result<(), BusError> {
        if self.letters.is_empty() {
            return Ok(());
        }
        self.addresses.sort_unstable();
        self.addresses.dedup();
        Err(BusError::Unroutable { addresses: self.addresses, letters: self.letters })
    }
}

impl Shared {
    async fn publish(&self, letters: Vec<Letter>) -> Result<(), BusError> {
        let Sorted { mut groups, mut nobody } = self.sort(letters)?;
        let put = |(queue, letters): (Arc<Queue>, Vec<Letter>)| async move {
            let left = queue.put(letters).await;
            (queue, left)
        };
        // Side by side, so that letters for one do not wait until another has room.
        let done = match groups.pop() {
            Some(only) if groups.is_empty() => vec![put(only).await],
            Some(last) => join_all(groups.into_iter().chain([last]).map(put)).await,
            None => Vec::new(),
        };
        for (queue, left) in done.into_iter().filter(|(_, left)| !left.is_empty()) {
            if self.state.lock().closed {
                return Err(BusError::Closed);
            }
            // Its one consumer left meanwhile. A broadcast is for those who are there.
            if queue.address != Some(Address::All) {
                left.iter().for_each(|letter| nobody.add(letter));
            }
        }
        nobody.into_result()
    }

    /// Finds the queue of each letter. The letters of one queue stay in their order.
    fn sort(&self, letters: Vec<Letter>) -> Result<Sorted, BusError> {
        let state = self.state.lock();
        if state.closed {
            return Err(BusError::Closed);
        }
        let mut sorted = Sorted::default();
        let mut places: FxHashMap<Address, usize> = FxHashMap::default();
        let mut to_all = Vec::new();
        let mut last = usize::MAX;
        for letter in letters {
            if letter.to == Address::All {
                to_all.push(letter);
                continue;
            }
            // Letters come in runs for one host: look a queue up once a run.
            if sorted
                .groups
                .get(last)
                .is_none_or(|(queue, _)| queue.address.as_ref() != Some(&letter.to))
            {
                let Some(queue) = state.queues.get(&letter.to) else {
                    sorted.nobody.add(&letter);
                    continue;
                };
                last = *places.entry(letter.to.clone()).or_insert_with(|| {
                    sorted.groups.push((queue.clone(), Vec::new()));
                    sorted.groups.len() - 1
                });
            }
            sorted.groups[last].1.push(letter);
        }
        if !to_all.is_empty() {
            let everybody = state.everybody.iter();
            sorted.groups.extend(everybody.map(|queue| (queue.clone(), to_all.clone())));
        }
        Ok(sorted)
    }

    /// Puts a letter among the dead ones: work where its attempt will be ended, as long as there is room, everything else to be looked at.
    fn bury(&self, letter: Letter, reason: String, looked_at: bool) {
        let work = matches!(letter.body, LetterBody::TaskRequest(_)) && !looked_at;
        if work && let Ok(room) = self.dead_work.room.try_acquire() {
            room.forget();
            self.dead_work.add([Kept { letter, dead: Some(reason) }]);
            return;
        }
        let mut dead = self.dead.lock();
        if dead.len() == DEAD_MAX {
            dead.pop_front();
        }
        dead.push_back(DeadLetter { letter: Some(letter), excerpt: None, reason });
    }

    fn join_dead(&self) -> Result<Arc<Queue>, BusError> {
        if self.state.lock().closed {
            return Err(BusError::Closed);
        }
        self.dead_work.consumers.fetch_add(1, Ordering::Relaxed);
        Ok(self.dead_work.clone())
    }

    /// The queue of an address, for one more consumer.
    fn join(&self, address: Address) -> Result<Arc<Queue>, BusError> {
        let mut state = self.state.lock();
        if state.closed {
            // Checked under the lock under which `close` finds the queues: none is made after it.
            return Err(BusError::Closed);
        }
        let queue = if address == Address::All {
            let own = Queue::new(Some(address), self.queue_max);
            state.everybody.push(own.clone());
            own
        } else {
            let new = || Queue::new(Some(address.clone()), self.queue_max);
            state.queues.entry(address.clone()).or_insert_with(new).clone()
        };
        queue.consumers.fetch_add(1, Ordering::Relaxed);
        Ok(queue)
    }

    /// One consumer of a queue less.
    fn leave(&self, queue: &Arc<Queue>) {
        let mut state = self.state.lock();
        if queue.consumers.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        match &queue.address {
            Some(Address::All) => state.everybody.retain(|other| !Arc::ptr_eq(other, queue)),
            Some(asker @ Address::Reply(_)) => drop(state.queues.remove(asker)),
            Some(Address::Host(_) | Address::Agent(_) | Address::Engine) | None => return,
        }
        // Whoever waits for room must not wait for ever.
        queue.close();
    }
}

impl Queue {
    fn new(address: Option<Address>, max: usize) -> Arc<Queue> {
        Arc::new(Queue {
            address,
            letters: Mutex::default(),
            ready: Semaphore::new(0),
            room: Semaphore::new(max),
            consumers: AtomicUsize::new(0),
        })
    }

    fn close(&self) {
        self.ready.close();
        self.room.close();
    }

    /// Puts these letters at the end, as far as there is room, and waits for more room. Returns what is left when the queue was closed.
    async fn put(&self, letters: Vec<Letter>) -> Vec<Letter> {
        let mut rest = letters.into_iter();
        while rest.len() > 0 {
            let fits = rest.len().min(self.room.available_permits()).clamp(1, CHUNK_MAX);
            let Ok(room) = self.room.acquire_many(fits as u32).await else { break };
            room.forget();
            self.add(rest.by_ref().take(fits).map(|letter| Kept { letter, dead: None }));
        }
        rest.collect()
    }

    /// Puts letters for which there is room at the end.
    fn add(&self, kept: impl IntoIterator<Item = Kept>) {
        let count = {
            let mut letters = self.letters.lock();
            let before = letters.arrived;
            for kept in kept {
                letters.arrived += 1;
                let place = letters.arrived;
                letters.fresh.push_back((place, kept));
            }
            letters.arrived - before
        };
        self.ready.add_permits(count as usize);
    }

    /// After one letter was promised to a consumer: promises it more, up to `max` in all, and leaves the others their share.
    fn promise_more(&self, max: usize) -> usize {
        loop {
            let available = self.ready.available_permits();
            let share = (available + 1).div_ceil(self.consumers.load(Ordering::Relaxed).max(1));
            let more = share.min(max).saturating_sub(1).min(available).min(CHUNK_MAX);
            if more == 0 {
                return 1;
            }
            if let Ok(promised) = self.ready.try_acquire_many(more as u32) {
                promised.forget();
                return 1 + more;
            }
        }
    }

    /// Letters that were taken and not done go back to where they stood.
    fn put_back(&self, letters: impl Iterator<Item = (u64, Kept)>) {
        let count = {
            let mut inside = self.letters.lock();
            let before = inside.returned.len();
            inside.returned.extend(letters);
            inside.returned.len() - before
        };
        self.ready.add_permits(count);
    }
}

impl WorkBus for InProcessBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(self.shared.publish(letters))
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(async move {
            let queue = self.shared.join(queue)?;
            Ok(InProcessConsumer::of(&self.shared, queue))
        })
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(async move {
            let queue = self.shared.join_dead()?;
            Ok(InProcessConsumer::of(&self.shared, queue))
        })
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        let dead = self.shared.dead.lock().iter().take(limit).cloned().collect();
        Box::pin(std::future::ready(Ok(dead)))
    }

    fn comebacks(&self) -> Option<u64> {
        Some(0)
    }
}

struct InProcessConsumer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// What was handed over and is not done, by token, with its place in the queue. Bodies are shared, so a copy of a letter costs little.
    open: FxHashMap<u64, (u64, Kept)>,
}

impl InProcessConsumer {
    fn of(shared: &Arc<Shared>, queue: Arc<Queue>) -> Box<dyn Consumer> {
        Box::new(InProcessConsumer { shared: shared.clone(), queue, open: FxHashMap::default() })
    }

    /// Takes so many letters, which were promised: those that came back first.
    fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(count);
        let mut letters = self.queue.letters.lock();
        for _ in 0..count {
            let (place, kept, redelivered) = match letters.returned.pop_first() {
                Some((place, kept)) => (place, kept, true),
                None => match letters.fresh.pop_front() {
                    Some((place, kept)) => (place, kept, false),
                    None => break,
                },
            };
            letters.tokens += 1;
            let token = letters.tokens;
            let Kept { letter, dead } = kept.clone();
            self.open.insert(token, (place, kept));
            deliveries.push(Delivery { token, letter, redelivered, dead });
        }
        deliveries
    }
}

impl Consumer for InProcessConsumer {
    fn next(&mut self, max: usize) -> Fut<'_, Result<Vec<Delivery>, BusError>> {
        Box::pin(async move {
            match self.queue.ready.acquire().await {
                Ok(promised) => promised.forget(),
                Err(_) => return Err(BusError::Closed),
            }
            // Nothing waits from here on, so a `next` that is dropped has taken nothing.
            let count = self.queue.promise_more(max);
            Ok(self.take(count))
        })
    }

    fn ack(&mut self, tokens: Vec<u64>) -> Fut<'_, Result<(), BusError>> {
        let done = tokens.iter().filter(|token| self.open.remove(token).is_some()).count();
        self.queue.room.add_permits(done);
        Box::pin(std::future::ready(Ok(())))
    }

    fn reject(&mut self, token: u64, dead: Option<String>) -> Fut<'_, Result<(), BusError>> {
        if let Some((place, kept)) = self.open.remove(&token) {
            match dead {
                Some(reason) => {
                    self.shared.bury(kept.letter, reason, kept.dead.is_some());
                    self.queue.room.add_permits(1);
                }
                None => self.queue.put_back(std::iter::once((place, kept))),
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for InProcessConsumer {
    fn drop(&mut self) {
        self.queue.put_back(self.open.drain().map(|(_, held)| held));
        self.shared.leave(&self.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use segue_core::ids::HostId;
    use segue_testkit::bus_suite::letter;
    use uuid::Uuid;

    fn host() -> Address {
        Address::Host(HostId(Uuid::from_u128(1)))
    }

    /// What is ready without waiting.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("it should not have to wait")
    }

    fn publish(bus: &InProcessBus, to: &Address, numbers: impl Iterator<Item = u64>) {
        at_once(bus.publish(numbers.map(|n| letter(to, n)).collect())).unwrap();
    }

    fn consume(bus: &InProcessBus, queue: &Address) -> Box<dyn Consumer> {
        at_once(bus.consume(queue.clone())).unwrap()
    }

    fn next(consumer: &mut dyn Consumer, max: usize) -> Vec<Delivery> {
        at_once(consumer.next(max)).unwrap()
    }

    fn numbers(deliveries: &[Delivery]) -> Vec<(u64, bool)> {
        deliveries.iter().map(|delivery| (delivery.letter.seq, delivery.redelivered)).collect()
    }

    #[test]
    fn what_comes_back_stands_where_it_stood() {
        let bus = InProcessBus::new();
        let mut consumer = consume(&bus, &host());
        publish(&bus, &host(), 1..=6);
        let taken = next(&mut *consumer, 4);
        for delivery in &taken {
            at_once(consumer.reject(delivery.token, None)).unwrap();
        }
        let again = next(&mut *consumer, 5);
        let came = [(1, true), (2, true), (3, true), (4, true), (5, false)];
        assert_eq!(numbers(&again), came);
        drop(consumer);
        let all = next(&mut *consume(&bus, &host()), 6);
        assert_eq!(all.iter().map(|d| d.letter.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_greedy_consumer_leaves_a_share_to_the_others() {
        let bus = InProcessBus::new();
        let (mut greedy, mut modest) = (consume(&bus, &host()), consume(&bus, &host()));
        publish(&bus, &host(), 1..=9);
        assert_eq!(next(&mut *greedy, 1_000).len(), 5);
        assert_eq!(next(&mut *modest, 1_000).len(), 2);
        assert_eq!(next(&mut *greedy, 1).len(), 1);
        drop(modest);
        // Alone it gets all that is left, and what the other one did not acknowledge.
        assert_eq!(next(&mut *greedy, 1_000).len(), 3);
    }

    #[test]
    fn whoever_waits_is_served_before_whoever_comes() {
        let bus = InProcessBus::new();
        let (mut first, mut second) = (consume(&bus, &host()), consume(&bus, &host()));
        let mut waiting = first.next(10);
        assert!((&mut waiting).now_or_never().is_none());
        publish(&bus, &host(), 1..=1);
        assert!(second.next(10).now_or_never().is_none(), "the only letter is promised");
        assert_eq!(numbers(&at_once(waiting).unwrap()), [(1, false)]);
    }

    #[test]
    fn a_promise_to_one_that_gave_up_goes_to_the_next() {
        let bus = InProcessBus::new();
        let (mut first, mut second) = (consume(&bus, &host()), consume(&bus, &host()));
        let mut gives_up = first.next(10);
        assert!((&mut gives_up).now_or_never().is_none());
        let mut waits = second.next(10);
        assert!((&mut waits).now_or_never().is_none());
        publish(&bus, &host(), 1..=1);
        drop(gives_up);
        assert_eq!(numbers(&at_once(waits).unwrap()), [(1, false)]);
    }

    #[test]
    fn a_listener_that_leaves_frees_those_who_wait_for_its_room() {
        let bus = InProcessBus::with_queue_max(2);
        let (deaf, mut keen) = (consume(&bus, &Address::All), consume(&bus, &Address::All));
        let letters = (1..=4).map(|n| letter(&Address::All, n)).collect();
        let mut publishing = bus.publish(letters);
        assert!((&mut publishing).now_or_never().is_none());
        let two = next(&mut *keen, 10);
        at_once(keen.ack(two.iter().map(|d| d.token).collect())).unwrap();
        assert!((&mut publishing).now_or_never().is_none(), "one of them has no room");
        drop(deaf);
        assert_eq!(at_once(publishing), Ok(()));
        assert_eq!(numbers(&next(&mut *keen, 10)), [(3, false), (4, false)]);
    }

    #[test]
    fn an_asker_that_leaves_is_named_to_those_who_wait_for_its_room() {
        let bus = InProcessBus::with_queue_max(1);
        let asker = Address::Reply(Uuid::from_u128(2));
        let consumer = consume(&bus, &asker);
        let mut publishing = bus.publish(vec![letter(&asker, 1), letter(&asker, 2)]);
        assert!((&mut publishing).now_or_never().is_none());
        drop(consumer);
        let addresses = vec![asker.to_string()];
        assert_eq!(at_once(publishing), Err(BusError::Unroutable { addresses, letters: vec![2] }));
        assert!(bus.shared.state.lock().queues.is_empty(), "nothing is left of the queue");
    }

    #[test]
    fn letters_that_were_taken_and_not_acknowledged_count_as_well() {
        let bus = InProcessBus::with_queue_max(2);
        let mut consumer = consume(&bus, &host());
        publish(&bus, &host(), 1..=2);
        let taken = next(&mut *consumer, 2);
        let mut publishing = bus.publish(vec![letter(&host(), 3)]);
        assert!((&mut publishing).now_or_never().is_none());
        // Going back to the queue makes no room; being refused for good does.
        at_once(consumer.reject(taken[0].token, None)).unwrap();
        assert!((&mut publishing).now_or_never().is_none());
        at_once(consumer.reject(taken[1].token, Some("bad".into()))).unwrap();
        assert_eq!(at_once(publishing), Ok(()));
    }

    #[test]
    fn dead_letters_are_bounded_and_the_oldest_go_first() {
        let bus = InProcessBus::new();
        let mut consumer = consume(&bus, &host());
        publish(&bus, &host(), 0..DEAD_MAX as u64 + 5);
        for delivery in next(&mut *consumer, DEAD_MAX + 5) {
            let reason = format!("no {}", delivery.letter.seq);
            at_once(consumer.reject(delivery.token, Some(reason))).unwrap();
        }
        let dead = at_once(bus.look_at_dead(usize::MAX)).unwrap();
        assert_eq!(dead.len(), DEAD_MAX);
        let first = dead[0].letter.as_ref().map(|letter| letter.seq);
        assert_eq!((first, dead[0].reason.as_str()), (Some(5), "no 5"));
    }

    #[test]
    fn listeners_that_left_are_forgotten() {
        let bus = InProcessBus::new();
        drop(consume(&bus, &Address::All));
        let _here = consume(&bus, &Address::All);
        assert_eq!(bus.shared.state.lock().everybody.len(), 1);
        assert!(format!("{bus:?}").contains("everybody: 1"), "{bus:?}");
    }
}
