//! What a command, or a whole batch, changes in the state that a project shares.

use super::{Lock, Policy, StateVersion};
use std::sync::Arc;

/// Rows of shared state to write. A store keeps them as they stand here; nothing is left to it to decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateChanges {
    /// New versions of keys, rising; the last one of a key is its current one.
    pub versions: Vec<StateVersion>,
    /// Versions that are in the store and are not kept any longer.
    pub forgotten: Vec<u64>,
    /// Policies as they stand now, by pattern; `None` goes.
    pub policies: Vec<(Arc<str>, Option<Policy>)>,
    /// Locks as they stand now, by name; `None` goes.
    pub locks: Vec<(Arc<str>, Option<Lock>)>,
    /// The last stamp that was issued, where that is new.
    pub stamp: Option<u64>,
}

impl StateChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == StateChanges::default()
    }

    /// Adds what a later command changed. Policies and locks stand once each, as they are now; a version that was new and is
    /// forgotten already was never there.
    pub fn extend(&mut self, later: StateChanges) {
        self.versions.extend(later.versions);
        for version in later.forgotten {
            match self.versions.iter().position(|new| new.version == version) {
                Some(place) => {
                    self.versions.remove(place);
                }
                None => self.forgotten.push(version),
            }
        }
        replace(&mut self.policies, later.policies);
        replace(&mut self.locks, later.locks);
        self.stamp = later.stamp.or(self.stamp);
    }
}

fn replace<T>(rows: &mut Vec<(Arc<str>, T)>, later: Vec<(Arc<str>, T)>) {
    for (name, row) in later {
        match rows.iter_mut().find(|(other, _)| *other == name) {
            Some((_, place)) => *place = row,
            None => rows.push((name, row)),
        }
    }
}
