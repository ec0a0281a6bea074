//! Signed questions to the engine, and their answers.

use segue_bus::request::{AskError, Requester};
use segue_core::ids::Incarnation;
use segue_core::letter::{Address, LetterBody};
use segue_core::ports::{BusError, Clock, WorkBus};
use segue_core::time::Time;
use segue_core::worker::{Answer, Asked, FRESH_MS, Say, Sealed, Stamp, Way, WorkerToken};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Why the engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answered.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The answer is not signed by a node of the project.
    #[error("the answer is not that of a node of this project: {0}")]
    Forged(&'static str),
    /// It will not be done.
    #[error("{0}")]
    Refused(String),
    /// It cannot be done now.
    #[error("it cannot be done now: {0}")]
    Later(String),
    /// The worker is to say hello again.
    #[error("{0}")]
    Again(String),
}

/// A worker's way to the engine.
pub struct Link {
    requester: Requester,
    reply: Uuid,
    token: WorkerToken,
    incarnation: Incarnation,
    number: AtomicU64,
    clock: Arc<dyn Clock>,
    /// How far the store's clock is ahead of this machine's, in milliseconds.
    ahead_ms: AtomicI64,
}

impl Link {
    /// For the worker with this token, in this life.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub async fn open(
        bus: Arc<dyn WorkBus>,
        clock: Arc<dyn Clock>,
        token: WorkerToken,
        incarnation: Incarnation,
    ) -> Result<Link, BusError> {
        let requester = Requester::open(bus, clock.clone(), &token.name).await?;
        let Address::Reply(reply) = *requester.reply_to() else {
            return Err(BusError::Closed);
        };
        Ok(Link {
            requester,
            reply,
            token,
            incarnation,
            number: AtomicU64::new(0),
            clock,
            ahead_ms: AtomicI64::new(0),
        })
    }

    /// Whose link it is.
    pub fn token(&self) -> &WorkerToken {
        &self.token
    }

    /// Now, by the store's clock as far as an answer has told it.
    pub fn now(&self) -> Time {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        Time(self.clock.now().0.saturating_add(ahead))
    }

    /// Asks, and waits for the answer so long. Where the answer shows that the clock is off, it is set and the question asked anew.
    ///
    /// # Errors
    /// When nobody answers, or the answer is that it was not done.
    pub async fn ask(&self, say: Say, patience: Duration) -> Result<Answer, LinkError> {
        let said = serde_json::to_string(&Asked { reply: self.reply, say })
            .map_err(|error| LinkError::Refused(format!("it is no JSON: {error}")))?;
        match self.ask_once(said.clone(), patience).await? {
            Answer::Again { now, reason } => {
                let off = now.since_ms(self.now()).max(self.now().since_ms(now));
                self.set_clock(now);
                if off < FRESH_MS / 2 {
                    return Err(LinkError::Again(reason));
                }
                tracing::warn!(off_ms = off, "this machine's clock differs from the cluster's");
            }
            answer => return done(answer),
        }
        done(self.ask_once(said, patience).await?)
    }

    fn set_clock(&self, now: Time) {
        self.ahead_ms.store(now.0.saturating_sub(self.clock.now().0), Ordering::Relaxed);
    }

    async fn ask_once(&self, said: String, patience: Duration) -> Result<Answer, LinkError> {
        let stamp = Stamp {
            host: self.token.host(),
            incarnation: self.incarnation,
            number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
            at: self.now(),
        };
        let WorkerToken { project, token, .. } = &self.token;
        let sealed = Sealed::seal(token, *project, Way::ToEngine, stamp, said);
        let body = LetterBody::Host(Box::new(sealed));
        let letter = self.requester.letter_of(Address::Engine, body);
        let answer = self.requester.ask_letter(letter, patience).await?;
        let LetterBody::Host(sealed) = answer.body else {
            return Err(LinkError::Forged("it is of another kind"));
        };
        if !sealed.is_by(token, *project, Way::ToWorker) {
            return Err(LinkError::Forged("its signature is wrong"));
        }
        let is_to_this = sealed.host == stamp.host
            && sealed.incarnation == stamp.incarnation
            && sealed.number == stamp.number;
        if !is_to_this {
            return Err(LinkError::Forged("it answers another question"));
        }
        serde_json::from_str(&sealed.said).map_err(|_| {
            LinkError::Refused(
                "the node's answer is not understood: it may be of another version".into(),
            )
        })
    }
}

/// An answer that says that it was done.
fn done(answer: Answer) -> Result<Answer, LinkError> {
    match answer {
        Answer::Done { .. } | Answer::Part { .. } => Ok(answer),
        Answer::Again { reason, .. } => Err(LinkError::Again(reason)),
        Answer::Refused { reason } => Err(LinkError::Refused(reason)),
        Answer::Later { reason } => Err(LinkError::Later(reason)),
    }
}
