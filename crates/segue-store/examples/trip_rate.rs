//! How many tasks a second make the whole trip through the store, and where the time goes.
//!
//! `trip_rate [TASKS] [FOLDER] [BATCH ..]`: independent tasks with payloads of 200 bytes are submitted, assigned, started and
//! finished, once phase by phase (each phase of a batch is one commit) and once in the steady state of an
//! engine (each commit finishes one batch, settles and starts the next, submits a third and assigns). Every commit is
//! synced, so FOLDER (here, if none is named) must be on a real disk for figures that mean anything.
#![allow(clippy::print_stdout)]

#[path = "support/work.rs"]
mod work;

use segue_core::command::{Assign, Command};
use segue_core::ids::ProjectId;
use segue_core::letter::Letter;
use segue_core::payload::Payload;
use segue_core::ports::{Clock, Store};
use segue_core::task::TaskState;
use segue_store::sqlite::{Options, SqliteStore, SystemClock};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use work::{Failed, accepted};

/// Instances that share the work.
const AGENTS: usize = 8;
/// Instances of the fleet, each with a name and two capabilities of its own.
const FLEET: usize = 500;
const PHASES: [&str; 4] = ["submit", "assign", "start", "finish"];

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at, default| work::number(&args, at, default);
    let (tasks, folder) = (number(0, 20_000)?, args.get(1).map_or(".", String::as_str));
    let batches = match args.len() {
        0..=2 => vec![64, 256, 1_024],
        _ => (2..args.len()).map(|at| number(at, 0)).collect::<Result<_, _>>()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for batch in batches {
        runtime.block_on(phases(Path::new(folder), tasks, batch))?;
        runtime.block_on(steady(Path::new(folder), tasks, batch, AGENTS))?;
        runtime.block_on(steady(Path::new(folder), tasks, batch, FLEET))?;
    }
    Ok(())
}

/// An open store with agents that have room for two batches.
struct Bench {
    store: Arc<SqliteStore>,
    assign: Command,
    names: Vec<String>,
    input: Payload,
    output: Payload,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// A small team shares one name; in a fleet everybody has a name.
    async fn open(folder: &Path, batch: usize, agents: usize) -> Result<Bench, Failed> {
        let dir = tempfile::tempdir_in(folder)?;
        let store =
            SqliteStore::open(Options::new(dir.path(), ProjectId(Uuid::now_v7()), [1; 32]))?;
        let name = |at: usize| match agents {
            AGENTS => "noop".to_owned(),
            _ => format!("agent {at}"),
        };
        let slots = (2 * batch).div_ceil(agents).max(2);
        let able = |at: usize| ["review", "write"].map(|verb| format!("{verb} {at}"));
        let specs: Vec<_> =
            (0..agents).map(|at| work::agent(&name(at), &able(at), slots)).collect();
        let candidates = work::fit(&specs).into();
        accepted(store.apply(vec![work::register(specs)]).await?)?;
        Ok(Bench {
            store,
            assign: Command::Assign(Assign { candidates, limit: batch }),
            names: (0..agents).map(name).collect(),
            input: work::payload("i"),
            output: work::payload("o"),
            _dir: dir,
        })
    }

    fn submit(&self, number: usize) -> Command {
        let name = &self.names[number % self.names.len()];
        work::submit(work::named(name), self.input.clone())
    }

    async fn check(&self, tasks: usize) -> Result<(), Failed> {
        let counts = self.store.counts().await?;
        let completed = counts.get(&TaskState::Completed).copied().unwrap_or(0);
        let unsent = self.store.unsent(0, 10).await?.len();
        if completed != tasks as u64 || counts.len() != 1 || unsent > 0 {
            return Err(
                format!("not all {tasks} tasks completed: {counts:?}, {unsent} unsent").into()
            );
        }
        Ok(())
    }
}

/// Each phase of each batch is a commit of its own.
async fn phases(folder: &Path, tasks: usize, batch: usize) -> Result<(), Failed> {
    let bench = Bench::open(folder, batch, AGENTS).await?;
    let rounds = tasks.div_ceil(batch);
    let mut spent = [Duration::ZERO; 4];
    let (begin, cpu) = (Instant::now(), writer_cpu());
    for round in 0..rounds {
        let mut letters = Vec::new();
        for (phase, spent) in spent.iter_mut().enumerate() {
            let commands: Vec<Command> = match phase {
                0 => (0..batch).map(|at| bench.submit(round * batch + at)).collect(),
                1 => vec![bench.assign.clone()],
                2 => work::starts(&letters, SystemClock.now())
                    .chain([work::settle(&letters)])
                    .collect(),
                _ => work::finishes(&letters, &bench.output).collect(),
            };
            let begin = Instant::now();
            let answer = accepted(bench.store.apply(commands).await?)?;
            *spent += begin.elapsed();
            if phase == 1 {
                letters = answer;
            }
        }
    }
    let (wall, cpu) = (begin.elapsed(), writer_cpu().saturating_sub(cpu));
    let done = rounds * batch;
    bench.check(done).await?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / done as f64;
    let parts: Vec<String> = PHASES
        .iter()
        .zip(spent)
        .map(|(name, spent)| format!("{name} {:.1}", micros(spent)))
        .collect();
    println!(
        "phases  batch {batch:5}: {:7.0} tasks/s; microseconds a task: {}; writer's processor {:.1}",
        done as f64 / wall.as_secs_f64(),
        parts.join(", "),
        micros(cpu)
    );
    Ok(())
}

/// Every commit moves three batches on by one step.
async fn steady(folder: &Path, tasks: usize, batch: usize, agents: usize) -> Result<(), Failed> {
    let bench = Bench::open(folder, batch, agents).await?;
    let rounds = tasks.div_ceil(batch);
    let (mut given, mut started): (Vec<Letter>, Vec<Letter>) = (Vec::new(), Vec::new());
    let (begin, cpu) = (Instant::now(), writer_cpu());
    for round in 0..rounds + 2 {
        let new = if round < rounds { batch } else { 0 };
        let new = (0..new).map(|at| bench.submit(round * batch + at));
        let at = SystemClock.now();
        let mut commands = work::step(&started, &given, new, (at, &bench.output));
        commands.push(bench.assign.clone());
        started = given;
        given = accepted(bench.store.apply(commands).await?)?;
    }
    let (wall, cpu) = (begin.elapsed(), writer_cpu().saturating_sub(cpu));
    let done = rounds * batch;
    bench.check(done).await?;
    println!(
        "steady  batch {batch:5}: {:7.0} tasks/s; {:.1} microseconds a task; writer's processor {:.1} ({agents} agents)",
        done as f64 / wall.as_secs_f64(),
        wall.as_secs_f64() * 1e6 / done as f64,
        cpu.as_secs_f64() * 1e6 / done as f64
    );
    Ok(())
}

/// Processor time of the writers' threads so far; zero where the system does not tell.
fn writer_cpu() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let of_writer = |path: &Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "segue-write")
    };
    // The first number is the time on the processor in nanoseconds (Documentation/scheduler/sched-stats.rst).
    let nanos = |path: &Path| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    let threads = threads.filter_map(|entry| Some(entry.ok()?.path()));
    Duration::from_nanos(
        threads.filter(|path| of_writer(path)).filter_map(|path| nanos(&path)).sum(),
    )
}
