//! The bus within one process: bounded queues, at-least-once, acknowledged.
//!
//! It keeps nothing beyond the process: what was published and not done is lost with it, and the leases of the store bring the work back.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use segue_core::letter::{Address, Letter};
use segue_core::ports::{BusError, Consumer, Delivery, Fut, WorkBus};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Letters that a queue holds before `publish` waits.
pub const QUEUE_MAX: usize = 16 * 1024;
/// Dead letters that are kept; the oldest go first.
pub const DEAD_MAX: usize = 1_000;

/// A letter that was refused, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The letter.
    pub letter: Letter,
    /// Why it was refused.
    pub reason: String,
}

/// The bus within one process.
#[derive(Debug, Default)]
pub struct InProcessBus {
    queues: Mutex<FxHashMap<Address, Arc<Queue>>>,
    everybody: Mutex<Vec<Weak<Queue>>>,
    dead: Arc<Mutex<VecDeque<DeadLetter>>>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    letters: Mutex<VecDeque<(Letter, bool)>>,
    arrived: Notify,
    room: Notify,
    closed: AtomicBool,
    tokens: AtomicU64,
}

impl InProcessBus {
    /// A bus without queues.
    pub fn new() -> Arc<InProcessBus> {
        Arc::default()
    }

    /// The letters that were refused, oldest first.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead.lock().iter().cloned().collect()
    }

    /// Ends every wait with [`BusError::Closed`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for queue in self.queues.lock().values() {
            queue.close();
        }
        for queue in self.everybody.lock().iter().filter_map(Weak::upgrade) {
            queue.close();
        }
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.closed.load(Ordering::SeqCst) { Err(BusError::Closed) } else { Ok(()) }
    }

    async fn deliver(&self, letters: Vec<Letter>) -> Result<(), BusError> {
        self.check_open()?;
        let mut unroutable = (Vec::new(), Vec::new());
        let mut same: Option<(Address, Option<Arc<Queue>>)> = None;
        for letter in letters {
            if letter.to == Address::All {
                let queues: Vec<_> =
                    self.everybody.lock().iter().filter_map(Weak::upgrade).collect();
                for queue in queues {
                    queue.push(letter.clone()).await?;
                }
                continue;
            }
            // Letters come in runs for one host: look the queue up once a run.
            if same.as_ref().is_none_or(|(address, _)| *address != letter.to) {
                same = Some((letter.to.clone(), self.queues.lock().get(&letter.to).cloned()));
            }
            match same.as_ref().and_then(|(_, queue)| queue.clone()) {
                Some(queue) => queue.push(letter).await?,
                None => {
                    unroutable.0.push(format!("{:?}", letter.to));
                    unroutable.1.push(letter.seq);
                }
            }
        }
        if unroutable.0.is_empty() {
            return Ok(());
        }
        unroutable.0.sort_unstable();
        unroutable.0.dedup();
        Err(BusError::Unroutable { addresses: unroutable.0, letters: unroutable.1 })
    }
}

impl Queue {
    async fn push(&self, letter: Letter) -> Result<(), BusError> {
        loop {
            let room = self.room.notified();
            if self.closed.load(Ordering::SeqCst) {
                return Err(BusError::Closed);
            }
            {
                let mut letters = self.letters.lock();
                if letters.len() < QUEUE_MAX {
                    letters.push_back((letter, false));
                    drop(letters);
                    self.arrived.notify_one();
                    return Ok(());
                }
            }
            room.await;
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
        self.room.notify_waiters();
    }

    fn take(&self, max: usize) -> Vec<(Letter, bool)> {
        let mut letters = self.letters.lock();
        let count = letters.len().min(max);
        let taken: Vec<_> = letters.drain(..count).collect();
        if !letters.is_empty() {
            // Another consumer of the queue may go on with the rest.
            self.arrived.notify_one();
        }
        drop(letters);
        if count > 0 {
            self.room.notify_waiters();
        }
        taken
    }
}

impl WorkBus for InProcessBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(self.deliver(letters))
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(async move {
            self.check_open()?;
            let queue = if queue == Address::All {
                let own = Arc::new(Queue::default());
                let mut everybody = self.everybody.lock();
                everybody.retain(|queue| queue.strong_count() > 0);
                everybody.push(Arc::downgrade(&own));
                own
            } else {
                self.queues.lock().entry(queue).or_default().clone()
            };
            let consumer =
                InProcessConsumer { queue, open: FxHashMap::default(), dead: self.dead.clone() };
            Ok(Box::new(consumer) as Box<dyn Consumer>)
        })
    }
}

struct InProcessConsumer {
    queue: Arc<Queue>,
    open: FxHashMap<u64, Letter>,
    dead: Arc<Mutex<VecDeque<DeadLetter>>>,
}

impl Consumer for InProcessConsumer {
    fn next(&mut self, max: usize) -> Fut<'_, Result<Vec<Delivery>, BusError>> {
        Box::pin(async move {
            loop {
                let arrived = self.queue.arrived.notified();
                let taken = self.queue.take(max.max(1));
                if !taken.is_empty() {
                    let open = &mut self.open;
                    let tokens = &self.queue.tokens;
                    return Ok(taken
                        .into_iter()
                        .map(|(letter, redelivered)| {
                            let token = tokens.fetch_add(1, Ordering::Relaxed) + 1;
                            open.insert(token, letter.clone());
                            Delivery { token, letter, redelivered }
                        })
                        .collect());
                }
                if self.queue.closed.load(Ordering::SeqCst) {
                    return Err(BusError::Closed);
                }
                arrived.await;
            }
        })
    }

    fn ack(&mut self, tokens: Vec<u64>) -> Fut<'_, Result<(), BusError>> {
        for token in tokens {
            self.open.remove(&token);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn reject(&mut self, token: u64, dead: Option<String>) -> Fut<'_, Result<(), BusError>> {
        if let Some(letter) = self.open.remove(&token) {
            match dead {
                Some(reason) => {
                    let mut letters = self.dead.lock();
                    if letters.len() == DEAD_MAX {
                        letters.pop_front();
                    }
                    letters.push_back(DeadLetter { letter, reason });
                }
                None => {
                    self.queue.letters.lock().push_front((letter, true));
                    self.queue.arrived.notify_one();
                }
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for InProcessConsumer {
    fn drop(&mut self) {
        let mut back: Vec<(u64, Letter)> = self.open.drain().collect();
        if back.is_empty() {
            return;
        }
        back.sort_unstable_by_key(|(token, _)| *token);
        let mut letters = self.queue.letters.lock();
        for (_, letter) in back.into_iter().rev() {
            letters.push_front((letter, true));
        }
        drop(letters);
        self.queue.arrived.notify_one();
    }
}
