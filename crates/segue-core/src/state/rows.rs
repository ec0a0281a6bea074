//! The rows of shared state that a batch needs, as the commands of the batch have left them so far.

use super::{Expect, Lock, Policy, StateChanges, StateVersion};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A key as it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyRow {
    /// Its newest version, which may be a deletion; `None` where nothing was ever written, or all of it is forgotten.
    pub latest: Option<StateVersion>,
    /// The versions that are kept, rising; the newest one among them.
    pub kept: Vec<u64>,
}

impl KeyRow {
    /// Its current version; `None` where there is no such key.
    pub fn current(&self) -> Option<&StateVersion> {
        self.latest.as_ref().filter(|latest| latest.value.is_some())
    }

    /// Whether what a writer takes for granted is so.
    pub fn fits(&self, expect: Expect) -> bool {
        let current = self.current().map(|current| current.version);
        match expect {
            Expect::Anything => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current == Some(version),
        }
    }
}

/// What was loaded of shared state.
#[derive(Debug, Default)]
pub struct StateRows {
    stamp: Option<u64>,
    keys: FxHashMap<Arc<str>, KeyRow>,
    versions: FxHashMap<u64, Option<StateVersion>>,
    policies: Option<BTreeMap<Arc<str>, Policy>>,
    locks: FxHashMap<Arc<str>, Option<Lock>>,
    writes: StateChanges,
}

impl StateRows {
    /// Sets the last stamp that was issued.
    pub fn set_stamp(&mut self, stamp: u64) {
        self.stamp.get_or_insert(stamp);
    }

    /// Adds a key as the store has it; the value of its newest version may be a reference.
    pub fn add_key(&mut self, key: Arc<str>, row: KeyRow) {
        self.keys.entry(key).or_insert(row);
    }

    /// Adds a version with its body at hand where that is at most `DATABASE_MAX` bytes long, or that there is none.
    pub fn add_version(&mut self, version: u64, row: Option<StateVersion>) {
        self.versions.entry(version).or_insert(row);
    }

    /// Sets every policy of the project.
    pub fn set_policies(&mut self, policies: BTreeMap<Arc<str>, Policy>) {
        self.policies.get_or_insert(policies);
    }

    /// Adds a lock as the store has it, or that there is none.
    pub fn add_lock(&mut self, name: Arc<str>, lock: Option<Lock>) {
        self.locks.entry(name).or_insert(lock);
    }

    /// The last stamp that was issued; `None` where that was not loaded.
    pub fn stamp(&self) -> Option<u64> {
        self.stamp
    }

    /// The key; `None` where that was not loaded.
    pub fn key(&self, key: &str) -> Option<&KeyRow> {
        self.keys.get(key)
    }

    /// The version, or that there is none; `None` where that was not loaded.
    pub fn version(&self, version: u64) -> Option<&Option<StateVersion>> {
        self.versions.get(&version)
    }

    /// Every policy; `None` where they were not loaded.
    pub fn policies(&self) -> Option<&BTreeMap<Arc<str>, Policy>> {
        self.policies.as_ref()
    }

    /// The policy of a key: its own, else that of the longest prefix; `None` where they were not loaded.
    pub fn policy_of(&self, key: &str) -> Option<Policy> {
        let policies = self.policies.as_ref()?;
        if let Some(own) = policies.get(key) {
            return Some(*own);
        }
        let of = |pattern: &Arc<str>| {
            pattern.strip_suffix('*').filter(|it| key.starts_with(it)).map(str::len)
        };
        let longest = policies.iter().filter_map(|(pattern, policy)| Some((of(pattern)?, *policy)));
        Some(
            longest
                .max_by_key(|(length, _)| *length)
                .map_or(Policy::default(), |(_, policy)| policy),
        )
    }

    /// The lock, or that there is none; `None` where that was not loaded.
    pub fn lock(&self, name: &str) -> Option<&Option<Lock>> {
        self.locks.get(name)
    }

    /// Takes in what an accepted command changed.
    pub(crate) fn absorb(&mut self, changes: StateChanges) {
        for version in &changes.versions {
            let row = self.keys.entry(version.key.clone()).or_default();
            row.kept.push(version.version);
            row.latest = Some(version.clone());
            row.kept.retain(|kept| !changes.forgotten.contains(kept));
            self.versions.insert(version.version, Some(version.clone()));
        }
        for version in &changes.forgotten {
            self.versions.insert(*version, None);
        }
        for (pattern, policy) in &changes.policies {
            let policies = self.policies.get_or_insert_default();
            match policy {
                Some(policy) => policies.insert(pattern.clone(), *policy),
                None => policies.remove(pattern),
            };
        }
        for (name, lock) in &changes.locks {
            self.locks.insert(name.clone(), lock.clone());
        }
        self.stamp = changes.stamp.or(self.stamp);
        self.writes.extend(changes);
    }

    /// What the batch has to write.
    pub(crate) fn take_writes(&mut self) -> StateChanges {
        std::mem::take(&mut self.writes)
    }
}
