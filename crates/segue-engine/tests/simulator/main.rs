//! The whole engine, with a store, a bus, hosts and agents, on one thread under a paused clock, while things go wrong: whatever
//! happens, everything ends, once, and nothing is lost. The same seed is the same run.
//!
//! `SEGUE_SIM_SEEDS=N` runs N seeds, from `SEGUE_SIM_FIRST` on; `SEGUE_SIM_LOG=debug` shows what the parts say.
// tidy: allow-file(sleep) simulated time: tokio's clock is paused, nobody waits for real

mod clients;
mod hosts;
mod nodes;
mod runner;
mod setting;
mod sim;
mod storm;
mod watch;

use segue_core::command::Command;
use segue_core::event::Event;
use segue_core::ports::EventFilter;
use segue_testkit::faults::Rates;
use segue_testkit::memory::invariants;
use segue_testkit::simulator::{check_end, ended, explain, world_of};
use setting::Setting;
use sim::{Sim, with};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// Nothing may stand still for longer than this, by the elapsed time, once everything is well.
const STILL_MS_MAX: u64 = 15 * 60 * 1_000;
/// Runs whose events are more than these go round in circles.
const EVENTS_MAX: usize = 200_000;

/// How a simulation went.
struct Went {
    log: Vec<Event>,
    counts: BTreeMap<&'static str, usize>,
}

thread_local! {
    /// What panicked on this thread: tasks of a runtime swallow their panics.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}

/// Runs one simulation to its end.
fn run(setting: Setting) -> Result<Went, String> {
    note_panics();
    PANICS.take();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a folder");
    let went = runtime.block_on(simulate(setting, dir.path().to_owned()));
    drop(runtime);
    let panics = PANICS.take();
    let went = went.and_then(|went| if panics.is_empty() { Ok(went) } else { Err(String::new()) });
    went.map_err(|why| format!("{setting:?}\n{}\n{why}", panics.join("\n")))
}

async fn simulate(setting: Setting, dir: std::path::PathBuf) -> Result<Went, String> {
    let sim = Sim::new(setting, dir);
    let mut clients = JoinSet::new();
    let mut dice = sim.dice();
    let mut left = setting.tasks;
    while left > 0 {
        let size = dice.between(1, left.max(2)).min(left);
        left -= size;
        let at_ms = dice.roll(setting.storm_ms);
        clients.spawn(clients::client(sim.clone(), dice.fork(), at_ms, size));
    }
    let mut processes = JoinSet::new();
    for index in 0..setting.nodes() {
        processes.spawn(nodes::keep_node(sim.clone(), index));
    }
    for index in 0..setting.hosts() {
        processes.spawn(hosts::keep_host(sim.clone(), index));
    }
    let look = sim.clone();
    let mut looker = JoinSet::new();
    looker.spawn(async move { keep_looking(&look).await });
    tokio::select! {
        biased;
        Some(found) = looker.join_next() => return Err(found.expect("it only looks")),
        () = storm::storm(sim.clone()) => {}
    }
    calm_down(&sim).await;
    tokio::select! {
        biased;
        Some(found) = looker.join_next() => return Err(found.expect("it only looks")),
        quiet = quiesce(&sim, &mut clients) => quiet?,
    }
    judge(&sim).await
}

/// Everything is well from now on.
async fn calm_down(sim: &Arc<Sim>) {
    tracing::info!("the storm is over");
    sim.calm.store(true, Ordering::SeqCst);
    sim.trouble.set(Rates { latency_ms_max: 2, ..Rates::default() });
    for host in sim.hosts.lock().iter().flatten() {
        host.cut_off_until_ms.store(0, Ordering::SeqCst);
    }
    let mut dice = sim.dice();
    for agent in ["a", "b", "c"] {
        let drain = Command::Drain { agent: agent.into(), drained: false };
        loop {
            let node = sim.some_node(&mut dice).await;
            match with(&node, node.engine.command(drain.clone())).await {
                Some(Ok(_)) => break,
                // An agent that never came cannot be drained.
                Some(Err(segue_engine::EngineError::Rejected(_))) => {}
                Some(Err(_)) | None => {}
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Waits until nothing is left to be done, as long as something moves.
async fn quiesce(sim: &Arc<Sim>, clients: &mut JoinSet<()>) -> Result<(), String> {
    let (mut events, mut moved_ms) = (0, sim.clock.elapsed_ms());
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        while let Some(done) = clients.try_join_next() {
            done.map_err(|error| format!("a client failed: {error}"))?;
        }
        let Some(store) = sim.store() else { continue };
        let world = world_of(store.as_ref()).await.map_err(|error| error.to_string())?;
        if clients.is_empty() && ended(&world) {
            return Ok(());
        }
        if world.events.len() > EVENTS_MAX {
            return Err(format!("it goes round in circles:\n{}", explain(&world)));
        }
        if world.events.len() != events {
            (events, moved_ms) = (world.events.len(), sim.clock.elapsed_ms());
        }
        if sim.clock.elapsed_ms() - moved_ms > STILL_MS_MAX {
            return Err(format!(
                "stuck, with {} clients that wait; the store's clock stands at {}:\n{}",
                clients.len(),
                store.now().0,
                explain(&world)
            ));
        }
    }
}

/// Checks what must always hold, now and then. Returns only where it does not.
async fn keep_looking(sim: &Sim) -> String {
    loop {
        tokio::time::sleep(Duration::from_millis(7_001)).await;
        let Some(store) = sim.store() else { continue };
        let Ok(world) = world_of(store.as_ref()).await else { continue };
        if let Err(why) = invariants::check(&world) {
            return format!("at {} ms: {why}", sim.clock.elapsed_ms());
        }
    }
}

async fn judge(sim: &Sim) -> Result<Went, String> {
    let store = sim.store().ok_or("no node runs")?;
    let world = world_of(store.as_ref()).await.map_err(|error| error.to_string())?;
    let seen = sim.seen.lock().clone();
    let counts = check_end(&world, &seen).map_err(|wrong| wrong.join("\n"))?;
    sim.note_dead(&sim.broker);
    let dead = sim.dead.lock().join("\n");
    if !dead.is_empty() {
        return Err(format!("letters were refused for good:\n{dead}"));
    }
    let all = EventFilter { limit: usize::MAX, ..EventFilter::default() };
    let log = store.events(all).await.map_err(|error| error.to_string())?;
    Ok(Went { log, counts })
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

/// Shows what the parts say, where somebody asked for it.
fn show_log() {
    if let Ok(level) = std::env::var("SEGUE_SIM_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(level)
            .with_test_writer()
            .without_time()
            .try_init();
    }
}

/// Seeds that `cargo test` runs.
const SEEDS: u64 = 60;

#[test]
fn whatever_happens_everything_ends_once_and_nothing_is_lost() {
    show_log();
    let first = number("SEGUE_SIM_FIRST").unwrap_or(1);
    let count = number("SEGUE_SIM_SEEDS").unwrap_or(SEEDS);
    let mut totals: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in first..first + count {
        match run(Setting::of(seed)) {
            Ok(went) => {
                for (word, times) in went.counts {
                    *totals.entry(word).or_default() += times;
                }
            }
            Err(why) => {
                eprintln!("seed {seed}: {why}");
                failed.push(seed);
            }
        }
    }
    eprintln!("{count} seeds from {first}: {totals:?}");
    assert!(failed.is_empty(), "run one of these by SEGUE_SIM_FIRST: {failed:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        let runs = [0, 1].map(|_| run(Setting::of(seed)).unwrap_or_else(|why| panic!("{why}")));
        let [one, two] = runs;
        for (one, two) in one.log.iter().zip(&two.log) {
            assert_eq!(one, two, "seed {seed}");
        }
        assert_eq!(one.log.len(), two.log.len(), "seed {seed}");
    }
}
