//! How an attempt ended, as the agent reports it.

use crate::payload::{Payload, Whole};
use crate::retry::RetryPolicy;
use crate::task::{OnFailure, Priority, Route, TaskError, Timeouts, WorkspaceKind};
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Here is the output.
    Complete {
        /// The output.
        output: Payload,
    },
    /// It did not work.
    Fail {
        /// Why.
        error: TaskError,
        /// No sooner than this many milliseconds from now, says whoever refused.
        retry_after_ms: Option<u64>,
    },
    /// Others are to do a part of it.
    Delegate {
        /// The new tasks under this one.
        tasks: Vec<Delegated>,
        /// Whether a new attempt gets their results; otherwise their outputs are the output.
        resume: bool,
        /// What the next attempt gets back.
        continuation: Option<Payload>,
    },
    /// The host ended it because it was told to.
    Cancelled,
}

// Written out instead of derived: a derived reader of a tagged enum takes bodies apart, and they must keep every byte.
impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Kind {
            Complete,
            Fail,
            Delegate,
            Cancelled,
        }
        #[derive(Deserialize)]
        struct Tag {
            outcome: Kind,
        }
        #[derive(Deserialize)]
        struct Complete {
            output: Payload,
        }
        #[derive(Deserialize)]
        struct Fail {
            error: TaskError,
            retry_after_ms: Option<u64>,
        }
        #[derive(Deserialize)]
        struct Delegate {
            tasks: Vec<Delegated>,
            resume: bool,
            continuation: Option<Payload>,
        }
        let whole = Whole::of(from)?;
        Ok(match whole.read::<Tag, _>()?.outcome {
            Kind::Complete => {
                let Complete { output } = whole.read()?;
                Outcome::Complete { output }
            }
            Kind::Fail => {
                let Fail { error, retry_after_ms } = whole.read()?;
                Outcome::Fail { error, retry_after_ms }
            }
            Kind::Delegate => {
                let Delegate { tasks, resume, continuation } = whole.read()?;
                Outcome::Delegate { tasks, resume, continuation }
            }
            Kind::Cancelled => Outcome::Cancelled,
        })
    }
}

/// A new task under the one that delegates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delegated {
    /// Its key among its siblings: a retry of the same delegation finds it by this key.
    pub key: Arc<str>,
    /// What people call it; the key where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Who may take it.
    pub route: Route,
    /// Its input.
    pub input: Payload,
    /// Keys of siblings that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Arc<str>>,
    /// How urgent it is; that of the parent where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What its failure does to its dependents.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How often and when it is tried again.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Its limits in time.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Where it works, if the agent's own setting is not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceKind>,
    /// The input holds templates over the outputs of its needs.
    #[serde(default)]
    pub template: bool,
    /// Keys of shared state that it may use, or prefixes and `*`: of those of the task that delegates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_keys: Vec<Arc<str>>,
}
