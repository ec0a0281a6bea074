//! The agent instances that are loaded, found by what is asked of them and never by looking at all of them.
//!
//! A commit that gives out one task among ten thousand agents asks: who that can take it has a free slot, and who of them the
//! most? The answer is the first of an ordered list that is kept up as slots are taken and freed.

use crate::agent::Agent;
use crate::command::Candidate;
use crate::ids::{HostId, InstanceId};
use crate::route;
use crate::task::{Route, Task};
use crate::time::Time;
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, btree_set};
use std::iter::Peekable;
use std::ops::{Bound, Deref};

/// The place of an instance among those that can take a task of a route, lowest first: the part of its slots that is taken (or
/// the load of its host, where that is more), what one invocation costs, its id.
type Place = (i64, i64, InstanceId);

/// Agent instances, with what is asked of them often. It can be read like the map that it holds.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    agents: BTreeMap<InstanceId, Agent>,
    hosts: FxHashMap<HostId, BTreeSet<InstanceId>>,
    /// Those with free slots, by each route that they serve.
    free: FxHashMap<Route, BTreeSet<Place>>,
    /// Those that have not gone, by the end of their lease.
    leases: BTreeSet<(Time, InstanceId)>,
}

impl Fleet {
    /// A fleet without anybody.
    pub fn new() -> Fleet {
        Fleet::default()
    }

    /// Puts an instance as it stands now.
    pub fn put(&mut self, agent: Agent) {
        let instance = agent.spec.instance;
        let Some(before) = self.agents.insert(instance, agent.clone()) else {
            self.hosts.entry(agent.host).or_default().insert(instance);
            return self.index(&agent);
        };
        if before.host != agent.host {
            self.leave_host(before.host, instance);
            self.hosts.entry(agent.host).or_default().insert(instance);
        }
        let same_place = std::sync::Arc::ptr_eq(&before.spec, &agent.spec)
            && before.slots_free() == agent.slots_free()
            && before.slots_used == agent.slots_used;
        if same_place && before.lease_until == agent.lease_until && before.gone == agent.gone {
            return;
        }
        self.forget(&before);
        self.index(&agent);
    }

    fn leave_host(&mut self, host: HostId, instance: InstanceId) {
        if let Some(instances) = self.hosts.get_mut(&host) {
            instances.remove(&instance);
            if instances.is_empty() {
                self.hosts.remove(&host);
            }
        }
    }

    fn index(&mut self, agent: &Agent) {
        let instance = agent.spec.instance;
        if !agent.gone {
            self.leases.insert((agent.lease_until, instance));
        }
        if agent.slots_free() > 0 {
            for route in routes(agent) {
                let place = place(agent, &route, 0.0);
                self.free.entry(route).or_default().insert(place);
            }
        }
    }

    fn forget(&mut self, agent: &Agent) {
        self.leases.remove(&(agent.lease_until, agent.spec.instance));
        if agent.slots_free() == 0 {
            return;
        }
        for route in routes(agent) {
            let place = place(agent, &route, 0.0);
            if let Some(places) = self.free.get_mut(&route) {
                places.remove(&place);
                if places.is_empty() {
                    self.free.remove(&route);
                }
            }
        }
    }

    /// The instances of a host.
    pub fn of_host(&self, host: HostId) -> impl Iterator<Item = &Agent> {
        self.hosts.get(&host).into_iter().flatten().filter_map(|instance| self.agents.get(instance))
    }

    /// The instances whose lease ended before this time and that have not gone yet.
    pub fn expired(&self, now: Time) -> impl Iterator<Item = &Agent> {
        let end = Bound::Excluded((now, InstanceId(uuid::Uuid::nil())));
        let expired = self.leases.range((Bound::Unbounded, end));
        expired.filter_map(|(_, instance)| self.agents.get(instance))
    }

    /// Whether somebody who serves this route has a free slot, fit or not.
    pub fn is_open(&self, route: &Route) -> bool {
        self.free.contains_key(route)
    }

    /// Which of the queues with ready tasks somebody fit has free slots for, and how many, up to `limit` of each. `ready` are
    /// the routes that have ready tasks; looked at are these or the open ones, whichever are fewer.
    pub fn open_queues<'a>(
        &self,
        candidates: &Candidates<'_>,
        limit: usize,
        ready: impl ExactSizeIterator<Item = &'a Route>,
        is_ready: impl Fn(&Route) -> bool,
    ) -> Vec<(Route, usize)> {
        let mut open = Vec::new();
        let mut look = |route: &Route| {
            let slots = self.slots_free(route, candidates, limit);
            if slots > 0 {
                open.push((route.clone(), slots));
            }
        };
        if ready.len() <= self.free.len() {
            ready.filter(|route| self.is_open(route)).for_each(&mut look);
        } else {
            self.free.keys().filter(|route| is_ready(route)).for_each(&mut look);
        }
        // Whatever the order of the maps was.
        open.sort_unstable();
        open
    }

    /// The free slots of those fit that serve this route, up to `limit`.
    fn slots_free(&self, route: &Route, candidates: &Candidates<'_>, limit: usize) -> usize {
        let mut slots = 0;
        for (_, _, instance) in self.free.get(route).into_iter().flatten() {
            if slots >= limit {
                return limit;
            }
            if candidates.fit(*instance).is_some() {
                slots += self.agents.get(instance).map_or(0, |agent| agent.slots_free() as usize);
            }
        }
        slots.min(limit)
    }
}

impl Deref for Fleet {
    type Target = BTreeMap<InstanceId, Agent>;

    fn deref(&self) -> &Self::Target {
        &self.agents
    }
}

impl From<BTreeMap<InstanceId, Agent>> for Fleet {
    fn from(agents: BTreeMap<InstanceId, Agent>) -> Fleet {
        agents.into_values().collect()
    }
}

impl FromIterator<Agent> for Fleet {
    fn from_iter<T: IntoIterator<Item = Agent>>(agents: T) -> Fleet {
        let mut fleet = Fleet::new();
        agents.into_iter().for_each(|agent| fleet.put(agent));
        fleet
    }
}

impl PartialEq for Fleet {
    fn eq(&self, other: &Fleet) -> bool {
        self.agents == other.agents
    }
}

/// Every route that an instance serves, each once.
fn routes(agent: &Agent) -> impl Iterator<Item = Route> {
    let capabilities = &agent.spec.capabilities;
    let named = capabilities.iter().enumerate().filter_map(|(number, capability)| {
        let doubled = capabilities[..number].iter().any(|before| before.name == capability.name);
        (!doubled).then(|| Route::Capability(capability.name.clone()))
    });
    std::iter::once(Route::Agent(agent.spec.name.clone())).chain(named)
}

fn place(agent: &Agent, route: &Route, load: f32) -> Place {
    let used = f64::from(agent.slots_used) / f64::from(agent.spec.max_concurrency.max(1));
    (ordered(used.max(f64::from(load))), ordered(route::cost(agent, route)), agent.spec.instance)
}

/// A number that sorts as the fraction does in `f64::total_cmp`.
fn ordered(fraction: f64) -> i64 {
    let bits = fraction.to_bits().cast_signed();
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

/// What the directory knows of the instances, found by instance.
pub struct Candidates<'a>(Cow<'a, [Candidate]>);

impl<'a> Candidates<'a> {
    /// The candidates of an `Assign`. The directory sorts them; whoever does not pays for it here.
    pub fn new(candidates: &'a [Candidate]) -> Candidates<'a> {
        if candidates.is_sorted_by_key(|candidate| candidate.instance) {
            return Candidates(Cow::Borrowed(candidates));
        }
        let mut sorted = candidates.to_vec();
        sorted.sort_by_key(|candidate| candidate.instance);
        Candidates(Cow::Owned(sorted))
    }

    /// The candidate of this instance, if it may have work.
    pub fn fit(&self, instance: InstanceId) -> Option<&Candidate> {
        let place = self.0.binary_search_by_key(&instance, |candidate| candidate.instance).ok()?;
        self.0.get(place).filter(|candidate| route::is_fit(candidate))
    }
}

/// Hands out the free slots of a fleet, each time to the one whom [`route::choose`] would name, with no look at the others.
pub struct Takers<'a> {
    fleet: &'a Fleet,
    candidates: Candidates<'a>,
    queues: FxHashMap<Route, Queue<'a>>,
}

/// Those who can take a task of one route. Places are those of the beginning; they only grow while slots are handed out.
struct Queue<'a> {
    rest: Peekable<btree_set::Iter<'a, Place>>,
    next: BinaryHeap<Reverse<Place>>,
}

impl<'a> Takers<'a> {
    /// The takers of this fleet, as far as they are among the candidates.
    pub fn new(fleet: &'a Fleet, candidates: &'a [Candidate]) -> Takers<'a> {
        Takers { fleet, candidates: Candidates::new(candidates), queues: FxHashMap::default() }
    }

    /// Who gets this task. `now` tells how an instance stands by now, after what was handed out before.
    pub fn take<'n>(
        &mut self,
        task: &Task,
        now: impl Fn(InstanceId) -> Option<&'n Agent>,
    ) -> Option<InstanceId> {
        let route = &task.spec.route;
        let preferred = task.prefer.filter(|instance| self.can_take(*instance, route, &now));
        if preferred.is_some() {
            return preferred;
        }
        if !self.queues.contains_key(route) {
            let rest = self.fleet.free.get(route)?.iter().peekable();
            self.queues.insert(route.clone(), Queue { rest, next: BinaryHeap::new() });
        }
        let queue = self.queues.get_mut(route)?;
        loop {
            // Nobody of the rest can come before its place there, whatever the load of its host.
            while let Some(place) = queue.rest.peek()
                && queue.next.peek().is_none_or(|Reverse(first)| *place <= first)
            {
                let instance = place.2;
                queue.rest.next();
                let stands = self.candidates.fit(instance).zip(now(instance));
                queue.next.extend(
                    stands.map(|(candidate, agent)| Reverse(place_now(agent, route, candidate))),
                );
            }
            let Reverse(first) = queue.next.pop()?;
            let stands = self.candidates.fit(first.2).zip(now(first.2));
            let Some((candidate, agent)) = stands.filter(|(_, it)| it.slots_free() > 0) else {
                continue;
            };
            let place = place_now(agent, route, candidate);
            // It may have a slot left after this one, and it may have been given others since: then its place is another.
            queue.next.push(Reverse(place));
            if place == first {
                return Some(first.2);
            }
        }
    }

    fn can_take<'n>(
        &self,
        instance: InstanceId,
        route: &Route,
        now: impl Fn(InstanceId) -> Option<&'n Agent>,
    ) -> bool {
        self.candidates.fit(instance).is_some()
            && now(instance)
                .is_some_and(|agent| agent.slots_free() > 0 && route::serves(agent, route))
    }
}

fn place_now(agent: &Agent, route: &Route, candidate: &Candidate) -> Place {
    place(agent, route, candidate.load)
}
