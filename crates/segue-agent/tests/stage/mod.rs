//! What the host's tests stand on: a host on an in-process bus behind a connection that can break, a runner that does what the test says,
//! and the ears of the engine.

use parking_lot::Mutex;
use segue_agent::host::{Host, HostParts, Hosted};
use segue_agent::runner::{End, Job, Ran, Runner};
use segue_bus::in_process::InProcessBus;
use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{
    Address, ChildResult, Letter, LetterBody, Notice, Secret, TaskRequest, TaskResponse,
    WIRE_VERSION,
};
use segue_core::outcome::Delegated;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Clock, Consumer, Fut, StoreError, WorkBus};
use segue_core::retry::RetryPolicy;
use segue_core::task::{OnFailure, Route, TaskState, Timeouts};
use segue_core::time::Time;
use segue_testkit::bus_suite::FlakyBus;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// With paused time this passes as soon as everybody waits.
const LONG: Duration = Duration::from_secs(3_600);
/// Longer than every pause of a host.
const A_WHILE: Duration = Duration::from_secs(5);

pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
pub struct MapBlobs {
    kept: Mutex<HashMap<Hash, Vec<u8>>>,
    full: AtomicBool,
}

impl MapBlobs {
    pub fn len(&self) -> usize {
        self.kept.lock().len()
    }

    pub fn fill_the_disk(&self) {
        self.full.store(true, Ordering::SeqCst);
    }
}

impl Blobs for MapBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(StoreError::Full("no room".into()))));
        }
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        self.kept.lock().insert(hash, bytes);
        Box::pin(std::future::ready(Ok(Payload::Stored { hash, size })))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        let found = self.kept.lock().get(&hash).cloned();
        let found = found.ok_or_else(|| StoreError::MissingPayload(hash.hex()));
        Box::pin(std::future::ready(found))
    }
}

/// An attempt that runs, in the hands of the test.
pub struct Play {
    pub job: Job,
    end: oneshot::Sender<Result<Ran, String>>,
}

impl Play {
    pub fn end(self, ran: Ran) {
        self.end.send(Ok(ran)).expect("somebody waits for the end");
    }

    pub fn panic(self, message: &str) {
        self.end.send(Err(message.to_owned())).expect("somebody waits for the end");
    }
}

/// Gives each attempt to the test, and ends as the test says.
struct Scripted(mpsc::UnboundedSender<Play>);

impl Runner for Scripted {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        let (end, ended) = oneshot::channel();
        self.0.send(Play { job, end }).expect("the test listens");
        Box::pin(async move {
            match ended.await.expect("the test ends what it plays") {
                Ok(ran) => ran,
                Err(message) => panic!("{message}"),
            }
        })
    }
}

/// Says something and is done.
pub struct Talker;

impl Runner for Talker {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        job.control.progress(&json!("almost"));
        Box::pin(std::future::ready(complete("1")))
    }
}

pub struct Stage {
    pub bus: Arc<InProcessBus>,
    pub flaky: Arc<FlakyBus>,
    pub blobs: Arc<MapBlobs>,
    pub clock: Arc<TestClock>,
    pub parts: HostParts,
    pub host: Arc<Host>,
    instance: InstanceId,
    runner: Arc<dyn Runner>,
    plays: mpsc::UnboundedReceiver<Play>,
    engine: Option<Box<dyn Consumer>>,
    heard: std::collections::VecDeque<Letter>,
}

impl Stage {
    /// A host with this agent, whose attempts the test plays.
    pub async fn new(spec: AgentSpec) -> Stage {
        let mut stage = Stage::without_engine(spec).await;
        stage.meet_engine().await;
        stage
    }

    pub async fn without_engine(spec: AgentSpec) -> Stage {
        let (sender, plays) = mpsc::unbounded_channel();
        Stage::build(InProcessBus::new(), spec, Arc::new(Scripted(sender)), plays).await
    }

    /// The same on this bus.
    pub async fn on(bus: Arc<InProcessBus>, spec: AgentSpec) -> Stage {
        let (sender, plays) = mpsc::unbounded_channel();
        let mut stage = Stage::build(bus, spec, Arc::new(Scripted(sender)), plays).await;
        stage.meet_engine().await;
        stage
    }

    pub async fn with_runner(spec: AgentSpec, runner: Arc<dyn Runner>) -> Stage {
        let (_, plays) = mpsc::unbounded_channel();
        let mut stage = Stage::build(InProcessBus::new(), spec, runner, plays).await;
        stage.meet_engine().await;
        stage
    }

    async fn build(
        bus: Arc<InProcessBus>,
        spec: AgentSpec,
        runner: Arc<dyn Runner>,
        plays: mpsc::UnboundedReceiver<Play>,
    ) -> Stage {
        let flaky = FlakyBus::over(bus.clone());
        let blobs = Arc::new(MapBlobs::default());
        let clock = Arc::new(TestClock(AtomicI64::new(1_000)));
        let parts = HostParts {
            host: HostId(Uuid::new_v4()),
            incarnation: Incarnation(Uuid::new_v4()),
            bus: flaky.clone(),
            blobs: blobs.clone(),
            clock: clock.clone(),
        };
        let instance = spec.instance;
        let hosted = Hosted { spec, runner: runner.clone() };
        let host = Host::start(parts.clone(), vec![hosted]).await.unwrap();
        Stage {
            bus,
            flaky,
            blobs,
            clock,
            parts,
            host,
            instance,
            runner,
            plays,
            engine: None,
            heard: Default::default(),
        }
    }

    pub async fn meet_engine(&mut self) {
        self.engine = Some(self.bus.consume(Address::Engine).await.unwrap());
    }

    pub fn set_agents(&self, specs: Vec<AgentSpec>) {
        let runner = &self.runner;
        let hosted = specs.into_iter().map(|spec| Hosted { spec, runner: runner.clone() });
        self.host.set_agents(hosted.collect());
    }

    pub fn request(&self) -> (TaskId, TaskRequest) {
        let task = TaskId(Uuid::new_v4());
        let request = TaskRequest {
            attempt: AttemptId(Uuid::new_v4()),
            number: 2,
            secret: Secret([9; 32]),
            instance: self.instance,
            incarnation: self.parts.incarnation,
            run: TaskId(Uuid::from_u128(1)),
            name: "count the lines".into(),
            capability: None,
            input: payload(json!({ "path": "." })),
            run_ms: Some(60_000),
            workspace: None,
            resume: None,
            state: None,
            team: Vec::new(),
        };
        (task, request)
    }

    pub fn letter(&self, task: TaskId, request: TaskRequest) -> Letter {
        self.letter_with(task, LetterBody::TaskRequest(Box::new(request)))
    }

    pub fn fresh_letter(&self) -> Letter {
        let (task, request) = self.request();
        self.letter(task, request)
    }

    fn letter_with(&self, task: TaskId, body: LetterBody) -> Letter {
        Letter {
            seq: 1,
            version: WIRE_VERSION,
            from: "segue".into(),
            to: Address::Host(self.parts.host),
            task: Some(task),
            reply_to: None,
            correlation: None,
            causation: None,
            traceparent: None,
            hops: 0,
            at: Time(900),
            body,
        }
    }

    pub async fn publish(&self, letters: Vec<Letter>) {
        self.bus.publish(letters).await.unwrap();
    }

    /// New work; its attempt.
    pub async fn publish_fresh(&self) -> AttemptId {
        let letter = self.fresh_letter();
        let attempt = attempt_of(&letter);
        self.publish(vec![letter]).await;
        attempt
    }

    pub async fn cancel(&self, attempt: AttemptId, reason: &str) {
        let notice = Notice::Cancel { attempt, reason: reason.to_owned() };
        let letter = self.letter_with(TaskId(Uuid::new_v4()), LetterBody::Event(notice));
        self.publish(vec![letter]).await;
    }

    /// The next attempt that begins.
    pub async fn play(&mut self) -> Play {
        let play = tokio::time::timeout(LONG, self.plays.recv()).await;
        play.expect("an attempt begins").expect("the runner is there")
    }

    /// No attempt begins, although everybody has had the time to.
    pub async fn nobody_plays(&mut self) {
        // Less than what makes an attempt long, so that this does not change what is reported.
        let play = tokio::time::timeout(Duration::from_millis(1), self.plays.recv()).await;
        assert!(play.is_err(), "an attempt began");
    }

    /// The next letter to the engine.
    pub async fn report(&mut self) -> Letter {
        if self.heard.is_empty() {
            let letters = self.hear(LONG).await.expect("a letter comes");
            self.heard.extend(letters);
        }
        self.heard.pop_front().expect("a letter came")
    }

    /// The next letter to the engine that does not just say that an attempt began.
    pub async fn report_but_started(&mut self) -> Letter {
        loop {
            let letter = self.report().await;
            if !matches!(letter.body, LetterBody::Event(Notice::Started { .. })) {
                return letter;
            }
        }
    }

    async fn hear(&mut self, patience: Duration) -> Option<Vec<Letter>> {
        let engine = self.engine.as_mut().expect("the engine is there");
        let batch = tokio::time::timeout(patience, engine.next(100)).await.ok()?.unwrap();
        engine.ack(batch.iter().map(|delivery| delivery.token).collect()).await.unwrap();
        Some(batch.into_iter().map(|delivery| delivery.letter).collect())
    }

    /// No attempt begins and nothing is reported for a long while.
    pub async fn nothing_more(&mut self) {
        assert!(self.heard.is_empty(), "unread: {:?}", self.heard);
        if let Some(letters) = self.hear(A_WHILE).await {
            panic!("reported: {letters:?}");
        }
        assert!(self.plays.try_recv().is_err(), "an attempt began");
    }

    /// The queue of the host is empty.
    pub async fn no_letter_is_left(&self) {
        let mut queue = self.bus.consume(Address::Host(self.parts.host)).await.unwrap();
        let left = tokio::time::timeout(A_WHILE, queue.next(10)).await;
        assert!(left.is_err(), "{left:?}");
    }
}

pub fn payload(value: Value) -> Payload {
    Payload::of(&value).unwrap()
}

pub fn complete(output: &str) -> Ran {
    Ran::plain(End::Complete(output.to_owned()))
}

pub fn attempt_of(letter: &Letter) -> AttemptId {
    match &letter.body {
        LetterBody::TaskRequest(request) => request.attempt,
        other => panic!("{other:?} is no work"),
    }
}

pub fn response(letter: Letter) -> TaskResponse {
    match letter.body {
        LetterBody::TaskResponse(response) => *response,
        other => panic!("{other:?} is no outcome"),
    }
}

pub fn agent(name: &str, slots: u32) -> AgentSpec {
    AgentSpec {
        instance: InstanceId(Uuid::new_v4()),
        name: name.into(),
        kind: AgentKind::Builtin,
        description: "".into(),
        capabilities: Arc::from([]),
        max_concurrency: slots,
        delegates: false,
    }
}

/// The agent with these capabilities, each with its output schema.
pub fn capable(spec: AgentSpec, capabilities: &[(&str, Option<Value>)]) -> AgentSpec {
    let capabilities = capabilities
        .iter()
        .map(|(name, schema)| Capability {
            name: (*name).into(),
            output_schema: schema.clone().map(Arc::new),
            ..Capability::default()
        })
        .collect();
    AgentSpec { capabilities, ..spec }
}

pub fn delegated(key: &str) -> Delegated {
    Delegated {
        key: key.into(),
        name: None,
        route: Route::agent("counter"),
        input: Payload::null(),
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

pub fn child(output: Option<Payload>) -> ChildResult {
    ChildResult {
        id: TaskId(Uuid::new_v4()),
        key: None,
        name: "part".into(),
        route: Route::agent("counter"),
        state: TaskState::Completed,
        output,
        error: None,
    }
}
