//! Attempts: tries at a task, how they ended and what they used.

use crate::ids::{AttemptId, Incarnation, InstanceId, TaskId};
use crate::payload::Hash;
use crate::task::TaskError;
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// A process as the system knows it: the id alone would be issued again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat` on Linux).
    pub start_time: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// It brought the output.
    Completed,
    /// It brought an error.
    Failed,
    /// It delegated, and the task waits.
    Delegated,
    /// Its host or its lease ended.
    Lost,
    /// It took longer than it may.
    TimedOut,
    /// Its task was cancelled.
    Cancelled,
}

impl AttemptEnd {
    /// The word used in tables and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptEnd::Completed => "completed",
            AttemptEnd::Failed => "failed",
            AttemptEnd::Delegated => "delegated",
            AttemptEnd::Lost => "lost",
            AttemptEnd::TimedOut => "timed_out",
            AttemptEnd::Cancelled => "cancelled",
        }
    }
}

/// One try at a task by one agent instance. At most one is current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// 1, 2, 3 .. within the task.
    pub number: u32,
    /// SHA-256 of the secret that every outcome of it carries.
    pub secret_hash: Hash,
    /// The instance it was given to.
    pub instance: InstanceId,
    /// The life of the host in which that was.
    pub incarnation: Incarnation,
    /// When it was assigned.
    pub assigned_at: Time,
    /// When the agent began, if it said so.
    pub started_at: Option<Time>,
    /// Its process, where it has one on the host.
    pub process: Option<ProcessRef>,
    /// How it ended, if it has.
    pub end: Option<AttemptEnd>,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// The record of an attempt that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The task it was a try at.
    pub task: TaskId,
    /// The attempt as it ended.
    pub attempt: Attempt,
    /// Its error, if it had one.
    pub error: Option<TaskError>,
    /// What it used.
    pub usage: Option<Usage>,
}

/// What an attempt used. Nothing is guessed: what is not known is absent or zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Input tokens, those from a cache included.
    #[serde(skip_serializing_if = "crate::task::is_default")]
    pub input_tokens: u64,
    /// Input tokens that came from a cache.
    #[serde(skip_serializing_if = "crate::task::is_default")]
    pub cached_input_tokens: u64,
    /// Output tokens, reasoning included.
    #[serde(skip_serializing_if = "crate::task::is_default")]
    pub output_tokens: u64,
    /// Cost in USD as the agent reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Processor time of the process tree in milliseconds.
    #[serde(skip_serializing_if = "crate::task::is_default")]
    pub cpu_ms: u64,
    /// Largest resident set in KiB.
    #[serde(skip_serializing_if = "crate::task::is_default")]
    pub rss_kib_max: u64,
}
