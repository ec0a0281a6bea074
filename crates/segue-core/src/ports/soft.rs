//! Ports of what is soft: who was seen when, locks for as long as their keeper remembers, counters of the admission gate.
//!
//! Everything here may be lost at any moment and is rebuilt from beats. It suggests and it slows down; it decides nothing that must be right.

use super::{Fut, Passing};
use crate::ids::{HostId, InstanceId};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Instances that a directory keeps at most. One more is refused, so that it cannot grow without end.
pub const INSTANCES_MAX: usize = 100_000;
/// Nodes and workers that a directory keeps at most.
pub const NODES_MAX: usize = 10_000;
/// Instances that one search by capability returns at most.
pub const FOUND_MAX: usize = 10_000;
/// Bytes of the name of a lock, of its holder, or of a part of a gate's key at most.
pub const SOFT_NAME_MAX: usize = 256;
/// The longest time to live of a lock, in milliseconds: a day.
pub const LOCK_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// The longest window and the longest pause of a gate, in milliseconds: a week.
pub const GATE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Why soft state cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoftError {
    /// Its keeper is away. Work goes on without it.
    #[error("soft state is away: {0}")]
    Away(String),
    /// What was asked is not possible, now or later.
    #[error("{0}")]
    Invalid(String),
}

impl Passing for SoftError {
    fn is_passing(&self) -> bool {
        match self {
            SoftError::Away(_) => true,
            SoftError::Invalid(_) => false,
        }
    }
}

/// What somebody who heard of an instance tells the others of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceBeat {
    /// The instance.
    pub instance: InstanceId,
    /// The process that hosts it.
    pub host: HostId,
    /// The node that tells of it.
    pub node: HostId,
    /// The agent's name.
    pub name: Arc<str>,
    /// The names of what it can do.
    pub capabilities: Vec<Arc<str>>,
    /// Whether it is told who else there is, so that it can delegate.
    #[serde(default)]
    pub delegates: bool,
    /// Load of its host as it reports it, 0 to 1.
    pub load: f32,
    /// Time since the node that tells of it heard of it, in milliseconds.
    #[serde(skip)]
    pub silent_ms: u64,
}

/// What a node or a worker says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeBeat {
    /// Its id: that of its host, the same over restarts.
    pub node: HostId,
    /// The name that its configuration gives it.
    pub name: Arc<str>,
    /// The name of its machine.
    pub machine: Arc<str>,
    /// Its version of Segue.
    pub version: Arc<str>,
    /// When it started, by the clock of the store, or its own where it reaches none.
    pub started: Time,
    /// What it does: `node`, `worker`.
    pub roles: Vec<Arc<str>>,
    /// Where it is reached, if anywhere.
    pub address: Option<Arc<str>>,
    /// Load, 0 to 1.
    pub load: f32,
    /// It gives out no more work and is about to leave.
    pub draining: bool,
    /// What keeps it from its work: a bus that takes no letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Arc<str>>,
}

/// What a node tells the others at a beat.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// Who tells it.
    pub from: HostId,
    /// What it says of itself, where it wants to be listed.
    pub node: Option<NodeBeat>,
    /// The instances that it heard of itself.
    pub instances: Vec<InstanceBeat>,
    /// The health of the instances of which it has seen failures, 0 (sick) to 1 (well). Replaces what it said before.
    pub health: BTreeMap<InstanceId, f32>,
}

/// An instance as the directory knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenInstance {
    /// What was told of it last. `silent_ms` is the time since it was heard of, by the directory's clock.
    pub beat: InstanceBeat,
    /// The product of what every node says of its health: each has seen a part of its failures.
    pub health: f32,
}

/// A node as the directory knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenNode {
    /// What it said last of itself.
    pub beat: NodeBeat,
    /// Time since then in milliseconds, by the directory's clock.
    pub silent_ms: u64,
}

/// Everybody who was heard of within the directory's time to live.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Everybody {
    /// Instances by id; their health leaves out the word of nobody.
    pub instances: BTreeMap<InstanceId, SeenInstance>,
    /// Nodes and workers by id.
    pub nodes: BTreeMap<HostId, SeenNode>,
    /// What each node says of the health of instances, also of such that are not listed.
    pub health: BTreeMap<HostId, BTreeMap<InstanceId, f32>>,
}

impl Everybody {
    /// What everybody but this node says of the health of an instance, as a product.
    pub fn health_but(&self, node: HostId) -> BTreeMap<InstanceId, f32> {
        let mut product = BTreeMap::new();
        let others = self.health.iter().filter(|(from, _)| **from != node);
        for (instance, health) in others.flat_map(|(_, said)| said) {
            *product.entry(*instance).or_insert(1.0) *= health.clamp(0.0, 1.0);
        }
        product
    }
}

/// The soft directory across nodes. It forgets who was not heard of for its time to live, and may forget everybody at any moment:
/// whoever is there is back with the next beat.
pub trait Presence: Send + Sync {
    /// Takes what a node tells. Of two words about an instance the one stays that heard of it later.
    ///
    /// # Errors
    /// [`SoftError::Invalid`] where there is no room for more; nothing else of the beat is lost then.
    fn beat(&self, beat: Beat) -> Fut<'_, Result<(), SoftError>>;

    /// These instances have gone.
    fn remove(&self, instances: Vec<InstanceId>) -> Fut<'_, Result<(), SoftError>>;

    /// This node leaves: what it said of itself and of anybody's health is forgotten. Its instances are not.
    fn leave(&self, node: HostId) -> Fut<'_, Result<(), SoftError>>;

    /// Everybody, in one round trip.
    fn everybody(&self) -> Fut<'_, Result<Everybody, SoftError>>;

    /// Who can do this, at most [`FOUND_MAX`], by id.
    fn capable<'a>(&'a self, capability: &'a str) -> Fut<'a, Result<Vec<SeenInstance>, SoftError>>;
}

/// What whoever holds a lock gives along with the work that it protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Greater than that of every earlier holder. Whoever takes the work in refuses a token that is smaller than one it has seen.
    pub token: u64,
    /// Until when the lock is held, by the clock of its keeper. A holder counts its time to live from before it asked, by its own monotonic clock.
    pub until: Time,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who it is.
    pub holder: String,
    /// The fence of this holder.
    pub fence: Fence,
}

/// Why a lock cannot be taken, renewed or released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Somebody holds it; also whoever asks, under an earlier token.
    #[error("the lock is held by {} until {}", .0.holder, .0.fence.until.0)]
    Held(Held),
    /// It is not held under this token: it expired, was released, or was forgotten.
    #[error("the lock `{0}` is not held under this token any more; take it again")]
    Lost(String),
    /// The name, the holder or the time to live is not possible.
    #[error("{0}")]
    Invalid(String),
    /// Whoever keeps the locks is away.
    #[error("locks are away: {0}")]
    Away(String),
}

impl Passing for LockError {
    fn is_passing(&self) -> bool {
        match self {
            LockError::Away(_) => true,
            LockError::Held(_) | LockError::Lost(_) | LockError::Invalid(_) => false,
        }
    }
}

/// Fenced locks. Tokens only grow, over all locks of a project, also after their keeper has forgotten everything.
///
/// A holder that sleeps through its time to live does not know that it lost the lock: only the fence protects, and only where it is checked.
pub trait Locks: Send + Sync {
    /// Takes a free lock for `ttl_ms`. Does not wait.
    ///
    /// # Errors
    /// [`LockError::Held`] where it is not free.
    fn lock<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>>;

    /// Holds the lock of this token for `ttl_ms` from now. The token stays.
    ///
    /// # Errors
    /// [`LockError::Lost`] where it is not held under this token.
    fn renew<'a>(
        &'a self,
        name: &'a str,
        token: u64,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>>;

    /// Frees the lock of this token.
    ///
    /// # Errors
    /// [`LockError::Lost`] where it is not held under this token.
    fn release<'a>(&'a self, name: &'a str, token: u64) -> Fut<'a, Result<(), LockError>>;

    /// Who holds it.
    fn holder<'a>(&'a self, name: &'a str) -> Fut<'a, Result<Option<Held>, LockError>>;
}

/// Checks what every adapter of [`Locks`] refuses alike.
///
/// # Errors
/// [`LockError::Invalid`] for an empty or overlong name or holder, or a time to live of zero or more than [`LOCK_TTL_MS_MAX`].
pub fn check_lock(name: &str, holder: Option<&str>, ttl_ms: Option<u64>) -> Result<(), LockError> {
    let named = [Some(("name of a lock", name)), holder.map(|holder| ("holder of a lock", holder))];
    for (what, text) in named.into_iter().flatten() {
        if text.is_empty() || text.len() > SOFT_NAME_MAX {
            return Err(LockError::Invalid(format!(
                "the {what} has {} bytes; give 1 to {SOFT_NAME_MAX}",
                text.len()
            )));
        }
    }
    match ttl_ms {
        Some(ms) if ms == 0 || ms > LOCK_TTL_MS_MAX => Err(LockError::Invalid(format!(
            "a lock cannot be held for {ms} ms; give 1 to {LOCK_TTL_MS_MAX}"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// What an admission gate counts for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateKey {
    /// Whose models: `anthropic`.
    pub provider: String,
    /// On whose bill.
    pub account: String,
    /// Which model.
    pub model: String,
}

/// What an admission gate answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Counted. So much is left in this window.
    Admitted {
        /// What is left in this window.
        left: u64,
    },
    /// Not counted: ask again after this long, in milliseconds.
    Wait {
        /// Until the window or the pause ends.
        ms: u64,
    },
}

/// The counters of a gate as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateReading {
    /// Counted in this window.
    pub used: u64,
    /// Until this window ends, in milliseconds; zero where none is open.
    pub window_ms: u64,
    /// Until the pause ends, in milliseconds; zero where there is none.
    pub paused_ms: u64,
}

/// Counters of the admission gate, shared by every node. A window opens with the first that is counted and ends after its length.
pub trait Gates: Send + Sync {
    /// Counts `cost` within a window of `window_ms`, unless that is more than `limit` in one window, or the gate is paused.
    ///
    /// # Errors
    /// [`SoftError::Invalid`] where `cost` alone is more than `limit`, or the window is not possible.
    fn admit<'a>(
        &'a self,
        key: &'a GateKey,
        cost: u64,
        limit: u64,
        window_ms: u64,
    ) -> Fut<'a, Result<Admission, SoftError>>;

    /// Lets nobody pass for `ms` from now (the provider said 429). The longest pause counts.
    fn pause<'a>(&'a self, key: &'a GateKey, ms: u64) -> Fut<'a, Result<(), SoftError>>;

    /// The counters as they stand.
    fn read<'a>(&'a self, key: &'a GateKey) -> Fut<'a, Result<GateReading, SoftError>>;
}

/// Checks what every adapter of [`Gates`] refuses alike.
///
/// # Errors
/// [`SoftError::Invalid`] for an overlong part of the key, or a time of more than [`GATE_MS_MAX`].
pub fn check_gate(key: &GateKey, ms: u64) -> Result<(), SoftError> {
    for text in [&key.provider, &key.account, &key.model] {
        if text.len() > SOFT_NAME_MAX {
            return Err(SoftError::Invalid(format!(
                "a part of the key of a gate has {} bytes; give at most {SOFT_NAME_MAX}",
                text.len()
            )));
        }
    }
    if ms > GATE_MS_MAX {
        return Err(SoftError::Invalid(format!(
            "a gate counts and pauses for at most {GATE_MS_MAX} ms, not for {ms}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn health_is_the_product_of_what_the_others_say() {
        let (a, b, c) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let instance = InstanceId(Uuid::from_u128(9));
        let said = |health| BTreeMap::from([(instance, health)]);
        let everybody = Everybody {
            health: [(HostId(a), said(0.5)), (HostId(b), said(0.8)), (HostId(c), said(7.0))].into(),
            ..Everybody::default()
        };
        assert_eq!(everybody.health_but(HostId(a)), said(0.8));
        assert_eq!(everybody.health_but(HostId(b)), said(0.5));
    }

    #[test]
    fn a_lock_has_a_name_a_holder_and_a_bounded_time() {
        assert_eq!(check_lock("prune", Some("node"), Some(1)), Ok(()));
        assert!(check_lock("", None, None).is_err());
        assert!(check_lock("prune", Some(""), None).is_err());
        assert!(check_lock(&"x".repeat(SOFT_NAME_MAX + 1), None, None).is_err());
        assert!(check_lock("prune", None, Some(0)).is_err());
        assert!(check_lock("prune", None, Some(LOCK_TTL_MS_MAX + 1)).is_err());
    }
}
