//! Questions and answers over any bus: a question names the queue of whoever asks and carries a correlation id; the answer brings it back.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use segue_core::ids::TaskId;
use segue_core::letter::{Address, Letter, LetterBody, WIRE_VERSION};
use segue_core::payload::Payload;
use segue_core::ports::{BusError, Clock, Consumer, Delivery, Fut, WorkBus};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Answers taken at a time.
const BATCH_MAX: usize = 256;
/// When the bus is away, this long until the next try.
const BACKOFF: Duration = Duration::from_millis(250);

/// What is asked, and of whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Who is asked.
    pub to: Address,
    /// What is asked.
    pub payload: Payload,
    /// The task that it is about.
    pub task: Option<TaskId>,
    /// The letter or attempt that made somebody ask.
    pub causation: Option<u128>,
    /// How many delegations lie between the root of the run and this question.
    pub hops: u16,
}

impl Question {
    /// A question about no task in particular.
    pub fn new(to: Address, payload: Payload) -> Question {
        Question { to, payload, task: None, causation: None, hops: 0 }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody answered in time. An answer that comes later is ignored.
    #[error("{to} did not answer within {waited_ms} ms")]
    TimedOut {
        /// Who was asked.
        to: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The question could not be sent, or the bus was closed before an answer came.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Questions that wait for their answers, by correlation id; `None` once no answer can come any more.
type Waiting = Mutex<Option<FxHashMap<u128, oneshot::Sender<Letter>>>>;

/// Asks over a bus. Any number of questions may wait at a time; each is answered once at most, whatever else comes to the queue.
///
/// Its queue ends with it, so that answers which come too late find nobody and leave nothing behind.
pub struct Requester {
    bus: Arc<dyn WorkBus>,
    clock: Arc<dyn Clock>,
    from: Arc<str>,
    reply_to: Address,
    waiting: Arc<Waiting>,
    reader: JoinHandle<()>,
}

impl Requester {
    /// Opens a queue for answers to questions of `from` (an agent's name, or `segue`).
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub async fn open(
        bus: Arc<dyn WorkBus>,
        clock: Arc<dyn Clock>,
        from: &str,
    ) -> Result<Requester, BusError> {
        let reply_to = Address::Reply(Uuid::new_v4());
        let consumer = bus.consume(reply_to.clone()).await?;
        let waiting = Arc::new(Mutex::new(Some(FxHashMap::default())));
        let reader = tokio::spawn(read(consumer, waiting.clone()));
        Ok(Requester { bus, clock, from: from.into(), reply_to, waiting, reader })
    }

    /// Where answers come to.
    pub fn reply_to(&self) -> &Address {
        &self.reply_to
    }

    /// Questions that wait for an answer now.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().as_ref().map_or(0, FxHashMap::len)
    }

    /// Asks, and waits for the answer at most as long as `patience`, the time to hand the question over included.
    ///
    /// # Errors
    /// When nobody takes letters there, nobody answers in time, or the bus is away or closed.
    pub async fn ask(&self, question: Question, patience: Duration) -> Result<Letter, AskError> {
        self.ask_letter(self.letter(question), patience).await
    }

    /// Asks with a letter of any kind that [`Requester::letter_of`] made, and waits for the answer as [`Requester::ask`] does.
    ///
    /// # Errors
    /// As [`Requester::ask`].
    pub async fn ask_letter(&self, letter: Letter, patience: Duration) -> Result<Letter, AskError> {
        let to = letter.to.to_string();
        let correlation = Uuid::new_v4().as_u128();
        let letter = Letter { correlation: Some(correlation), ..letter };
        let (answer, answered) = oneshot::channel();
        match self.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(correlation, answer),
            None => return Err(BusError::Closed.into()),
        };
        // Whatever ends the wait, also that the caller gives up, the entry goes with it.
        let _entry = Entry { waiting: &self.waiting, correlation };
        let asked = async {
            self.bus.publish(vec![letter]).await?;
            answered.await.map_err(|_| BusError::Closed)
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                let waited_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
                Err(AskError::TimedOut { to, waited_ms })
            }
        }
    }

    fn letter(&self, question: Question) -> Letter {
        let body = LetterBody::Query { payload: question.payload };
        Letter {
            task: question.task,
            causation: question.causation,
            hops: question.hops,
            ..self.letter_of(question.to, body)
        }
    }

    /// A letter of this asker that says this, about no task in particular.
    pub fn letter_of(&self, to: Address, body: LetterBody) -> Letter {
        Letter {
            seq: 0,
            version: WIRE_VERSION,
            from: self.from.clone(),
            to,
            task: None,
            reply_to: Some(self.reply_to.clone()),
            correlation: None,
            causation: None,
            traceparent: None,
            hops: 0,
            at: self.clock.now(),
            body,
        }
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester")
            .field("from", &self.from)
            .field("reply_to", &self.reply_to)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Entry<'a> {
    waiting: &'a Waiting,
    correlation: u128,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.remove(&self.correlation);
        }
    }
}

/// Hands answers to whoever waits for them, until the bus is closed.
async fn read(mut consumer: Box<dyn Consumer>, waiting: Arc<Waiting>) {
    loop {
        let batch = match consumer.next(BATCH_MAX).await {
            Ok(batch) => batch,
            Err(BusError::Closed) => break,
            Err(error) => {
                // The bus tells that it is away.
                tracing::debug!(%error, "cannot take answers for now");
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
        };
        let mut done = Vec::with_capacity(batch.len());
        for Delivery { token, letter, .. } in batch {
            match hand_over(&waiting, letter) {
                Ok(()) => done.push(token),
                Err(reason) => {
                    tracing::warn!(%reason, "an answer was refused");
                    let _ = consumer.reject(token, Some(reason)).await;
                }
            }
        }
        let _ = consumer.ack(done).await;
    }
    // Without the senders every wait ends.
    *waiting.lock() = None;
}

/// An answer that nobody waits for (late, doubled, or to somebody else) is done; what is no answer at all is refused.
fn hand_over(waiting: &Waiting, letter: Letter) -> Result<(), String> {
    check(&letter)?;
    let asker = letter.correlation.and_then(|id| waiting.lock().as_mut()?.remove(&id));
    match asker {
        Some(asker) => {
            let _ = asker.send(letter);
        }
        None => tracing::debug!(from = %letter.from, "nobody waits for this answer"),
    }
    Ok(())
}

/// Whether this is a question or an answer in a version that is understood here.
fn check(letter: &Letter) -> Result<(), String> {
    if letter.version != WIRE_VERSION {
        return Err(format!(
            "wire version {} is unknown; this end speaks {WIRE_VERSION}",
            letter.version
        ));
    }
    match &letter.body {
        LetterBody::Query { .. } | LetterBody::Host(_) => Ok(()),
        LetterBody::TaskRequest(_) | LetterBody::TaskResponse(_) | LetterBody::Event(_) => {
            Err("only questions and answers come here".to_owned())
        }
    }
}

/// Who answers: one question with [`Responder::answer`], or all of a queue with [`Responder::serve`].
#[derive(Clone)]
pub struct Responder {
    /// Carries questions and answers.
    pub bus: Arc<dyn WorkBus>,
    /// The clock of whoever answers.
    pub clock: Arc<dyn Clock>,
    /// Who answers: an agent's name, or `segue`.
    pub from: Arc<str>,
}

impl Responder {
    /// Answers the questions of this queue, one after another, until the bus is closed. Several may share a queue.
    ///
    /// A question is acknowledged once its answer is handed over, so a crash between the two answers it twice. One that names
    /// nobody to answer to, or that `answer` refuses with a reason, is a dead letter. An asker who has gone is no error.
    ///
    /// # Errors
    /// When the queue cannot be opened.
    pub async fn serve<A>(&self, queue: Address, mut answer: A) -> Result<(), BusError>
    where
        A: FnMut(&Letter) -> Fut<'static, Result<Payload, String>> + Send,
    {
        let mut consumer = self.bus.consume(queue).await?;
        loop {
            let batch = match consumer.next(1).await {
                Ok(batch) => batch,
                Err(BusError::Closed) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "cannot take questions for now");
                    tokio::time::sleep(BACKOFF).await;
                    continue;
                }
            };
            for Delivery { token, letter, .. } in batch {
                let settled = match self.settle(&letter, &mut answer).await {
                    Ok(()) => consumer.ack(vec![token]).await,
                    Err(reason) => consumer.reject(token, Some(reason)).await,
                };
                // A question that could not be settled comes again.
                if let Err(error) = settled {
                    tracing::warn!(%error, "a question could not be settled");
                }
            }
        }
    }

    async fn settle<A>(&self, question: &Letter, answer: &mut A) -> Result<(), String>
    where
        A: FnMut(&Letter) -> Fut<'static, Result<Payload, String>>,
    {
        check(question)?;
        if question.reply_to.is_none() {
            return Err("the question names nobody to answer to".to_owned());
        }
        let payload = answer(question).await?;
        let letter = self.answer(question, payload);
        let Some(letter) = letter else { return Ok(()) };
        loop {
            match self.bus.publish(vec![letter.clone()]).await {
                Ok(()) | Err(BusError::Closed) => return Ok(()),
                Err(error @ BusError::Unroutable { .. }) => {
                    tracing::debug!(%error, "whoever asked has gone");
                    return Ok(());
                }
                Err(error @ BusError::Away(_)) => {
                    tracing::debug!(%error, "an answer waits until the bus is back");
                    tokio::time::sleep(BACKOFF).await;
                }
            }
        }
    }

    /// The answer to a question: it goes where the question says and brings its correlation id back. It wants no answer itself, so
    /// that two who answer each other cannot go on for ever. `None` where the question names nobody to answer to.
    pub fn answer(&self, question: &Letter, payload: Payload) -> Option<Letter> {
        Some(Letter {
            seq: 0,
            version: WIRE_VERSION,
            from: self.from.clone(),
            to: question.reply_to.clone()?,
            task: question.task,
            reply_to: None,
            correlation: question.correlation,
            causation: question.correlation,
            traceparent: None,
            hops: question.hops,
            at: self.clock.now(),
            body: LetterBody::Query { payload },
        })
    }
}
