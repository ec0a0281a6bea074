//! Letters: what agents and the engine say to each other over a bus.

use crate::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use crate::outcome::Outcome;
use crate::payload::{Payload, Whole};
use crate::state::{GivenState, OutcomeState};
use crate::task::{ProcessRef, Usage, WorkspaceKind};
use crate::time::Time;
use crate::trace::Traceparent;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The version of the wire format that this code writes. Others are dead-lettered with a reason.
pub const WIRE_VERSION: u16 = 1;

/// The secret of an attempt: whoever has it may report its outcome. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A message between agents, or between the engine and an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// Its number in the store's outbox; zero for letters that are not kept there (outcomes, progress, beats).
    #[serde(default)]
    pub seq: u64,
    /// Version of the wire format.
    pub version: u16,
    /// Who sent it: an agent's name, or `segue`.
    pub from: Arc<str>,
    /// The host that takes it, or the engine.
    pub to: Address,
    /// The task it is about.
    pub task: Option<TaskId>,
    /// Where an answer goes, if one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Address>,
    /// What ties a reply to its request.
    #[serde(default, with = "uuid_text")]
    pub correlation: Option<u128>,
    /// The letter or attempt that caused it.
    #[serde(default, with = "uuid_text")]
    pub causation: Option<u128>,
    /// The span that it belongs to: that of its attempt, where it is about one. One that cannot be read counts as none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::trace::lenient"
    )]
    pub traceparent: Option<Traceparent>,
    /// How many delegations lie between the root of the run and this letter.
    #[serde(default)]
    pub hops: u16,
    /// When it was written, by the clock of its sender.
    pub at: Time,
    /// What it says.
    pub body: LetterBody,
}

/// Numbers of 128 bits are written as UUIDs: most readers of JSON keep only 53 bits of a number.
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Option<u128>, to: S) -> Result<S::Ok, S::Error> {
        id.map(Uuid::from_u128).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u128>, D::Error> {
        Ok(Option::<Uuid>::deserialize(from)?.map(|id| id.as_u128()))
    }
}

/// Where a letter goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    /// The process that hosts an agent instance.
    Host(HostId),
    /// The queue of one agent name, whoever hosts it.
    Agent(Arc<str>),
    /// Whoever takes in outcomes: any node of the project.
    Engine,
    /// Whoever waits for the answer to a question of their own. The queue lasts as long as its one consumer does.
    Reply(Uuid),
    /// Everybody.
    All,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Host(host) => write!(f, "host {host}"),
            Address::Agent(name) => write!(f, "agent `{name}`"),
            Address::Engine => f.write_str("the engine"),
            Address::Reply(asker) => write!(f, "the asker {asker}"),
            Address::All => f.write_str("everybody"),
        }
    }
}

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LetterBody {
    /// Work for an agent.
    TaskRequest(Box<TaskRequest>),
    /// The outcome of an attempt.
    TaskResponse(Box<TaskResponse>),
    /// Something happened: an attempt began, goes on, or must end.
    Event(Notice),
    /// A question, or its answer, between agents.
    Query {
        /// What is asked or answered.
        payload: Payload,
    },
    /// What a worker says to the engine, or is answered: signed.
    Host(Box<crate::worker::Sealed>),
}

// Written out instead of derived: a derived reader of a tagged enum takes bodies apart, and they must keep every byte.
impl<'de> Deserialize<'de> for LetterBody {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Kind {
            TaskRequest,
            TaskResponse,
            Event,
            Query,
            Host,
        }
        #[derive(Deserialize)]
        struct Tag {
            #[serde(rename = "type")]
            kind: Kind,
        }
        #[derive(Deserialize)]
        struct Query {
            payload: Payload,
        }
        let whole = Whole::of(from)?;
        Ok(match whole.read::<Tag, _>()?.kind {
            Kind::TaskRequest => LetterBody::TaskRequest(whole.read()?),
            Kind::TaskResponse => LetterBody::TaskResponse(whole.read()?),
            Kind::Event => LetterBody::Event(whole.read()?),
            Kind::Query => {
                let Query { payload } = whole.read()?;
                LetterBody::Query { payload }
            }
            Kind::Host => LetterBody::Host(whole.read()?),
        })
    }
}

/// Work for an agent: one attempt at a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its number within the task.
    pub number: u32,
    /// What its outcome must carry.
    pub secret: Secret,
    /// The instance it is for.
    pub instance: InstanceId,
    /// The life of the host it is for: another life drops it.
    pub incarnation: Incarnation,
    /// The root of the run.
    pub run: TaskId,
    /// What people call the task.
    pub name: Arc<str>,
    /// The capability asked for, where one was.
    pub capability: Option<Arc<str>>,
    /// The input.
    pub input: Payload,
    /// Limit of this attempt in milliseconds.
    pub run_ms: Option<u64>,
    /// Where to work, if the agent's own setting is not meant.
    pub workspace: Option<WorkspaceKind>,
    /// Set where this attempt resumes a task that waited.
    pub resume: Option<Resume>,
    /// What of shared state the task may use, where it may use any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<GivenState>>,
    /// Who there is, for an agent that delegates. Empty in the store's outbox: dispatch adds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub team: Vec<TeamMember>,
}

/// Somebody to whom work can be delegated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeamMember {
    /// The agent's name.
    pub name: Arc<str>,
    /// How it is reached.
    pub kind: crate::agent::AgentKind,
    /// When to hand it work, in words.
    pub description: Arc<str>,
    /// What it can do.
    pub capabilities: Arc<[crate::agent::Capability]>,
    /// Live instances that are not drained.
    pub available: u32,
}

/// What a resumed task gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// What the earlier attempt left.
    pub continuation: Option<Payload>,
    /// How the children ended. Empty in the store's outbox: dispatch adds them from the immutable results.
    #[serde(default)]
    pub children: Vec<ChildResult>,
}

/// How a child of a resumed task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildResult {
    /// The child.
    pub id: TaskId,
    /// Its key among its siblings.
    pub key: Option<Arc<str>>,
    /// What people call it.
    pub name: Arc<str>,
    /// Who it was for.
    pub route: crate::task::Route,
    /// Its terminal state.
    pub state: crate::task::TaskState,
    /// Its output, if it completed.
    pub output: Option<Payload>,
    /// Its error, if it did not.
    pub error: Option<crate::task::TaskError>,
}

/// The outcome of an attempt, as its host reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResponse {
    /// The attempt.
    pub attempt: AttemptId,
    /// Proof that the sender was given the attempt.
    pub secret: Secret,
    /// When the agent began, by the clock of its host.
    pub started_at: Option<Time>,
    /// The process that ran, where there was one.
    pub process: Option<ProcessRef>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it writes into shared state, where it completes or delegates; nothing is written with any other end.
    #[serde(default, skip_serializing_if = "OutcomeState::is_empty")]
    pub state: OutcomeState,
    /// What it used.
    pub usage: Option<Usage>,
    /// The processes that were ended or reaped with it.
    #[serde(default)]
    pub ended: Vec<EndedProcess>,
}

/// A process that was ended with its attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedProcess {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessRef,
    /// Its name.
    pub name: String,
    /// The last signal it was sent, if it did not end by itself.
    pub signal: Option<i32>,
}

/// Something that happened to an attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// The agent began.
    Started {
        /// The attempt.
        attempt: AttemptId,
        /// Proof that the sender was given the attempt.
        secret: Secret,
        /// When, by the clock of its host.
        at: Time,
        /// Its process, where it has one.
        process: Option<ProcessRef>,
    },
    /// The agent says how far it is.
    Progress {
        /// The attempt.
        attempt: AttemptId,
        /// Proof that the sender was given the attempt.
        secret: Secret,
        /// What it says.
        note: Payload,
    },
    /// The attempt must end: cancelled, timed out or superseded.
    Cancel {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        reason: String,
    },
    /// The processes of an attempt that nobody waits for any more have ended.
    Reaped {
        /// The attempt.
        attempt: AttemptId,
        /// Proof that the sender was given the attempt.
        secret: Secret,
        /// The processes.
        ended: Vec<EndedProcess>,
    },
}

// Written out for the same reason as that of `LetterBody`.
impl<'de> Deserialize<'de> for Notice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Kind {
            Started,
            Progress,
            Cancel,
            Reaped,
        }
        #[derive(Deserialize)]
        struct Tag {
            notice: Kind,
        }
        #[derive(Deserialize)]
        struct Started {
            attempt: AttemptId,
            secret: Secret,
            at: Time,
            process: Option<ProcessRef>,
        }
        #[derive(Deserialize)]
        struct Progress {
            attempt: AttemptId,
            secret: Secret,
            note: Payload,
        }
        #[derive(Deserialize)]
        struct Cancel {
            attempt: AttemptId,
            reason: String,
        }
        #[derive(Deserialize)]
        struct Reaped {
            attempt: AttemptId,
            secret: Secret,
            ended: Vec<EndedProcess>,
        }
        let whole = Whole::of(from)?;
        Ok(match whole.read::<Tag, _>()?.notice {
            Kind::Started => {
                let Started { attempt, secret, at, process } = whole.read()?;
                Notice::Started { attempt, secret, at, process }
            }
            Kind::Progress => {
                let Progress { attempt, secret, note } = whole.read()?;
                Notice::Progress { attempt, secret, note }
            }
            Kind::Cancel => {
                let Cancel { attempt, reason } = whole.read()?;
                Notice::Cancel { attempt, reason }
            }
            Kind::Reaped => {
                let Reaped { attempt, secret, ended } = whole.read()?;
                Notice::Reaped { attempt, secret, ended }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Letter {
        Letter {
            seq: 0,
            version: WIRE_VERSION,
            from: "planner".into(),
            to: Address::Agent("historian".into()),
            task: None,
            reply_to: Some(Address::Reply(Uuid::from_u128(7))),
            correlation: Some(9),
            causation: None,
            traceparent: None,
            hops: 0,
            at: Time(1),
            body: LetterBody::Query { payload: Payload::null() },
        }
    }

    #[test]
    fn a_question_comes_back_whole_from_json() {
        let text = serde_json::to_string(&question()).unwrap();
        assert_eq!(serde_json::from_str::<Letter>(&text).unwrap(), question());
    }

    #[test]
    fn ids_survive_readers_that_keep_53_bits_of_a_number() {
        let letter = Letter { correlation: Some(u128::MAX), ..question() };
        let value = serde_json::to_value(&letter).unwrap();
        assert_eq!(value["correlation"], "ffffffff-ffff-ffff-ffff-ffffffffffff");
        assert_eq!(serde_json::from_value::<Letter>(value).unwrap(), letter);
    }

    #[test]
    fn a_letter_that_wants_no_answer_says_nothing_of_one() {
        let letter = Letter { reply_to: None, ..question() };
        let text = serde_json::to_string(&letter).unwrap();
        assert!(!text.contains("reply_to"), "{text}");
        // So it reads what was written before letters had the field.
        assert_eq!(serde_json::from_str::<Letter>(&text).unwrap(), letter);
    }

    #[test]
    fn bodies_keep_every_byte() {
        let body = "{ \"b\" : 1.0e+2,\n \"a\":\t12345678901234567890123, \"a\": \"\\u00e9\" }";
        let payload = Payload::of_text(body).unwrap();
        let secret = Secret([1; 32]);
        let attempt = AttemptId(Uuid::from_u128(1));
        let response = TaskResponse {
            attempt,
            secret: secret.clone(),
            started_at: None,
            process: None,
            outcome: Outcome::Complete { output: payload.clone() },
            state: OutcomeState::default(),
            usage: None,
            ended: Vec::new(),
        };
        let bodies = [
            LetterBody::Query { payload: payload.clone() },
            LetterBody::Event(Notice::Progress { attempt, secret, note: payload.clone() }),
            LetterBody::TaskResponse(Box::new(response)),
        ];
        for body in bodies {
            let letter = Letter { body, ..question() };
            let text = serde_json::to_string(&letter).unwrap();
            let again: Letter = serde_json::from_str(&text).unwrap();
            assert_eq!(again, letter);
            assert!(text.contains("1.0e+2,\n"), "{text}");
            assert_eq!(serde_json::to_string(&again).unwrap(), text);
        }
    }

    #[test]
    fn letters_written_before_they_could_be_traced_are_read() {
        let text = r#"{"seq":7,"version":1,"from":"segue","to":{"agent":"a"},"task":null,"correlation":null,"causation":null,
            "hops":0,"at":1,"body":{"payload":{"body":null},"type":"query"}}"#;
        let letter: Letter = serde_json::from_str(text).unwrap();
        assert_eq!(letter.traceparent, None);
        assert_eq!(letter.body, LetterBody::Query { payload: Payload::null() });
        assert!(!serde_json::to_string(&letter).unwrap().contains("traceparent"));
    }

    #[test]
    fn addresses_are_named_for_people() {
        assert_eq!(Address::Agent("historian".into()).to_string(), "agent `historian`");
        assert_eq!(Address::Engine.to_string(), "the engine");
        let host = HostId(Uuid::from_u128(3));
        assert_eq!(Address::Host(host).to_string(), "host 00000000-0000-0000-0000-000000000003");
    }
}
