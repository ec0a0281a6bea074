//! What a task costs on PostgreSQL when the fleet is large: `postgres_fleet URL [AGENTS ..]`.
//!
//! Each agent has a name of its own, and all share one capability. Tasks come one at a time: half go to a name, half to whoever has the
//! capability. The fleet is idle, so everybody has a free slot. The database is filled with new projects.
#![allow(clippy::print_stdout)]

use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::command::{Assign, Candidate, Command, NewTask, Submit};
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::letter::{LetterBody, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Fut, Store, StoreError};
use segue_core::state::OutcomeState;
use segue_core::task::{Route, TaskSpec};
use segue_store::postgres::{LargeBodies, Options, PostgresStore};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Agents of a host.
const OF_HOST: usize = 10;
/// Tasks of each route.
const TASKS: usize = 100;

/// No body here is large.
struct NoBlobs;

impl LargeBodies for NoBlobs {}

impl Blobs for NoBlobs {
    fn put(&self, _: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::Io("no bodies are kept here".into()))))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::MissingPayload(hash.hex()))))
    }
}

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
        let specs: Vec<AgentSpec> = (first..agents.min(first + OF_HOST)).map(spec).collect();
        candidates.extend(specs.iter().map(|spec| Candidate {
            instance: spec.instance,
            health: 1.0,
            load: 0.0,
        }));
        let register = Command::Register {
            host: HostId(Uuid::now_v7()),
            incarnation: Incarnation(Uuid::now_v7()),
            agents: specs,
            lease_ms: 3_600_000,
        };
        store.apply(vec![register]).await?.pop().ok_or("no answer")??;
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
            let spec = TaskSpec::new(TaskId(Uuid::now_v7()), "bench", route);
            let submit = Submit { tasks: vec![NewTask { spec, input: Payload::null() }] };
            let begin = Instant::now();
            let decisions = store.apply(vec![Command::Submit(submit), assign.clone()]).await?;
            given.push(begin.elapsed());
            let begin = Instant::now();
            store.apply(vec![finish(decisions)?, assign.clone()]).await?;
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

fn spec(number: usize) -> AgentSpec {
    let able = Capability { name: "anything".into(), ..Capability::default() };
    AgentSpec {
        instance: InstanceId(Uuid::now_v7()),
        name: name(number).into(),
        kind: AgentKind::Builtin,
        description: "does nothing".into(),
        capabilities: Arc::from([able]),
        max_concurrency: 1,
        delegates: false,
    }
}

/// What the one who got the task reports.
fn finish(decisions: Vec<segue_core::ports::Decision>) -> Result<Command, Failed> {
    for decision in decisions {
        for letter in decision?.letters {
            if let (Some(task), LetterBody::TaskRequest(request)) = (letter.task, letter.body) {
                let response = TaskResponse {
                    attempt: request.attempt,
                    secret: request.secret,
                    started_at: None,
                    process: None,
                    outcome: Outcome::Complete { output: Payload::null() },
                    state: OutcomeState::default(),
                    usage: None,
                    ended: Vec::new(),
                };
                return Ok(Command::Finish { task, response: Box::new(response) });
            }
        }
    }
    Err("nobody got the task".into())
}

fn middle(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let place = ((times.len() as f64 * part) as usize).min(times.len() - 1);
    times[place].as_secs_f64() * 1e3
}
