//! Soft state of one process.

use parking_lot::Mutex;
use segue_core::ids::{HostId, InstanceId};
use segue_core::ports::{
    Admission, Beat, Clock, Everybody, FOUND_MAX, Fence, Fut, GateKey, GateReading, Gates, Held,
    INSTANCES_MAX, InstanceBeat, LockError, Locks, NODES_MAX, NodeBeat, Presence, SeenInstance,
    SeenNode, SoftError, check_gate, check_lock,
};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How long a directory remembers an instance or a node that nobody heard of, in milliseconds.
pub const PRESENCE_TTL_MS: u64 = 30_000;
/// Locks, and gates, that one process keeps at most.
const NAMES_MAX: usize = 100_000;

/// Runs with the monotonic clock from the moment it was made on; nobody can set it back.
#[derive(Debug)]
pub struct MonotonicClock {
    began: Time,
    since: Instant,
}

impl MonotonicClock {
    /// A clock that shows the wall's time now.
    pub fn start() -> Arc<MonotonicClock> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began = Time(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX));
        Arc::new(MonotonicClock { began, since: Instant::now() })
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Time {
        let passed = self.since.elapsed().as_millis();
        self.began.plus_ms(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

/// Presence, locks and gates of one process.
pub struct InProcessSoft {
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
    locks: Mutex<Keeper>,
    gates: Mutex<BTreeMap<GateKey, Gate>>,
}

#[derive(Default)]
struct Seen {
    instances: BTreeMap<InstanceId, (Time, InstanceBeat)>,
    nodes: BTreeMap<HostId, (Time, NodeBeat)>,
    health: BTreeMap<HostId, (Time, BTreeMap<InstanceId, f32>)>,
}

#[derive(Default)]
struct Keeper {
    held: BTreeMap<String, Held>,
    last_token: u64,
}

#[derive(Clone, Copy, Default)]
struct Gate {
    used: u64,
    window_ends: Time,
    paused_until: Time,
}

impl InProcessSoft {
    /// Nobody is there, and nothing is locked.
    pub fn new() -> Arc<InProcessSoft> {
        InProcessSoft::with_clock(MonotonicClock::start())
    }

    /// The same, by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Arc<InProcessSoft> {
        Arc::new(InProcessSoft {
            clock,
            seen: Mutex::default(),
            locks: Mutex::default(),
            gates: Mutex::default(),
        })
    }

    /// Forgets everything, as a keeper elsewhere may at any moment. Tokens of locks grow on.
    pub fn forget(&self) {
        *self.seen.lock() = Seen::default();
        self.locks.lock().held.clear();
        self.gates.lock().clear();
    }

    fn take_beat(&self, beat: Beat) -> Result<(), SoftError> {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        seen.forget_old(now);
        let mut refused = 0;
        for said in beat.instances {
            let at = before(now, said.silent_ms);
            let full = seen.instances.len() >= INSTANCES_MAX;
            match seen.instances.get_mut(&said.instance) {
                Some(known) if known.0 > at => {}
                Some(known) => *known = (at, said),
                None if full => refused += 1,
                None => {
                    seen.instances.insert(said.instance, (at, said));
                }
            }
        }
        let room = |nodes: usize, known: bool| known || nodes < NODES_MAX;
        if let Some(node) = beat.node {
            if room(seen.nodes.len(), seen.nodes.contains_key(&node.node)) {
                seen.nodes.insert(node.node, (now, node));
            } else {
                refused += 1;
            }
        }
        if beat.health.is_empty() {
            seen.health.remove(&beat.from);
        } else if room(seen.health.len(), seen.health.contains_key(&beat.from)) {
            seen.health.insert(beat.from, (now, beat.health));
        } else {
            refused += 1;
        }
        match refused {
            0 => Ok(()),
            count => Err(full(count)),
        }
    }

    fn snapshot(&self) -> Everybody {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        seen.forget_old(now);
        let health: BTreeMap<_, _> =
            seen.health.iter().map(|(node, (_, said))| (*node, said.clone())).collect();
        let product = product(&health);
        let instances = seen.instances.iter().map(|(instance, (at, beat))| {
            let beat = InstanceBeat { silent_ms: now.since_ms(*at), ..beat.clone() };
            let health = product.get(instance).copied().unwrap_or(1.0);
            (*instance, SeenInstance { beat, health })
        });
        let nodes = seen.nodes.iter().map(|(node, (at, beat))| {
            (*node, SeenNode { beat: beat.clone(), silent_ms: now.since_ms(*at) })
        });
        Everybody { instances: instances.collect(), nodes: nodes.collect(), health }
    }
}

/// What is said when a directory has no room.
pub(super) fn full(refused: u64) -> SoftError {
    SoftError::Invalid(format!(
        "the directory is full: {refused} more than {INSTANCES_MAX} instances or {NODES_MAX} nodes were not taken in"
    ))
}

/// The product of what every node says of each instance.
pub(super) fn product(
    health: &BTreeMap<HostId, BTreeMap<InstanceId, f32>>,
) -> BTreeMap<InstanceId, f32> {
    let mut product = BTreeMap::new();
    for (instance, said) in health.values().flatten() {
        *product.entry(*instance).or_insert(1.0) *= said.clamp(0.0, 1.0);
    }
    product
}

fn before(now: Time, ms: u64) -> Time {
    Time(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}

impl Seen {
    fn forget_old(&mut self, now: Time) {
        let fresh = |at: &Time| now.since_ms(*at) < PRESENCE_TTL_MS;
        self.instances.retain(|_, (at, _)| fresh(at));
        self.nodes.retain(|_, (at, _)| fresh(at));
        self.health.retain(|_, (at, _)| fresh(at));
    }
}

impl Presence for InProcessSoft {
    fn beat(&self, beat: Beat) -> Fut<'_, Result<(), SoftError>> {
        Box::pin(ready(self.take_beat(beat)))
    }

    fn remove(&self, instances: Vec<InstanceId>) -> Fut<'_, Result<(), SoftError>> {
        let mut seen = self.seen.lock();
        for instance in instances {
            seen.instances.remove(&instance);
        }
        Box::pin(ready(Ok(())))
    }

    fn leave(&self, node: HostId) -> Fut<'_, Result<(), SoftError>> {
        let mut seen = self.seen.lock();
        seen.nodes.remove(&node);
        seen.health.remove(&node);
        Box::pin(ready(Ok(())))
    }

    fn everybody(&self) -> Fut<'_, Result<Everybody, SoftError>> {
        Box::pin(ready(Ok(self.snapshot())))
    }

    fn capable<'a>(&'a self, capability: &'a str) -> Fut<'a, Result<Vec<SeenInstance>, SoftError>> {
        let mut found: Vec<SeenInstance> = self.snapshot().instances.into_values().collect();
        found.retain(|seen| seen.beat.capabilities.iter().any(|name| **name == *capability));
        found.truncate(FOUND_MAX);
        Box::pin(ready(Ok(found)))
    }
}

impl InProcessSoft {
    fn take(&self, name: &str, holder: &str, ttl_ms: u64) -> Result<Fence, LockError> {
        check_lock(name, Some(holder), Some(ttl_ms))?;
        let now = self.clock.now();
        let mut locks = self.locks.lock();
        if let Some(held) = locks.current(name, now) {
            return Err(LockError::Held(held.clone()));
        }
        if locks.held.len() >= NAMES_MAX {
            locks.held.retain(|_, held| held.fence.until > now);
        }
        if locks.held.len() >= NAMES_MAX {
            return Err(LockError::Invalid(format!("{NAMES_MAX} locks are held; release some")));
        }
        let by_clock = u64::try_from(now.0).unwrap_or(0).saturating_mul(1_000);
        locks.last_token = by_clock.max(locks.last_token.saturating_add(1));
        let fence = Fence { token: locks.last_token, until: now.plus_ms(ttl_ms) };
        locks.held.insert(name.to_owned(), Held { holder: holder.to_owned(), fence });
        Ok(fence)
    }

    fn prolong(&self, name: &str, token: u64, ttl_ms: u64) -> Result<Fence, LockError> {
        check_lock(name, None, Some(ttl_ms))?;
        let now = self.clock.now();
        let mut locks = self.locks.lock();
        match locks.current(name, now) {
            Some(held) if held.fence.token == token => {
                held.fence.until = now.plus_ms(ttl_ms);
                Ok(held.fence)
            }
            Some(_) | None => Err(LockError::Lost(name.to_owned())),
        }
    }

    fn free(&self, name: &str, token: u64) -> Result<(), LockError> {
        check_lock(name, None, None)?;
        let now = self.clock.now();
        let mut locks = self.locks.lock();
        match locks.current(name, now) {
            Some(held) if held.fence.token == token => {
                locks.held.remove(name);
                Ok(())
            }
            Some(_) | None => Err(LockError::Lost(name.to_owned())),
        }
    }

    fn look_up(&self, name: &str) -> Result<Option<Held>, LockError> {
        check_lock(name, None, None)?;
        Ok(self.locks.lock().current(name, self.clock.now()).cloned())
    }
}

impl Keeper {
    /// Who holds it now. What has expired is forgotten.
    fn current(&mut self, name: &str, now: Time) -> Option<&mut Held> {
        if self.held.get(name).is_some_and(|held| held.fence.until <= now) {
            self.held.remove(name);
        }
        self.held.get_mut(name)
    }
}

impl Locks for InProcessSoft {
    fn lock<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(ready(self.take(name, holder, ttl_ms)))
    }

    fn renew<'a>(
        &'a self,
        name: &'a str,
        token: u64,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(ready(self.prolong(name, token, ttl_ms)))
    }

    fn release<'a>(&'a self, name: &'a str, token: u64) -> Fut<'a, Result<(), LockError>> {
        Box::pin(ready(self.free(name, token)))
    }

    fn holder<'a>(&'a self, name: &'a str) -> Fut<'a, Result<Option<Held>, LockError>> {
        Box::pin(ready(self.look_up(name)))
    }
}

/// What both adapters say of a cost that never passes.
pub(super) fn check_cost(cost: u64, limit: u64) -> Result<(), SoftError> {
    if cost > limit {
        return Err(SoftError::Invalid(format!(
            "{cost} at once never pass a gate that lets {limit} through in one window"
        )));
    }
    Ok(())
}

impl InProcessSoft {
    fn count(
        &self,
        key: &GateKey,
        cost: u64,
        limit: u64,
        window_ms: u64,
    ) -> Result<Admission, SoftError> {
        check_gate(key, window_ms)?;
        check_cost(cost, limit)?;
        self.at_gate(key, |gate, now| {
            if gate.paused_until > now {
                return Admission::Wait { ms: gate.paused_until.since_ms(now) };
            }
            if gate.window_ends <= now {
                gate.used = 0;
                gate.window_ends = now.plus_ms(window_ms);
            }
            if gate.used.saturating_add(cost) > limit {
                return Admission::Wait { ms: gate.window_ends.since_ms(now) };
            }
            gate.used += cost;
            Admission::Admitted { left: limit - gate.used }
        })
    }

    fn at_gate<T>(
        &self,
        key: &GateKey,
        what: impl FnOnce(&mut Gate, Time) -> T,
    ) -> Result<T, SoftError> {
        let now = self.clock.now();
        let mut gates = self.gates.lock();
        if gates.len() >= NAMES_MAX {
            gates.retain(|_, gate| gate.window_ends > now || gate.paused_until > now);
        }
        if gates.len() >= NAMES_MAX && !gates.contains_key(key) {
            return Err(SoftError::Invalid(format!("{NAMES_MAX} gates are open already")));
        }
        Ok(what(gates.entry(key.clone()).or_default(), now))
    }
}

impl Gates for InProcessSoft {
    fn admit<'a>(
        &'a self,
        key: &'a GateKey,
        cost: u64,
        limit: u64,
        window_ms: u64,
    ) -> Fut<'a, Result<Admission, SoftError>> {
        Box::pin(ready(self.count(key, cost, limit, window_ms)))
    }

    fn pause<'a>(&'a self, key: &'a GateKey, ms: u64) -> Fut<'a, Result<(), SoftError>> {
        let paused = check_gate(key, ms).and_then(|()| {
            self.at_gate(key, |gate, now| {
                gate.paused_until = gate.paused_until.max(now.plus_ms(ms));
            })
        });
        Box::pin(ready(paused))
    }

    fn read<'a>(&'a self, key: &'a GateKey) -> Fut<'a, Result<GateReading, SoftError>> {
        let now = self.clock.now();
        let gate = self.gates.lock().get(key).copied().unwrap_or_default();
        let window_ms = gate.window_ends.since_ms(now);
        Box::pin(ready(Ok(GateReading {
            used: if window_ms == 0 { 0 } else { gate.used },
            window_ms,
            paused_ms: gate.paused_until.since_ms(now),
        })))
    }
}
