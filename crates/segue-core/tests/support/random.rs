//! Commands at random over whatever rows there are: sensible ones, stale ones and wrong ones.

use super::*;
use segue_core::letter::{EndedProcess, Secret};
use segue_core::state::{Expect, KeyPut, OutcomeState, Policy};
use segue_core::task::{Priority, ProcessRef, Usage};

/// What kind of command is drawn; how often is said in [`KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A single task.
    One,
    /// A group with children, some of them groups themselves.
    Graph,
    /// Give work to some or all.
    Assign,
    /// An agent began, goes on, or has left processes behind.
    Notice,
    /// An attempt ended, this one or an earlier one.
    Finish,
    /// An agent hands out work and goes on.
    Delegate,
    /// The engine answers a piece of work that was left behind, or one that was not.
    Expand,
    /// A cascade goes on, due or not.
    Continue,
    /// An operator's wish.
    Operator,
    /// The timer.
    Tick,
    /// Agents come, stay and go.
    Agents,
    /// Letters were published.
    Settle,
    /// Time passes.
    Pass,
}

/// Every kind, the frequent ones more often.
pub const KINDS: [Kind; 24] = [
    Kind::One,
    Kind::One,
    Kind::Graph,
    Kind::Graph,
    Kind::Assign,
    Kind::Assign,
    Kind::Assign,
    Kind::Notice,
    Kind::Finish,
    Kind::Finish,
    Kind::Finish,
    Kind::Finish,
    Kind::Finish,
    Kind::Delegate,
    Kind::Expand,
    Kind::Expand,
    Kind::Continue,
    Kind::Continue,
    Kind::Operator,
    Kind::Operator,
    Kind::Tick,
    Kind::Agents,
    Kind::Settle,
    Kind::Pass,
];

/// A draw: small numbers from one seed.
pub struct Dice(Chance);

impl Dice {
    /// The dice of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(Chance::new(seed))
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        (self.0.next_u64() % sides.max(1) as u64) as usize
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { Some(items[self.roll(items.len())].clone()) }
    }
}

/// The agents of a host: `a` and `b`, and on the first host one with a capability alone.
pub fn agents_of(of: u64) -> Vec<AgentSpec> {
    let mut agents =
        vec![agent(of * 10, "a", 2, &["work"]), agent(of * 10 + 1, "b", 1, &["rare", "work"])];
    if of == 1 {
        agents.push(agent(12, "c", 1, &["ghost"]));
    }
    agents
}

impl Town {
    /// A town with two hosts, whose agents are few enough to be busy.
    pub fn busy() -> Town {
        let ctx = Ctx { now: BEGIN, chance: Chance::new(7), key: [9; 32] };
        let mut town = Town { world: World::new(), ctx, checked: true };
        for of in [1, 2] {
            town.register(of, 1, agents_of(of)).expect("a first registration");
        }
        town
    }

    /// Lets everybody come back to work, so that nothing but the rules can hold a task.
    pub fn call_everybody(&mut self) {
        for of in [1, 2] {
            self.register(of, 1_000, agents_of(of)).expect("a new life");
        }
        for name in ["a", "b", "c"] {
            self.act(Command::Drain { agent: name.into(), drained: false }).expect("known");
        }
    }

    /// A command of this kind; `None` where there is nothing that it could be about, or where it was only time that passed.
    pub fn draw(&mut self, kind: Kind, dice: &mut Dice) -> Option<Command> {
        match kind {
            Kind::One => Some(self.draw_one(dice)),
            Kind::Graph => Some(self.draw_graph(dice)),
            Kind::Assign => Some(self.draw_assign(dice)),
            Kind::Notice => self.draw_notice(dice),
            Kind::Finish => self.draw_finish(dice),
            Kind::Delegate => {
                let task = self.any_attempted(dice)?;
                let proof = self.draw_proof(task, dice);
                Some(Command::Delegate { proof, tasks: draw_delegation(dice) })
            }
            Kind::Expand => self.draw_expand(dice),
            Kind::Continue => self.draw_continue(dice),
            Kind::Operator => {
                let task = self.any_task(dice)?;
                Some(match dice.roll(6) {
                    0 => Command::Resume { task },
                    1 => Command::Cancel { task, reason: "enough".into() },
                    2 => Command::Retry { task },
                    _ => Command::Requeue { task },
                })
            }
            Kind::Tick => Some(Command::Tick { limit: 1_000, excused: Excused::Nobody }),
            Kind::Agents => Some(draw_agents(dice)),
            Kind::Settle => {
                let letters: Vec<u64> = self.world.letters.keys().copied().collect();
                Some(Command::Settle { letters: dice.pick(&letters).into_iter().collect() })
            }
            Kind::Pass => {
                self.pass_ms([1, 500, 5_000, 40_000][dice.roll(4)]);
                None
            }
        }
    }

    fn any_task(&self, dice: &mut Dice) -> Option<TaskId> {
        let ids: Vec<TaskId> = self.world.tasks.keys().copied().collect();
        dice.pick(&ids)
    }

    fn any_attempted(&self, dice: &mut Dice) -> Option<TaskId> {
        let attempted = |task: &&Arc<Task>, current: bool| {
            task.attempt.is_some() && (!current || task.state.holds_slot())
        };
        // Mostly those that run: others have nothing to say as a rule.
        let current = !dice.once_in(4);
        let tasks = self.world.tasks.values().filter(|task| attempted(task, current));
        dice.pick(&tasks.map(|task| task.id()).collect::<Vec<_>>())
    }

    fn draw_spec(&self, id: TaskId, name: &str, dice: &mut Dice) -> TaskSpec {
        let routes = [
            Route::agent("a"),
            Route::agent("b"),
            Route::capability("work"),
            Route::capability("ghost"),
        ];
        let policies = [OnFailure::Fail, OnFailure::Fail, OnFailure::Skip, OnFailure::Continue];
        let mut spec = TaskSpec::new(id, name, routes[dice.roll(4)].clone());
        spec.on_failure = policies[dice.roll(4)];
        spec.retry.attempts = 1 + dice.roll(2) as u32;
        spec.retry.lost_max = dice.roll(3) as u32;
        spec.priority = Priority::new(1 + dice.roll(10) as u8).expect("1 to 10");
        if !dice.once_in(3) {
            spec.state_keys = vec!["k0".into(), "k1*".into(), "k2".into(), "k3".into()];
        }
        if dice.once_in(6) {
            spec.timeouts.queue_ms = Some(20_000);
        }
        if dice.once_in(6) {
            spec.timeouts.run_ms = Some(5_000);
        }
        if dice.once_in(10) {
            spec.timeouts.whole_ms = Some(60_000);
        }
        let template = |when: Option<&str>, for_each: Option<&str>| {
            let (when, for_each) = (when.map(Arc::from), for_each.map(Arc::from));
            let max_parallel = for_each.is_some().then_some(2);
            Some(Box::new(Template {
                input: true,
                when,
                for_each,
                max_parallel,
                ..Template::default()
            }))
        };
        spec.template = match dice.roll(10) {
            0 => template(None, None),
            1 => template(Some("false"), None),
            2 => template(None, Some("[1, 2, 3]")),
            _ => None,
        };
        spec
    }

    fn draw_needs(&self, among: &[TaskId], dice: &mut Dice) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        for _ in 0..dice.roll(4) {
            if let Some(task) = dice.pick(among)
                && needs.iter().all(|need| need.task != task)
            {
                needs.push(Need { task, name: None, order_only: dice.once_in(5) });
            }
        }
        needs
    }

    fn next_id(&self) -> u64 {
        self.world.tasks.len() as u64 + 1_000 * self.world.cursor
    }

    fn draw_one(&self, dice: &mut Dice) -> Command {
        let mut spec = self.draw_spec(task_id(self.next_id()), "one", dice);
        let known: Vec<TaskId> = self.world.tasks.keys().copied().collect();
        spec.needs = self.draw_needs(&known, dice);
        if dice.once_in(8) {
            spec.idempotency_key = Some(format!("key{}", dice.roll(2)).into());
        }
        Town::submission(vec![spec])
    }

    fn draw_graph(&self, dice: &mut Dice) -> Command {
        let first = self.next_id();
        let mut root = group(first, "run");
        if dice.once_in(4) {
            root.timeouts.whole_ms = Some(30_000);
        }
        let mut specs = vec![root];
        let mut groups = vec![first];
        // A need may point to any task of the submit, later ones too: some of these are cycles, and refused.
        let forward = dice.once_in(3);
        let size = 1 + dice.roll(6) as u64;
        let outside: Vec<TaskId> = self.world.tasks.keys().copied().collect();
        for n in 1..=size {
            let parent = groups[dice.roll(groups.len())];
            let is_group = dice.once_in(6);
            let mut spec = self.draw_spec(task_id(first + n), "child", dice);
            let last = if forward { size } else { n - 1 };
            let mut among: Vec<TaskId> = (1..=last).map(|it| task_id(first + it)).collect();
            if dice.once_in(5) {
                among.extend(&outside);
            }
            if is_group {
                spec.route = Route::Group;
                spec.template = None;
                groups.push(first + n);
            } else {
                spec.needs = self.draw_needs(&among, dice);
            }
            spec.parent = Some(task_id(parent));
            spec.root = task_id(first);
            specs.push(spec);
        }
        Town::submission(specs)
    }

    fn draw_assign(&self, dice: &mut Dice) -> Command {
        let mut candidates = Vec::new();
        for id in self.world.agents.keys() {
            if !dice.once_in(8) {
                let health = if dice.once_in(10) { 0.5 } else { 0.9 };
                candidates.push(Candidate { instance: *id, health, load: 0.1 });
            }
        }
        Command::Assign(Assign { candidates: candidates.into(), limit: 1 + dice.roll(10) })
    }

    fn draw_proof(&self, task: TaskId, dice: &mut Dice) -> Proof {
        let mut attempts: Vec<AttemptId> = self
            .world
            .attempts
            .values()
            .filter(|record| record.task == task)
            .map(|record| record.attempt.id)
            .collect();
        let latest = self.attempt(task).id;
        let attempt = if dice.once_in(4) {
            attempts.push(latest);
            dice.pick(&attempts).unwrap_or(latest)
        } else {
            latest
        };
        let mut proof = self.proof_of(task, attempt);
        if dice.once_in(20) {
            proof.secret = Secret([0; 32]);
        }
        proof
    }

    fn draw_notice(&self, dice: &mut Dice) -> Option<Command> {
        let task = self.any_attempted(dice)?;
        let proof = self.draw_proof(task, dice);
        let process = ProcessRef { pid: 7, start_time: 8 };
        Some(match dice.roll(4) {
            0 => Command::Progress { proof, note: text("\"half\"") },
            1 => {
                let ended = vec![EndedProcess { process, name: "sh".into(), signal: Some(15) }];
                Command::Reaped { proof, ended }
            }
            _ => Command::Start { proof, at: self.ctx.now, process: Some(process) },
        })
    }

    fn draw_finish(&self, dice: &mut Dice) -> Option<Command> {
        let task = self.any_attempted(dice)?;
        let proof = self.draw_proof(task, dice);
        let classes = [
            ErrorClass::Transient,
            ErrorClass::Permanent,
            ErrorClass::Timeout,
            ErrorClass::Skipped,
            ErrorClass::Upstream,
        ];
        let outcome = match dice.roll(10) {
            0..=3 => complete(),
            4 | 5 => fail(classes[dice.roll(5)]),
            6 => Outcome::Cancelled,
            _ => delegate(draw_delegation(dice), dice.once_in(2)),
        };
        let response = TaskResponse {
            attempt: proof.attempt,
            secret: proof.secret,
            started_at: Some(self.ctx.now),
            process: None,
            outcome,
            state: draw_writes(dice),
            usage: dice.once_in(2).then(|| Usage { output_tokens: 5, ..Usage::default() }),
            ended: Vec::new(),
        };
        Some(Command::Finish { task, response: Box::new(response) })
    }

    fn draw_expand(&self, dice: &mut Dice) -> Option<Command> {
        let duties: Vec<Duty> = self.world.duties.values().cloned().collect();
        if let Some(duty) = dice.pick(&duties)
            && matches!(duty.kind, DutyKind::Render | DutyKind::Collect)
        {
            if dice.once_in(6) {
                let error = TaskError::new(ErrorClass::Template, "`x` is undefined");
                return Some(Command::Expand { task: duty.task, rendered: Err(error) });
            }
            return Some(self.answer(&duty));
        }
        // A second answer, after a crash.
        let task = self.any_task(dice)?;
        let kind = if dice.once_in(2) { DutyKind::Render } else { DutyKind::Collect };
        Some(self.answer(&Duty { task, kind }))
    }

    fn draw_continue(&self, dice: &mut Dice) -> Option<Command> {
        let is_cascade = |duty: &&Duty| {
            matches!(duty.kind, DutyKind::Propagate { .. } | DutyKind::CancelChildren { .. })
        };
        let duties: Vec<Duty> = self.world.duties.values().filter(is_cascade).cloned().collect();
        if let Some(duty) = dice.pick(&duties)
            && !dice.once_in(5)
        {
            return Some(Command::Continue(duty));
        }
        // One that was done already, by another node.
        let task = self.any_task(dice)?;
        let kind = if dice.once_in(2) {
            DutyKind::Propagate { after: None, parent: false }
        } else {
            DutyKind::CancelChildren { after: None }
        };
        // What is pending must not be marked as done by a duty from the middle of it.
        let pending = self.world.duties.get(&(task, kind.as_str()));
        Some(Command::Continue(pending.cloned().unwrap_or(Duty { task, kind })))
    }
}

/// What an outcome writes into shared state: mostly nothing, and now and then what no task may write.
fn draw_writes(dice: &mut Dice) -> OutcomeState {
    let mut put = Vec::new();
    for _ in 0..dice.roll(3) {
        put.push(KeyPut {
            key: format!("k{}", dice.roll(5)).into(),
            value: text(["1", "{\"a\":1}", "{\"b\":2}"][dice.roll(3)]),
            expect: [Expect::Anything, Expect::Absent, Expect::Version(1 + dice.roll(9) as u64)]
                [dice.roll(3)],
            policy: [None, Some(Policy::Merge), Some(Policy::LastWriter)][dice.roll(3)],
        });
    }
    OutcomeState { put }
}

fn draw_delegation(dice: &mut Dice) -> Vec<Delegated> {
    let keys = ["x", "y", "z"];
    let policies = [OnFailure::Fail, OnFailure::Skip, OnFailure::Continue];
    let first = dice.roll(3);
    keys[first..]
        .iter()
        .enumerate()
        .map(|(place, key)| {
            let needs = if place > 0 && dice.once_in(2) { vec![keys[first]] } else { Vec::new() };
            let mut task = delegated(key, &needs);
            task.template = dice.once_in(4);
            if dice.once_in(4) {
                task.state_keys = vec!["k1".into()];
            }
            task.on_failure = policies[dice.roll(3)];
            task.retry.attempts = 1 + dice.roll(2) as u32;
            task
        })
        .collect()
}

fn draw_agents(dice: &mut Dice) -> Command {
    let of = 1 + dice.roll(2) as u64;
    match dice.roll(6) {
        0 | 1 => {
            let mut agents = agents_of(of);
            if dice.once_in(3) {
                agents.pop();
            }
            let incarnation = life(1 + dice.roll(3) as u64);
            Command::Register { host: host(of), incarnation, agents, lease_ms: LEASE_MS }
        }
        2 | 3 => {
            let incarnation = life(1 + dice.roll(3) as u64);
            Command::Renew { host: host(of), incarnation, lease_ms: LEASE_MS }
        }
        4 => Command::Drain {
            agent: ["a", "b", "nobody"][dice.roll(3)].into(),
            drained: dice.once_in(2),
        },
        _ => Command::ExpireAgent {
            instance: instance(of * 10 + dice.roll(3) as u64),
            reason: "not heard of".into(),
        },
    }
}
