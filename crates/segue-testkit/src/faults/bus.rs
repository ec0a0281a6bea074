//! A bus that fails within its promise.

use super::chance::Trouble;
use super::life::Life;
use crate::bus_suite::consume_either;
use parking_lot::Mutex;
use segue_core::letter::{Address, Letter};
use segue_core::ports::{BusError, Consumer, DeadLetter, Delivery, Fut, WorkBus};
use std::sync::Arc;
use tokio::sync::Mutex as AsyncMutex;

/// Any bus, as one process sees it: late, away for a moment, unsure whether it took the letters, handing them over twice. What it
/// has accepted it delivers; the order of a queue holds for what was published without trouble.
///
/// When the [`Life`] ends the bus is let go, and what its consumers had not acknowledged goes back to the queues.
pub struct FaultyBus {
    inner: Arc<Mutex<Option<Arc<dyn WorkBus>>>>,
    life: Life,
    trouble: Arc<Trouble>,
}

impl FaultyBus {
    /// This bus for the process of this life.
    pub fn over(inner: Arc<dyn WorkBus>, life: Life, trouble: Arc<Trouble>) -> Arc<FaultyBus> {
        let inner = Arc::new(Mutex::new(Some(inner)));
        let held = inner.clone();
        life.on_end(move || drop(held.lock().take()));
        Arc::new(FaultyBus { inner, life, trouble })
    }

    fn inner(&self) -> Result<Arc<dyn WorkBus>, BusError> {
        // It is gone only where the life has ended, and then nobody gets as far as here.
        self.inner.lock().clone().ok_or(BusError::Closed)
    }

    async fn open(&self, queue: Option<Address>) -> Result<Box<dyn Consumer>, BusError> {
        self.life.step().await;
        let inner = consume_either(&*self.inner()?, queue.clone()).await?;
        let inner = Arc::new(AsyncMutex::new(Some(inner)));
        let (held, life) = (inner.clone(), self.life.clone());
        // Whoever dies in the middle of something else does not ask for letters any more: they go back all the same.
        tokio::spawn(async move {
            life.ended().await;
            held.lock().await.take();
        });
        let consumer = FaultyConsumer {
            inner,
            bus: self.inner.clone(),
            queue,
            life: self.life.clone(),
            trouble: self.trouble.clone(),
        };
        Ok(Box::new(consumer))
    }

    async fn deliver(&self, mut letters: Vec<Letter>) -> Result<(), BusError> {
        self.life.step().await;
        self.trouble.delay().await;
        self.life.step().await;
        if self.trouble.strikes(|rates| rates.bus_away) {
            return Err(BusError::Away("no connection".into()));
        }
        let bus = self.inner()?;
        if self.trouble.strikes(|rates| rates.bus_half) {
            letters.truncate(self.trouble.roll(letters.len() as u64 + 1) as usize);
            let _ = bus.publish(letters).await;
            return Err(BusError::Away("the connection broke before the confirmation".into()));
        }
        let mut published = bus.publish(letters.clone()).await;
        if published.is_ok() && self.trouble.strikes(|rates| rates.bus_double) {
            published = bus.publish(letters).await;
        }
        drop(bus);
        self.trouble.delay().await;
        self.life.step().await;
        published
    }
}

impl WorkBus for FaultyBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(self.deliver(letters))
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(self.open(Some(queue)))
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(self.open(None))
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        Box::pin(async move {
            self.life.step().await;
            self.inner()?.look_at_dead(limit).await
        })
    }

    fn comebacks(&self) -> Option<u64> {
        // Its troubles are over at once.
        self.inner().ok()?.comebacks()
    }
}

struct FaultyConsumer {
    inner: Arc<AsyncMutex<Option<Box<dyn Consumer>>>>,
    bus: Arc<Mutex<Option<Arc<dyn WorkBus>>>>,
    /// The queue; nothing for the dead letters.
    queue: Option<Address>,
    life: Life,
    trouble: Arc<Trouble>,
}

impl FaultyConsumer {
    /// The connection breaks and is made again: another consumer, to whom the tokens of this one mean nothing.
    async fn reconnect(&self) -> Result<(), BusError> {
        let mut inner = self.inner.lock().await;
        inner.take();
        let bus = self.bus.lock().clone().ok_or(BusError::Closed)?;
        *inner = Some(consume_either(&*bus, self.queue.clone()).await?);
        Ok(())
    }

    async fn take(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        // Everything that waits comes before the letters are taken: a `next` that is dropped must not lose them.
        self.life.step().await;
        self.trouble.delay().await;
        self.life.step().await;
        if self.trouble.strikes(|rates| rates.bus_broken) {
            self.reconnect().await?;
        }
        if self.trouble.strikes(|rates| rates.bus_deaf) {
            return Err(BusError::Away("no connection".into()));
        }
        let mut inner = self.inner.lock().await;
        let Some(consumer) = inner.as_mut() else { return Err(BusError::Closed) };
        tokio::select! {
            biased;
            () = self.life.ended() => {}
            taken = consumer.next(max) => return taken,
        }
        inner.take();
        drop(inner);
        std::future::pending().await
    }
}

impl Consumer for FaultyConsumer {
    fn next(&mut self, max: usize) -> Fut<'_, Result<Vec<Delivery>, BusError>> {
        Box::pin(self.take(max))
    }

    fn ack(&mut self, tokens: Vec<u64>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move {
            self.life.step().await;
            match self.inner.lock().await.as_mut() {
                Some(consumer) => consumer.ack(tokens).await,
                None => Err(BusError::Closed),
            }
        })
    }

    fn reject(&mut self, token: u64, dead: Option<String>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move {
            self.life.step().await;
            match self.inner.lock().await.as_mut() {
                Some(consumer) => consumer.reject(token, dead).await,
                None => Err(BusError::Closed),
            }
        })
    }
}
