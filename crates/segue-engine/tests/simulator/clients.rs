//! Those who submit work and wait for it: they try again until they have an answer.
// tidy: allow-file(sleep) simulated time: tokio's clock is paused, nobody waits for real

use crate::sim::{Sim, with};
use segue_core::command::{NewTask, Reject};
use segue_core::ids::TaskId;
use segue_core::payload::Payload;
use segue_core::workflow;
use segue_engine::EngineError;
use segue_engine::workflow::graph_with;
use segue_testkit::faults::Dice;
use segue_testkit::simulator::Planned;
use std::sync::Arc;
use std::time::Duration;

/// Submits a part of the work at its time and waits for its end.
pub async fn client(sim: Arc<Sim>, mut dice: Dice, at_ms: u64, tasks_max: u64) {
    tokio::time::sleep(Duration::from_millis(at_ms)).await;
    let tasks = planned(&sim, tasks_max);
    if let Some(root) = submit(&sim, &mut dice, &tasks).await {
        await_end(&sim, &mut dice, root).await;
    }
}

fn planned(sim: &Sim, tasks_max: u64) -> Vec<NewTask> {
    let mut writer = sim.writer.lock();
    match writer.plan(tasks_max) {
        Planned::Tasks(tasks) => tasks,
        Planned::Workflow(text) => {
            let checked = workflow::parse(text.as_bytes()).unwrap_or_else(|wrong| {
                panic!("{text}\n{}", wrong.render("random", text.as_bytes(), false))
            });
            let input = checked.workflow.bind_input(serde_json::Map::new());
            let input = Payload::of(&input.expect("every input has a default"));
            let input = input.expect("a few numbers");
            graph_with(&checked.workflow, "random", input, || writer.id()).expect("small inputs")
        }
    }
}

/// Submits until there is an answer. `None` where the work was refused.
async fn submit(sim: &Sim, dice: &mut Dice, tasks: &[NewTask]) -> Option<TaskId> {
    let first = &tasks[0].spec;
    let mut asked = false;
    let root = loop {
        let node = sim.some_node(dice).await;
        match with(&node, node.engine.submit(tasks.to_vec())).await {
            Some(Ok(root)) => break root,
            Some(Err(EngineError::Rejected(Reject::Conflict(why)))) => {
                // It was taken in, and the answer was lost.
                assert!(asked, "new work was refused: {why}");
                break first.id;
            }
            Some(Err(EngineError::Rejected(Reject::Unknown { .. }))) => {
                // It needs work that was refused itself, or has not been submitted yet.
                return None;
            }
            Some(Err(EngineError::Rejected(reject))) => panic!("{reject}: {tasks:?}"),
            Some(Err(_)) | None => asked = true,
        }
        tokio::time::sleep(Duration::from_millis(dice.between(1, 2_000))).await;
    };
    let mut seen = sim.seen.lock();
    match &first.idempotency_key {
        Some(key) => {
            seen.keys.insert(key.to_string());
            seen.accepted.insert(root);
        }
        None => seen.accepted.extend(tasks.iter().map(|task| task.spec.id)),
    }
    Some(root)
}

/// Waits for the end of a run, at whatever node there is.
async fn await_end(sim: &Sim, dice: &mut Dice, root: TaskId) {
    loop {
        let node = sim.some_node(dice).await;
        match with(&node, node.engine.wait_for(root)).await {
            Some(Ok(task)) => {
                assert!(task.state.is_terminal(), "{task:?}");
                return;
            }
            Some(Err(EngineError::Rejected(reject))) => panic!("accepted and lost: {reject}"),
            Some(Err(_)) | None => {
                tokio::time::sleep(Duration::from_millis(dice.between(1, 2_000))).await;
            }
        }
    }
}
