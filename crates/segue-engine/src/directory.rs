//! Soft state of the agents: last seen, load, health. It may suggest, never decide.
//!
//! What this node heard itself, what other nodes told it, and, while nobody tells anything, whose lease in the tables is valid.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use segue_core::agent::{Agent, AgentSpec};
use segue_core::command::Candidate;
use segue_core::ids::{HostId, InstanceId};
use segue_core::ports::{Everybody, InstanceBeat};
use segue_core::task::ErrorClass;
use segue_core::time::Time;
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
/// Above this an instance is well, and its bad experiences are not kept any longer.
const WELL: f32 = 0.999;
/// Health changes by itself as time passes, so the list of candidates is made anew this often.
const CACHE: Duration = Duration::from_millis(250);

/// What is known of an instance at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// 0 (sick) to 1 (well).
    pub health: f32,
    /// Load of its host as it reports it, 0 to 1.
    pub load: f32,
    /// Time since it was last heard of.
    pub silent: Duration,
    /// The other node that told of it; nobody where this node heard of it itself.
    pub told_by: Option<HostId>,
}

/// When an instance was heard of, and its load then.
#[derive(Clone, Copy, Debug)]
struct Heard {
    load: f32,
    at: Instant,
}

impl Heard {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.at) < TTL
    }
}

#[derive(Debug)]
struct Told {
    heard: Heard,
    beat: InstanceBeat,
}

/// What this node has seen of the health of an instance.
#[derive(Clone, Copy, Debug)]
struct Health {
    value: f32,
    since: Instant,
}

impl Health {
    fn at(&self, now: Instant) -> f32 {
        let forgiven =
            (-now.duration_since(self.since).as_secs_f32() / FORGIVE.as_secs_f32()).exp();
        1.0 - (1.0 - self.value) * forgiven
    }
}

/// Who an instance is.
#[derive(Clone, Debug)]
struct About {
    host: HostId,
    name: Arc<str>,
    capabilities: Vec<Arc<str>>,
    delegates: bool,
}

impl About {
    fn of(host: HostId, spec: &AgentSpec) -> About {
        About {
            host,
            name: spec.name.clone(),
            capabilities: spec.capabilities.iter().map(|can| can.name.clone()).collect(),
            delegates: spec.delegates,
        }
    }
}

#[derive(Debug, Default)]
struct Entries {
    /// Instances that this node heard of itself.
    here: BTreeMap<InstanceId, Heard>,
    /// Who they are.
    about: BTreeMap<InstanceId, About>,
    /// What this node has seen of anybody's health; nothing where all is well.
    health: BTreeMap<InstanceId, Health>,
    /// What other nodes told.
    told: BTreeMap<InstanceId, Told>,
    /// What other nodes have seen of anybody's health, as a product.
    told_health: BTreeMap<InstanceId, f32>,
    /// While nobody tells anything: whose lease in the tables is valid, and until when.
    leased: BTreeMap<InstanceId, Instant>,
    /// Who has gone since the last beat.
    gone: BTreeSet<InstanceId>,
}

impl Entries {
    fn own_health(&self, instance: InstanceId, now: Instant) -> f32 {
        self.health.get(&instance).map_or(1.0, |health| health.at(now))
    }

    fn health(&self, instance: InstanceId, now: Instant) -> f32 {
        let told = self.told_health.get(&instance).copied().unwrap_or(1.0);
        self.own_health(instance, now) * told
    }

    /// The word of whoever heard of it last.
    fn latest(&self, instance: InstanceId) -> Option<(Heard, Option<HostId>)> {
        let here = self.here.get(&instance).map(|heard| (*heard, None));
        let told = self.told.get(&instance).map(|told| (told.heard, Some(told.beat.node)));
        match (here, told) {
            (Some(here), Some(told)) if told.0.at > here.0.at => Some(told),
            (here, told) => here.or(told),
        }
    }

    fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let told = self.told.keys().filter(|id| !self.here.contains_key(id));
        let heard = self.here.keys().chain(told).filter_map(|instance| {
            let (heard, _) = self.latest(*instance)?;
            heard.is_fresh(now).then_some((*instance, heard.load))
        });
        let is_heard =
            |id: &InstanceId| self.latest(*id).is_some_and(|(heard, _)| heard.is_fresh(now));
        let leased = self.leased.iter().filter(|(id, until)| **until > now && !is_heard(id));
        let mut candidates: Vec<Candidate> = heard
            .chain(leased.map(|(instance, _)| (*instance, 0.0)))
            .map(|(instance, load)| Candidate {
                instance,
                health: self.health(instance, now),
                load,
            })
            .collect();
        candidates.sort_by_key(|candidate| candidate.instance);
        candidates
    }
}

/// Soft state of the agents of this project.
#[derive(Debug, Default)]
pub struct Directory {
    entries: Mutex<Entries>,
    cached: Mutex<Option<(Instant, Arc<[Candidate]>)>>,
}

impl Directory {
    pub(crate) fn new() -> Directory {
        Directory::default()
    }

    fn stale(&self) {
        *self.cached.lock() = None;
    }

    /// Notes who these agents of a host are, and which of them are told who else there is.
    pub fn introduce(&self, host: HostId, specs: &[AgentSpec]) {
        let mut entries = self.entries.lock();
        entries.about.extend(specs.iter().map(|spec| (spec.instance, About::of(host, spec))));
    }

    /// These agents of a host are there from now on.
    pub fn arrived(&self, host: HostId, specs: &[AgentSpec]) {
        let heard = Heard { load: 0.0, at: Instant::now() };
        let mut entries = self.entries.lock();
        for spec in specs {
            // Whoever was introduced and not heard of may have been forgotten since.
            entries.about.insert(spec.instance, About::of(host, spec));
            entries.here.insert(spec.instance, heard);
            entries.gone.remove(&spec.instance);
        }
        drop(entries);
        self.stale();
    }

    /// Whether the instance is told who else there is; nothing where this node does not know who it is.
    pub fn delegates(&self, instance: InstanceId) -> Option<bool> {
        let entries = self.entries.lock();
        let about = entries.about.get(&instance).map(|about| about.delegates);
        about.or_else(|| entries.told.get(&instance).map(|told| told.beat.delegates))
    }

    /// An instance is there. Hosts say so at every beat.
    pub fn beat(&self, instances: impl IntoIterator<Item = InstanceId>, load: f32) {
        let heard = Heard { load, at: Instant::now() };
        let is_heavy = |load: f32| load > segue_core::route::LOAD_MAX;
        let mut entries = self.entries.lock();
        let mut changed = false;
        for instance in instances {
            entries.gone.remove(&instance);
            let before = entries.here.insert(instance, heard);
            changed |= before.is_none_or(|before| is_heavy(before.load) != is_heavy(load));
        }
        drop(entries);
        if changed {
            self.stale();
        }
    }

    /// An instance has gone.
    pub fn remove(&self, instance: InstanceId) {
        let mut entries = self.entries.lock();
        entries.here.remove(&instance);
        entries.about.remove(&instance);
        entries.health.remove(&instance);
        entries.told.remove(&instance);
        entries.leased.remove(&instance);
        entries.gone.insert(instance);
        drop(entries);
        self.stale();
    }

    /// An attempt of this instance completed.
    pub fn succeeded(&self, instance: InstanceId) {
        let now = Instant::now();
        if let Some(health) = self.entries.lock().health.get_mut(&instance) {
            let value = health.at(now);
            *health = Health { value: value + (1.0 - value) * SUCCESS, since: now };
        }
    }

    /// An attempt of this instance failed. Only what may be the agent's fault counts: a task that cannot be done,
    /// a rate limit and a timeout say nothing about its health.
    pub fn failed(&self, instance: InstanceId, class: ErrorClass) {
        if !matches!(class, ErrorClass::Transient | ErrorClass::InvalidOutput) {
            return;
        }
        let now = Instant::now();
        let mut entries = self.entries.lock();
        let value = entries.own_health(instance, now) * FAILURE;
        entries.health.insert(instance, Health { value, since: now });
        let is_sick = entries.health(instance, now) < segue_core::route::HEALTH_MIN;
        drop(entries);
        if is_sick {
            self.stale();
        }
    }

    /// What is known of an instance now.
    pub fn known(&self, instance: InstanceId) -> Option<Known> {
        let now = Instant::now();
        let entries = self.entries.lock();
        entries.latest(instance).map(|(heard, told_by)| Known {
            health: entries.health(instance, now),
            load: heard.load,
            silent: now.duration_since(heard.at),
            told_by,
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
        let candidates: Arc<[Candidate]> = self.entries.lock().candidates(now).into();
        *cached = Some((now, candidates.clone()));
        candidates
    }

    /// Whether this node heard of somebody of whom it does not know who it is.
    pub(crate) fn knows_not_who(&self) -> bool {
        let entries = self.entries.lock();
        entries.here.keys().any(|instance| !entries.about.contains_key(instance))
    }

    /// Learns from the tables who those are of whom this node heard.
    pub(crate) fn learn(&self, agents: &FxHashMap<InstanceId, Agent>) {
        let mut entries = self.entries.lock();
        let Entries { here, about, .. } = &mut *entries;
        for instance in here
            .keys()
            .filter(|instance| !about.contains_key(instance))
            .copied()
            .collect::<Vec<_>>()
        {
            if let Some(agent) = agents.get(&instance) {
                about.insert(instance, About::of(agent.host, &agent.spec));
            }
        }
    }

    /// What this node has to tell the others: whom it heard of itself, and of whom it has seen failures. What is too old is forgotten.
    pub(crate) fn word(&self, node: HostId) -> (Vec<InstanceBeat>, BTreeMap<InstanceId, f32>) {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        let Entries { here, about, health, leased, .. } = &mut *entries;
        here.retain(|_, heard| heard.is_fresh(now));
        about.retain(|id, _| here.contains_key(id) || leased.contains_key(id));
        health.retain(|_, health| health.at(now) < WELL);
        let beats = here.iter().filter_map(|(instance, heard)| {
            let about = about.get(instance)?;
            let silent = now.duration_since(heard.at).as_millis();
            Some(InstanceBeat {
                instance: *instance,
                host: about.host,
                node,
                name: about.name.clone(),
                capabilities: about.capabilities.clone(),
                delegates: about.delegates,
                load: heard.load,
                silent_ms: u64::try_from(silent).unwrap_or(u64::MAX),
            })
        });
        let beats = beats.collect();
        let health = health.iter().map(|(instance, health)| (*instance, health.at(now))).collect();
        (beats, health)
    }

    /// Who has gone since this was asked last.
    pub(crate) fn take_gone(&self) -> Vec<InstanceId> {
        std::mem::take(&mut self.entries.lock().gone).into_iter().collect()
    }

    /// Takes in what the others told. Whom they do not name any more is kept for its time: they may have lost everything a moment ago.
    pub(crate) fn hear(&self, me: HostId, everybody: Everybody) {
        let now = Instant::now();
        let told_health = everybody.health_but(me);
        let others = everybody.instances.into_iter().filter(|(_, seen)| seen.beat.node != me);
        let told = others.filter_map(|(instance, seen)| {
            let at = now.checked_sub(Duration::from_millis(seen.beat.silent_ms))?;
            let heard = Heard { load: seen.beat.load, at };
            Some((instance, Told { heard, beat: seen.beat }))
        });
        // Made before the lock is taken: batches wait for it.
        let mut told: BTreeMap<InstanceId, Told> = told.collect();
        let mut entries = self.entries.lock();
        told.retain(|instance, _| !entries.gone.contains(instance));
        for (instance, before) in std::mem::replace(&mut entries.told, told) {
            if before.heard.is_fresh(now) {
                entries.told.entry(instance).or_insert(before);
            }
        }
        entries.told_health = told_health;
        entries.leased.clear();
        drop(entries);
        self.stale();
    }

    /// Nobody tells anything: whoever has a valid lease in the tables is taken to be there.
    pub(crate) fn hear_nothing(
        &self,
        agents: &FxHashMap<InstanceId, Agent>,
        leases: &[(InstanceId, Time)],
        now: Time,
    ) {
        let moment = Instant::now();
        let valid = leases.iter().filter(|(_, until)| *until > now);
        let leased = valid.map(|(instance, until)| {
            let left = Duration::from_millis(until.since_ms(now));
            // Who renews while the others hear nothing is found with the next look into the tables.
            (*instance, moment + left.min(TTL))
        });
        let mut entries = self.entries.lock();
        entries.leased = leased.collect();
        let delegating = agents.values().filter(|agent| agent.spec.delegates);
        for agent in delegating {
            let about = || About::of(agent.host, &agent.spec);
            entries.about.entry(agent.spec.instance).or_insert_with(about);
        }
        drop(entries);
        self.stale();
    }

    /// How many instances other nodes told of.
    pub(crate) fn told_count(&self) -> usize {
        self.entries.lock().told.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use segue_core::agent::AgentKind;
    use uuid::Uuid;

    #[test]
    fn who_was_forgotten_while_it_registered_is_known_once_it_arrived() {
        let (directory, host) = (Directory::new(), HostId(Uuid::from_u128(1)));
        let spec = AgentSpec {
            instance: InstanceId(Uuid::from_u128(2)),
            name: "planner".into(),
            kind: AgentKind::Builtin,
            description: "".into(),
            capabilities: Arc::from([]),
            max_concurrency: 1,
            delegates: true,
        };
        directory.introduce(host, std::slice::from_ref(&spec));
        // The node tells the others of whom it heard, and forgets the rest: before the registration is in the tables.
        directory.word(host);
        assert_eq!(directory.delegates(spec.instance), None);
        directory.arrived(host, std::slice::from_ref(&spec));
        assert_eq!(directory.delegates(spec.instance), Some(true));
        directory.word(host);
        assert_eq!(directory.delegates(spec.instance), Some(true));
    }
}
