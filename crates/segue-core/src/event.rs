//! Events: the append-only log of a run, and the one source of streams, audit and metrics.

use crate::ids::{AttemptId, InstanceId, TaskId};
use crate::letter::EndedProcess;
use crate::payload::Payload;
use crate::task::{ErrorClass, ProcessRef, Route, TaskState};
use crate::time::Time;
use crate::trace::Traceparent;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One fact in the log of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the stream of the store; opaque, not gapless, zero until stored.
    pub cursor: u64,
    /// The root of the run; [`PROJECT_LOG`](crate::ids::PROJECT_LOG) for what concerns no run.
    pub run: TaskId,
    /// 1, 2, 3 .. within the run, without gaps.
    pub run_seq: u64,
    /// The task it is about; nil for what concerns no task.
    pub task: TaskId,
    /// When, by the store's clock.
    pub at: Time,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// A task was submitted.
    Submitted {
        /// What people call it.
        name: Arc<str>,
        /// Who may take it.
        route: Route,
        /// Its first state.
        state: TaskState,
        /// The task that delegated it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<TaskId>,
    },
    /// Its needs have ended and its templates are rendered.
    Unblocked,
    /// An agent instance holds a slot for it.
    Assigned {
        /// The attempt.
        attempt: AttemptId,
        /// Its number.
        number: u32,
        /// Who got it.
        agent: Arc<str>,
        /// Which instance.
        instance: InstanceId,
        /// The span of the attempt, where the run belongs to a trace of somebody else; else it follows from the ids of the run and the attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<Traceparent>,
    },
    /// The agent began.
    Started {
        /// The attempt's number.
        number: u32,
        /// When it began, by the clock of its host.
        began_at: Time,
        /// Its process, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<ProcessRef>,
    },
    /// The agent says how far it is.
    Progress {
        /// The attempt's number.
        number: u32,
        /// What it says.
        #[serde(deserialize_with = "crate::payload::buffered::one")]
        note: Payload,
    },
    /// The task has its output.
    Completed {
        /// The attempt's number; zero for a group.
        number: u32,
        /// Length of the output in bytes.
        output_bytes: u64,
    },
    /// An attempt brought an error.
    AttemptFailed {
        /// The attempt's number.
        number: u32,
        /// What kind of failure.
        class: ErrorClass,
        /// What happened.
        message: String,
        /// When the next attempt is due; absent where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Time>,
    },
    /// An attempt ended with its host or its lease.
    AttemptLost {
        /// The attempt's number.
        number: u32,
        /// How it was noticed.
        reason: String,
    },
    /// The next attempt is due now.
    Retried,
    /// The task became a dead letter.
    Failed {
        /// What kind of failure.
        class: ErrorClass,
        /// What happened.
        message: String,
    },
    /// An attempt delegated, and the task waits for its children without a slot.
    Waiting {
        /// The attempt's number; zero for a group.
        number: u32,
        /// Children it waits for.
        children: u32,
    },
    /// The children have ended; the task is ready for its next attempt.
    Resumed,
    /// It was cancelled.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// It was skipped.
    Skipped {
        /// Why.
        reason: String,
    },
    /// A dead letter was put back into the queue by somebody.
    Requeued,
    /// Processes were ended with an attempt.
    ProcessesEnded {
        /// The attempt.
        attempt: AttemptId,
        /// The processes.
        processes: Vec<EndedProcess>,
    },
    /// An outcome came for an attempt that could no longer complete the task. What it brought is kept.
    LateOutcome {
        /// The attempt.
        attempt: AttemptId,
        /// `completed`, `failed` or `delegated`.
        outcome: String,
        /// The output it brought.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::payload::buffered::option"
        )]
        output: Option<Payload>,
        /// The error it brought.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// An agent instance came, or came back.
    AgentRegistered {
        /// Its name.
        agent: Arc<str>,
        /// The instance.
        instance: InstanceId,
    },
    /// An agent instance takes no new work, or takes work again.
    AgentDrained {
        /// Its name.
        agent: Arc<str>,
        /// The instance.
        instance: InstanceId,
        /// Whether it is drained now.
        drained: bool,
    },
    /// An agent instance went, or its lease ended.
    AgentGone {
        /// Its name.
        agent: Arc<str>,
        /// The instance.
        instance: InstanceId,
        /// How it was noticed.
        reason: String,
    },
}
