//! What is submitted, and when: single tasks and chains of three, at random moments, for names and for capabilities.

use crate::fleet::{self, fraction};
use crate::setting::Setting;
use segue_core::command::{NewTask, Submit};
use segue_core::decide::Chance;
use segue_core::ids::TaskId;
use segue_core::payload::Payload;
use segue_core::ports::Clock;
use segue_core::task::{Need, Priority, Route, TaskSpec};
use segue_engine::Engine;
use segue_testkit::faults::Dice;
use segue_testkit::simulator::SimClock;
use std::sync::Arc;
use std::time::Duration;

/// Tasks of a chain.
const CHAIN: u64 = 3;
/// Submits in a thousand that are chains.
const CHAINS: u64 = 150;

/// Submits everything over its time, to one engine after another.
pub async fn submit_all(
    setting: Setting,
    engines: Vec<Arc<Engine>>,
    clock: Arc<SimClock>,
    mut dice: Dice,
) -> u64 {
    let tasks = setting.agents * setting.tasks_per_agent;
    let of_submit = 1.0 + CHAINS as f64 / 1_000.0 * (CHAIN - 1) as f64;
    let tasks_a_ms = setting.agents as f64 * f64::from(setting.slots) * setting.load as f64
        / 100.0
        / fleet::work_mean_ms(&setting);
    let pause_ms = of_submit / tasks_a_ms;
    let mut ids = Chance::new(dice.number());
    let (mut submitted, mut turn, mut at_ms) = (0, 0, clock.elapsed_ms() as f64);
    while submitted < tasks {
        at_ms += -fraction(&mut dice).ln() * pause_ms;
        let ahead = at_ms - clock.elapsed_ms() as f64;
        if ahead >= 1.0 {
            tokio::time::sleep(Duration::from_millis(ahead as u64)).await;
        }
        let work = work(&setting, &mut dice, &mut ids, &clock);
        submitted += work.len() as u64;
        let engine = engines[turn % engines.len()].clone();
        turn += 1;
        tokio::spawn(async move {
            let submits = vec![Submit { tasks: work }];
            if let Err(error) = engine.submit_batch(submits).await {
                eprintln!("a submit was not taken: {error}");
            }
        });
    }
    submitted
}

fn work(setting: &Setting, dice: &mut Dice, ids: &mut Chance, clock: &SimClock) -> Vec<NewTask> {
    if !dice.per_mille(CHAINS) {
        let spec = spec(setting, dice, ids.task_id(clock.now()));
        return vec![NewTask { spec, input: Payload::null() }];
    }
    let root = ids.task_id(clock.now());
    let group = TaskSpec::new(root, "chain", Route::Group);
    let mut tasks = vec![NewTask { spec: group, input: Payload::null() }];
    let mut before: Option<TaskId> = None;
    for _ in 0..CHAIN {
        let mut spec = spec(setting, dice, ids.task_id(clock.now()));
        spec.root = root;
        spec.parent = Some(root);
        spec.needs.extend(before.map(|task| Need { task, name: None, order_only: true }));
        before = Some(spec.id);
        tasks.push(NewTask { spec, input: Payload::null() });
    }
    tasks
}

fn spec(setting: &Setting, dice: &mut Dice, id: TaskId) -> TaskSpec {
    let role = dice.roll(fleet::names(setting));
    let route = match dice.roll(10) {
        0 => Route::capability("anything"),
        1..=4 => Route::capability(&fleet::skill_of(role)),
        _ => Route::agent(&fleet::name_of(role)),
    };
    let mut spec = TaskSpec::new(id, "work", route);
    let named = Priority::NAMED[dice.roll(5) as usize].1;
    spec.priority = Priority::new(named).unwrap_or_default();
    spec
}
