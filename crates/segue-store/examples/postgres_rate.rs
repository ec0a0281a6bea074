//! How many tasks a second make the whole trip through PostgreSQL, with the round trips and statements that a task takes.
//!
//! `postgres_rate URL [TASKS] [CALLERS] [LANES] [BATCH ..]`: independent tasks with payloads of 200 bytes, in the steady state of an engine: each call
//! finishes one batch, settles and starts the next, submits a third and assigns. Each of the CALLERS has agents of its own and works beside the others.
//! The database is filled with a new project.
#![allow(clippy::print_stdout)]

use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::{Assign, Candidate, Command, NewTask, Proof, Submit};
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::letter::{Letter, LetterBody, TaskRequest, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Decision, Fut, Store, StoreError};
use segue_core::state::OutcomeState;
use segue_core::task::{Route, TaskSpec, TaskState};
use segue_store::postgres::{LargeBodies, Options, PostgresStore};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Instances that share the work of a caller.
const AGENTS: usize = 4;

/// No body here is large.
struct NoBlobs;

impl Blobs for NoBlobs {
    fn put(&self, _: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::Io("no bodies are kept here".into()))))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::MissingPayload(hash.hex()))))
    }
}

impl LargeBodies for NoBlobs {}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let url = args.first().ok_or("postgres_rate URL [TASKS] [CALLERS] [LANES] [BATCH ..]")?;
    let number = |at: usize, default: usize| -> Result<usize, Failed> {
        Ok(args.get(at).map_or(Ok(default), |text| text.parse())?)
    };
    let (tasks, callers, lanes) = (number(1, 20_000)?, number(2, 1)?, number(3, 2)?);
    let batches = match args.len() {
        0..=4 => vec![1, 64, 256, 1_024],
        _ => (4..args.len()).map(|at| number(at, 0)).collect::<Result<_, _>>()?,
    };
    for batch in batches {
        // Small batches show what a commit costs, and need no many of them.
        rate(url, tasks.min(batch * 1_000), callers, lanes, batch).await?;
    }
    Ok(())
}

async fn rate(
    url: &str,
    tasks: usize,
    callers: usize,
    lanes: usize,
    batch: usize,
) -> Result<(), Failed> {
    let mut options = Options::new(url, ProjectId(Uuid::now_v7()), [1; 32], Arc::new(NoBlobs));
    options.lanes = lanes;
    let store = PostgresStore::connect(options).await?;
    let mut workers = Vec::new();
    for caller in 0..callers {
        workers.push(Worker::register(&store, &format!("caller {caller}"), batch).await?);
    }
    let rounds = tasks.div_ceil(batch * callers);
    let before = store.traffic();
    let begin = Instant::now();
    let work = workers.into_iter().map(|worker| tokio::spawn(worker.steady(rounds, batch)));
    for done in work.collect::<Vec<_>>() {
        done.await??;
    }
    let (wall, after) = (begin.elapsed(), store.traffic());
    let done = rounds * batch * callers;
    let counts = store.counts().await?;
    if counts.get(&TaskState::Completed).copied().unwrap_or(0) != done as u64 || counts.len() != 1 {
        return Err(format!("not all {done} tasks completed: {counts:?}").into());
    }
    let calls = ((rounds + 2) * callers) as f64;
    println!(
        "batch {batch:5}, {callers} callers, {lanes} lanes: {:7.0} tasks/s; {:6.2} ms, {:4.1} round trips and {:5.1} statements a call; {:5.2} statements a task",
        done as f64 / wall.as_secs_f64(),
        wall.as_secs_f64() * 1e3 / (rounds + 2) as f64,
        (after.0 - before.0) as f64 / calls,
        (after.1 - before.1) as f64 / calls,
        (after.1 - before.1) as f64 / done as f64,
    );
    Ok(())
}

/// One who submits, and does what is given out.
struct Worker {
    store: Arc<PostgresStore>,
    assign: Command,
    name: Arc<str>,
    input: Payload,
    output: Payload,
}

impl Worker {
    async fn register(
        store: &Arc<PostgresStore>,
        name: &str,
        batch: usize,
    ) -> Result<Worker, Failed> {
        let instances: Vec<InstanceId> = (0..AGENTS).map(|_| InstanceId(Uuid::now_v7())).collect();
        let agent = |instance: &InstanceId| AgentSpec {
            instance: *instance,
            name: name.into(),
            kind: AgentKind::Builtin,
            description: "does nothing".into(),
            capabilities: [].into(),
            max_concurrency: (2 * batch).div_ceil(AGENTS).max(2) as u32,
            delegates: false,
        };
        let register = Command::Register {
            host: HostId(Uuid::now_v7()),
            incarnation: Incarnation(Uuid::now_v7()),
            agents: instances.iter().map(agent).collect(),
            lease_ms: 3_600_000,
        };
        accepted(store.apply(vec![register]).await?)?;
        let fit = |instance: &InstanceId| Candidate { instance: *instance, health: 1.0, load: 0.0 };
        let candidates = instances.iter().map(fit).collect::<Vec<_>>().into();
        Ok(Worker {
            store: store.clone(),
            assign: Command::Assign(Assign { candidates, limit: batch }),
            name: name.into(),
            input: Payload::of_text(format!("\"{}\"", "i".repeat(198)))?,
            output: Payload::of_text(format!("\"{}\"", "o".repeat(198)))?,
        })
    }

    /// Every call moves three batches on by one step.
    async fn steady(self, rounds: usize, batch: usize) -> Result<(), Failed> {
        let (mut given, mut started): (Vec<Letter>, Vec<Letter>) = (Vec::new(), Vec::new());
        let mut round = 0;
        while round < rounds || !given.is_empty() || !started.is_empty() {
            let mut commands: Vec<Command> =
                started.iter().filter_map(work).map(|(task, it)| self.finish(task, it)).collect();
            commands.extend(given.iter().filter_map(work).map(|(task, it)| self.start(task, it)));
            commands
                .push(Command::Settle { letters: given.iter().map(|letter| letter.seq).collect() });
            if round < rounds {
                commands.extend((0..batch).map(|_| self.submit()));
            }
            commands.push(self.assign.clone());
            started = given;
            given = accepted(self.store.apply(commands).await?)?;
            round += 1;
        }
        Ok(())
    }

    fn submit(&self) -> Command {
        let spec = TaskSpec::new(TaskId(Uuid::now_v7()), "bench", Route::Agent(self.name.clone()));
        Command::Submit(Submit { tasks: vec![NewTask { spec, input: self.input.clone() }] })
    }

    fn start(&self, task: TaskId, request: &TaskRequest) -> Command {
        let proof = Proof { task, attempt: request.attempt, secret: request.secret.clone() };
        Command::Start { proof, at: self.store.now(), process: None }
    }

    fn finish(&self, task: TaskId, request: &TaskRequest) -> Command {
        let response = TaskResponse {
            attempt: request.attempt,
            secret: request.secret.clone(),
            started_at: None,
            process: None,
            outcome: Outcome::Complete { output: self.output.clone() },
            state: OutcomeState::default(),
            usage: None,
            ended: Vec::new(),
        };
        Command::Finish { task, response: Box::new(response) }
    }
}

fn accepted(decisions: Vec<Decision>) -> Result<Vec<Letter>, Failed> {
    let mut letters = Vec::new();
    for decision in decisions {
        letters.extend(decision?.letters);
    }
    Ok(letters)
}

/// The work in a letter.
fn work(letter: &Letter) -> Option<(TaskId, &TaskRequest)> {
    match &letter.body {
        LetterBody::TaskRequest(request) => Some((letter.task?, request)),
        LetterBody::TaskResponse(_)
        | LetterBody::Event(_)
        | LetterBody::Query { .. }
        | LetterBody::Host(_) => None,
    }
}
