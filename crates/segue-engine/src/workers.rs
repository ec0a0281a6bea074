//! Workers: processes that host agents and reach the engine by letters alone.
//!
//! Whatever a worker says is a signed question ([`segue_core::worker`]), and any node answers it. Nothing is kept here but what makes an
//! old letter recognisable, and that only for as long as this process lives.

use crate::complain::complain;
use crate::engine::{Engine, EngineError};
use parking_lot::Mutex;
use segue_core::agent::AgentSpec;
use segue_core::command::{Command, Reject};
use segue_core::ids::{HostId, Incarnation, InstanceId};
use segue_core::letter::{Address, Letter, LetterBody, WIRE_VERSION};
use segue_core::payload::Hash;
use segue_core::ports::{Beat, BusError, NodeBeat, StoreError};
use segue_core::worker::{
    AGENTS_MAX, Answer, Asked, BODY_MAX, PART_MAX, Part, SAID_MAX, Say, Sealed, Stamp, TokenMaker,
    Way, Who, check_name, host_of, instance_of,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Shortest and longest lease of a worker, in milliseconds.
const LEASE_MS: std::ops::RangeInclusive<u64> = 3_000..=600_000;
/// Workers whose last number is remembered. Of those beyond, the ones that were silent longest are forgotten first.
const REMEMBERED_MAX: usize = 10_000;
/// How old the list of agents may be by which a beat is answered.
const AGENTS_AGE: Duration = Duration::from_secs(2);
/// Bodies that are read for workers are kept at hand while their parts are asked for: so many bytes at most.
const AT_HAND_MAX: usize = 64 * 1024 * 1024;
/// Bodies that are put together at a time: each is in memory meanwhile.
const JOINS_MAX: usize = 2;
/// Bytes of what a worker says of its version or machine, at most.
const TEXT_MAX: usize = 256;
/// So long an answer may take to be handed to the bus.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What is known of workers in this process: all of it soft.
#[derive(Debug)]
pub(crate) struct Desk {
    seen: Mutex<HashMap<HostId, Seen>>,
    at_hand: Mutex<AtHand>,
    joins: Semaphore,
}

impl Default for Desk {
    fn default() -> Self {
        Desk { seen: Mutex::default(), at_hand: Mutex::default(), joins: Semaphore::new(JOINS_MAX) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    incarnation: Incarnation,
    number: u64,
    at: Instant,
}

/// The bodies that were read last.
#[derive(Debug, Default)]
struct AtHand {
    bodies: Vec<(Hash, Arc<Vec<u8>>)>,
}

impl AtHand {
    fn get(&mut self, hash: Hash) -> Option<Arc<Vec<u8>>> {
        let place = self.bodies.iter().position(|(known, _)| *known == hash)?;
        let found = self.bodies.remove(place);
        let body = found.1.clone();
        self.bodies.push(found);
        Some(body)
    }

    fn keep(&mut self, hash: Hash, body: Arc<Vec<u8>>) {
        self.bodies.retain(|(known, _)| *known != hash);
        self.bodies.push((hash, body));
        let mut bytes: usize = self.bodies.iter().map(|(_, body)| body.len()).sum();
        while bytes > AT_HAND_MAX && self.bodies.len() > 1 {
            bytes -= self.bodies.remove(0).1.len();
        }
    }

    fn forget(&mut self, hash: Hash) {
        self.bodies.retain(|(known, _)| *known != hash);
    }
}

impl Desk {
    /// Notes the number of a letter; false where it, or a later one of the same life, was seen before.
    fn is_new(&self, sealed: &Sealed) -> bool {
        let mut seen = self.seen.lock();
        if let Some(last) = seen.get(&sealed.host)
            && last.incarnation == sealed.incarnation
            && last.number >= sealed.number
        {
            return false;
        }
        if seen.len() >= REMEMBERED_MAX && !seen.contains_key(&sealed.host) {
            let oldest = seen.iter().min_by_key(|(_, seen)| seen.at).map(|(host, _)| *host);
            oldest.and_then(|host| seen.remove(&host));
        }
        let Sealed { incarnation, number, .. } = *sealed;
        seen.insert(sealed.host, Seen { incarnation, number, at: Instant::now() });
        true
    }
}

/// What a worker's letter comes to, before anything was done about it.
enum Checked {
    Ask(Asked),
    /// Its time is off: what it wants is not done, and it is told what the time is.
    Stale {
        asked: Asked,
    },
}

impl Engine {
    /// Does what a worker says, and answers it.
    ///
    /// # Errors
    /// Why the letter is a dead letter.
    pub(crate) async fn hear(
        &self,
        correlation: Option<u128>,
        sealed: Sealed,
    ) -> Result<(), String> {
        let stamp = Stamp {
            host: sealed.host,
            incarnation: sealed.incarnation,
            number: sealed.number,
            at: self.now(),
        };
        let (reply, answer, dead) = match self.check_worker(&sealed)? {
            Checked::Stale { asked } => {
                let reason =
                    "the letter is of another time: set the clock by this answer".to_owned();
                (asked.reply, Answer::Again { now: self.now(), reason }, None)
            }
            Checked::Ask(Asked { reply, say }) => {
                let answer = self.do_what_is_said(&sealed, say).await;
                let dead = match &answer {
                    Answer::Refused { reason } => Some(reason.clone()),
                    Answer::Done { .. }
                    | Answer::Again { .. }
                    | Answer::Part { .. }
                    | Answer::Later { .. } => None,
                };
                (reply, answer, dead)
            }
        };
        self.answer(Address::Reply(reply), correlation, stamp, &answer).await;
        dead.map_or(Ok(()), Err)
    }

    /// Whether the letter is that of the worker that it names, and of now.
    fn check_worker(&self, sealed: &Sealed) -> Result<Checked, String> {
        let Some(maker) = &self.config.workers else {
            return Err("this project takes no workers".into());
        };
        if sealed.said.len() > SAID_MAX {
            return Err(format!("a worker's letter says at most {SAID_MAX} bytes"));
        }
        let token = maker.token(sealed.host);
        if !sealed.is_by(&token, maker.project(), Way::ToEngine) {
            return Err(format!("the signature is not that of host {}", sealed.host));
        }
        let asked: Asked = serde_json::from_str(&sealed.said)
            .map_err(|error| format!("what the worker says is not understood: {error}"))?;
        if !sealed.is_fresh(self.now()) {
            // Told to whoever signed it, and done to nothing: an old letter that somebody sends again gets no further.
            return Ok(Checked::Stale { asked });
        }
        let is_ordered = match asked.say {
            Say::Hello { .. } | Say::Beat { .. } | Say::Bye { .. } => true,
            // Doing these twice changes nothing, and several are on their way at a time.
            Say::Get { .. } | Say::Put { .. } | Say::Join { .. } => false,
        };
        if is_ordered && !self.desk.is_new(sealed) {
            return Err(format!("letter {} of this worker came before", sealed.number));
        }
        Ok(Checked::Ask(asked))
    }

    async fn do_what_is_said(&self, sealed: &Sealed, say: Say) -> Answer {
        let done = match say {
            Say::Hello { who, agents, lease_ms } => {
                let welcome = self.welcome(sealed, &who, agents, lease_ms).await;
                if welcome.is_ok() {
                    self.tell_of(sealed.host, who, 0.0, false);
                }
                welcome
            }
            Say::Beat { who, load, agents, lease_ms, running: _ } => {
                let answer = self.worker_beats(sealed, &who, load, agents, lease_ms).await;
                if let Ok(Answer::Done { leave, .. }) = &answer {
                    self.tell_of(sealed.host, who, load, *leave);
                }
                answer
            }
            Say::Bye { reason } => self.worker_leaves(sealed, &reason).await,
            Say::Get { hash, offset } => self.part_of(hash, offset).await,
            Say::Put { part } => self.keep_part(part).await,
            Say::Join { hash, size, parts } => self.join(hash, size, &parts).await,
        };
        done.unwrap_or_else(|error| self.answer_to(error))
    }

    /// What an error means to a worker.
    fn answer_to(&self, error: EngineError) -> Answer {
        let reason = error.to_string();
        match error {
            EngineError::Rejected(Reject::Superseded(_)) => {
                Answer::Again { now: self.now(), reason }
            }
            EngineError::Rejected(_)
            | EngineError::Store(StoreError::MissingPayload(_) | StoreError::Corrupt(_)) => {
                Answer::Refused { reason }
            }
            EngineError::Store(_) | EngineError::Bus(_) => Answer::Later { reason },
        }
    }

    async fn welcome(
        &self,
        sealed: &Sealed,
        who: &Who,
        agents: Vec<AgentSpec>,
        lease_ms: u64,
    ) -> Result<Answer, EngineError> {
        let Sealed { host, incarnation, .. } = *sealed;
        let name = &who.name;
        self.check_name(host, who)?;
        check_agents(host, &agents)?;
        let known = self.parts.store.agents_of(host).await?;
        let latest = known.iter().map(|agent| agent.incarnation);
        if latest.max().is_some_and(|latest| latest > incarnation) {
            let message = format!("worker `{name}` was started again since: only one may run");
            return Err(Reject::Conflict(message).into());
        }
        let lease_ms = bounded(lease_ms);
        self.register_host(host, incarnation, &agents, lease_ms).await?;
        self.roster.stale().await;
        Ok(Answer::Done { now: self.now(), lease_ms, leave: false })
    }

    /// A worker speaks for its own name alone.
    fn check_name(&self, host: HostId, who: &Who) -> Result<(), EngineError> {
        let wrong = |message: String| EngineError::Rejected(Reject::Invalid(message));
        let Who { name, version, machine } = who;
        check_name(name).map_err(|error| wrong(error.to_string()))?;
        if version.len().max(machine.len()) > TEXT_MAX {
            return Err(wrong(format!("version and machine have at most {TEXT_MAX} bytes")));
        }
        let project = self.config.workers.as_ref().map(TokenMaker::project);
        match project.map(|project| host_of(project, name)) == Some(host) {
            true => Ok(()),
            false => Err(wrong(format!("the token is not that of worker `{name}`"))),
        }
    }

    /// Lists a worker among the nodes, where it reaches nobody itself who would do that.
    fn tell_of(&self, host: HostId, who: Who, load: f32, draining: bool) {
        let beat = NodeBeat {
            node: host,
            name: who.name.into(),
            machine: who.machine.into(),
            version: who.version.into(),
            started: self.now(),
            roles: vec!["worker".into()],
            address: None,
            load: bounded_load(load),
            draining,
            trouble: None,
        };
        let told =
            Beat { from: host, node: Some(beat), instances: Vec::new(), health: BTreeMap::new() };
        let presence = self.parts.presence.clone();
        tokio::spawn(async move {
            if let Err(error) = presence.beat(told).await {
                tracing::debug!(%error, "could not tell of a worker");
            }
        });
    }

    async fn worker_beats(
        &self,
        sealed: &Sealed,
        who: &Who,
        load: f32,
        mut instances: Vec<InstanceId>,
        lease_ms: u64,
    ) -> Result<Answer, EngineError> {
        let Sealed { host, incarnation, .. } = *sealed;
        self.check_name(host, who)?;
        let lease_ms = bounded(lease_ms);
        self.command(Command::Renew { host, incarnation, lease_ms }).await?;
        let known = self.roster.not_older_than(self.parts.store.as_ref(), AGENTS_AGE).await?;
        let mut leave = !instances.is_empty();
        let wanted = instances.len();
        instances.truncate(AGENTS_MAX);
        instances.retain(|instance| {
            let agent = known.get(instance);
            let is_here = agent.is_some_and(|agent| {
                agent.host == host && agent.incarnation == incarnation && !agent.gone
            });
            leave &= agent.is_some_and(|agent| agent.spec.max_concurrency == 0);
            is_here
        });
        if instances.len() < wanted {
            let reason = "agents of this worker are not known, or were taken for gone".to_owned();
            return Ok(Answer::Again { now: self.now(), reason });
        }
        self.directory.beat(instances, bounded_load(load));
        Ok(Answer::Done { now: self.now(), lease_ms, leave })
    }

    async fn worker_leaves(&self, sealed: &Sealed, reason: &str) -> Result<Answer, EngineError> {
        let reason: String = reason.chars().take(200).collect();
        self.expire_host(sealed.host, sealed.incarnation, &format!("its worker left: {reason}"))
            .await?;
        if let Err(error) = self.parts.presence.leave(sealed.host).await {
            tracing::debug!(%error, "could not tell that a worker left");
        }
        Ok(Answer::Done { now: self.now(), lease_ms: 0, leave: true })
    }

    async fn part_of(&self, hash: Hash, offset: u64) -> Result<Answer, EngineError> {
        let at_hand = self.desk.at_hand.lock().get(hash);
        let body = match at_hand {
            Some(body) => body,
            None => {
                let body = Arc::new(self.parts.blobs.get(hash).await?);
                self.desk.at_hand.lock().keep(hash, body.clone());
                body
            }
        };
        let size = body.len() as u64;
        if offset > size {
            let message = format!("body {} has {size} bytes, none at {offset}", hash.hex());
            return Err(Reject::Invalid(message).into());
        }
        let from = usize::try_from(offset).unwrap_or(body.len());
        let to = from.saturating_add(PART_MAX).min(body.len());
        if to == body.len() {
            self.desk.at_hand.lock().forget(hash);
        }
        Ok(Answer::Part { size, offset, part: Part(body[from..to].to_vec()) })
    }

    async fn keep_part(&self, part: Part) -> Result<Answer, EngineError> {
        if part.0.len() > PART_MAX || part.0.is_empty() {
            let message = format!("a part of a body has 1 to {PART_MAX} bytes");
            return Err(Reject::Invalid(message).into());
        }
        self.parts.blobs.put(part.0).await?;
        Ok(Answer::Done { now: self.now(), lease_ms: 0, leave: false })
    }

    async fn join(&self, hash: Hash, size: u64, parts: &[Hash]) -> Result<Answer, EngineError> {
        let wrong = |message: String| EngineError::Rejected(Reject::Invalid(message));
        if size > BODY_MAX || parts.len() as u64 > size {
            return Err(wrong(format!("a body has at most {BODY_MAX} bytes, and no empty parts")));
        }
        let size = usize::try_from(size).map_err(|error| wrong(error.to_string()))?;
        let _turn = self.desk.joins.acquire().await;
        let mut body = Vec::with_capacity(size);
        for part in parts {
            let bytes = self.parts.blobs.get(*part).await?;
            if body.len() + bytes.len() > size {
                return Err(wrong(format!("the parts have more than {size} bytes together")));
            }
            body.extend_from_slice(&bytes);
        }
        if body.len() != size || Hash::of(&body) != hash {
            return Err(wrong(format!("the parts together are not body {}", hash.hex())));
        }
        self.parts.blobs.put(body).await?;
        Ok(Answer::Done { now: self.now(), lease_ms: 0, leave: false })
    }

    async fn answer(&self, to: Address, correlation: Option<u128>, stamp: Stamp, answer: &Answer) {
        let Some(maker) = &self.config.workers else { return };
        let said = match serde_json::to_string(answer) {
            Ok(said) => said,
            Err(error) => return tracing::error!(%error, "an answer to a worker is no JSON"),
        };
        let token = maker.token(stamp.host);
        let sealed = Sealed::seal(&token, maker.project(), Way::ToWorker, stamp, said);
        let letter = Letter {
            seq: 0,
            version: WIRE_VERSION,
            from: "segue".into(),
            to,
            task: None,
            reply_to: None,
            correlation,
            causation: correlation,
            traceparent: None,
            hops: 0,
            at: stamp.at,
            body: LetterBody::Host(Box::new(sealed)),
        };
        let published = self.parts.bus.publish(vec![letter]);
        match tokio::time::timeout(ANSWER_WAIT, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ BusError::Unroutable { .. })) => {
                tracing::debug!(%error, "a worker went before it was answered");
            }
            Ok(Err(error)) => complain(&error, "a worker was not answered; it asks again"),
            Err(_) => tracing::debug!("a worker was not answered in time; it asks again"),
        }
    }
}

fn bounded(lease_ms: u64) -> u64 {
    lease_ms.clamp(*LEASE_MS.start(), *LEASE_MS.end())
}

fn bounded_load(load: f32) -> f32 {
    if load.is_finite() { load.clamp(0.0, 1.0) } else { 1.0 }
}

/// A worker speaks for its own instances alone.
fn check_agents(host: HostId, agents: &[AgentSpec]) -> Result<(), EngineError> {
    let wrong = |message: String| EngineError::Rejected(Reject::Invalid(message));
    if agents.len() > AGENTS_MAX {
        let message = format!("a worker has at most {AGENTS_MAX} agents, not {}", agents.len());
        return Err(wrong(message));
    }
    match agents.iter().find(|agent| agent.instance != instance_of(host, &agent.name)) {
        None => Ok(()),
        Some(agent) => Err(wrong(format!(
            "instance {} is not that of agent `{}` on this worker",
            agent.instance, agent.name
        ))),
    }
}
