//! Simulates the dispatch of many agents in virtual time: `cargo xtask simulate --help`.
#![expect(clippy::print_stdout, reason = "a program that talks to a person on its standard output")]

mod costly;
mod fleet;
mod load;
mod report;
mod setting;

use costly::{CostlyBus, CostlyStore};
use fleet::Workplace;
use parking_lot::Mutex;
use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Fut, Store, StoreError};
use segue_core::task::TaskState;
use segue_engine::{Config, Engine, Parts};
use segue_store::soft::InProcessSoft;
use segue_testkit::faults::Dice;
use segue_testkit::memory::{MemoryStore, invariants};
use segue_testkit::simulator::SimClock;
use segue_testkit::store_suite::KEY;
use setting::{Asked, HELP, Setting};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often agents say that they are there, in virtual time.
const BEAT: Duration = Duration::from_secs(10);
/// Virtual time after the last submit within which everything has to end.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

fn main() -> ExitCode {
    let asked = match Asked::read(std::env::args().skip(1)) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("simulate: {why}");
            return ExitCode::from(2);
        }
    };
    match all(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("simulate: {why}");
            ExitCode::FAILURE
        }
    }
}

/// One fleet after another, each in a process of its own: so what one took of memory is not hidden in what another left.
fn all(asked: &Asked) -> Result<(), String> {
    if let [agents] = asked.fleets[..] {
        let report = simulate(Setting { agents, ..asked.setting.clone() })?;
        match asked.json {
            true => println!("{}", report::json(&[report])),
            false => print!("{}", report::one(&report)),
        }
        return Ok(());
    }
    let mut found = Vec::new();
    for agents in &asked.fleets {
        let report = in_a_process(&Setting { agents: *agents, ..asked.setting.clone() })?;
        if !asked.json {
            print!("{}", report::one(&report));
        }
        found.push(report);
    }
    match asked.json {
        true => println!("{}", report::json(&found)),
        false => print!("{}", report::growth(&found)),
    }
    Ok(())
}

fn in_a_process(setting: &Setting) -> Result<report::Report, String> {
    let me = std::env::current_exe().map_err(|error| format!("this program is lost: {error}"))?;
    let mut command = std::process::Command::new(me);
    command.args(setting.arguments()).arg("--json").stderr(std::process::Stdio::inherit());
    let output = command.output().map_err(|error| format!("it does not start again: {error}"))?;
    if !output.status.success() {
        return Err(format!("the fleet of {} agents did not get through", setting.agents));
    }
    report::read(&output.stdout)
}

/// Runs one fleet to the end of its work.
fn simulate(setting: Setting) -> Result<report::Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|error| format!("the runtime does not start: {error}"))?;
    runtime.block_on(run(setting))
}

async fn run(setting: Setting) -> Result<report::Report, String> {
    let began = Instant::now();
    let mut dice = Dice::new(setting.seed);
    let clock = SimClock::start();
    let inner = Arc::new(MemoryStore::new(clock.clone(), dice.number(), KEY));
    let store = CostlyStore::start(inner.clone(), setting.lanes, setting.commit_ms, setting.row_us);
    let bus = Arc::new(CostlyBus {
        inner: InProcessBus::new(),
        publish: Duration::from_millis(setting.bus_ms),
        published: Mutex::default(),
    });
    let nodes = fleet::nodes(&setting, &mut dice);
    let resident = report::resident_bytes();
    let engines = start_engines(&setting, &store, &bus).await?;
    let workplace = Arc::new(Workplace {
        setting: setting.clone(),
        bus: bus.clone(),
        clock: clock.clone(),
        dice: Mutex::new(dice.fork()),
    });
    for (number, node) in nodes.iter().enumerate() {
        tokio::spawn(workplace.clone().host(node.local.host));
        let engine = &engines[number % engines.len()];
        let registered = engine.register(&node.local, node.agents.clone()).await;
        registered.map_err(|error| format!("a node was refused: {error}"))?;
        engine.keep_alive(node.local.clone());
    }
    for engine in &engines {
        tokio::spawn(beats(engine.clone(), nodes.clone()));
    }
    let agent_bytes = report::resident_bytes().saturating_sub(resident) / setting.agents.max(1);
    // What the start took is no part of what is measured.
    store.commits.lock().clear();
    store.reads_nanos.lock().clear();
    *bus.published.lock() = (0, 0);
    let (cpu, real) = (report::processor_seconds(), Instant::now());
    let from = clock.elapsed_ms();
    let submits = load::submit_all(setting.clone(), engines.clone(), clock.clone(), dice.fork());
    let submitted = submits.await;
    let until = clock.elapsed_ms();
    wait_for_the_end(inner.as_ref()).await?;
    let measured = report::Measured {
        submitted,
        agent_bytes,
        window_ms: (from, until),
        virtual_ms: clock.elapsed_ms() - from,
        cpu_s: report::processor_seconds() - cpu,
        real_s: real.elapsed().as_secs_f64(),
        commits: std::mem::take(&mut *store.commits.lock()),
        reads: std::mem::take(&mut *store.reads_nanos.lock()),
        published: *bus.published.lock(),
    };
    let world = inner.world();
    invariants::check(&world)?;
    for engine in engines {
        engine.stop().await;
    }
    let mut report = report::Report::of(setting, &world, measured);
    report.total_s = began.elapsed().as_secs_f64();
    Ok(report)
}

async fn start_engines(
    setting: &Setting,
    store: &Arc<CostlyStore>,
    bus: &Arc<CostlyBus>,
) -> Result<Vec<Arc<Engine>>, String> {
    let signals = InProcessSignals::new();
    let soft = InProcessSoft::new();
    let mut engines = Vec::new();
    for _ in 0..setting.engines {
        let parts = Parts {
            store: store.clone(),
            blobs: Arc::new(NoBlobs),
            bus: bus.clone(),
            signals: signals.clone(),
            presence: soft.clone(),
        };
        let engine = Engine::start(parts, Config::default()).await;
        engines.push(engine.map_err(|error| format!("an engine does not start: {error}"))?);
    }
    Ok(engines)
}

/// What the shared directory tells each engine: all agents are there.
async fn beats(engine: Arc<Engine>, nodes: Vec<fleet::Node>) {
    loop {
        let instances = nodes.iter().flat_map(|node| &node.agents).map(|agent| agent.instance);
        engine.directory.beat(instances, 0.0);
        tokio::time::sleep(BEAT).await;
    }
}

async fn wait_for_the_end(store: &MemoryStore) -> Result<(), String> {
    let ended = async {
        loop {
            let counts = store.counts().await.unwrap_or_default();
            let open = |state: &&TaskState| !state.is_terminal();
            if !counts.keys().any(|state| open(&state)) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.map_err(|_| "the work did not end".to_owned())
}

/// Everything here fits a row.
struct NoBlobs;

impl Blobs for NoBlobs {
    fn put(&self, _: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::Io("a simulation keeps no bodies".into()))))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::MissingPayload(hash.hex()))))
    }
}
