//! How many tasks a second make the whole trip through the store, and where the time goes.
//!
//! `trip_rate [TASKS] [FOLDER] [BATCH ..]`: independent tasks with payloads of 200 bytes are submitted, assigned, started and
//! finished, once phase by phase (each phase of a batch is one commit) and once in the steady state of an
//! engine (each commit finishes one batch, settles and starts the next, submits a third and assigns). Every commit is
//! synced, so FOLDER (here, if none is named) must be on a real disk for figures that mean anything.
#![allow(clippy::print_stdout)]

use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::command::{Assign, Candidate, Command, NewTask, Proof, Submit};
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::letter::{Letter, LetterBody, TaskRequest, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::payload::Payload;
use segue_core::ports::{Clock, Decision, Store};
use segue_core::state::OutcomeState;
use segue_core::task::{Route, TaskSpec, TaskState};
use segue_store::sqlite::{Options, SqliteStore, SystemClock};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

type Failed = Box<dyn std::error::Error>;

/// Instances that share the work.
const AGENTS: usize = 8;
/// Instances of the fleet, each with a name and two capabilities of its own.
const FLEET: usize = 500;
const PHASES: [&str; 4] = ["submit", "assign", "start", "finish"];

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| -> Result<usize, Failed> {
        Ok(args.get(at).map_or(Ok(default), |text| text.parse())?)
    };
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
    names: Vec<Arc<str>>,
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
        let instances: Vec<InstanceId> = (0..agents).map(|_| InstanceId(Uuid::now_v7())).collect();
        let name = |at: usize| match agents {
            AGENTS => "noop".to_owned(),
            _ => format!("agent {at}"),
        };
        let capability = |name: String| Capability { name: name.into(), ..Capability::default() };
        let agent = |(at, instance): (usize, &InstanceId)| AgentSpec {
            instance: *instance,
            name: name(at).into(),
            kind: AgentKind::Builtin,
            description: "does nothing".into(),
            capabilities: ["review", "write"].map(|verb| capability(format!("{verb} {at}"))).into(),
            max_concurrency: (2 * batch).div_ceil(agents).max(2) as u32,
            delegates: false,
        };
        let register = Command::Register {
            host: HostId(Uuid::now_v7()),
            incarnation: Incarnation(Uuid::now_v7()),
            agents: instances.iter().enumerate().map(agent).collect(),
            lease_ms: 3_600_000,
        };
        accepted(store.apply(vec![register]).await?)?;
        let fit = |instance: &InstanceId| Candidate { instance: *instance, health: 1.0, load: 0.0 };
        let candidates = instances.iter().map(fit).collect::<Vec<_>>().into();
        Ok(Bench {
            store,
            assign: Command::Assign(Assign { candidates, limit: batch }),
            names: (0..agents).map(|at| name(at).into()).collect(),
            input: Payload::of_text(format!("\"{}\"", "i".repeat(198)))?,
            output: Payload::of_text(format!("\"{}\"", "o".repeat(198)))?,
            _dir: dir,
        })
    }

    fn submit(&self, number: usize) -> Command {
        let route = Route::Agent(self.names[number % self.names.len()].clone());
        let spec = TaskSpec::new(TaskId(Uuid::now_v7()), "bench", route);
        Command::Submit(Submit { tasks: vec![NewTask { spec, input: self.input.clone() }] })
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

fn starts(letters: &[Letter]) -> Vec<Command> {
    let at = SystemClock.now();
    let start = |(task, request): (TaskId, &TaskRequest)| {
        let proof = Proof { task, attempt: request.attempt, secret: request.secret.clone() };
        Command::Start { proof, at, process: None }
    };
    letters.iter().filter_map(work).map(start).collect()
}

fn settle(letters: &[Letter]) -> Command {
    Command::Settle { letters: letters.iter().map(|letter| letter.seq).collect() }
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
                2 => starts(&letters).into_iter().chain([settle(&letters)]).collect(),
                _ => letters
                    .iter()
                    .filter_map(work)
                    .map(|(task, request)| bench.finish(task, request))
                    .collect(),
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
        let mut commands: Vec<Command> = started
            .iter()
            .filter_map(work)
            .map(|(task, request)| bench.finish(task, request))
            .collect();
        commands.extend(starts(&given));
        commands.push(settle(&given));
        if round < rounds {
            commands.extend((0..batch).map(|at| bench.submit(round * batch + at)));
        }
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
