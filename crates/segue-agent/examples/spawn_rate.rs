//! How many programs a second can be run, each through a supervisor of its own, with everything
//! about it accounted for.
//!
//! `cargo run --release -p segue-agent --example spawn_rate -- [COUNT] [AT_ONCE] [PROGRAM]`

use std::sync::Arc;
use std::time::Instant;

use segue_agent::process::{Cause, Launcher, Spawn, scrubbed_env, supervise_if_asked};
use tokio::sync::Semaphore;

#[allow(clippy::print_stdout, reason = "it is what the example is for")]
fn main() {
    supervise_if_asked();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default| args.get(index).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (count, at_once) = (number(0, 1_000), number(1, 8));
    let program = args.get(2).map_or("/bin/true", String::as_str).to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for launcher in [Launcher::this_binary().without_cgroup(), Launcher::this_binary()] {
        let cgroup = launcher.has_cgroup();
        let begun = Instant::now();
        let times = runtime.block_on(run(launcher, count, at_once, &program));
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
        println!(
            "{{\"program\":\"{program}\",\"count\":{count},\"at_once\":{at_once},\"cgroup\":{cgroup},\
             \"processes_per_s\":{rate:.0},\"p50_ms\":{:.2},\"p99_ms\":{:.2}}}",
            at(50),
            at(99),
        );
    }
}

/// Runs the program `count` times and returns how long each took, sorted.
async fn run(
    launcher: Launcher,
    count: usize,
    at_once: usize,
    program: &str,
) -> Vec<std::time::Duration> {
    let slots = Arc::new(Semaphore::new(at_once));
    let env = scrubbed_env(&[], &[]).expect("an environment");
    let mut all = tokio::task::JoinSet::new();
    for number in 0..count {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("open");
        let mut spawn = Spawn::new(program, "/");
        spawn.env = env.clone();
        spawn.attempt = Some(format!("attempt-{number}"));
        let launcher = launcher.clone();
        all.spawn(async move {
            let begun = Instant::now();
            let ended = launcher.spawn(spawn).await.expect("starts").wait().await;
            assert!(ended.cause == Cause::Exited && ended.usage.is_some(), "{ended:?}");
            drop(slot);
            begun.elapsed()
        });
    }
    let mut times = all.join_all().await;
    times.sort();
    times
}
