//! Identities. All are UUIDs; those of tasks and attempts are version 7, so that they sort by time.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The sixteen bytes, in the order in which they sort.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The identity made of these sixteen bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                Uuid::try_parse(text).map(Self).map_err(|_| BadId {
                    what: $what,
                    given: text.chars().take(60).collect(),
                })
            }
        }
    };
}

/// A text that should name somebody or something by its id, and does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not the id of a {what}: an id is a UUID such as 01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f"
)]
pub struct BadId {
    what: &'static str,
    given: String,
}

id!(
    /// The namespace of a team. Made at `segue init`, kept in `.segue/`, never committed to git.
    ProjectId,
    "project"
);
id!(
    /// One piece of work. Chosen by whoever submits it (version 7).
    TaskId,
    "task"
);
id!(
    /// One try at a task by one agent instance.
    AttemptId,
    "attempt"
);
id!(
    /// One live agent. Several may share a name.
    InstanceId,
    "agent instance"
);
id!(
    /// One life of a process that hosts agents; a restart is another life.
    Incarnation,
    "incarnation"
);
id!(
    /// A process that hosts agents: a node, or a worker.
    HostId,
    "host"
);

/// The root of the log of the project itself (agents that come and go), beside the logs of its runs.
pub const PROJECT_LOG: TaskId = TaskId(Uuid::nil());

impl TaskId {
    /// The last eight hexadecimal digits: enough for a person to tell the tasks of a screen apart.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[24..].to_owned()
    }
}
