//! The work of a chaos run: graphs of every shape, planned to the last task from the seed.

use super::dice::Dice;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The work of a run, one load a line.
const FILE: &str = "work.jsonl";

/// What is submitted in one request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// Its idempotency key.
    pub key: String,
    /// The body of `POST /v1/tasks`.
    pub body: Value,
    /// Tasks that come of it in all: its root, and what is delegated under it, included.
    pub tasks: u32,
    /// The place of an earlier load whose root it needs.
    pub after: Option<usize>,
}

/// How a task is tried again. Many more attempts are lost here than `lost_max` allows by default: the node is
/// killed every few tasks, which says nothing against the task.
fn retry() -> Value {
    json!({ "attempts": 100, "base_ms": 40, "factor_percent": 150, "cap_ms": 200, "lost_max": 10_000 })
}

/// Writes a plan down, one load a line.
///
/// # Errors
/// When the file cannot be written.
pub fn write(dir: &Path, loads: &[Load]) -> Result<()> {
    let mut text = String::new();
    for load in loads {
        text.push_str(&serde_json::to_string(load)?);
        text.push('\n');
    }
    let path = dir.join(FILE);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Plans loads of exactly so many tasks in all.
pub fn plan(seed: u64, tasks: u32) -> Vec<Load> {
    let mut planner = Planner { dice: Dice::new(seed, 1), loads: Vec::new() };
    let mut left = tasks;
    while left > 0 {
        let place = planner.loads.len();
        let load = planner.load(place, left);
        left -= load.tasks;
        planner.loads.push(load);
    }
    planner.loads
}

struct Planner {
    dice: Dice,
    loads: Vec<Load>,
}

/// A task of a graph in the making.
struct Step {
    body: Map<String, Value>,
    /// Tasks that come of it, itself included.
    tasks: u32,
}

impl Planner {
    fn load(&mut self, place: usize, left: u32) -> Load {
        let name = |shape: &str| format!("{shape}-{place}");
        let key = format!("chaos-{place}");
        let graph = |name: String, steps: Vec<Step>| {
            let tasks = 1 + steps.iter().map(|step| step.tasks).sum::<u32>();
            let steps: Vec<Value> = steps.into_iter().map(|step| step.body.into()).collect();
            Load {
                key: key.clone(),
                body: json!({ "name": name, "tasks": steps }),
                tasks,
                after: None,
            }
        };
        let load = match self.dice.below(100) {
            0..28 => graph(name("chain"), self.chain()),
            28..48 => graph(name("diamond"), self.diamond()),
            48..64 => graph(name("fan"), self.fan()),
            64..80 => {
                let Step { body, tasks } = self.boss(1);
                Load { key: key.clone(), body: named(body, &name("boss")), tasks, after: None }
            }
            _ => self.single(place, &key),
        };
        // What does not fit any more becomes a single task, so that the number comes out.
        if load.tasks <= left { load } else { self.single(place, &key) }
    }

    /// One task; some need the root of an earlier load.
    fn single(&mut self, place: usize, key: &str) -> Load {
        let body = named(self.step().body, &format!("single-{place}"));
        // Not of the last few: they may be on their way together with this one.
        let earlier = place.saturating_sub(super::feed::PORTION_MAX);
        let after = (earlier > 0 && self.dice.percent(40))
            .then(|| self.dice.below(earlier as u64) as usize);
        Load { key: key.to_owned(), body, tasks: 1, after }
    }

    /// Each needs the one before it.
    fn chain(&mut self) -> Vec<Step> {
        let length = self.dice.between(2, 6);
        let mut steps: Vec<Step> = Vec::new();
        for place in 0..length {
            let step = if self.dice.percent(10) { self.boss(1) } else { self.step() };
            let before = place.checked_sub(1).map(key_of);
            steps.push(self.placed(step, place, before.into_iter().collect()));
        }
        steps
    }

    /// Two side by side between two others.
    fn diamond(&mut self) -> Vec<Step> {
        let needs = [&[][..], &[0], &[0], &[1, 2]];
        (0..)
            .zip(needs)
            .map(|(place, needs)| {
                let step = self.step();
                self.placed(step, place, needs.iter().copied().map(key_of).collect())
            })
            .collect()
    }

    /// One, then many side by side, then one that needs them all.
    fn fan(&mut self) -> Vec<Step> {
        let width = self.dice.between(3, 9);
        (0..width + 2)
            .map(|place| {
                let needs = match place {
                    0 => Vec::new(),
                    last if last == width + 1 => (1..=width).map(key_of).collect(),
                    _ => vec![key_of(0)],
                };
                let step = self.step();
                self.placed(step, place, needs)
            })
            .collect()
    }

    fn placed(&mut self, mut step: Step, place: u64, needs: Vec<String>) -> Step {
        step.body.insert("key".to_owned(), key_of(place).into());
        self.refer(&mut step.body, &needs);
        step.body.insert("needs".to_owned(), needs.into());
        step
    }

    /// Some inputs hold what a need brought, so that they are rendered between two commits.
    fn refer(&mut self, body: &mut Map<String, Value>, needs: &[String]) {
        let holds_plan = body["input"].get("plan").is_some();
        if let (Some(need), false, true) = (needs.last(), holds_plan, self.dice.percent(50)) {
            body["input"]["after"] = format!("{{{{ tasks.{need}.output.attempt }}}}").into();
            body.insert("template".to_owned(), true.into());
        }
    }

    /// A task for one of the plain agents.
    fn step(&mut self) -> Step {
        let agent = match self.dice.below(100) {
            0..50 => "quick",
            50..76 => "slow",
            76..88 => "forker",
            88..95 => "flaky",
            _ => "stubborn",
        };
        let mut input = json!({});
        if !matches!(agent, "quick" | "flaky") {
            input["seconds"] = format!("0.{:03}", self.dice.between(20, 150)).into();
        }
        // Bodies that have no room in a row, and bodies that become files.
        if self.dice.percent(10) {
            input["bytes"] = if self.dice.percent(50) { 3_000 } else { 100_000 }.into();
        }
        Step { body: self.body(agent, input), tasks: 1 }
    }

    /// A task that hands out others and is resumed with their results. Some of those do the same.
    fn boss(&mut self, levels: u32) -> Step {
        let width = self.dice.between(2, 4);
        let mut tasks = 1;
        let mut children: Vec<Value> = Vec::new();
        for place in 0..width {
            let nested = levels > 0 && self.dice.percent(12);
            let mut child = if nested { self.boss(levels - 1) } else { self.step() };
            tasks += child.tasks;
            let needs = if place > 0 && self.dice.percent(35) {
                vec![key_of(place - 1)]
            } else {
                Vec::new()
            };
            child.body.insert("key".to_owned(), key_of(place).into());
            self.refer(&mut child.body, &needs);
            child.body.insert("needs".to_owned(), needs.into());
            children.push(child.body.into());
        }
        let plan = json!({
            "segue": 1, "outcome": "delegate", "resume": true, "continuation": { "width": width }, "tasks": children,
        });
        Step { body: self.body("boss", json!({ "plan": plan })), tasks }
    }

    fn body(&mut self, agent: &str, input: Value) -> Map<String, Value> {
        let priority = self.dice.pick(&[1, 3, 5, 5, 7, 10]).copied().unwrap_or(5);
        Map::from_iter([
            ("agent".to_owned(), agent.into()),
            ("input".to_owned(), input),
            ("priority".to_owned(), priority.into()),
            ("retry".to_owned(), retry()),
        ])
    }
}

fn key_of(place: u64) -> String {
    format!("t{place}")
}

fn named(mut body: Map<String, Value>, name: &str) -> Value {
    body.insert("name".to_owned(), name.into());
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks that a body stands for, counted from the body itself.
    fn count(body: &Value) -> u32 {
        let of = |tasks: &Value| tasks.as_array().unwrap().iter().map(count).sum::<u32>();
        if body.get("tasks").is_some() {
            return 1 + of(&body["tasks"]);
        }
        let plan = &body["input"]["plan"];
        1 + if plan.is_null() { 0 } else { of(&plan["tasks"]) }
    }

    #[test]
    fn the_number_of_tasks_comes_out_exactly() {
        for tasks in [1, 2, 7, 120, 2_000] {
            let loads = plan(3, tasks);
            assert_eq!(loads.iter().map(|load| load.tasks).sum::<u32>(), tasks);
            for load in &loads {
                assert_eq!(count(&load.body), load.tasks, "{}", load.body);
            }
        }
    }

    #[test]
    fn the_same_seed_plans_the_same_and_every_shape_and_agent_has_its_part() {
        let loads = plan(42, 2_000);
        assert_eq!(loads, plan(42, 2_000));
        assert_ne!(loads, plan(43, 2_000));
        let text: String = loads.iter().map(|load| load.body.to_string()).collect();
        for word in ["chain-", "diamond-", "fan-", "boss-", "single-", "{{ tasks.", "100000"] {
            assert!(text.contains(word), "{word}");
        }
        for agent in ["quick", "slow", "forker", "stubborn", "flaky", "boss"] {
            assert!(text.contains(&format!("\"agent\":\"{agent}\"")), "{agent}");
        }
        assert!(loads.iter().any(|load| load.after.is_some()));
    }

    #[test]
    fn a_load_only_needs_what_was_submitted_in_an_earlier_portion() {
        for (place, load) in plan(9, 500).iter().enumerate() {
            if let Some(after) = load.after {
                assert!(after + super::super::feed::PORTION_MAX <= place);
            }
        }
    }
}
