//! Random work: graphs with needs of every kind, groups in groups, workflow files with templates.

use crate::faults::Dice;
use segue_core::command::NewTask;
use segue_core::decide::Chance;
use segue_core::ids::TaskId;
use segue_core::payload::Payload;
use segue_core::ports::Clock;
use segue_core::retry::RetryPolicy;
use segue_core::task::{Need, OnFailure, Priority, Route, TaskSpec, Template, Timeouts};
use serde_json::json;
use std::fmt::Write;
use std::sync::Arc;

/// Something to submit.
#[derive(Clone, Debug)]
pub enum Planned {
    /// Tasks in one submit.
    Tasks(Vec<NewTask>),
    /// The text of a workflow file.
    Workflow(String),
}

/// Makes up work. Every input holds a number `b`, which tells a runner how to behave, and a `depth`, which bounds how
/// often it may delegate.
pub struct Writer {
    dice: Dice,
    ids: Chance,
    clock: Arc<dyn Clock>,
    known: Vec<TaskId>,
    keys: u64,
}

/// The agents that the work is for; nobody has the last one.
const AGENTS: [&str; 4] = ["a", "b", "c", "nobody"];
/// The capabilities that the work is for.
const CAPABILITIES: [&str; 2] = ["work", "rare"];

impl Writer {
    /// Makes up work from these dice; ids are of the moment that this clock tells.
    pub fn new(mut dice: Dice, clock: Arc<dyn Clock>) -> Writer {
        let ids = Chance::new(dice.number());
        Writer { dice, ids, clock, known: Vec::new(), keys: 0 }
    }

    /// A new task id.
    pub fn id(&mut self) -> TaskId {
        self.ids.task_id(self.clock.now())
    }

    /// So many tasks at most, in one submit.
    pub fn plan(&mut self, tasks_max: u64) -> Planned {
        let size = self.dice.between(1, tasks_max.max(1));
        match self.dice.roll(5) {
            0 | 1 => Planned::Tasks(self.graph(size)),
            2 | 3 => Planned::Workflow(self.workflow(size.min(30))),
            _ => Planned::Tasks(vec![self.single()]),
        }
    }

    fn route(&mut self) -> Route {
        match self.dice.roll(20) {
            0..=11 => Route::agent(AGENTS[self.dice.roll(3) as usize]),
            12..=18 => Route::capability(CAPABILITIES[self.dice.roll(2) as usize]),
            _ => Route::agent(AGENTS[3]),
        }
    }

    fn spec(&mut self, name: &str) -> TaskSpec {
        let id = self.id();
        let mut spec = TaskSpec::new(id, name, self.route());
        spec.priority = Priority::new(self.dice.between(1, 10) as u8).unwrap_or_default();
        spec.on_failure = [OnFailure::Fail, OnFailure::Fail, OnFailure::Skip, OnFailure::Continue]
            [self.dice.roll(4) as usize];
        spec.retry = RetryPolicy {
            attempts: self.dice.between(1, 4) as u32,
            base_ms: self.dice.between(1, 2_000),
            cap_ms: 20_000,
            jitter: self.dice.roll(2) == 0,
            lost_max: self.dice.between(2, 10) as u32,
            ..RetryPolicy::default()
        };
        spec.timeouts = self.timeouts();
        if spec.route == Route::agent(AGENTS[3]) {
            // Nobody will ever take it: only a limit ends it.
            spec.timeouts.queue_ms = Some(self.dice.between(1_000, 60_000));
        }
        spec
    }

    fn timeouts(&mut self) -> Timeouts {
        let mut limit = |times: u64, most: u64| {
            self.dice.per_mille(times).then(|| self.dice.between(500, most))
        };
        Timeouts {
            queue_ms: limit(40, 60_000),
            run_ms: limit(150, 20_000),
            whole_ms: limit(30, 300_000),
        }
    }

    fn input(&mut self) -> Payload {
        let (b, depth) = (self.dice.roll(1 << 32), self.dice.roll(3));
        payload(&json!({ "b": b, "depth": depth }))
    }

    fn finish(&mut self, spec: TaskSpec) -> NewTask {
        self.known.push(spec.id);
        let input = self.input();
        NewTask { spec, input }
    }

    /// A task by itself, perhaps under a key, perhaps in need of others that were submitted before.
    fn single(&mut self) -> NewTask {
        let mut spec = self.spec("single");
        for _ in 0..self.dice.roll(3) {
            let Some(task) = self.dice.pick(&self.known).copied() else { break };
            let order_only = self.dice.roll(4) == 0;
            if spec.needs.iter().all(|need| need.task != task) {
                spec.needs.push(Need { task, name: None, order_only });
            }
        }
        if self.dice.roll(2) == 0 {
            self.keys += 1;
            spec.idempotency_key = Some(format!("key {}", self.keys).into());
        }
        self.finish(spec)
    }

    /// A group with tasks and groups under it, which need each other.
    fn graph(&mut self, size: u64) -> Vec<NewTask> {
        let root = self.id();
        let mut spec = TaskSpec::new(root, "graph", Route::Group);
        if self.dice.per_mille(50) {
            spec.timeouts.whole_ms = Some(self.dice.between(5_000, 200_000));
        }
        let mut groups = vec![root];
        let mut siblings: Vec<TaskId> = Vec::new();
        let mut tasks = vec![self.finish(spec)];
        // A chain, a fan or a mesh.
        let reach = [1, 4, u64::MAX][self.dice.roll(3) as usize];
        let needs_max = self.dice.between(1, 4);
        for number in 0..size {
            let mut spec = self.spec(&format!("task {number}"));
            spec.root = root;
            spec.parent = self.dice.pick(&groups).copied();
            spec.key = Some(format!("key {number}").into());
            if self.dice.per_mille(70) && groups.len() < 6 {
                spec.route = Route::Group;
                spec.timeouts = Timeouts::default();
                groups.push(spec.id);
                tasks.push(self.finish(spec));
                continue;
            }
            spec.needs = self.needs(&siblings, reach, needs_max);
            if self.dice.per_mille(40) {
                spec.template = Some(Box::new(Template {
                    when: Some(["true", "false", "1 + nobody"][self.dice.roll(3) as usize].into()),
                    ..Template::default()
                }));
            }
            siblings.push(spec.id);
            tasks.push(self.finish(spec));
        }
        tasks
    }

    fn needs(&mut self, siblings: &[TaskId], reach: u64, most: u64) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        let near = siblings.len().saturating_sub(usize::try_from(reach).unwrap_or(usize::MAX));
        for _ in 0..self.dice.roll(most + 1) {
            let Some(task) = self.dice.pick(&siblings[near..]).copied() else { break };
            let order_only = self.dice.per_mille(150);
            if needs.iter().all(|need| need.task != task) {
                needs.push(Need { task, name: None, order_only });
            }
        }
        needs
    }

    /// The text of a workflow file.
    fn workflow(&mut self, size: u64) -> String {
        let mut text = String::from("name: random\ninput:\n  items: { default: [1, 2, 3] }\n");
        if self.dice.roll(8) == 0 {
            let _ = writeln!(text, "timeout: {}s", self.dice.between(10, 200));
        }
        text.push_str("tasks:\n");
        for number in 0..size {
            self.workflow_task(&mut text, number);
        }
        text
    }

    fn workflow_task(&mut self, text: &mut String, number: u64) {
        let who = match self.route() {
            Route::Agent(name) if &*name != AGENTS[3] => format!("agent: {name}"),
            Route::Agent(_) | Route::Group => "capability: work".to_owned(),
            Route::Capability(name) => format!("capability: {name}"),
        };
        let _ = writeln!(text, "  t{number}:\n    {who}");
        let policy = ["fail", "fail", "skip", "continue"][self.dice.roll(4) as usize];
        let _ = writeln!(text, "    on_failure: {policy}");
        let attempts = self.dice.between(1, 4);
        let _ = writeln!(text, "    retry: {{ attempts: {attempts}, base: 500ms, cap: 20s }}");
        if self.dice.roll(6) == 0 {
            let _ = writeln!(text, "    timeout: {}s", self.dice.between(1, 20));
        }
        let earlier = (number > 0).then(|| self.dice.roll(number));
        if let Some(need) = earlier
            && self.dice.roll(3) == 0
        {
            let _ = writeln!(text, "    needs: [t{need}]");
        }
        if let Some(need) = earlier
            && self.dice.roll(6) == 0
        {
            let when = match self.dice.roll(3) {
                0 => format!("tasks.t{need}.state == 'completed'"),
                1 => format!("tasks.t{need}.state != 'completed'"),
                _ => "input.items | length > 5".to_owned(),
            };
            let _ = writeln!(text, "    when: \"{when}\"");
        }
        if self.dice.roll(5) == 0 {
            let list = match earlier {
                Some(need) if self.dice.roll(2) == 0 => format!("tasks.t{need}.output.list"),
                _ => ["input.items", "range(7)", "[]"][self.dice.roll(3) as usize].to_owned(),
            };
            let _ = writeln!(text, "    for_each: \"{list}\"");
            if self.dice.roll(2) == 0 {
                let _ = writeln!(text, "    max_parallel: {}", self.dice.between(1, 3));
            }
        }
        let (b, depth) = (self.dice.roll(1 << 32), self.dice.roll(2));
        let read = match earlier {
            Some(need) if self.dice.roll(2) == 0 => match self.dice.roll(3) {
                0 => format!(", seen: \"{{{{ tasks.t{need}.output.n }}}}\""),
                1 => format!(", seen: \"it is {{{{ tasks.t{need}.state }}}}\""),
                _ => format!(", seen: \"{{{{ tasks.t{need}.output | default('none') }}}}\""),
            },
            _ => String::new(),
        };
        let _ = writeln!(text, "    input: {{ b: {b}, depth: {depth}{read} }}");
    }
}

fn payload(value: &serde_json::Value) -> Payload {
    // A few numbers are far below the limit of a row.
    Payload::of(value).unwrap_or_else(|_| Payload::null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_suite::TestClock;
    use segue_core::workflow;

    #[test]
    fn every_workflow_is_a_valid_one_and_the_same_seed_writes_the_same() {
        let texts = |seed| {
            let mut writer = Writer::new(Dice::new(seed), TestClock::new());
            (0..40).map(|size| writer.workflow(size % 30 + 1)).collect::<Vec<_>>()
        };
        for text in texts(3) {
            workflow::parse(text.as_bytes())
                .unwrap_or_else(|wrong| panic!("{}", wrong.render("f", text.as_bytes(), false)));
        }
        assert_eq!(texts(3), texts(3));
        assert_ne!(texts(3), texts(4));
    }
}
