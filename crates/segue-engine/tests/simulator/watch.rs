//! A bus that is watched: which outcomes the engine acknowledged.

use parking_lot::Mutex;
use segue_core::ids::{AttemptId, TaskId};
use segue_core::letter::{Address, Letter, LetterBody};
use segue_core::outcome::Outcome;
use segue_core::ports::{BusError, Consumer, DeadLetter, Delivery, Fut, WorkBus};
use segue_testkit::simulator::{Brought, Seen};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Notes what the engine acknowledges.
pub struct WatchedBus {
    pub inner: Arc<dyn WorkBus>,
    pub seen: Arc<Mutex<Seen>>,
}

impl WorkBus for WatchedBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        self.inner.publish(letters)
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(async move {
            let inner = self.inner.consume(queue).await?;
            let watched =
                WatchedConsumer { inner, seen: self.seen.clone(), open: BTreeMap::default() };
            Ok(Box::new(watched) as Box<dyn Consumer>)
        })
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.inner.consume_dead()
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        self.inner.look_at_dead(limit)
    }

    fn comebacks(&self) -> Option<u64> {
        self.inner.comebacks()
    }
}

struct WatchedConsumer {
    inner: Box<dyn Consumer>,
    seen: Arc<Mutex<Seen>>,
    open: BTreeMap<u64, (AttemptId, TaskId, Brought)>,
}

fn outcome_in(letter: &Letter) -> Option<(AttemptId, TaskId, Brought)> {
    let LetterBody::TaskResponse(response) = &letter.body else { return None };
    let brought = match &response.outcome {
        Outcome::Complete { .. } => Brought::Output,
        Outcome::Fail { .. } => Brought::Error,
        Outcome::Delegate { .. } => Brought::Tasks,
        Outcome::Cancelled => Brought::Nothing,
    };
    Some((response.attempt, letter.task?, brought))
}

impl Consumer for WatchedConsumer {
    fn next(&mut self, max: usize) -> Fut<'_, Result<Vec<Delivery>, BusError>> {
        Box::pin(async move {
            let deliveries = self.inner.next(max).await?;
            for delivery in &deliveries {
                if let Some(outcome) = outcome_in(&delivery.letter) {
                    self.open.insert(delivery.token, outcome);
                }
            }
            Ok(deliveries)
        })
    }

    fn ack(&mut self, tokens: Vec<u64>) -> Fut<'_, Result<(), BusError>> {
        // Whoever acknowledges says that it is kept, whatever becomes of the acknowledgement.
        for token in &tokens {
            if let Some((attempt, task, brought)) = self.open.remove(token) {
                self.seen.lock().acknowledged.insert(attempt, (task, brought));
            }
        }
        self.inner.ack(tokens)
    }

    fn reject(&mut self, token: u64, dead: Option<String>) -> Fut<'_, Result<(), BusError>> {
        self.inner.reject(token, dead)
    }
}
