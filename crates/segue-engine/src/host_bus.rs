//! The bus of the hosts in an engine's own process.

use crate::engine::Engine;
use segue_core::letter::{Address, Letter};
use segue_core::ports::{BusError, Consumer, DeadLetter, Fut, WorkBus};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// How long what attempts report may take to be written before it is sent over the bus as well, where it outlives the process.
const STRAIGHT_MAX: Duration = Duration::from_secs(2);

/// A bus for hosts that live in the process of an engine. While the bus itself is away, what their attempts report goes to that engine straight:
/// it need not wait in memory, where it would end with the process.
pub struct HostBus {
    bus: Arc<dyn WorkBus>,
    engine: OnceLock<Weak<Engine>>,
    /// Reports go straight also while the bus is there.
    is_beside: bool,
}

impl HostBus {
    /// Over this bus.
    pub fn over(bus: Arc<dyn WorkBus>) -> Arc<HostBus> {
        Arc::new(HostBus { bus, engine: OnceLock::new(), is_beside: false })
    }

    /// Beside this bus: what attempts report goes to the engine straight, as a broker would only carry it out of the process and back. It goes over the bus
    /// while the store is away, where it outlives the process; and where the engine refuses it, since there it is left to be looked at.
    pub fn beside(bus: Arc<dyn WorkBus>) -> Arc<HostBus> {
        Arc::new(HostBus { bus, engine: OnceLock::new(), is_beside: true })
    }

    /// The hosts are in the process of this engine, from now on for good.
    pub fn set_engine(&self, engine: &Arc<Engine>) {
        let _ = self.engine.set(Arc::downgrade(engine));
    }

    /// The engine, where these letters are for it and go to it straight.
    fn straight(&self, letters: &[Letter]) -> Option<Arc<Engine>> {
        if letters.iter().any(|letter| letter.to != Address::Engine) {
            return None;
        }
        let is_away = self.bus.comebacks().is_none();
        let engine = self.engine.get()?.upgrade()?;
        (is_away || (self.is_beside && engine.store().health().is_ok())).then_some(engine)
    }
}

impl WorkBus for HostBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        match self.straight(&letters) {
            Some(engine) if self.bus.comebacks().is_none() => {
                Box::pin(async move { engine.take_reports(letters).await })
            }
            Some(engine) => Box::pin(async move {
                // By itself: what has begun goes on when the wait is over, and what is written twice counts once.
                let reports = letters.clone();
                let taken = tokio::spawn(async move { engine.take_reports(reports).await });
                match tokio::time::timeout(STRAIGHT_MAX, taken).await {
                    Ok(Ok(Ok(()))) => Ok(()),
                    refused => {
                        tracing::debug!(?refused, "reports go over the bus");
                        self.bus.publish(letters).await
                    }
                }
            }),
            None => self.bus.publish(letters),
        }
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.bus.consume(queue)
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.bus.consume_dead()
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        self.bus.look_at_dead(limit)
    }

    fn comebacks(&self) -> Option<u64> {
        self.bus.comebacks()
    }

    fn trouble(&self) -> Option<String> {
        self.bus.trouble()
    }
}
