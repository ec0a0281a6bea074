//! Agents: who they are, what they can do, and what the store knows of each instance.

use crate::ids::{HostId, Incarnation, InstanceId};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// How an agent is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// Claude Code, headless.
    Claude,
    /// Codex CLI, headless.
    Codex,
    /// Gemini CLI, headless.
    Gemini,
    /// opencode, headless.
    Opencode,
    /// Any program.
    Command,
    /// A function of the node itself (benchmarks, tests).
    Builtin,
}

impl AgentKind {
    /// The word used in files, in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentKind::Claude => "claude",
            AgentKind::Codex => "codex",
            AgentKind::Gemini => "gemini",
            AgentKind::Opencode => "opencode",
            AgentKind::Command => "command",
            AgentKind::Builtin => "builtin",
        }
    }
}

impl fmt::Display for AgentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something an agent can do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capability {
    /// Its name, by which tasks ask for it.
    pub name: Arc<str>,
    /// What it does, in words.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of the input it consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Arc<Value>>,
    /// JSON Schema of the output it produces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Arc<Value>>,
    /// Tools that it cannot do without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_tools: Vec<String>,
    /// Cost of one invocation in USD.
    #[serde(default)]
    pub cost_usd: f64,
    /// Average duration of one invocation in seconds.
    #[serde(default)]
    pub duration_s: f64,
}

/// What somebody says of an agent when it registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// The instance; the same agent on the same host keeps it over restarts.
    pub instance: InstanceId,
    /// The agent's name.
    pub name: Arc<str>,
    /// How it is reached.
    pub kind: AgentKind,
    /// When to hand it work, in words.
    #[serde(default)]
    pub description: Arc<str>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Arc<[Capability]>,
    /// Attempts it takes at a time. At least 1; 0 where its host leaves.
    pub max_concurrency: u32,
    /// Whether it is told who else there is, so that it can delegate.
    #[serde(default)]
    pub delegates: bool,
}

/// An agent instance as the store knows it. What is soft (last seen, load, health) is in the directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// What it said of itself.
    pub spec: Arc<AgentSpec>,
    /// The process that hosts it.
    pub host: HostId,
    /// The life of that process.
    pub incarnation: Incarnation,
    /// Attempts that hold a slot.
    pub slots_used: u32,
    /// It takes no new work.
    pub drained: bool,
    /// Until when its attempts are taken to be alive.
    pub lease_until: Time,
    /// It has gone: deregistered, or its lease ended.
    pub gone: bool,
}

impl Agent {
    /// Slots that are free for new work.
    pub fn slots_free(&self) -> u32 {
        if self.drained || self.gone {
            0
        } else {
            self.spec.max_concurrency.saturating_sub(self.slots_used)
        }
    }

    /// Its status in the words of the product.
    pub fn status(&self) -> AgentStatus {
        if self.gone {
            AgentStatus::Offline
        } else if self.drained || self.spec.max_concurrency == 0 {
            AgentStatus::Maintenance
        } else if self.slots_free() == 0 {
            AgentStatus::Busy
        } else {
            AgentStatus::Available
        }
    }
}

/// Whether an agent takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// It takes work.
    Available,
    /// All its slots are taken.
    Busy,
    /// It is not there.
    Offline,
    /// It is drained.
    Maintenance,
}

impl AgentStatus {
    /// The word used in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentStatus::Available => "available",
            AgentStatus::Busy => "busy",
            AgentStatus::Offline => "offline",
            AgentStatus::Maintenance => "maintenance",
        }
    }
}
