//! What the tests of `decide` stand on: rows in memory, and a town of agents to put tasks before.

#![allow(dead_code, reason = "every test file uses a part of it")]

#[path = "../../../segue-testkit/src/memory/invariants.rs"]
pub mod invariants;
pub mod random;
#[path = "../../../segue-testkit/src/memory/world.rs"]
pub mod world;

use segue_core::agent::{Agent, AgentKind, AgentSpec, Capability};
use segue_core::command::{
    Assign, Candidate, Command, Duty, DutyKind, Excused, NewTask, Proof, Reject, Rendered, Reply,
    Submit,
};
use segue_core::decide::{Chance, Ctx, secret_of};
use segue_core::event::Fact;
use segue_core::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{LetterBody, Notice, TaskResponse};
use segue_core::outcome::{Delegated, Outcome};
use segue_core::payload::Payload;
use segue_core::ports::Effects;
use segue_core::retry::RetryPolicy;
use segue_core::state::OutcomeState;
use segue_core::task::{
    Attempt, ErrorClass, Need, OnFailure, Route, Task, TaskError, TaskSpec, TaskState, Template,
    Timeouts, WaitFor,
};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;
use world::World;

/// The lease that hosts of the town have.
pub const LEASE_MS: u64 = 60_000;
/// Rounds of loading that a command may take; runs of the tests are nested no deeper than this allows for.
pub const ROUNDS_MAX: usize = 5;
/// When the town was founded.
pub const BEGIN: Time = Time(1_800_000_000_000);

/// The id of the n-th task, in the order of n.
pub fn task_id(n: u64) -> TaskId {
    TaskId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(n)))
}

/// The n-th host.
pub fn host(n: u64) -> HostId {
    HostId(Uuid::from_u128(0xa000 + u128::from(n)))
}

/// The n-th life of any host.
pub fn life(n: u64) -> Incarnation {
    Incarnation(Uuid::from_u128(0xb000 + u128::from(n)))
}

/// The n-th agent instance.
pub fn instance(n: u64) -> InstanceId {
    InstanceId(Uuid::from_u128(0xc000 + u128::from(n)))
}

/// A small JSON text.
pub fn text(json: &str) -> Payload {
    Payload::of_text(json).expect("a small JSON text")
}

/// An agent with these slots that can do these things.
pub fn agent(n: u64, name: &str, slots: u32, capabilities: &[&str]) -> AgentSpec {
    let capabilities: Vec<Capability> = capabilities
        .iter()
        .map(|name| Capability { name: (*name).into(), ..Capability::default() })
        .collect();
    AgentSpec {
        instance: instance(n),
        name: name.into(),
        kind: AgentKind::Builtin,
        description: "".into(),
        capabilities: capabilities.into(),
        max_concurrency: slots,
        delegates: true,
    }
}

/// A task for the agent `a`.
pub fn spec(n: u64, name: &str) -> TaskSpec {
    TaskSpec::new(task_id(n), name, Route::agent("a"))
}

/// A group that collects its children.
pub fn group(n: u64, name: &str) -> TaskSpec {
    TaskSpec::new(task_id(n), name, Route::Group)
}

/// What makes specs short to write.
pub trait SpecExt: Sized {
    /// Under this group, which is the root.
    fn under(self, root: u64) -> Self;
    /// It waits for these.
    fn needs(self, needs: &[u64]) -> Self;
    /// What its failure does.
    fn on_failure(self, policy: OnFailure) -> Self;
    /// Its input is a template.
    fn templated(self) -> Self;
    /// It is tried once.
    fn once(self) -> Self;
    /// With these limits.
    fn limits(self, timeouts: Timeouts) -> Self;
}

impl SpecExt for TaskSpec {
    fn under(mut self, root: u64) -> Self {
        self.parent = Some(task_id(root));
        self.root = task_id(root);
        self
    }

    fn needs(mut self, needs: &[u64]) -> Self {
        let need = |n: &u64| Need { task: task_id(*n), name: None, order_only: false };
        self.needs = needs.iter().map(need).collect();
        self
    }

    fn on_failure(mut self, policy: OnFailure) -> Self {
        self.on_failure = policy;
        self
    }

    fn templated(mut self) -> Self {
        self.template = Some(Box::new(Template { input: true, ..Template::default() }));
        self
    }

    fn once(mut self) -> Self {
        self.retry.attempts = 1;
        self
    }

    fn limits(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}

/// A delegated task for the agent `a`.
pub fn delegated(key: &str, needs: &[&str]) -> Delegated {
    Delegated {
        key: key.into(),
        name: None,
        route: Route::agent("a"),
        input: Payload::null(),
        needs: needs.iter().map(|need| (*need).into()).collect(),
        priority: None,
        on_failure: OnFailure::Fail,
        retry: RetryPolicy::default(),
        timeouts: Timeouts::default(),
        workspace: None,
        template: false,
        state_keys: Vec::new(),
    }
}

/// An outcome that brings an output.
pub fn complete() -> Outcome {
    Outcome::Complete { output: text("{\"done\":true}") }
}

/// An outcome that brings an error.
pub fn fail(class: ErrorClass) -> Outcome {
    Outcome::Fail { error: TaskError::new(class, "it broke"), retry_after_ms: None }
}

/// An outcome that delegates.
pub fn delegate(tasks: Vec<Delegated>, resume: bool) -> Outcome {
    Outcome::Delegate { tasks, resume, continuation: resume.then(|| text("{\"step\":2}")) }
}

/// A world, its time, and an agent `a` in it that takes whatever it is asked to.
pub struct Town {
    /// The rows.
    pub world: World,
    /// Time and chance.
    pub ctx: Ctx,
    /// Whether the invariants are checked after every command (not worth it over many thousand rows).
    pub checked: bool,
}

/// What of a task must not change in certain ways.
struct Before {
    tasks: BTreeMap<TaskId, (TaskState, u32)>,
    slots: BTreeMap<InstanceId, u32>,
}

impl Town {
    /// A town with one host and one agent `a` that has eight slots.
    pub fn new() -> Town {
        let ctx = Ctx { now: BEGIN, chance: Chance::new(7), key: [9; 32] };
        let mut town = Town { world: World::new(), ctx, checked: true };
        town.register(1, 1, vec![agent(1, "a", 8, &["work"])]).expect("a first registration");
        town
    }

    /// The same without checks, for many thousand tasks.
    pub fn unchecked() -> Town {
        Town { checked: false, ..Town::new() }
    }

    /// Lets time pass.
    pub fn pass_ms(&mut self, ms: u64) {
        self.ctx.now = self.ctx.now.plus_ms(ms);
    }

    /// Does one command and checks everything that must hold.
    pub fn act(&mut self, command: Command) -> Result<Effects, Reject> {
        let decisions = self.batch(vec![command]);
        decisions.into_iter().next().expect("one decision for one command")
    }

    /// Does one batch and checks everything that must hold.
    pub fn batch(&mut self, commands: Vec<Command>) -> Vec<Result<Effects, Reject>> {
        if !self.checked {
            return self.world.run(&commands, &mut self.ctx);
        }
        let before = self.remember();
        let events = self.world.events.len();
        let decisions = self.world.run(&commands, &mut self.ctx);
        for (command, decision) in commands.iter().zip(&decisions) {
            if let Err(Reject::NotLoaded(what)) = decision {
                panic!("{what} was not loaded for {command:?}");
            }
        }
        if let Err(why) = self.audit(&before, events, &decisions) {
            panic!("after {commands:?}\n{decisions:?}\n{why}");
        }
        decisions
    }

    fn remember(&self) -> Before {
        let of_task = |task: &Arc<Task>| (task.id(), (task.state, task.attempts));
        let of_agent = |agent: &Agent| (agent.spec.instance, agent.slots_used);
        Before {
            tasks: self.world.tasks.values().map(of_task).collect(),
            slots: self.world.agents.values().map(of_agent).collect(),
        }
    }

    /// The invariants of the rows, and those between the rows before and after.
    fn audit(
        &self,
        before: &Before,
        events: usize,
        decisions: &[Result<Effects, Reject>],
    ) -> Result<(), String> {
        invariants::check(&self.world)?;
        if self.world.rounds_max > ROUNDS_MAX {
            return Err(format!("{} rounds of loading", self.world.rounds_max));
        }
        let new = &self.world.events[events..];
        for task in self.world.tasks.values() {
            let Some((state, attempts)) = before.tasks.get(&task.id()) else { continue };
            let requeued = new.iter().any(|it| it.task == task.id() && it.fact == Fact::Requeued);
            if state.is_terminal() && *state != task.state && !requeued {
                return Err(format!("it was {state} and ended: {task:?}"));
            }
            if *state == TaskState::Completed && task.state != TaskState::Completed {
                return Err(format!("it was completed: {task:?}"));
            }
            if task.attempts < *attempts {
                return Err(format!("it lost attempts: {task:?}"));
            }
        }
        for agent in self.world.agents.values() {
            let before = before.slots.get(&agent.spec.instance).copied().unwrap_or_default();
            if agent.slots_used > agent.spec.max_concurrency && agent.slots_used > before {
                return Err(format!("it got more than it takes: {agent:?}"));
            }
        }
        for letter in decisions.iter().flatten().flat_map(|effects| &effects.letters) {
            let task = self.world.task(letter.task.expect("all letters are about a task"));
            let of = match &letter.body {
                LetterBody::TaskRequest(request) => request.attempt,
                LetterBody::Event(Notice::Cancel { attempt, .. }) => *attempt,
                other => return Err(format!("a letter that nobody writes: {other:?}")),
            };
            let known = task.attempt.as_ref().map(|attempt| attempt.id);
            if known != Some(of) {
                return Err(format!("a letter about an attempt that is not there: {letter:?}"));
            }
        }
        Ok(())
    }

    /// Registers a host with these agents.
    pub fn register(
        &mut self,
        of: u64,
        in_life: u64,
        agents: Vec<AgentSpec>,
    ) -> Result<Effects, Reject> {
        self.act(Command::Register {
            host: host(of),
            incarnation: life(in_life),
            agents,
            lease_ms: LEASE_MS,
        })
    }

    /// The command that submits these tasks.
    pub fn submission(specs: Vec<TaskSpec>) -> Command {
        let new = |spec: TaskSpec| NewTask { spec, input: text("{\"in\":1}") };
        Command::Submit(Submit { tasks: specs.into_iter().map(new).collect() })
    }

    /// Submits these tasks, which has to work.
    pub fn submit(&mut self, specs: Vec<TaskSpec>) {
        self.act(Town::submission(specs)).expect("a submit without fault");
    }

    /// The command that gives work to every instance there is.
    pub fn assignment(&self) -> Command {
        let candidates: Vec<Candidate> = self
            .world
            .agents
            .keys()
            .map(|instance| Candidate { instance: *instance, health: 1.0, load: 0.0 })
            .collect();
        Command::Assign(Assign { candidates: candidates.into(), limit: 1_000 })
    }

    /// Gives work to every instance there is; how many tasks were given out.
    pub fn assign(&mut self) -> usize {
        let command = self.assignment();
        match self.act(command).expect("assigning is never refused").reply {
            Reply::Assigned(count) => count,
            other => panic!("assign answered {other:?}"),
        }
    }

    /// The n-th task.
    pub fn task(&self, n: u64) -> &Task {
        self.world.task(task_id(n))
    }

    /// The state of the n-th task.
    pub fn state(&self, n: u64) -> TaskState {
        self.task(n).state
    }

    /// The latest attempt of a task.
    pub fn attempt(&self, id: TaskId) -> Attempt {
        self.world.task(id).attempt.clone().expect("a task with an attempt")
    }

    /// Proof for the latest attempt of a task.
    pub fn proof(&self, id: TaskId) -> Proof {
        self.proof_of(id, self.attempt(id).id)
    }

    /// Proof for any attempt of a task.
    pub fn proof_of(&self, task: TaskId, attempt: AttemptId) -> Proof {
        Proof { task, attempt, secret: secret_of(&self.ctx.key, attempt) }
    }

    /// The command that reports this outcome for an attempt.
    pub fn report(&self, task: TaskId, attempt: AttemptId, outcome: Outcome) -> Command {
        let response = TaskResponse {
            attempt,
            secret: secret_of(&self.ctx.key, attempt),
            started_at: Some(self.ctx.now),
            process: None,
            outcome,
            state: OutcomeState::default(),
            usage: None,
            ended: Vec::new(),
        };
        Command::Finish { task, response: Box::new(response) }
    }

    /// Reports this outcome for the latest attempt of the n-th task.
    pub fn finish(&mut self, n: u64, outcome: Outcome) -> Reply {
        self.finish_id(task_id(n), outcome)
    }

    /// Reports this outcome for the latest attempt of a task.
    pub fn finish_id(&mut self, id: TaskId, outcome: Outcome) -> Reply {
        let command = self.report(id, self.attempt(id).id, outcome);
        self.act(command).expect("a report with its secret").reply
    }

    /// Assigns all that is ready and reports this outcome for the n-th task.
    pub fn work(&mut self, n: u64, outcome: Outcome) -> Reply {
        self.assign();
        self.finish(n, outcome)
    }

    /// A child of the n-th task by its key.
    pub fn child(&self, n: u64, key: &str) -> TaskId {
        self.world.calls[&(task_id(n), Arc::from(key))]
    }

    /// Looks at the clock.
    pub fn tick(&mut self) {
        self.act(Command::Tick { limit: 1_000, excused: Excused::Nobody })
            .expect("a tick is never refused");
    }

    /// Does the work that was left behind, as the engine does; how much there was.
    pub fn do_duties(&mut self) -> usize {
        let duties = self.world.duty_list();
        for duty in &duties {
            let command = self.answer(duty);
            self.act(command).expect("what was left behind can be done");
        }
        duties.len()
    }

    /// What the engine answers to a piece of work that was left behind.
    pub fn answer(&self, duty: &Duty) -> Command {
        match duty.kind {
            DutyKind::Propagate { .. } | DutyKind::CancelChildren { .. } => {
                Command::Continue(duty.clone())
            }
            DutyKind::Render => self.render(duty.task),
            DutyKind::Collect => self.collect(duty.task),
        }
    }

    fn render(&self, id: TaskId) -> Command {
        let template = self.world.task(id).spec.template.clone().unwrap_or_default();
        let rendered = if template.for_each.is_some() {
            Rendered::Items(vec![text("1"), text("2"), text("3")])
        } else if template.when.as_deref() == Some("false") {
            Rendered::Skip { reason: "its condition is false".into() }
        } else {
            Rendered::Input(text("{\"rendered\":true}"))
        };
        Command::Expand { task: id, rendered: Ok(rendered) }
    }

    fn collect(&self, id: TaskId) -> Command {
        let children = self.world.children.get(&id).into_iter().flatten();
        let failed = children.map(|child| self.world.task(*child)).find(|child| {
            child.spec.on_failure == OnFailure::Fail
                && matches!(child.state, TaskState::Failed | TaskState::Cancelled)
                && child.error.as_ref().map(|error| error.class) != Some(ErrorClass::Skipped)
        });
        let rendered = match failed {
            None => Ok(Rendered::Output(text("[]"))),
            Some(child) => {
                let message = format!("`{}` under it is {}", child.spec.name, child.state);
                Err(TaskError::new(ErrorClass::Upstream, message))
            }
        };
        Command::Expand { task: id, rendered }
    }

    /// Lets everybody work, every duty be done and time pass until nothing is left to do.
    /// Agents complete whatever they get. Panics where that does not end every task.
    pub fn run_out(&mut self) {
        for _ in 0..10_000 {
            if self.world.tasks.values().all(|task| task.state.is_terminal())
                && self.world.duties.is_empty()
            {
                return;
            }
            let done = self.do_duties();
            let running: Vec<TaskId> = self
                .world
                .tasks
                .values()
                .filter(|task| task.state.holds_slot())
                .map(|task| task.id())
                .collect();
            for id in &running {
                self.finish_id(*id, complete());
            }
            if self.assign() + done + running.len() == 0 {
                let next = self.world.due.first().map_or(self.ctx.now, |(at, _)| *at);
                let gone = next <= self.ctx.now && self.world.due.is_empty();
                assert!(!gone, "nothing moves any more: {}", self.open());
                self.ctx.now = self.ctx.now.max(next);
                self.tick();
            }
        }
        panic!("it goes on for ever: {}", self.open());
    }

    fn open(&self) -> String {
        let open = self.world.tasks.values().filter(|task| !task.state.is_terminal());
        open.map(|task| format!("\n  {task:?}")).collect()
    }

    /// The facts about the n-th task, oldest first.
    pub fn facts(&self, n: u64) -> Vec<&Fact> {
        self.world.events_of(task_id(n)).map(|event| &event.fact).collect()
    }
}

/// What is left over from `wait_for`, in a word.
pub fn word(wait_for: WaitFor) -> &'static str {
    match wait_for {
        WaitFor::Resume => "resume",
        WaitFor::Collect => "collect",
    }
}
