//! Who gets which task, and when: pure functions over the rows.

use crate::agent::Agent;
use crate::command::Candidate;
use crate::ids::InstanceId;
use crate::task::{Priority, Route, Task};
use crate::time::Time;

/// Each point of priority is worth this much waiting time: a background task (1) that has waited nine
/// times as long stands before a critical one (10) that has just come. So nothing starves.
pub const AGING_MS_PER_POINT: i64 = 30_000;
/// Instances below this health get no work.
pub const HEALTH_MIN: f32 = 0.7;
/// Instances whose host is loaded above this get no work.
pub const LOAD_MAX: f32 = 0.8;

/// The place of a task in the queue of its route: lower is sooner.
///
/// Aging without rewriting: of two ready tasks both age at the same pace, so their order is fixed by
/// when each became ready, moved ahead by what its priority is worth.
pub fn rank(ready_at: Time, priority: Priority) -> i64 {
    ready_at.0.saturating_sub(i64::from(priority.number()) * AGING_MS_PER_POINT)
}

/// Whether the directory's word lets an instance have work at all.
pub fn is_fit(candidate: &Candidate) -> bool {
    candidate.health >= HEALTH_MIN && candidate.load <= LOAD_MAX
}

/// Whether an instance can take a task of this route.
pub fn serves(agent: &Agent, route: &Route) -> bool {
    match route {
        Route::Agent(name) => agent.spec.name == *name,
        Route::Capability(name) => {
            agent.spec.capabilities.iter().any(|capability| capability.name == *name)
        }
        Route::Group => false,
    }
}

/// Of the instances that can take this task, the one that a resume prefers, else the least loaded
/// (by slots), then the cheapest, then the first by id. `None` where nobody has a free slot.
pub fn choose<'a>(
    task: &Task,
    agents: impl Iterator<Item = (&'a Candidate, &'a Agent)>,
) -> Option<InstanceId> {
    let mut best: Option<((bool, f64, f64), InstanceId)> = None;
    for (candidate, agent) in agents {
        if !is_fit(candidate) || agent.slots_free() == 0 || !serves(agent, &task.spec.route) {
            continue;
        }
        let preferred = task.prefer == Some(candidate.instance);
        let used = f64::from(agent.slots_used) / f64::from(agent.spec.max_concurrency.max(1));
        let key = (!preferred, used.max(f64::from(candidate.load)), cost(agent, &task.spec.route));
        let better = match &best {
            None => true,
            Some((best_key, best_id)) => key
                .0
                .cmp(&best_key.0)
                .then(key.1.total_cmp(&best_key.1))
                .then(key.2.total_cmp(&best_key.2))
                .then(candidate.instance.cmp(best_id))
                .is_lt(),
        };
        if better {
            best = Some((key, candidate.instance));
        }
    }
    best.map(|(_, instance)| instance)
}

/// What one invocation costs in USD.
pub(crate) fn cost(agent: &Agent, route: &Route) -> f64 {
    match route {
        Route::Capability(name) => agent
            .spec
            .capabilities
            .iter()
            .find(|capability| capability.name == *name)
            .map_or(0.0, |capability| capability.cost_usd),
        Route::Agent(_) | Route::Group => 0.0,
    }
}
