//! What the API shows of events: one flat object each.

use super::views::at;
use segue_core::event::{Event, Fact};
use segue_core::letter::EndedProcess;
use segue_core::payload::Payload;
use segue_core::task::{ErrorClass, ProcessRef, Route, TaskState};
use segue_core::trace::Traceparent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One fact in the log of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its place in the stream of the project; only to be given back as `after`.
    pub cursor: u64,
    /// The run it belongs to; null for what concerns no run.
    pub run: Option<String>,
    /// 1, 2, 3 .. within the run, without gaps.
    pub seq: u64,
    /// The task it is about; null for what concerns no task.
    pub task: Option<String>,
    /// When.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. `event` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/api.md describes each event with its fields")]
pub enum What {
    Submitted {
        name: String,
        agent: Option<String>,
        capability: Option<String>,
        state: TaskState,
        parent: Option<String>,
    },
    Unblocked,
    Assigned {
        attempt: String,
        number: u32,
        agent: String,
        instance: String,
        traceparent: Option<String>,
    },
    Started {
        number: u32,
        began_at: String,
        process: Option<ProcessRef>,
    },
    Progress {
        number: u32,
        note: Value,
    },
    Completed {
        number: u32,
        output_bytes: u64,
    },
    AttemptFailed {
        number: u32,
        class: ErrorClass,
        message: String,
        retry_at: Option<String>,
    },
    AttemptLost {
        number: u32,
        reason: String,
    },
    Retried,
    Failed {
        class: ErrorClass,
        message: String,
    },
    Waiting {
        number: u32,
        children: u32,
    },
    Resumed,
    Cancelled {
        reason: String,
    },
    Skipped {
        reason: String,
    },
    Requeued,
    ProcessesEnded {
        attempt: String,
        processes: Vec<EndedProcess>,
    },
    LateOutcome {
        attempt: String,
        outcome: String,
        output: Option<Value>,
        message: Option<String>,
    },
    AgentRegistered {
        agent: String,
        instance: String,
    },
    AgentDrained {
        agent: String,
        instance: String,
        drained: bool,
    },
    AgentGone {
        agent: String,
        instance: String,
        reason: String,
    },
}

impl EventView {
    /// The view of an event.
    pub fn of(event: &Event) -> EventView {
        let some = |id: segue_core::ids::TaskId| (!id.0.is_nil()).then(|| id.to_string());
        EventView {
            cursor: event.cursor,
            run: some(event.run),
            seq: event.run_seq,
            task: some(event.task),
            at: at(event.at),
            what: What::of(event),
        }
    }
}

/// The body of a small payload; of a large one its length and hash.
fn note(payload: &Payload) -> Value {
    let value = payload.text().and_then(|text| serde_json::from_str(text).ok());
    value.unwrap_or_else(|| {
        serde_json::json!({ "segue_omitted": true, "bytes": payload.size(), "sha256": payload.hash().hex() })
    })
}

impl What {
    // tidy: allow(fn-lines) one arm an event, nothing else
    fn of(event: &Event) -> What {
        match &event.fact {
            Fact::Submitted { name, route, state, parent } => {
                let (agent, capability) = match route {
                    Route::Agent(name) => (Some(name.to_string()), None),
                    Route::Capability(name) => (None, Some(name.to_string())),
                    Route::Group => (None, None),
                };
                let parent = parent.map(|parent| parent.to_string());
                What::Submitted { name: name.to_string(), agent, capability, state: *state, parent }
            }
            Fact::Unblocked => What::Unblocked,
            Fact::Assigned { attempt, number, agent, instance, traceparent } => What::Assigned {
                traceparent: Some(
                    traceparent
                        .unwrap_or_else(|| Traceparent::of_attempt(event.run, None, *attempt))
                        .to_string(),
                ),
                attempt: attempt.to_string(),
                number: *number,
                agent: agent.to_string(),
                instance: instance.to_string(),
            },
            Fact::Started { number, began_at, process } => {
                What::Started { number: *number, began_at: at(*began_at), process: *process }
            }
            Fact::Progress { number, note: said } => {
                What::Progress { number: *number, note: note(said) }
            }
            Fact::Completed { number, output_bytes } => {
                What::Completed { number: *number, output_bytes: *output_bytes }
            }
            Fact::AttemptFailed { number, class, message, retry_at } => What::AttemptFailed {
                number: *number,
                class: *class,
                message: message.clone(),
                retry_at: retry_at.map(at),
            },
            Fact::AttemptLost { number, reason } => {
                What::AttemptLost { number: *number, reason: reason.clone() }
            }
            Fact::Retried => What::Retried,
            Fact::Failed { class, message } => {
                What::Failed { class: *class, message: message.clone() }
            }
            Fact::Waiting { number, children } => {
                What::Waiting { number: *number, children: *children }
            }
            Fact::Resumed => What::Resumed,
            Fact::Cancelled { reason } => What::Cancelled { reason: reason.clone() },
            Fact::Skipped { reason } => What::Skipped { reason: reason.clone() },
            Fact::Requeued => What::Requeued,
            Fact::ProcessesEnded { attempt, processes } => {
                What::ProcessesEnded { attempt: attempt.to_string(), processes: processes.clone() }
            }
            Fact::LateOutcome { attempt, outcome, output, message } => What::LateOutcome {
                attempt: attempt.to_string(),
                outcome: outcome.clone(),
                output: output.as_ref().map(note),
                message: message.clone(),
            },
            Fact::AgentRegistered { agent, instance } => {
                What::AgentRegistered { agent: agent.to_string(), instance: instance.to_string() }
            }
            Fact::AgentDrained { agent, instance, drained } => What::AgentDrained {
                agent: agent.to_string(),
                instance: instance.to_string(),
                drained: *drained,
            },
            Fact::AgentGone { agent, instance, reason } => What::AgentGone {
                agent: agent.to_string(),
                instance: instance.to_string(),
                reason: reason.clone(),
            },
        }
    }

    /// The state in which the event leaves its task, where it is a terminal one.
    pub fn end(&self) -> Option<TaskState> {
        match self {
            What::Completed { .. } => Some(TaskState::Completed),
            What::Failed { .. } => Some(TaskState::Failed),
            What::Cancelled { .. } | What::Skipped { .. } => Some(TaskState::Cancelled),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use segue_core::ids::{PROJECT_LOG, TaskId};
    use segue_core::time::Time;

    #[test]
    fn an_event_is_one_flat_object_that_reads_back() {
        let event = Event {
            cursor: 7,
            run: TaskId(uuid::Uuid::from_u128(1)),
            run_seq: 3,
            task: TaskId(uuid::Uuid::from_u128(2)),
            at: Time(0),
            fact: Fact::Failed { class: ErrorClass::Permanent, message: "no".into() },
        };
        let text = serde_json::to_string(&EventView::of(&event)).unwrap();
        assert_eq!(
            text,
            r#"{"cursor":7,"run":"00000000-0000-0000-0000-000000000001","seq":3,"task":"00000000-0000-0000-0000-000000000002","at":"1970-01-01T00:00:00.000Z","event":"failed","class":"permanent","message":"no"}"#
        );
        let back: EventView = serde_json::from_str(&text).unwrap();
        assert_eq!(back, EventView::of(&event));
        assert_eq!(back.what.end(), Some(TaskState::Failed));
    }

    #[test]
    fn what_concerns_no_run_has_none() {
        let event = Event {
            cursor: 1,
            run: PROJECT_LOG,
            run_seq: 1,
            task: PROJECT_LOG,
            at: Time(0),
            fact: Fact::Unblocked,
        };
        let view = EventView::of(&event);
        assert_eq!((view.run, view.task), (None, None));
    }

    #[test]
    fn a_large_note_is_named_instead_of_shown() {
        let large = Payload::Stored { hash: segue_core::payload::Hash::of(b"x"), size: 1_000_000 };
        assert_eq!(note(&large)["bytes"], 1_000_000);
        assert_eq!(note(&Payload::of_trusted_text("{\"a\":1}")), serde_json::json!({"a": 1}));
    }
}
