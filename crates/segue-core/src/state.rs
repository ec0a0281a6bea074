//! State that a project shares: JSON under versioned keys, and locks whose tokens only grow.
//!
//! Every version of a key and every token of a lock is a number of one counter of the project, the stamp, and is never issued twice.

mod changes;
pub mod merge;
mod outcome;
mod rows;

pub use changes::StateChanges;
pub use outcome::{
    GIVEN_MAX, GivenState, GivenValue, KeyPut, OutcomeState, PUTS_MAX, STATE_KEYS_MAX, check_size,
    check_state_keys, covers,
};
pub use rows::{KeyRow, StateRows};

use crate::ids::{AttemptId, TaskId};
use crate::payload::Payload;
pub use crate::ports::{LOCK_TTL_MS_MAX, SOFT_NAME_MAX as NAME_MAX};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest key or pattern in bytes.
pub const KEY_MAX: usize = 200;
/// Largest value in bytes.
pub const VALUE_MAX: u64 = 4 << 20;
/// Versions of a key that are kept, the current one included.
pub const HISTORY_MAX: usize = 64;
/// Keys, versions or changes that one page holds at most.
pub const STATE_PAGE_MAX: usize = 1_000;
/// Policies that a project has at most.
pub const POLICIES_MAX: usize = 256;

/// A change of the state that a project shares.
#[derive(Clone, Debug, PartialEq)]
pub enum StateCommand {
    /// Write or delete a key.
    Put(Put),
    /// Say what happens to conflicting writes of keys; `None` takes that back.
    SetPolicy {
        /// A key, or a prefix and `*`.
        pattern: Arc<str>,
        /// What happens.
        policy: Option<Policy>,
    },
    /// Take a lock that is free.
    Lock {
        /// The lock.
        name: Arc<str>,
        /// Who takes it, in words.
        holder: Arc<str>,
        /// How long it is held without renewal, in milliseconds.
        ttl_ms: u64,
    },
    /// Hold a lock for longer.
    RenewLock {
        /// The lock, and the token under which it is held.
        fence: Claim,
        /// How long from now, in milliseconds.
        ttl_ms: u64,
    },
    /// Give a lock back.
    ReleaseLock {
        /// The lock, and the token under which it was held.
        fence: Claim,
    },
}

impl StateCommand {
    /// The word for it in errors and in the state table.
    pub fn name(&self) -> &'static str {
        match self {
            StateCommand::Put(Put { value: Some(_), .. }) => "put_state",
            StateCommand::Put(Put { value: None, .. }) => "delete_state",
            StateCommand::SetPolicy { .. } => "set_policy",
            StateCommand::Lock { .. } => "lock",
            StateCommand::RenewLock { .. } => "renew_lock",
            StateCommand::ReleaseLock { .. } => "release_lock",
        }
    }
}

/// A key to write or to delete.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// The key.
    pub key: Arc<str>,
    /// The new value; `None` deletes the key.
    pub value: Option<Payload>,
    /// What the writer takes for granted.
    pub expect: Expect,
    /// What happens where that is not so; `None` is what the policies say.
    pub policy: Option<Policy>,
    /// Who writes.
    pub writer: Writer,
    /// The lock under which it is written.
    pub fence: Option<Claim>,
}

/// What a writer takes for granted about a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    #[default]
    Anything,
    /// There is no such key.
    Absent,
    /// It is at this version.
    Version(u64),
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Anything => f.write_str("anything"),
            Expect::Absent => f.write_str("absent"),
            Expect::Version(version) => write!(f, "version {version}"),
        }
    }
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(text: &str) -> Result<Expect, String> {
        match text {
            "absent" => Ok(Expect::Absent),
            _ => text
                .parse()
                .map(Expect::Version)
                .map_err(|_| format!("`{text}` is no version: write a number, or absent")),
        }
    }
}

/// What happens to a write whose expectation does not hold.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// It is refused.
    #[default]
    Reject,
    /// It is written all the same.
    LastWriter,
    /// It is [merged](merge::merge) with what stands there, or refused where both changed the same.
    Merge,
}

impl Policy {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Reject => "reject",
            Policy::LastWriter => "last-writer",
            Policy::Merge => "merge",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Policy, String> {
        [Policy::Reject, Policy::LastWriter, Policy::Merge]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| {
                format!("`{text}` is no policy: there are reject, last-writer and merge")
            })
    }
}

/// Who wrote a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Writer {
    /// An attempt at a task.
    Task {
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Somebody at the doors.
    Person {
        /// What they are called.
        person: Arc<str>,
    },
}

impl Writer {
    /// Somebody at the doors.
    pub fn person(name: &str) -> Writer {
        Writer::Person { person: name.into() }
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Writer::Task { task, .. } => write!(f, "task {task}"),
            Writer::Person { person } => f.write_str(person),
        }
    }
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct StateVersion {
    /// The key.
    pub key: Arc<str>,
    /// The stamp of this version.
    pub version: u64,
    /// The value; `None` where the key was deleted by this version.
    pub value: Option<Payload>,
    /// Who wrote it.
    pub writer: Writer,
    /// When.
    pub at: Time,
    /// Whether it was merged from what its writer gave and what stood there.
    pub merged: bool,
}

/// A lock as somebody holds it, or held it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The lock.
    pub name: Arc<str>,
    /// Grows with every holder.
    pub token: u64,
    /// Who holds it, in words.
    pub holder: Arc<str>,
    /// When it was taken.
    pub taken_at: Time,
    /// It is free from this moment on.
    pub until: Time,
}

impl Lock {
    /// Whether somebody holds it at this moment.
    pub fn is_held(&self, now: Time) -> bool {
        now < self.until
    }
}

/// A lock, and the token under which somebody says to hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The lock.
    pub name: Arc<str>,
    /// The token.
    pub token: u64,
}

/// Why a write was refused: what its writer took for granted is not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConflict {
    /// The key.
    pub key: Arc<str>,
    /// What the writer took for granted.
    pub expected: Expect,
    /// The version that stands there; `None` where there is no such key.
    pub current: Option<u64>,
    /// Where both sides changed the same, as JSON pointers; empty where nothing was merged.
    pub pointers: Vec<String>,
    /// Whether there are more of them than are listed.
    pub more: bool,
}

impl fmt::Display for StateConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StateConflict { key, expected, current, pointers, more } = self;
        write!(f, "`{key}` is ")?;
        match current {
            Some(version) => write!(f, "at version {version}")?,
            None => f.write_str("absent")?,
        }
        write!(f, ", and the write expected {expected}")?;
        if !pointers.is_empty() {
            let quoted: Vec<String> = pointers.iter().map(|it| format!("\"{it}\"")).collect();
            write!(f, "; both changed {}", quoted.join(", "))?;
            if *more {
                f.write_str(" and more")?;
            }
        }
        Ok(())
    }
}

/// Under what a store notes that a version refers to a body: where a run's bodies are noted under the id of the run. No run has such an
/// id, since those of runs are UUIDs of a version.
pub fn body_owner(version: u64) -> TaskId {
    TaskId::from_bytes(u128::from(version).to_be_bytes())
}

/// What may stand in a key.
const KEY_WORDS: &str =
    "letters, digits and `.`, `_`, `-`, `:`, in parts with `/` between them, none of them empty";

/// Checks a key.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(format!("`{}` is no key: one has 1 to {KEY_MAX} bytes", shown(key)));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    let sound = key.split('/').all(|part| !part.is_empty() && part.bytes().all(fits));
    if sound { Ok(()) } else { Err(format!("`{}` is no key: one has {KEY_WORDS}", shown(key))) }
}

/// Checks a key, or a prefix and `*`; `*` alone is every key.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    match pattern.strip_suffix('*') {
        None => check_key(pattern),
        Some(prefix) => check_prefix(prefix),
    }
}

/// Checks the beginning of keys, which may be empty and may end in the middle of a part.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" if prefix.is_empty() => Ok(()),
        rest => check_key(rest).and_then(|()| match prefix.len() <= KEY_MAX {
            true => Ok(()),
            false => Err(format!("a prefix has at most {KEY_MAX} bytes")),
        }),
    }
}

/// Checks the name of a lock, a holder or a person.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
        return Err(format!("a name has 1 to {NAME_MAX} bytes, and no control characters"));
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(60).map(|it| if it.is_control() { '?' } else { it }).collect()
}

/// The text that sorts right behind everything that begins with this prefix; `None` where that is everything. Keys are ASCII.
pub fn prefix_end(prefix: &str) -> Option<String> {
    // The last byte of a checked prefix is a visible ASCII character: the one behind it is ASCII, too.
    let last = prefix.chars().last()?;
    let mut end = prefix[..prefix.len() - last.len_utf8()].to_owned();
    end.push(char::from_u32(u32::from(last) + 1)?);
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_parts_with_slashes_between_them() {
        for key in ["a", "plan/api", "A.b_c-d:e/9", &"k".repeat(KEY_MAX)] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        let long = "k".repeat(KEY_MAX + 1);
        for key in ["", "/a", "a/", "a//b", "a b", "a*", "ä", "a\0", "a\n", "%", &long] {
            assert!(check_key(key).is_err(), "{key}");
        }
        for pattern in ["*", "plan/*", "pl*", "plan"] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
        }
        for pattern in ["", "/*", "a//*", "a*b", "**", "ä*"] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
        assert!(!check_key("a\u{1b}[31m").unwrap_err().contains('\u{1b}'));
    }

    #[test]
    fn a_prefix_ends_right_behind_its_keys() {
        assert_eq!(prefix_end(""), None);
        assert_eq!(prefix_end("plan/").as_deref(), Some("plan0"));
        assert_eq!(prefix_end("a").as_deref(), Some("b"));
        assert!("plan/zzz" < prefix_end("plan/").unwrap().as_str());
    }

    #[test]
    fn a_conflict_says_both_versions_and_where() {
        let mut conflict = StateConflict {
            key: "plan".into(),
            expected: Expect::Version(3),
            current: Some(5),
            pointers: vec!["/a/b".into(), String::new()],
            more: true,
        };
        let text = conflict.to_string();
        assert_eq!(
            text,
            "`plan` is at version 5, and the write expected version 3; both changed \"/a/b\", \"\" and more"
        );
        conflict = StateConflict { current: None, pointers: Vec::new(), ..conflict };
        assert_eq!(conflict.to_string(), "`plan` is absent, and the write expected version 3");
    }
}
