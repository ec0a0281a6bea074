//! What happens to the processes, and what operators do, at random moments.
// tidy: allow-file(sleep) simulated time: tokio's clock is paused, nobody waits for real

use crate::sim::{Sim, agents, with};
use segue_core::command::Command;
use segue_core::ids::TaskId;
use segue_core::ports::TaskFilter;
use segue_testkit::faults::{Dice, Rates};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Strikes until the storm is over.
pub async fn storm(sim: Arc<Sim>) {
    let mut dice = sim.dice();
    let setting = sim.setting;
    if setting.blows_per_minute == 0 {
        return tokio::time::sleep(Duration::from_millis(setting.storm_ms)).await;
    }
    let pause = 2 * 60_000 / setting.blows_per_minute;
    while sim.clock.elapsed_ms() < setting.storm_ms {
        tokio::time::sleep(Duration::from_millis(dice.between(1, pause))).await;
        strike(&sim, &mut dice).await;
    }
}

async fn strike(sim: &Arc<Sim>, dice: &mut Dice) {
    match dice.roll(20) {
        0 => {
            if let Some(node) = dice.pick(&sim.running()) {
                tracing::info!("strikes a node down");
                node.life.end();
            }
        }
        1 | 2 => {
            if let Some(node) = dice.pick(&sim.running()) {
                node.life.end_after_steps(dice.between(1, 60));
            }
        }
        3 => {
            if let Some(node) = dice.pick(&sim.running()) {
                tracing::info!("stops a node in order");
                node.stop.notify_one();
            }
        }
        4..=6 => about_a_host(sim, dice),
        7 => {
            let ms = dice.between(1, 120_000) as i64;
            tracing::info!(ms, "the clock jumps on");
            sim.clock.jump(ms);
        }
        8 => {
            let ms = dice.between(1, 60_000) as i64;
            tracing::info!(ms, "the clock jumps back");
            sim.clock.jump(-ms);
        }
        9 => {
            // A lull, or the usual weather again.
            let rates = if sim.trouble.rates() == Rates::default() {
                sim.setting.rates
            } else {
                Rates::default()
            };
            sim.trouble.set(rates);
        }
        10 | 11 => {
            let agent = ["a", "b", "c"][dice.roll(3) as usize].into();
            let drained = dice.roll(2) == 0;
            operate(sim, dice, Command::Drain { agent, drained }).await;
        }
        12 => {
            let index = dice.roll(3) as usize;
            let specs = agents(index);
            if let Some(spec) = dice.pick(&specs) {
                let reason = "somebody says so".to_owned();
                let instance = spec.instance;
                operate(sim, dice, Command::ExpireAgent { instance, reason }).await;
            }
        }
        _ => about_a_task(sim, dice).await,
    }
}

fn about_a_host(sim: &Sim, dice: &mut Dice) {
    let hosts: Vec<_> = sim.hosts.lock().iter().flatten().cloned().collect();
    let Some(host) = dice.pick(&hosts) else { return };
    match dice.roll(3) {
        0 => host.life.end(),
        1 => host.life.end_after_steps(dice.between(1, 30)),
        _ => {
            let until = sim.clock.elapsed_ms() + dice.between(1, 3 * sim.setting.lease_ms);
            host.cut_off_until_ms.store(until, Ordering::SeqCst);
        }
    }
}

/// Somebody cancels, requeues, retries or resumes a task: mostly one that is open, or has failed.
async fn about_a_task(sim: &Arc<Sim>, dice: &mut Dice) {
    let Some(store) = sim.store() else { return };
    let all = TaskFilter { limit: usize::MAX, ..TaskFilter::default() };
    let Ok(tasks) = store.tasks(all).await else { return };
    drop(store);
    let fit: Vec<TaskId> = tasks
        .iter()
        .filter(|task| task.state != segue_core::task::TaskState::Completed || dice.roll(10) == 0)
        .map(|task| task.id())
        .collect();
    let Some(task) = dice.pick(&fit).copied() else { return };
    let command = match dice.roll(8) {
        0 | 1 => Command::Cancel { task, reason: "an operator says so".into() },
        2 => Command::Retry { task },
        3 => Command::Resume { task },
        _ => Command::Requeue { task },
    };
    operate(sim, dice, command).await;
}

async fn operate(sim: &Arc<Sim>, dice: &mut Dice, command: Command) {
    let nodes = sim.running();
    let Some(node) = dice.pick(&nodes).cloned() else { return };
    // Whoever asks does not hold up the storm.
    tokio::spawn(async move {
        let name = command.name();
        if let Some(Err(error)) = with(&node, node.engine.command(command)).await {
            tracing::debug!(%error, name, "an operator was refused");
        }
    });
}
