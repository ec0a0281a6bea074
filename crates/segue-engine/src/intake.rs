//! Stop 7 of the trip: outcomes come back.

use crate::complain::complain;
use crate::engine::{Engine, EngineError};
use crate::reported::Word;
use futures_util::stream::{FuturesUnordered, StreamExt};
use segue_core::command::{Command, Proof, Reject};
use segue_core::letter::{Address, Letter, LetterBody, Notice, WIRE_VERSION};
use segue_core::ports::{BusError, Consumer, Decision, Delivery, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::RwLock;

/// Letters of one batch.
const BATCH_MAX: usize = 1_024;
/// Batches on their way to the store at a time. While one is synced the next one gathers.
const IN_FLIGHT: usize = 3;
/// Letters of workers that are handled at a time.
const WORKERS_MAX: usize = 64;
/// After the store refused a batch, this long until the next try.
const BACKOFF: Duration = Duration::from_millis(500);

/// Takes outcomes from the bus and gives them to the store; acknowledges what is committed.
pub struct Intake {
    engine: Arc<Engine>,
    consumer: Box<dyn Consumer>,
    /// Read by each batch until it is committed; whoever has it to write comes after all batches that were taken before.
    order: Arc<RwLock<()>>,
}

struct Applied {
    tokens: Vec<u64>,
    words: Vec<Option<Word>>,
    result: Result<Vec<Decision>, StoreError>,
}

impl Intake {
    pub(crate) async fn open(engine: &Arc<Engine>) -> Result<Intake, EngineError> {
        let consumer = engine.parts.bus.consume(Address::Engine).await?;
        Ok(Intake { engine: engine.clone(), consumer, order: Arc::default() })
    }

    pub(crate) async fn run(mut self) {
        let mut stopping = self.engine.stopping();
        let mut in_flight = FuturesUnordered::new();
        let mut heard = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = crate::engine::stopped(&mut stopping) => return,
                Some(applied) = in_flight.next(), if !in_flight.is_empty() => {
                    if !self.settle(applied).await {
                        return;
                    }
                }
                Some((token, result)) = heard.next(), if !heard.is_empty() => {
                    self.settle_heard(token, result).await;
                }
                batch = self.consumer.next(BATCH_MAX),
                    if in_flight.len() < IN_FLIGHT && heard.len() < WORKERS_MAX => match batch {
                    Ok(batch) => {
                        let (workers, batch) = apart(batch);
                        if let Some(work) = self.prepare(batch).await {
                            in_flight.push(work);
                        }
                        // Behind what came before: a worker's next life delivers what the last one left, and then says hello.
                        for letter in workers {
                            heard.push(hear(self.engine.clone(), self.order.clone(), letter));
                        }
                    }
                    Err(BusError::Closed) => return,
                    Err(error) => {
                        complain(&error, "cannot take outcomes for now");
                        tokio::time::sleep(BACKOFF).await;
                    }
                },
            }
        }
    }

    /// Turns letters into commands; a letter that is none of ours is dead-lettered alone.
    async fn prepare(
        &mut self,
        batch: Vec<Delivery>,
    ) -> Option<impl Future<Output = Applied> + use<>> {
        let mut commands = Vec::with_capacity(batch.len());
        let mut tokens = Vec::with_capacity(batch.len());
        for delivery in batch {
            match command_of(delivery.letter) {
                Ok(command) => {
                    commands.push(command);
                    tokens.push(delivery.token);
                }
                Err(reason) => {
                    tracing::warn!(%reason, "a letter to the engine was refused");
                    let _ = self.consumer.reject(delivery.token, Some(reason)).await;
                }
            }
        }
        if commands.is_empty() {
            return None;
        }
        let engine = self.engine.clone();
        let order = self.order.clone();
        let words = commands.iter().map(Word::of).collect();
        Some(async move {
            let mut commands = commands;
            // Waited for in here: the loop has to go on, or what it waits for would never end.
            let turn = order.read_owned().await;
            let result = match engine.look_at_values(&mut commands).await {
                Ok(()) => engine.apply(commands).await,
                Err(error) => Err(error),
            };
            drop(turn);
            Applied { tokens, words, result }
        })
    }

    /// Acknowledges what was committed. False when nothing can be committed any more.
    async fn settle(&mut self, applied: Applied) -> bool {
        match applied.result {
            Ok(decisions) => {
                self.engine.note_reported(&applied.words, &decisions);
                let mut done = Vec::with_capacity(applied.tokens.len());
                for (token, decision) in applied.tokens.into_iter().zip(decisions) {
                    match decision {
                        Ok(_) => done.push(token),
                        Err(reject) => self.refuse(token, &reject).await,
                    }
                }
                let _ = self.consumer.ack(done).await;
                true
            }
            Err(error) => {
                complain(&error, "outcomes could not be written; they wait");
                for token in applied.tokens {
                    let _ = self.consumer.reject(token, None).await;
                }
                if self.engine.store_has_stopped() {
                    return false;
                }
                tokio::time::sleep(BACKOFF).await;
                true
            }
        }
    }

    /// A worker's letter is done, whatever it was answered, or is none.
    async fn settle_heard(&mut self, token: u64, result: Result<(), String>) {
        let _ = match result {
            Ok(()) => self.consumer.ack(vec![token]).await,
            Err(reason) => {
                tracing::warn!(%reason, "a letter of a worker was refused");
                self.consumer.reject(token, Some(reason)).await
            }
        };
    }

    async fn refuse(&mut self, token: u64, reject: &Reject) {
        tracing::warn!(%reject, "an outcome was refused");
        let _ = self.consumer.reject(token, Some(reject.to_string())).await;
    }
}

impl Engine {
    /// Takes in what attempts of this process report, without the bus: returns once it is written.
    ///
    /// # Errors
    /// [`BusError::Away`] where something could not be written, or was refused: it is to go over the bus, where it is left to be looked at. What was
    /// written may come again.
    pub(crate) async fn take_reports(&self, letters: Vec<Letter>) -> Result<(), BusError> {
        let commands: Result<Vec<Command>, String> = letters.into_iter().map(command_of).collect();
        let commands = commands.map_err(BusError::Away)?;
        let words: Vec<Option<Word>> = commands.iter().map(Word::of).collect();
        let applied = self.apply(commands).await;
        let decisions = applied.map_err(|error| BusError::Away(error.to_string()))?;
        self.note_reported(&words, &decisions);
        match decisions.into_iter().find_map(Result::err) {
            Some(reject) => Err(BusError::Away(reject.to_string())),
            None => Ok(()),
        }
    }
}

/// Takes the letters of workers out of a batch.
fn apart(batch: Vec<Delivery>) -> (Vec<Delivery>, Vec<Delivery>) {
    let is_workers = |delivery: &Delivery| {
        delivery.letter.version == WIRE_VERSION
            && matches!(delivery.letter.body, LetterBody::Host(_))
    };
    batch.into_iter().partition(is_workers)
}

/// Handles a worker's letter in a task of its own: its work may take a while (a body of many parts).
async fn hear(
    engine: Arc<Engine>,
    order: Arc<RwLock<()>>,
    delivery: Delivery,
) -> (u64, Result<(), String>) {
    let Delivery { token, letter, .. } = delivery;
    let LetterBody::Host(sealed) = letter.body else {
        return (token, Err("it is not a worker's".into()));
    };
    let heard = async move {
        drop(order.write().await);
        engine.hear(letter.correlation, *sealed).await
    };
    let result = tokio::spawn(heard).await;
    (token, result.unwrap_or_else(|error| Err(format!("handling it broke off: {error}"))))
}

fn command_of(letter: Letter) -> Result<Command, String> {
    if letter.version != WIRE_VERSION {
        return Err(format!(
            "wire version {} is unknown; this node speaks {WIRE_VERSION}",
            letter.version
        ));
    }
    let task = letter.task.ok_or("the letter names no task")?;
    match letter.body {
        LetterBody::TaskResponse(response) => Ok(Command::Finish { task, response }),
        LetterBody::Event(Notice::Started { attempt, secret, at, process }) => {
            let proof = Proof { task, attempt, secret };
            Ok(Command::Start { proof, at, process })
        }
        LetterBody::Event(Notice::Progress { attempt, secret, note }) => {
            let proof = Proof { task, attempt, secret };
            Ok(Command::Progress { proof, note })
        }
        LetterBody::Event(Notice::Reaped { attempt, secret, ended }) => {
            let proof = Proof { task, attempt, secret };
            Ok(Command::Reaped { proof, ended })
        }
        LetterBody::Event(Notice::Cancel { .. }) => Err("only the engine cancels attempts".into()),
        LetterBody::TaskRequest(_) => Err("the engine does no work".into()),
        LetterBody::Query { .. } => Err("the engine answers no queries".into()),
        LetterBody::Host(_) => Err("the letter of a worker is about no task".into()),
    }
}
