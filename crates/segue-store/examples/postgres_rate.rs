//! How many tasks a second make the whole trip through PostgreSQL, with the round trips and statements that a task takes.
//!
//! `postgres_rate URL [TASKS] [CALLERS] [LANES] [BATCH ..]`: independent tasks with payloads of 200 bytes, in the steady state of an engine: each call
//! finishes one batch, settles and starts the next, submits a third and assigns. Each of the CALLERS has agents of its own and works beside the others.
//! The database is filled with a new project.
#![allow(clippy::print_stdout)]

#[path = "support/work.rs"]
mod work;

use segue_core::command::{Assign, Command};
use segue_core::ids::ProjectId;
use segue_core::letter::Letter;
use segue_core::payload::Payload;
use segue_core::ports::Store;
use segue_core::task::TaskState;
use segue_store::postgres::{Options, PostgresStore};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;
use work::{Failed, NoBlobs, accepted};

/// Instances that share the work of a caller.
const AGENTS: usize = 4;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let url = args.first().ok_or("postgres_rate URL [TASKS] [CALLERS] [LANES] [BATCH ..]")?;
    let number = |at, default| work::number(&args, at, default);
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
    name: String,
}

impl Worker {
    async fn register(
        store: &Arc<PostgresStore>,
        name: &str,
        batch: usize,
    ) -> Result<Worker, Failed> {
        let slots = (2 * batch).div_ceil(AGENTS).max(2);
        let agents: Vec<_> = (0..AGENTS).map(|_| work::agent(name, &[], slots)).collect();
        let candidates = work::fit(&agents).into();
        accepted(store.apply(vec![work::register(agents)]).await?)?;
        Ok(Worker {
            store: store.clone(),
            assign: Command::Assign(Assign { candidates, limit: batch }),
            name: name.to_owned(),
        })
    }

    /// Every call moves three batches on by one step.
    async fn steady(self, rounds: usize, batch: usize) -> Result<(), Failed> {
        let (mut given, mut started): (Vec<Letter>, Vec<Letter>) = (Vec::new(), Vec::new());
        let (input, output): (Payload, Payload) = (work::payload("i"), work::payload("o"));
        let mut round = 0;
        while round < rounds || !given.is_empty() || !started.is_empty() {
            let new = if round < rounds { batch } else { 0 };
            let new = (0..new).map(|_| work::submit(work::named(&self.name), input.clone()));
            let mut commands = work::step(&started, &given, new, (self.store.now(), &output));
            commands.push(self.assign.clone());
            started = given;
            given = accepted(self.store.apply(commands).await?)?;
            round += 1;
        }
        Ok(())
    }
}
