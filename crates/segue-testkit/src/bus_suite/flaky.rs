//! A bus whose connection breaks on demand.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use segue_core::letter::{Address, Letter};
use segue_core::ports::{BusError, Consumer, DeadLetter, Delivery, Fut, WorkBus};
use std::future::ready;
use std::sync::Arc;
use tokio::sync::watch;

/// Any bus, behind a connection that can break and be mended: what a broker that goes away looks like from here.
///
/// While it is broken every call answers [`BusError::Away`]. What consumers had not acknowledged goes back to its queue; they go on by themselves
/// afterwards, and their old tokens mean nothing any more.
pub struct FlakyBus {
    inner: Arc<dyn WorkBus>,
    line: Arc<watch::Sender<Line>>,
    /// Calls of `publish` whose letters arrive while their confirmation does not.
    unconfirmed: Mutex<usize>,
}

#[derive(Clone, Copy, PartialEq)]
struct Line {
    up: bool,
    /// How often it broke.
    breaks: u64,
}

fn away() -> BusError {
    BusError::Away("the connection is broken".to_owned())
}

impl FlakyBus {
    /// A connection that is up.
    pub fn over(inner: Arc<dyn WorkBus>) -> Arc<FlakyBus> {
        let line = watch::Sender::new(Line { up: true, breaks: 0 });
        Arc::new(FlakyBus { inner, line: Arc::new(line), unconfirmed: Mutex::new(0) })
    }

    /// The connection breaks.
    pub fn break_off(&self) {
        self.line.send_modify(|line| {
            line.up = false;
            line.breaks += 1;
        });
    }

    /// The connection is there again.
    pub fn mend(&self) {
        self.line.send_modify(|line| line.up = true);
    }

    /// The next so many calls of `publish` hand their letters over and answer `Away` all the same.
    pub fn lose_confirmations(&self, calls: usize) {
        *self.unconfirmed.lock() += calls;
    }

    async fn open(&self, queue: Option<Address>) -> Result<Box<dyn Consumer>, BusError> {
        let mut line = self.line.subscribe();
        let now = *line.borrow_and_update();
        if !now.up {
            return Err(away());
        }
        let inner = consume(&*self.inner, queue.clone()).await?;
        let consumer = FlakyConsumer {
            bus: self.inner.clone(),
            queue,
            line,
            held: Some((now.breaks, inner)),
            open: FxHashMap::default(),
            tokens: 0,
        };
        Ok(Box::new(consumer))
    }

    fn loses_confirmation(&self) -> bool {
        let mut left = self.unconfirmed.lock();
        let loses = *left > 0;
        *left = left.saturating_sub(1);
        loses
    }
}

impl WorkBus for FlakyBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move {
            let mut line = self.line.subscribe();
            if !line.borrow_and_update().up {
                return Err(away());
            }
            tokio::select! {
                biased;
                _ = line.changed() => Err(away()),
                published = self.inner.publish(letters) => {
                    if self.loses_confirmation() { Err(away()) } else { published }
                }
            }
        })
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(self.open(Some(queue)))
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(self.open(None))
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        if !self.line.borrow().up {
            return Box::pin(ready(Err(away())));
        }
        self.inner.look_at_dead(limit)
    }

    fn comebacks(&self) -> Option<u64> {
        let line = *self.line.borrow();
        line.up.then_some(line.breaks)
    }
}

/// A consumer of a queue, or of the dead letters that brought work.
pub(crate) async fn consume(
    bus: &dyn WorkBus,
    queue: Option<Address>,
) -> Result<Box<dyn Consumer>, BusError> {
    match queue {
        Some(queue) => bus.consume(queue).await,
        None => bus.consume_dead().await,
    }
}

struct FlakyConsumer {
    bus: Arc<dyn WorkBus>,
    /// The queue; nothing for the dead letters.
    queue: Option<Address>,
    line: watch::Receiver<Line>,
    /// The consumer behind, and how often the line had broken when it was made.
    held: Option<(u64, Box<dyn Consumer>)>,
    /// The tokens behind those that were given out over this connection.
    open: FxHashMap<u64, u64>,
    tokens: u64,
}

impl FlakyConsumer {
    /// The consumer behind, if the connection over which it was made still stands.
    fn standing(&mut self) -> Option<&mut Box<dyn Consumer>> {
        let now = *self.line.borrow_and_update();
        if self.held.as_ref().is_some_and(|(breaks, _)| *breaks != now.breaks) {
            self.held = None;
            self.open.clear();
        }
        self.held.as_mut().map(|(_, consumer)| consumer)
    }

    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BusError> {
        if self.standing().is_none() {
            let now = *self.line.borrow();
            if !now.up {
                return Err(away());
            }
            self.held = Some((now.breaks, consume(&*self.bus, self.queue.clone()).await?));
        }
        let Some((_, consumer)) = self.held.as_mut() else { return Err(away()) };
        tokio::select! {
            biased;
            _ = self.line.changed() => {}
            batch = consumer.next(max) => return batch,
        }
        self.standing();
        Err(away())
    }
}

impl Consumer for FlakyConsumer {
    fn next(&mut self, max: usize) -> Fut<'_, Result<Vec<Delivery>, BusError>> {
        Box::pin(async move {
            let mut batch = self.receive(max).await?;
            for delivery in &mut batch {
                self.tokens += 1;
                self.open.insert(self.tokens, delivery.token);
                delivery.token = self.tokens;
            }
            Ok(batch)
        })
    }

    fn ack(&mut self, tokens: Vec<u64>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move {
            if self.standing().is_none() {
                return Err(away());
            }
            let behind = tokens.iter().filter_map(|token| self.open.remove(token)).collect();
            match self.standing() {
                Some(consumer) => consumer.ack(behind).await,
                None => Err(away()),
            }
        })
    }

    fn reject(&mut self, token: u64, dead: Option<String>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move {
            if self.standing().is_none() {
                return Err(away());
            }
            let Some(behind) = self.open.remove(&token) else { return Ok(()) };
            match self.standing() {
                Some(consumer) => consumer.reject(behind, dead).await,
                None => Err(away()),
            }
        })
    }
}
