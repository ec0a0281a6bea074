//! What a task costs on PostgreSQL when the fleet is large: `postgres_fleet URL [AGENTS ..]`.
//!
//! Each agent has a name of its own, and all share one capability. Tasks come one at a time: half go to a name, half to whoever has the
//! capability. The fleet is idle, so everybody has a free slot. The database is filled with new projects.
#![allow(clippy::print_stdout)]

#[path = "support/work.rs"]
mod work;

use segue_core::command::{Assign, Command};
use segue_core::ids::ProjectId;
use segue_core::payload::Payload;
use segue_core::ports::Store;
use segue_core::task::Route;
use segue_store::postgres::{Options, PostgresStore};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use work::{Failed, NoBlobs, accepted};

/// Agents of a host.
const OF_HOST: usize = 10;
/// Tasks of each route.
const TASKS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let url = args.first().ok_or("postgres_fleet URL [AGENTS ..]")?;
    let fleets = match args.len() {
        1 => vec![100, 1_000, 10_000],
        _ => args[1..].iter().map(|text| text.parse()).collect::<Result<Vec<usize>, _>>()?,
    };
    for agents in fleets {
        fleet(url, agents).await?;
    }
    Ok(())
}

async fn fleet(url: &str, agents: usize) -> Result<(), Failed> {
    let options = Options::new(url, ProjectId(Uuid::now_v7()), [1; 32], Arc::new(NoBlobs));
    let store = PostgresStore::connect(options).await?;
    let mut candidates = Vec::with_capacity(agents);
    for first in (0..agents).step_by(OF_HOST) {
        let of_host = first..agents.min(first + OF_HOST);
        let able = ["anything".to_owned()];
        let specs: Vec<_> = of_host.map(|at| work::agent(&name(at), &able, 1)).collect();
        candidates.extend(work::fit(&specs));
        accepted(store.apply(vec![work::register(specs)]).await?)?;
    }
    candidates.sort_unstable_by_key(|candidate| candidate.instance);
    let assign = Command::Assign(Assign { candidates: candidates.into(), limit: 1_024 });
    for (what, shared) in [("a name", false), ("a capability of all", true)] {
        let before = store.traffic();
        let (mut given, mut finished) = (Vec::new(), Vec::new());
        for number in 0..TASKS {
            let route = match shared {
                true => Route::capability("anything"),
                false => Route::agent(&name(number * agents / TASKS)),
            };
            let submit = work::submit(route, Payload::null());
            let begin = Instant::now();
            let letters = accepted(store.apply(vec![submit, assign.clone()]).await?)?;
            given.push(begin.elapsed());
            let mut end: Vec<Command> = work::finishes(&letters, &Payload::null()).collect();
            if end.is_empty() {
                return Err("nobody got the task".into());
            }
            end.push(assign.clone());
            let begin = Instant::now();
            accepted(store.apply(end).await?)?;
            finished.push(begin.elapsed());
        }
        let after = store.traffic();
        println!(
            "{agents:6} agents, tasks for {what:20}: submit and give out p50 {:7.2} ms, p99 {:7.2} ms; finish p50 {:7.2} ms; {:4.1} round trips, {:5.1} statements a task",
            middle(&mut given, 0.5),
            middle(&mut given, 0.99),
            middle(&mut finished, 0.5),
            (after.0 - before.0) as f64 / TASKS as f64,
            (after.1 - before.1) as f64 / TASKS as f64,
        );
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("agent {number}")
}

fn middle(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let place = ((times.len() as f64 * part) as usize).min(times.len() - 1);
    times[place].as_secs_f64() * 1e3
}
