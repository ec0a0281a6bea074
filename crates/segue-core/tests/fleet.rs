//! The index of the fleet says what a look at everybody says.

use proptest::prelude::*;
use segue_core::agent::{Agent, AgentKind, AgentSpec, Capability};
use segue_core::command::Candidate;
use segue_core::fleet::{Candidates, Fleet, Takers};
use segue_core::ids::{HostId, Incarnation, InstanceId, TaskId};
use segue_core::payload::Payload;
use segue_core::route;
use segue_core::task::{Route, Task, TaskSpec, TaskState};
use segue_core::time::Time;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

const ROUTES: usize = 5;

fn route_of(number: usize) -> Route {
    match number {
        0 | 1 => Route::agent(["a", "b"][number]),
        _ => Route::capability(["x", "y", "z"][number - 2]),
    }
}

fn agent(number: u64, draw: (bool, u32, u32, u8, bool, bool, i64)) -> Agent {
    let (name, slots, used, abilities, drained, gone, lease) = draw;
    let able = |(bit, name): (u8, &&str)| {
        let cost_usd = f64::from(abilities.rotate_left(bit.into()) % 3) - 1.0;
        (abilities & (1 << bit) != 0).then(|| Capability {
            name: (**name).into(),
            cost_usd,
            ..Capability::default()
        })
    };
    // One of them twice, as a careless file may have it.
    let capabilities = (0..).zip(&["x", "y", "z", "x"]).filter_map(able).collect();
    Agent {
        spec: Arc::new(AgentSpec {
            instance: InstanceId(Uuid::from_u128(number.into())),
            name: if name { "a" } else { "b" }.into(),
            kind: AgentKind::Builtin,
            description: "".into(),
            capabilities,
            max_concurrency: slots,
            delegates: false,
        }),
        host: HostId(Uuid::from_u128(u128::from(number % 3))),
        incarnation: Incarnation(Uuid::nil()),
        slots_used: used.min(slots),
        drained,
        lease_until: Time(lease),
        gone,
    }
}

fn draws() -> impl Strategy<Value = (bool, u32, u32, u8, bool, bool, i64)> {
    let rarely = || proptest::bool::weighted(0.1);
    (any::<bool>(), 1..4u32, 0..4u32, any::<u8>(), rarely(), rarely(), 0..4i64)
}

fn task(number: usize, prefer: Option<u64>) -> Task {
    let id = TaskId(Uuid::from_u128(1));
    Task {
        spec: Arc::new(TaskSpec::new(id, "task", route_of(number))),
        state: TaskState::Ready,
        unmet: 0,
        rank: 0,
        input: Payload::null(),
        attempts: 0,
        tried: 0,
        lost: 0,
        attempt: None,
        open_children: 0,
        children: 0,
        dependents: 0,
        wait_for: None,
        continuation: None,
        prefer: prefer.map(|number| InstanceId(Uuid::from_u128(number.into()))),
        created_at: Time(0),
        ready_at: Some(Time(0)),
        retry_at: None,
        finished_at: None,
        output: None,
        error: None,
        run_events: 0,
    }
}

proptest! {
    /// Whatever became of the agents, the index finds by host, by lease and by route those whom a look at all would find, and hands
    /// out slots in the same order.
    #[test]
    fn the_index_says_what_a_look_at_everybody_says(
        puts in proptest::collection::vec((0..12u64, draws()), 1..60),
        fitness in proptest::collection::vec((0..12u64, 0..5u8, 0..4u8), 0..12),
        tasks in proptest::collection::vec((0..ROUTES, proptest::option::weighted(0.2, 0..12u64)), 1..30),
    ) {
        let mut fleet = Fleet::new();
        for (number, draw) in puts {
            fleet.put(agent(number, draw));
        }
        let mut seen = HashSet::new();
        let candidates: Vec<Candidate> = fitness
            .into_iter()
            .filter(|(number, ..)| seen.insert(*number))
            .map(|(number, health, load)| Candidate {
                instance: InstanceId(Uuid::from_u128(number.into())),
                health: 0.4 + f32::from(health) * 0.15,
                load: f32::from(load) * 0.3,
            })
            .collect();
        for host in (0..3).map(|host| HostId(Uuid::from_u128(host))) {
            let found: Vec<_> = fleet.of_host(host).collect();
            prop_assert_eq!(found, fleet.values().filter(|it| it.host == host).collect::<Vec<_>>());
        }
        let mut expired: Vec<_> = fleet.expired(Time(2)).map(|it| it.spec.instance).collect();
        expired.sort_unstable();
        let all = fleet.values().filter(|it| !it.gone && it.lease_until < Time(2));
        prop_assert_eq!(expired, all.map(|it| it.spec.instance).collect::<Vec<_>>());

        let fit = Candidates::new(&candidates);
        let routes: HashSet<Route> = (0..ROUTES).map(route_of).collect();
        for ready in [routes.clone(), routes.iter().take(1).cloned().collect()] {
            let found = fleet.open_queues(&fit, 4, ready.iter(), |it| ready.contains(it));
            let open = open_routes(&fleet, &candidates);
            let open = open.into_iter().filter(|(route, _)| ready.contains(route));
            // Who names a capability twice has no more slots for it.
            let distinct: Vec<Route> = open.map(|(route, _)| route).collect();
            prop_assert_eq!(found.iter().map(|(it, _)| it.clone()).collect::<Vec<_>>(), distinct);
            for (route, slots) in found {
                let serve = candidates.iter().filter(|it| route::is_fit(it)).filter_map(|it| fleet.get(&it.instance));
                let free: u32 = serve.filter(|it| route::serves(it, &route)).map(Agent::slots_free).sum();
                prop_assert_eq!(slots, (free as usize).min(4));
            }
        }

        let mut now: BTreeMap<InstanceId, Agent> = fleet.iter().map(|(id, it)| (*id, it.clone())).collect();
        let mut takers = Takers::new(&fleet, &candidates);
        for (route, prefer) in tasks {
            let task = task(route, prefer);
            let among = candidates.iter().filter_map(|it| Some((it, now.get(&it.instance)?)));
            let wanted = route::choose(&task, among);
            prop_assert_eq!(takers.take(&task, |id| now.get(&id)), wanted);
            if let Some(agent) = wanted.and_then(|id| now.get_mut(&id)) {
                agent.slots_used += 1;
            }
        }
    }
}

/// Among ten thousand agents, those who look at one task look at a few.
#[test]
fn handing_out_one_task_looks_at_few_of_ten_thousand() {
    let fleet: Fleet =
        (0..10_000).map(|number| agent(number, (true, 1, 0, 1, false, false, 9))).collect();
    let candidates: Vec<Candidate> =
        fleet.keys().map(|id| Candidate { instance: *id, health: 1.0, load: 0.0 }).collect();
    let looks = std::cell::Cell::new(0);
    let mut takers = Takers::new(&fleet, &candidates);
    let look = |id: InstanceId| {
        looks.set(looks.get() + 1);
        fleet.get(&id)
    };
    assert!(takers.take(&task(2, None), look).is_some());
    assert!(looks.get() <= 4, "{} looks", looks.get());
}

/// As it would be found by a look at everybody: the routes for which somebody fit has a free slot, each with the number of free slots.
fn open_routes(
    agents: &BTreeMap<InstanceId, Agent>,
    candidates: &[Candidate],
) -> BTreeMap<Route, usize> {
    let mut routes = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| route::is_fit(candidate)) {
        let Some(agent) = agents.get(&candidate.instance) else { continue };
        let free = agent.slots_free() as usize;
        if free == 0 {
            continue;
        }
        *routes.entry(Route::Agent(agent.spec.name.clone())).or_default() += free;
        for capability in agent.spec.capabilities.iter() {
            *routes.entry(Route::Capability(capability.name.clone())).or_default() += free;
        }
    }
    routes
}
