//! The same random commands to the store and to the reference in memory: every answer and every row must be alike.

use super::place::*;
use super::state::{put, state, write};
use crate::memory::MemoryStore;
use segue_core::command::NewTask;
use segue_core::command::{Command, DutyKind, Excused, Rendered, Reply, Submit};
use segue_core::decide::Chance;
use segue_core::event::Event;
use segue_core::ids::{Incarnation, TaskId};
use segue_core::letter::{Letter, LetterBody, Secret};
use segue_core::outcome::Outcome;
use segue_core::ports::{Decision, EventFilter, Store, TaskFilter};
use segue_core::state::{Claim, Expect, KeyPut, OutcomeState, Policy, StateCommand};
use segue_core::task::{
    ErrorClass, Need, OnFailure, Priority, Route, Task, TaskError, TaskSpec, Template, Timeouts,
};
use std::sync::Arc;

/// Batches of random commands.
const BATCHES: usize = 250;

/// Batches between two comparisons of all that both tell.
const COMPARED_EVERY: usize = 10;

/// Random commands, with reports that are doubled, late, forged or about nothing at all among them.
pub async fn random_commands_give_what_the_reference_gives(place: &Place) {
    let reference: Arc<dyn Store> =
        Arc::new(MemoryStore::new(place.clock.clone(), place.seed, place.key));
    let plan = Plan { seed: 7, commands: usize::MAX, batches: BATCHES, every: COMPARED_EVERY };
    random_commands_give_the_same(place, &reference, plan).await;
}

/// How much is asked, and how often everything is compared.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Makes the commands: the same seed makes the same ones.
    pub seed: u64,
    /// Ends after so many commands,
    pub commands: usize,
    /// or so many batches.
    pub batches: usize,
    /// So many batches lie between two comparisons of all that both tell.
    pub every: usize,
}

/// Random commands to the store of the place and to another one that has its clock, seed and key: every answer and every row must be
/// alike. Returns how many commands were given.
pub async fn random_commands_give_the_same(
    place: &Place,
    reference: &Arc<dyn Store>,
    plan: Plan,
) -> usize {
    let hands = place.open().await;
    let mut driver = Driver::new(place, plan.seed);
    let mut compared = Compared::default();
    let (mut given, mut round) = (0, 0);
    while round < plan.batches && given < plan.commands {
        if driver.below(4) == 0 {
            place.clock.advance(driver.below(20_000) as i64);
        }
        let batch = driver.batch(reference).await;
        let ours = hands.apply(batch.clone()).await;
        let theirs = reference.apply(batch.clone()).await.expect("the reference commits");
        for ((command, ours), theirs) in batch.iter().zip(&ours).zip(&theirs) {
            assert_eq!(ours, theirs, "round {round}: {command:?}");
        }
        driver.learn(&ours);
        given += batch.len();
        round += 1;
        if round % plan.every == 1 {
            compare(hands.store(), reference, round, &mut compared).await;
        }
    }
    // At the end, nothing is left out because it looked the same before.
    compare(hands.store(), reference, round, &mut Compared::default()).await;
    let seen = driver.accepted;
    assert!(seen.len() >= 24, "nearly every kind of command was accepted at least once: {seen:?}");
    given
}

/// What the last comparison saw: what has not changed since need not be looked at again.
#[derive(Default)]
struct Compared {
    tasks: std::collections::HashMap<TaskId, Arc<Task>>,
    cursor: u64,
}

/// Compares all that both tell.
async fn compare(
    ours: &Arc<dyn Store>,
    theirs: &Arc<dyn Store>,
    round: usize,
    compared: &mut Compared,
) {
    let all = || TaskFilter { limit: usize::MAX, ..TaskFilter::default() };
    let (our_tasks, their_tasks) =
        (ours.tasks(all()).await.expect("reads"), theirs.tasks(all()).await.expect("reads"));
    for (one, two) in our_tasks.iter().zip(&their_tasks) {
        assert_eq!(one, two, "round {round}");
        let id = one.id();
        if compared.tasks.get(&id) != Some(one) {
            let records = theirs.attempts(id).await.expect("reads");
            assert_eq!(ours.attempts(id).await.expect("reads"), records, "round {round}");
            compared.tasks.insert(id, one.clone());
        }
    }
    assert_eq!(our_tasks.len(), their_tasks.len());
    let after = compared.cursor;
    let log = async |store: &Arc<dyn Store>| -> Vec<Event> {
        let filter = EventFilter { after, limit: usize::MAX, ..EventFilter::default() };
        store.events(filter).await.expect("reads")
    };
    let events = log(ours).await;
    assert_eq!(events, log(theirs).await, "round {round}");
    compared.cursor = events.last().map_or(after, |event| event.cursor);
    // A store may drop a letter that gives out an attempt which has ended.
    let current = |letter: &Letter| match &letter.body {
        LetterBody::TaskRequest(request) => their_tasks.iter().any(|task| {
            task.current_attempt().is_some_and(|attempt| attempt.id == request.attempt)
        }),
        _ => true,
    };
    let mut our_letters = ours.unsent(0, usize::MAX).await.expect("reads");
    let mut their_letters = theirs.unsent(0, usize::MAX).await.expect("reads");
    our_letters.retain(current);
    their_letters.retain(current);
    assert_eq!(our_letters, their_letters, "round {round}");
    let mut duties = (
        ours.duties(usize::MAX).await.expect("reads"),
        theirs.duties(usize::MAX).await.expect("reads"),
    );
    duties.0.sort();
    duties.1.sort();
    assert_eq!(duties.0, duties.1, "round {round}");
    assert_eq!(ours.agents().await, theirs.agents().await, "round {round}");
    assert_eq!(ours.counts().await, theirs.counts().await, "round {round}");
    assert_eq!(ours.next_due().await, theirs.next_due().await, "round {round}");
    assert_eq!(ours.now(), theirs.now(), "round {round}");
    compare_state(ours, theirs, round).await;
}

async fn compare_state(ours: &Arc<dyn Store>, theirs: &Arc<dyn Store>, round: usize) {
    let all = async |store: &Arc<dyn Store>| {
        let mut history = Vec::new();
        for key in 0..4 {
            let key = format!("k{key}").into();
            history.push(store.state_history(key, None, usize::MAX).await.expect("reads"));
        }
        let read = (
            store.state_list("".into(), None, usize::MAX).await.expect("reads"),
            store.state_changes("".into(), 0, usize::MAX).await.expect("reads"),
            store.state_policies().await.expect("reads"),
            store.locks(None, usize::MAX).await.expect("reads"),
            store.state_stamp().await.expect("reads"),
        );
        (history, read)
    };
    assert_eq!(all(ours).await, all(theirs).await, "round {round}");
}

/// Makes up commands that fit more or less.
struct Driver<'a> {
    place: &'a Place,
    chance: Chance,
    workers: Vec<Worker>,
    tasks: Vec<TaskId>,
    work: Vec<Work>,
    accepted: std::collections::BTreeSet<&'static str>,
    last: Vec<&'static str>,
    /// The last number of a version or token that was given out.
    stamp: u64,
}

impl<'a> Driver<'a> {
    fn new(place: &'a Place, seed: u64) -> Driver<'a> {
        Driver {
            place,
            chance: Chance::new(seed),
            workers: Vec::new(),
            tasks: Vec::new(),
            work: Vec::new(),
            accepted: Default::default(),
            last: Vec::new(),
            stamp: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.chance.next_u64() % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    async fn batch(&mut self, reference: &Arc<dyn Store>) -> Vec<Command> {
        let size = 1 + self.below(12);
        let mut batch = Vec::with_capacity(size);
        for _ in 0..size {
            batch.push(self.command(reference).await);
        }
        if self.one_in(2) {
            batch.push(self.assign());
        }
        self.last = batch.iter().map(Command::name).collect();
        batch
    }

    /// Remembers the work that was given out.
    fn learn(&mut self, decisions: &[Decision]) {
        for (name, decision) in std::mem::take(&mut self.last).into_iter().zip(decisions) {
            if let Ok(effects) = decision {
                self.accepted.insert(name);
                if let Reply::Stored { version: new, .. } | Reply::Locked { token: new, .. } =
                    effects.reply
                {
                    self.stamp = self.stamp.max(new);
                }
                self.work.extend(work(&effects.letters));
            }
        }
    }

    async fn command(&mut self, reference: &Arc<dyn Store>) -> Command {
        match self.below(30) {
            0..=4 => self.submit(),
            5 | 6 => self.register(),
            7..=9 => self.assign(),
            10..=16 => self.report(),
            17 => Command::Cancel { task: self.any_task(), reason: "by chance".into() },
            18 => Command::Retry { task: self.any_task() },
            19 => Command::Requeue { task: self.any_task() },
            20 => Command::Resume { task: self.any_task() },
            21 => {
                let chance = self.below(20);
                let excused = if chance < 4 { Excused::Workers } else { Excused::Nobody };
                Command::Tick { limit: 1_000 + chance, excused }
            }
            22 => self.about_a_host(),
            26..=29 => self.about_state(),
            23 => {
                let letters = reference.unsent(0, 30).await.expect("reads");
                let settled =
                    letters.iter().filter(|_| self.one_in(2)).map(|letter| letter.seq).collect();
                Command::Settle { letters: settled }
            }
            _ => self.duty(reference).await,
        }
    }

    fn any_task(&mut self) -> TaskId {
        if self.tasks.is_empty() || self.one_in(40) {
            return TaskId(self.place.id());
        }
        // Mostly a young one: the old ones have ended.
        let window = self.tasks.len().min(60);
        let at = self.tasks.len() - 1 - self.below(window);
        self.tasks[at]
    }

    fn assign(&mut self) -> Command {
        let limit = 1 + self.below(10);
        let fit = |worker: &Worker| segue_core::command::Candidate {
            instance: worker.spec.instance,
            health: 1.0,
            load: 0.0,
        };
        let candidates = self.workers.iter().map(fit).collect::<Vec<_>>().into();
        Command::Assign(segue_core::command::Assign { candidates, limit })
    }

    fn route(&mut self) -> Route {
        match self.below(6) {
            0 => Route::capability("review"),
            1 => Route::agent("nobody"),
            2 | 3 => Route::agent("b"),
            _ => Route::agent("a"),
        }
    }

    fn spec(&mut self) -> TaskSpec {
        let id = TaskId(self.place.id());
        let mut spec = TaskSpec::new(id, &format!("task {}", id.short()), self.route());
        spec.priority = Priority::new(1 + self.below(10) as u8).expect("1 to 10");
        spec.on_failure = [OnFailure::Fail, OnFailure::Skip, OnFailure::Continue][self.below(3)];
        spec.retry.attempts = 1 + self.below(3) as u32;
        spec.retry.lost_max = self.below(3) as u32;
        let limit =
            |driver: &mut Self| driver.one_in(5).then(|| 1_000 + driver.below(60_000) as u64);
        spec.timeouts =
            Timeouts { queue_ms: limit(self), run_ms: limit(self), whole_ms: limit(self) };
        if self.one_in(3) {
            let given = format!("00-{:032x}-{:016x}-00", self.below(9) + 1, self.below(9) + 1);
            spec.traceparent = given.parse().ok();
        }
        if self.one_in(2) {
            spec.state_keys = vec!["k0".into(), "k1".into(), "k2*".into()];
        }
        if self.one_in(12) {
            spec.template = Some(Box::new(Template {
                input: self.one_in(2),
                for_each: self.one_in(2).then(|| "input".into()),
                max_parallel: Some(2),
                ..Template::default()
            }));
        }
        spec
    }

    fn submit(&mut self) -> Command {
        let mut specs = vec![self.spec()];
        if self.one_in(3) {
            specs[0].route = Route::Group;
            specs[0].template = None;
            let (root, count) = (specs[0].id, self.below(6));
            for _ in 0..count {
                let mut spec = self.spec();
                spec.parent = Some(root);
                spec.root = root;
                spec.key = self.one_in(2).then(|| format!("key {}", spec.id.short()).into());
                specs.push(spec);
            }
        } else {
            for _ in 0..self.below(3) {
                let mut need = Need { task: self.any_task(), name: None, order_only: false };
                need.order_only = self.one_in(4);
                if specs[0].needs.iter().all(|other| other.task != need.task) {
                    specs[0].needs.push(need);
                }
            }
            if self.one_in(8) {
                specs[0].idempotency_key = Some(format!("key {}", self.below(3)).into());
            }
        }
        for at in 2..specs.len() {
            if self.one_in(2) {
                let task = specs[at - 1].id;
                specs[at].needs.push(Need { task, name: Some("it".into()), order_only: false });
            }
        }
        self.tasks.extend(specs.iter().map(|spec| spec.id));
        let tasks = specs.into_iter().map(|spec| NewTask { spec, input: json("[1]") }).collect();
        Command::Submit(Submit { tasks })
    }

    fn register(&mut self) -> Command {
        if self.workers.len() < 5 {
            let name = ["a", "b"][self.below(2)];
            let slots = 1 + self.below(4) as u32;
            let instance = segue_core::ids::InstanceId(self.place.id());
            self.workers.push(Worker {
                host: segue_core::ids::HostId(self.place.id()),
                incarnation: Incarnation(self.place.id()),
                spec: agent(instance, name, slots, if slots > 2 { &["review"] } else { &[] }),
            });
        }
        let at = self.below(self.workers.len());
        if self.one_in(6) {
            self.workers[at].incarnation = Incarnation(self.place.id());
        }
        let lease_ms = 20_000 + self.below(200_000) as u64;
        self.workers[at].register(lease_ms)
    }

    fn about_a_host(&mut self) -> Command {
        if self.workers.is_empty() {
            return Command::Drain { agent: "a".into(), drained: true };
        }
        let at = self.below(self.workers.len());
        let worker = self.workers[at].clone();
        match self.below(6) {
            0 => Command::Drain { agent: worker.spec.name.clone(), drained: true },
            1 | 2 => Command::Drain { agent: worker.spec.name.clone(), drained: false },
            3 => Command::ExpireAgent { instance: worker.spec.instance, reason: "chance".into() },
            _ => Command::Renew {
                host: worker.host,
                incarnation: worker.incarnation,
                lease_ms: 100_000,
            },
        }
    }

    fn report(&mut self) -> Command {
        if self.work.is_empty() {
            return self.assign();
        }
        let window = self.work.len().min(20);
        let at = self.work.len() - 1 - self.below(window);
        let mut work = self.work[at].clone();
        if self.one_in(50) {
            work.request.secret = Secret([3; 32]);
        }
        if self.one_in(50) {
            work.task = self.any_task();
        }
        match self.below(13) {
            0 | 1 => work.start(BEGIN),
            2 => Command::Progress { proof: work.proof(), note: json("{\"half\":0.5}") },
            3 => work.fail(ErrorClass::Transient),
            4 => work.fail([ErrorClass::Permanent, ErrorClass::Timeout][self.below(2)]),
            5 => work.end(Outcome::Cancelled),
            6 => {
                let tasks = vec![delegated("one", "a"), delegated("two", "b")];
                let continuation = self.one_in(2).then(|| json("\"so far\""));
                work.end(Outcome::Delegate { tasks, resume: self.one_in(2), continuation })
            }
            7 => {
                let key = ["one", "three"][self.below(2)];
                Command::Delegate { proof: work.proof(), tasks: vec![delegated(key, "a")] }
            }
            8 => Command::Reaped { proof: work.proof(), ended: Vec::new() },
            9 => {
                work.end_with(Outcome::Complete { output: json("{\"done\":true}") }, self.writes())
            }
            _ => work.complete(),
        }
    }

    /// What an outcome writes: some of it no task may write.
    fn writes(&mut self) -> OutcomeState {
        let mut put = Vec::new();
        for _ in 0..1 + self.below(2) {
            let recent = self.stamp.saturating_sub(self.below(12) as u64);
            put.push(KeyPut {
                key: format!("k{}", self.below(5)).into(),
                value: json(&format!(r#"{{"o":{}}}"#, recent % 3)),
                expect: [Expect::Anything, Expect::Absent, Expect::Version(recent)][self.below(3)],
                policy: [None, Some(Policy::Merge), Some(Policy::LastWriter)][self.below(3)],
            });
        }
        OutcomeState { put }
    }

    fn about_state(&mut self) -> Command {
        let name = ["one", "two"][self.below(2)];
        // Mostly one that was issued lately.
        let recent = self.stamp.saturating_sub(self.below(12) as u64);
        let fence = Claim { name: name.into(), token: recent };
        match self.below(12) {
            0 => {
                let pattern = ["k*", "k1", "*"][self.below(3)].into();
                let policies = [Policy::Reject, Policy::LastWriter, Policy::Merge];
                let policy = policies.get(self.below(4)).copied();
                state(StateCommand::SetPolicy { pattern, policy })
            }
            1 => {
                let ttl_ms = 1 + self.below(60_000) as u64;
                let holder = "by chance".into();
                state(StateCommand::Lock { name: name.into(), holder, ttl_ms })
            }
            2 => state(StateCommand::RenewLock { fence, ttl_ms: 30_000 }),
            3 => state(StateCommand::ReleaseLock { fence }),
            _ => {
                let members: Vec<String> = ["a", "b", "c"]
                    .iter()
                    .filter(|_| !self.one_in(3))
                    .map(|member| format!(r#""{member}":{}"#, recent % 3))
                    .collect();
                let value = format!("{{{}}}", members.join(","));
                let mut put = put(&format!("k{}", self.below(4)), &value);
                if self.one_in(8) {
                    put.value = None;
                }
                put.expect = match self.below(5) {
                    0 => Expect::Anything,
                    1 => Expect::Absent,
                    _ => Expect::Version(recent),
                };
                put.fence = self.one_in(6).then_some(fence);
                write(put)
            }
        }
    }

    /// What the engine would do with work that was left behind.
    async fn duty(&mut self, reference: &Arc<dyn Store>) -> Command {
        let duties = reference.duties(50).await.expect("reads");
        if duties.is_empty() {
            return self.report();
        }
        let duty = duties[self.below(duties.len())].clone();
        let rendered = match duty.kind {
            DutyKind::Propagate { .. } | DutyKind::CancelChildren { .. } => {
                return Command::Continue(duty);
            }
            DutyKind::Collect => Rendered::Output(json("[]")),
            DutyKind::Render => match self.below(4) {
                0 => Rendered::Skip { reason: "by chance".into() },
                1 => Rendered::Items(vec![json("1"), json("2"), json("3")]),
                _ => Rendered::Input(json("{\"rendered\":1}")),
            },
        };
        let failed = || TaskError::new(ErrorClass::Template, "by chance");
        let rendered = if self.one_in(6) { Err(failed()) } else { Ok(rendered) };
        Command::Expand { task: duty.task, rendered }
    }
}
