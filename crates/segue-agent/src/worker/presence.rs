//! A worker says that it is there, which agents it has, and that it goes.

use super::{Link, LinkError};
use crate::host::Host;
use parking_lot::Mutex;
use segue_core::agent::AgentSpec;
use segue_core::outage::{Outage, Words};
use segue_core::worker::{Answer, Say, Who};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an answer to a hello, a beat or a bye is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to say something that nobody heard.
const PAUSE: Duration = Duration::from_millis(500);
/// Beats between two hellos: what the tables say of the agents is set right that often.
const BEATS: u32 = 12;

/// How a worker's stay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Somebody drained it: it is to let what runs end, and go.
    Leave,
    /// The engine does not take it, and will not.
    Refused(String),
}

/// Says that the worker is there, which agents it has, and that it goes.
pub struct Presence {
    link: Arc<Link>,
    host: Arc<Host>,
    agents: Mutex<Vec<AgentSpec>>,
    /// What the worker asks for, and what it was given last.
    lease_ms: u64,
    granted_ms: AtomicU64,
    who: Who,
    /// Whether no node answers.
    outage: Outage,
}

/// How that is told.
const UNHEARD: Words = Words {
    begins: "no node answers; what runs goes on",
    goes_on: "still no node answers; what runs goes on",
    is_over: "a node answers again",
};

impl Presence {
    /// For this host, with these agents and a lease that lasts so long without a beat.
    pub fn new(
        link: Arc<Link>,
        host: Arc<Host>,
        agents: Vec<AgentSpec>,
        lease_ms: u64,
        version: &str,
        machine: &str,
    ) -> Presence {
        let name = link.token().name.clone();
        let began = Instant::now();
        Presence {
            link,
            host,
            agents: Mutex::new(agents),
            lease_ms,
            granted_ms: AtomicU64::new(lease_ms),
            who: Who { name, version: version.to_owned(), machine: machine.to_owned() },
            outage: Outage::new(UNHEARD, move || began.elapsed()),
        }
    }

    /// Says hello until somebody answers.
    ///
    /// # Errors
    /// Why the engine does not take this worker.
    pub async fn hello(&self) -> Result<(), String> {
        loop {
            let agents = self.agents.lock().clone();
            let say = Say::Hello { who: self.who.clone(), agents, lease_ms: self.lease_ms };
            match self.link.ask(say, PATIENCE).await {
                Ok(answer) => {
                    self.note(&answer);
                    return Ok(());
                }
                Err(LinkError::Refused(reason)) => return Err(reason),
                Err(error) => {
                    self.is_unheard(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Has these agents from now on.
    ///
    /// # Errors
    /// Why the engine does not take them.
    pub async fn set_agents(&self, agents: Vec<AgentSpec>) -> Result<(), String> {
        *self.agents.lock() = agents;
        self.hello().await
    }

    /// Takes no more work from now on; what runs goes on.
    ///
    /// # Errors
    /// Why the engine refuses that.
    pub async fn take_no_more(&self) -> Result<(), String> {
        for agent in self.agents.lock().iter_mut() {
            agent.max_concurrency = 0;
        }
        self.hello().await
    }

    /// Beats until the worker is told to go. While nobody answers, what runs goes on.
    pub async fn stay(&self) -> Stay {
        let mut beats = 0;
        let mut is_heard = true;
        loop {
            let pause = Duration::from_millis(self.granted_ms.load(Ordering::Relaxed) / 3);
            // Once somebody can answer again, nobody is to wait for the next beat to know that this worker is there.
            let pause = if is_heard { pause } else { pause.min(PAUSE) };
            tokio::time::sleep(pause).await;
            beats += 1;
            let mut again = beats >= BEATS;
            let beat = self.beat().await;
            is_heard = true;
            match beat {
                Ok(true) => return Stay::Leave,
                Ok(false) => {}
                Err(LinkError::Refused(reason)) => return Stay::Refused(reason),
                Err(LinkError::Again(reason)) => {
                    tracing::warn!(%reason, "the agents of this worker register again");
                    again = true;
                }
                Err(error @ (LinkError::Ask(_) | LinkError::Forged(_) | LinkError::Later(_))) => {
                    is_heard = false;
                    self.is_unheard(&error);
                }
            }
            if again {
                beats = 0;
                if let Err(reason) = self.hello().await {
                    return Stay::Refused(reason);
                }
            }
        }
    }

    /// Says that the worker is there; true where it is to go.
    async fn beat(&self) -> Result<bool, LinkError> {
        let agents = self.agents.lock().iter().map(|agent| agent.instance).collect();
        let say = Say::Beat {
            who: self.who.clone(),
            load: 0.0,
            running: u32::try_from(self.host.running()).unwrap_or(u32::MAX),
            agents,
            lease_ms: self.lease_ms,
        };
        let answer = self.link.ask(say, PATIENCE).await?;
        self.note(&answer);
        Ok(matches!(answer, Answer::Done { leave: true, .. }))
    }

    fn is_unheard(&self, error: &LinkError) {
        if let Some(words) = self.outage.failed() {
            tracing::warn!(%error, "{words}");
        }
    }

    fn note(&self, answer: &Answer) {
        // At the level of the first line: whoever read that one wants to read this.
        if let Some(words) = self.outage.worked() {
            tracing::warn!("{words}");
        }
        if let Answer::Done { lease_ms: granted @ 1.., .. } = answer {
            self.granted_ms.store(*granted, Ordering::Relaxed);
        }
    }

    /// Says that the worker goes, so that nobody waits for its lease to end. Nothing of it may run any more.
    pub async fn bye(&self, reason: &str) {
        let say = Say::Bye { reason: reason.to_owned() };
        if let Err(error) = self.link.ask(say, PATIENCE).await {
            tracing::warn!(%error, "nobody heard that this worker goes; its lease will end");
        }
    }
}
