//! Where a question is asked, and the hands that ask it.

use parking_lot::Mutex;
use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::command::{Assign, Candidate, Command, NewTask, Proof, Reject, Submit};
use segue_core::event::Event;
use segue_core::ids::{HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{Letter, LetterBody, TaskRequest, TaskResponse};
use segue_core::outcome::{Delegated, Outcome};
use segue_core::payload::Payload;
use segue_core::ports::{Blobs, Clock, Effects, EventFilter, Fut, Store};
use segue_core::retry::RetryPolicy;
use segue_core::state::OutcomeState;
use segue_core::task::{
    ErrorClass, OnFailure, Route, Task, TaskError, TaskSpec, TaskState, Timeouts,
};
use segue_core::time::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use uuid::Uuid;

/// The moment at which every place begins.
pub const BEGIN: Time = Time(1_750_000_000_000);

/// The key that a place gives its store.
pub const KEY: [u8; 32] = *b"a key for tests, and no secret !";

/// The seed that a place gives its store when it opens it for the first time; each time after that another one.
pub const SEED: u64 = 42;

/// A clock that only moves when it is told to.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    /// A clock that stands at [`BEGIN`].
    pub fn new() -> Arc<TestClock> {
        Arc::new(TestClock(AtomicI64::new(BEGIN.0)))
    }

    /// Moves it on by so many milliseconds; a negative number moves it back.
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }
}

/// An open store.
#[derive(Clone)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its bodies; `None` where the backend keeps none.
    pub blobs: Option<Arc<dyn Blobs>>,
}

/// Opens the same state, again and again. What an earlier call returned has been dropped before.
pub type Open = Box<dyn Fn() -> Fut<'static, Opened> + Send + Sync>;

/// A place of its own for one question.
pub struct Place {
    /// The clock that the store goes by.
    pub clock: Arc<TestClock>,
    /// The key of the secrets that the store was given.
    pub key: [u8; 32],
    /// Where the store takes its ids and jitter from when it is opened for the first time.
    pub seed: u64,
    open: Open,
    ids: AtomicU64,
    /// Kept until the question is answered: a folder, a server.
    _guard: Mutex<Box<dyn std::any::Any + Send>>,
}

impl Place {
    /// A place whose store is opened by `open` with this clock, [`KEY`] and [`SEED`]; `guard` is dropped with it.
    pub fn new(clock: Arc<TestClock>, open: Open, guard: impl std::any::Any + Send) -> Place {
        let guard = Mutex::new(Box::new(guard) as Box<dyn std::any::Any + Send>);
        Place { clock, key: KEY, seed: SEED, open, ids: AtomicU64::new(1), _guard: guard }
    }

    /// Opens the store.
    pub async fn open(&self) -> Hands<'_> {
        Hands { place: self, opened: (self.open)().await, candidates: Mutex::new(Vec::new()) }
    }

    /// A new id, greater than every earlier one.
    pub fn id(&self) -> Uuid {
        let number = self.ids.fetch_add(1, Ordering::SeqCst);
        let mut counter = [0; 10];
        // The first bits are taken by the version and the variant.
        counter[2..].copy_from_slice(&number.to_be_bytes());
        let ms = u64::try_from(self.clock.now().0).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(ms, &counter).into_uuid()
    }
}

/// A text as a payload.
pub fn json(text: &str) -> Payload {
    Payload::of_text(text).expect("a JSON text that is not too long")
}

/// A text of this length, quotes included.
pub fn text_of(length: usize) -> String {
    assert!(length >= 2, "two bytes are taken by the quotes");
    format!("\"{}\"", "x".repeat(length - 2))
}

/// Hands on an open store: they submit, register, assign and report as an engine would.
pub struct Hands<'a> {
    /// The place.
    pub place: &'a Place,
    opened: Opened,
    candidates: Mutex<Vec<Candidate>>,
}

impl Hands<'_> {
    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.opened.store
    }

    /// The bodies, where the backend keeps them.
    pub fn blobs(&self) -> Option<&Arc<dyn Blobs>> {
        self.opened.blobs.as_ref()
    }

    /// Applies a batch; the store itself must not fail.
    pub async fn apply(&self, batch: Vec<Command>) -> Vec<Result<Effects, Reject>> {
        let count = batch.len();
        let decisions = self.store().apply(batch).await.expect("the store commits");
        assert_eq!(decisions.len(), count, "one decision a command");
        decisions
    }

    /// Applies one command, which must be accepted.
    pub async fn one(&self, command: Command) -> Effects {
        self.try_one(command).await.expect("the command is accepted")
    }

    /// Applies one command.
    pub async fn try_one(&self, command: Command) -> Result<Effects, Reject> {
        self.apply(vec![command]).await.remove(0)
    }

    /// A task of its own for this agent.
    pub fn spec(&self, agent: &str) -> TaskSpec {
        let id = TaskId(self.place.id());
        TaskSpec::new(id, &format!("task {}", id.short()), Route::agent(agent))
    }

    /// Submits one task with a small input.
    pub async fn submit(&self, spec: TaskSpec) -> TaskId {
        let id = spec.id;
        self.one(submit(vec![spec])).await;
        id
    }

    /// Registers one instance with so many slots, on a host of its own, for a day.
    pub async fn register(&self, name: &str, slots: u32) -> Worker {
        self.register_with(name, slots, &[]).await
    }

    /// Registers one instance with these capabilities.
    pub async fn register_with(&self, name: &str, slots: u32, capabilities: &[&str]) -> Worker {
        let worker = Worker {
            host: HostId(self.place.id()),
            incarnation: Incarnation(self.place.id()),
            spec: agent(InstanceId(self.place.id()), name, slots, capabilities),
        };
        self.one(worker.register(DAY_MS)).await;
        self.trust(worker.spec.instance);
        worker
    }

    /// Holds an instance for fit from now on.
    pub fn trust(&self, instance: InstanceId) {
        self.candidates.lock().push(Candidate { instance, health: 1.0, load: 0.0 });
    }

    /// The command that assigns to everybody registered here.
    pub fn assign(&self, limit: usize) -> Command {
        Command::Assign(Assign { candidates: self.candidates.lock().clone().into(), limit })
    }

    /// Assigns, and returns the work that was given out.
    pub async fn give_out(&self, limit: usize) -> Vec<Work> {
        let assign = self.assign(limit);
        work(&self.one(assign).await.letters)
    }

    /// The task, which must be there.
    pub async fn task(&self, id: TaskId) -> Arc<Task> {
        self.store().task(id).await.expect("the store reads").expect("the task is there")
    }

    /// The state of a task.
    pub async fn state(&self, id: TaskId) -> TaskState {
        self.task(id).await.state
    }

    /// Every event so far.
    pub async fn events(&self) -> Vec<Event> {
        let filter = EventFilter { limit: usize::MAX, ..EventFilter::default() };
        self.store().events(filter).await.expect("the store reads")
    }

    /// Every letter that is not settled.
    pub async fn unsent(&self) -> Vec<Letter> {
        self.store().unsent(0, usize::MAX).await.expect("the store reads")
    }

    /// Gives out and completes work until nothing is left and no cascade is open.
    pub async fn work_off(&self) -> usize {
        let mut done = 0;
        loop {
            let work = self.give_out(1_000).await;
            let mut batch: Vec<Command> = work.iter().map(Work::complete).collect();
            done += batch.len();
            let duties = self.store().duties(1_000).await.expect("the store reads");
            batch.extend(duties.into_iter().map(Command::Continue));
            if batch.is_empty() {
                return done;
            }
            self.apply(batch).await.into_iter().for_each(|decision| {
                decision.expect("every report is accepted");
            });
        }
    }
}

/// A day in milliseconds.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The command that submits these tasks, each with a small input.
pub fn submit(specs: Vec<TaskSpec>) -> Command {
    let tasks = specs.into_iter().map(|spec| NewTask { spec, input: json("{\"n\":1}") }).collect();
    Command::Submit(Submit { tasks })
}

/// What an instance says of itself.
pub fn agent(instance: InstanceId, name: &str, slots: u32, capabilities: &[&str]) -> AgentSpec {
    let capability = |name: &&str| Capability { name: (*name).into(), ..Capability::default() };
    AgentSpec {
        instance,
        name: name.into(),
        kind: AgentKind::Builtin,
        description: "for tests".into(),
        capabilities: capabilities.iter().map(capability).collect(),
        max_concurrency: slots,
        delegates: false,
    }
}

/// A task to delegate, with everything at its default.
pub fn delegated(key: &str, agent: &str) -> Delegated {
    Delegated {
        key: key.into(),
        name: None,
        route: Route::agent(agent),
        input: json("{}"),
        needs: Vec::new(),
        priority: None,
        on_failure: OnFailure::Fail,
        retry: RetryPolicy::default(),
        timeouts: Timeouts::default(),
        workspace: None,
        template: false,
        state_keys: Vec::new(),
    }
}

/// One instance on a host of its own.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its host.
    pub host: HostId,
    /// The life of its host.
    pub incarnation: Incarnation,
    /// What it says of itself.
    pub spec: AgentSpec,
}

impl Worker {
    /// The command that registers it.
    pub fn register(&self, lease_ms: u64) -> Command {
        Command::Register {
            host: self.host,
            incarnation: self.incarnation,
            agents: vec![self.spec.clone()],
            lease_ms,
        }
    }
}

/// Work that was given out.
#[derive(Clone, Debug)]
pub struct Work {
    /// The task.
    pub task: TaskId,
    /// The number of its letter.
    pub seq: u64,
    /// What the agent is told.
    pub request: TaskRequest,
}

/// The work in these letters.
pub fn work(letters: &[Letter]) -> Vec<Work> {
    let work = letters.iter().filter_map(|letter| match &letter.body {
        LetterBody::TaskRequest(request) => {
            Some(Work { task: letter.task?, seq: letter.seq, request: request.as_ref().clone() })
        }
        LetterBody::TaskResponse(_)
        | LetterBody::Event(_)
        | LetterBody::Query { .. }
        | LetterBody::Host(_) => None,
    });
    work.collect()
}

impl Work {
    /// Proof that its reporter was given it.
    pub fn proof(&self) -> Proof {
        Proof {
            task: self.task,
            attempt: self.request.attempt,
            secret: self.request.secret.clone(),
        }
    }

    /// The command by which it begins.
    pub fn start(&self, at: Time) -> Command {
        Command::Start { proof: self.proof(), at, process: None }
    }

    /// The command by which it ends like this.
    pub fn end(&self, outcome: Outcome) -> Command {
        self.end_with(outcome, OutcomeState::default())
    }

    /// The command by which it ends like this, and writes this into shared state.
    pub fn end_with(&self, outcome: Outcome, state: OutcomeState) -> Command {
        let response = TaskResponse {
            attempt: self.request.attempt,
            secret: self.request.secret.clone(),
            started_at: None,
            process: None,
            outcome,
            state,
            usage: None,
            ended: Vec::new(),
        };
        Command::Finish { task: self.task, response: Box::new(response) }
    }

    /// The command by which it completes.
    pub fn complete(&self) -> Command {
        self.end(Outcome::Complete { output: json("{\"done\":true}") })
    }

    /// The command by which it fails like this.
    pub fn fail(&self, class: ErrorClass) -> Command {
        let error = TaskError::new(class, "it did not work");
        self.end(Outcome::Fail { error, retry_after_ms: None })
    }
}

/// Checks that the log of every run is numbered 1, 2, 3 .. in the order of rising cursors.
pub fn check_log(events: &[Event]) {
    let mut runs = std::collections::BTreeMap::new();
    let mut cursor = 0;
    for event in events {
        assert!(event.cursor > cursor, "cursors rise: {event:?}");
        cursor = event.cursor;
        let seq = runs.entry(event.run).or_insert(0_u64);
        *seq += 1;
        assert_eq!(event.run_seq, *seq, "no gap in the log of a run: {event:?}");
    }
}
