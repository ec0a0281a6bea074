//! Soft state of the agents: last seen, load, health. It may suggest, never decide.

use parking_lot::Mutex;
use segue_core::agent::AgentSpec;
use segue_core::command::Candidate;
use segue_core::ids::InstanceId;
use segue_core::task::ErrorClass;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Instances not heard of for this long get no work.
pub const TTL: Duration = Duration::from_secs(30);
/// How fast a bad experience fades: after this time about two thirds of it are forgotten.
const FORGIVE: Duration = Duration::from_secs(60);
/// What one failure that may be the agent's fault leaves of its health.
const FAILURE: f32 = 0.9;
/// Which part of the missing health one success gives back.
const SUCCESS: f32 = 0.5;

/// What is known of an instance at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Presence {
    /// 0 (sick) to 1 (well).
    pub health: f32,
    /// Load of its host as it reports it, 0 to 1.
    pub load: f32,
    /// Time since it was last heard of.
    pub silent: Duration,
}

#[derive(Debug)]
struct Entry {
    health: f32,
    since: Instant,
    load: f32,
    seen: Instant,
}

impl Entry {
    fn health(&self, now: Instant) -> f32 {
        let forgiven =
            (-now.duration_since(self.since).as_secs_f32() / FORGIVE.as_secs_f32()).exp();
        1.0 - (1.0 - self.health) * forgiven
    }
}

/// Soft state of the agents of this project.
#[derive(Debug, Default)]
pub struct Directory {
    entries: Mutex<BTreeMap<InstanceId, Entry>>,
    delegating: Mutex<BTreeSet<InstanceId>>,
    cached: Mutex<Option<(Instant, Arc<[Candidate]>)>>,
}

/// Health changes by itself as time passes, so the list of candidates is made anew this often.
const CACHE: Duration = Duration::from_millis(250);

impl Directory {
    pub(crate) fn new() -> Directory {
        Directory::default()
    }

    /// Notes which of these agents are told who else there is.
    pub fn introduce(&self, specs: &[AgentSpec]) {
        let mut delegating = self.delegating.lock();
        for spec in specs {
            if spec.delegates {
                delegating.insert(spec.instance);
            } else {
                delegating.remove(&spec.instance);
            }
        }
    }

    /// Whether the instance is told who else there is.
    pub fn delegates(&self, instance: InstanceId) -> bool {
        self.delegating.lock().contains(&instance)
    }

    /// An instance is there. Hosts say so at every beat.
    pub fn beat(&self, instances: impl IntoIterator<Item = InstanceId>, load: f32) {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        let mut changed = false;
        for instance in instances {
            let entry = entries.entry(instance).or_insert_with(|| {
                changed = true;
                Entry { health: 1.0, since: now, load, seen: now }
            });
            changed |=
                (entry.load > segue_core::route::LOAD_MAX) != (load > segue_core::route::LOAD_MAX);
            entry.seen = now;
            entry.load = load;
        }
        drop(entries);
        if changed {
            *self.cached.lock() = None;
        }
    }

    /// An instance has gone.
    pub fn remove(&self, instance: InstanceId) {
        self.entries.lock().remove(&instance);
        *self.cached.lock() = None;
    }

    /// An attempt of this instance completed.
    pub fn succeeded(&self, instance: InstanceId) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(&instance)
            && entry.health < 1.0
        {
            let now = Instant::now();
            let health = entry.health(now);
            entry.health = health + (1.0 - health) * SUCCESS;
            entry.since = now;
        }
    }

    /// An attempt of this instance failed. Only what may be the agent's fault counts: a task that cannot be done,
    /// a rate limit and a timeout say nothing about its health.
    pub fn failed(&self, instance: InstanceId, class: ErrorClass) {
        if !matches!(class, ErrorClass::Transient | ErrorClass::InvalidOutput) {
            return;
        }
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(&instance) {
            let now = Instant::now();
            entry.health = entry.health(now) * FAILURE;
            entry.since = now;
        }
        drop(entries);
        *self.cached.lock() = None;
    }

    /// What is known of an instance now.
    pub fn presence(&self, instance: InstanceId) -> Option<Presence> {
        let now = Instant::now();
        self.entries.lock().get(&instance).map(|entry| Presence {
            health: entry.health(now),
            load: entry.load,
            silent: now.duration_since(entry.seen),
        })
    }

    /// The instances that were heard of lately, with what is known of them.
    pub fn candidates(&self) -> Arc<[Candidate]> {
        let now = Instant::now();
        let mut cached = self.cached.lock();
        if let Some((made, candidates)) = cached.as_ref()
            && now.duration_since(*made) < CACHE
        {
            return candidates.clone();
        }
        let candidates: Arc<[Candidate]> = self
            .entries
            .lock()
            .iter()
            .filter(|(_, entry)| now.duration_since(entry.seen) < TTL)
            .map(|(instance, entry)| Candidate {
                instance: *instance,
                health: entry.health(now),
                load: entry.load,
            })
            .collect();
        *cached = Some((now, candidates.clone()));
        candidates
    }
}
