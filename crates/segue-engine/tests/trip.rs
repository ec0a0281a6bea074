//! The whole trip over the in-memory store and the in-process bus: submit, assign, run, report, unblock, delegate, resume.

use parking_lot::Mutex;
use segue_agent::host::{Host, HostParts, Hosted};
use segue_agent::runner::{End, Job, Ran, Runner};
use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::{Command, NewTask};
use segue_core::ids::{HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::Address;
use segue_core::outcome::Delegated;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Clock, Consumer, Fut, StoreError, WorkBus};
use segue_core::retry::RetryPolicy;
use segue_core::task::{
    ErrorClass, Need, OnFailure, Route, TaskError, TaskSpec, TaskState, Timeouts,
};
use segue_core::time::Time;
use segue_core::workflow;
use segue_engine::workflow::{graph, new_task_id};
use segue_engine::{Config, Engine, LocalHost, Parts};
use segue_store::soft::InProcessSoft;
use segue_testkit::memory::MemoryStore;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

struct Now;

impl Clock for Now {
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Time(since.as_millis() as i64)
    }
}

#[derive(Default)]
struct MapBlobs(Mutex<HashMap<Hash, Vec<u8>>>);

impl Blobs for MapBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        self.0.lock().insert(hash, bytes);
        Box::pin(std::future::ready(Ok(Payload::Stored { hash, size })))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        let found = self.0.lock().get(&hash).cloned();
        let found = found.ok_or_else(|| StoreError::MissingPayload(hash.hex()));
        Box::pin(std::future::ready(found))
    }
}

/// Does what a function of the input says.
struct Scripted<F>(F);

impl<F: Fn(&Job, Value) -> End + Send + Sync> Runner for Scripted<F> {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        let input = serde_json::from_str(&job.input).unwrap();
        let end = (self.0)(&job, input);
        Box::pin(std::future::ready(Ran::plain(end)))
    }
}

struct Rig {
    engine: Arc<Engine>,
    host: Arc<Host>,
    ran: Arc<Mutex<Vec<String>>>,
}

fn spec(name: &str, slots: u32) -> AgentSpec {
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

async fn rig(script: impl Fn(&Job, Value) -> End + Send + Sync + 'static, slots: u32) -> Rig {
    let bus = InProcessBus::new();
    let blobs = Arc::new(MapBlobs::default());
    let parts = Parts {
        store: Arc::new(MemoryStore::new(Arc::new(Now), 7, [7; 32])),
        blobs: blobs.clone(),
        bus: bus.clone(),
        signals: InProcessSignals::new(),
        presence: InProcessSoft::new(),
    };
    let engine = Engine::start(parts, Config { beat_ms: 200, ..Config::default() }).await.unwrap();
    let local =
        LocalHost { host: HostId(Uuid::new_v4()), incarnation: Incarnation(Uuid::new_v4()) };
    let ran = Arc::new(Mutex::new(Vec::new()));
    let runner = {
        let ran = ran.clone();
        Arc::new(Scripted(move |job: &Job, input| {
            ran.lock().push(job.name.to_string());
            script(job, input)
        }))
    };
    let agents = vec![Hosted { spec: spec("a", slots), runner }];
    let specs = agents.iter().map(|agent| agent.spec.clone()).collect();
    let parts = HostParts {
        host: local.host,
        incarnation: local.incarnation,
        bus,
        blobs,
        clock: Arc::new(Now),
    };
    let host = Host::start(parts, agents).await.unwrap();
    engine.register(&local, specs).await.unwrap();
    Rig { engine, host, ran }
}

impl Rig {
    async fn output(&self, id: TaskId) -> Value {
        let wait = self.engine.wait_for(id);
        let task =
            tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it ends").unwrap();
        assert_eq!(task.state, TaskState::Completed, "{:?}", task.error);
        let text = self.engine.text_of(task.output.as_ref().unwrap()).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn error(&self, id: TaskId) -> TaskError {
        let wait = self.engine.wait_for(id);
        let task =
            tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it ends").unwrap();
        assert_eq!(task.state, TaskState::Failed);
        task.error.clone().unwrap()
    }

    async fn stop(self) {
        self.engine.stop().await;
        self.host.stop().await;
    }
}

fn task(name: &str, input: &Value) -> NewTask {
    let spec = TaskSpec::new(new_task_id(), name, Route::agent("a"));
    NewTask { spec, input: Payload::of(input).unwrap() }
}

fn echo(_: &Job, input: Value) -> End {
    End::Complete(json!({ "got": input }).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_runs_in_its_order() {
    let rig = rig(echo, 4).await;
    let (first, mut second, mut third) =
        (task("one", &json!(1)), task("two", &json!(2)), task("three", &json!(3)));
    second.spec.needs = vec![Need { task: first.spec.id, name: None, order_only: false }];
    third.spec.needs = vec![Need { task: second.spec.id, name: None, order_only: false }];
    let last = third.spec.id;
    rig.engine.submit(vec![first, second, third]).await.unwrap();
    assert_eq!(rig.output(last).await, json!({ "got": 3 }));
    assert_eq!(*rig.ran.lock(), ["one", "two", "three"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_renders_its_templates_from_earlier_outputs() {
    let rig = rig(echo, 4).await;
    let file = br#"
name: demo
input:
  who: { type: string, required: true }
output: "{{ tasks.join.output.got.all }}"
tasks:
  list: { agent: a, input: { names: ["x", "{{ input.who }}"] } }
  each:
    agent: a
    for_each: tasks.list.output.got.names
    input: { name: "{{ item }}", place: "{{ index }}" }
  off: { agent: a, when: "input.who == 'nobody'" }
  join: { agent: a, needs: [off], input: { all: "{{ tasks.each.output }}", off: "{{ tasks.off.state }}" } }
"#;
    let checked =
        workflow::parse(file).unwrap_or_else(|wrong| panic!("{}", wrong.render("f", file, false)));
    let input = Payload::of(&json!({ "who": "y" })).unwrap();
    let tasks = graph(&checked.workflow, "demo", input).unwrap();
    let root = rig.engine.submit(tasks).await.unwrap();
    let expected =
        json!([{ "got": { "name": "x", "place": 0 } }, { "got": { "name": "y", "place": 1 } }]);
    assert_eq!(rig.output(root).await, expected);
    assert!(!rig.ran.lock().contains(&"off".to_owned()));
    rig.stop().await;
}

fn delegating(job: &Job, input: Value) -> End {
    if *job.name != *"boss" {
        return End::Complete(json!({ "n": input["n"].as_i64().unwrap() * 2 }).to_string());
    }
    let Some(resume) = &job.resume else {
        let part = |key: &str, n: i64| {
            let part = Delegated {
                key: key.into(),
                name: None,
                route: Route::agent("a"),
                input: Payload::null(),
                needs: Vec::new(),
                priority: None,
                on_failure: OnFailure::Fail,
                retry: RetryPolicy::default(),
                timeouts: Timeouts::default(),
                workspace: None,
                template: false,
                state_keys: Vec::new(),
            };
            (part, json!({ "n": n }).to_string())
        };
        return End::Delegate {
            tasks: vec![part("p", 1), part("q", 20)],
            resume: true,
            continuation: Some(json!("kept").to_string()),
        };
    };
    let sum: i64 = resume
        .children
        .iter()
        .map(|child| {
            let text = child.output.as_ref().unwrap().text().unwrap();
            serde_json::from_str::<Value>(text).unwrap()["n"].as_i64().unwrap()
        })
        .sum();
    let kept = resume.continuation.as_ref().unwrap().text().unwrap();
    End::Complete(
        json!({ "sum": sum, "kept": serde_json::from_str::<Value>(kept).unwrap() }).to_string(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_one_slot_delegates_waits_and_is_resumed() {
    // One slot for boss and parts alike: a boss that held it while waiting would wait for ever.
    let rig = rig(delegating, 1).await;
    let boss = task("boss", &json!({}));
    let id = rig.engine.submit(vec![boss]).await.unwrap();
    assert_eq!(rig.output(id).await, json!({ "sum": 42, "kept": "kept" }));
    assert_eq!(*rig.ran.lock(), ["boss", "p", "q", "boss"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_failures_are_retried_and_permanent_ones_are_not() {
    let script = |job: &Job, input: Value| match (&*job.name, job.number) {
        ("flaky", 1 | 2) => End::Fail {
            error: TaskError::new(ErrorClass::Transient, "not yet"),
            retry_after_ms: None,
        },
        ("broken", _) => End::Fail {
            error: TaskError::new(ErrorClass::Permanent, "never"),
            retry_after_ms: None,
        },
        _ => echo(job, input),
    };
    let rig = rig(script, 4).await;
    let mut flaky = task("flaky", &json!(1));
    flaky.spec.retry.base_ms = 5;
    let broken = task("broken", &json!(2));
    let mut after = task("after", &json!(3));
    after.spec.needs = vec![Need { task: broken.spec.id, name: None, order_only: false }];
    let ids = [flaky.spec.id, broken.spec.id, after.spec.id];
    rig.engine.submit(vec![flaky]).await.unwrap();
    rig.engine.submit(vec![broken, after]).await.unwrap();
    assert_eq!(rig.output(ids[0]).await, json!({ "got": 1 }));
    assert_eq!(rig.error(ids[1]).await.message, "never");
    let upstream = rig.error(ids[2]).await;
    assert_eq!(upstream.class, ErrorClass::Upstream);
    assert_eq!(rig.ran.lock().iter().filter(|name| *name == "flaky").count(), 3);
    assert_eq!(rig.ran.lock().iter().filter(|name| *name == "broken").count(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wide_fan_out_comes_back_together() {
    let rig = rig(echo, 64).await;
    let first = task("first", &json!(0));
    let mut last = task("last", &json!("end"));
    let mut tasks = vec![];
    for n in 0..1_000 {
        let mut middle = task("middle", &json!(n));
        middle.spec.needs = vec![Need { task: first.spec.id, name: None, order_only: false }];
        last.spec.needs.push(Need { task: middle.spec.id, name: None, order_only: false });
        tasks.push(middle);
    }
    tasks.insert(0, first);
    let id = last.spec.id;
    tasks.push(last);
    rig.engine.submit(tasks).await.unwrap();
    rig.output(id).await;
    assert_eq!(rig.ran.lock().len(), 1_002);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_travel_by_hash() {
    let rig = rig(echo, 1).await;
    let large = "x".repeat(300_000);
    let input = rig.engine.payload(json!({ "large": large }).to_string()).await.unwrap();
    assert!(matches!(input, Payload::Stored { .. }));
    let spec = TaskSpec::new(new_task_id(), "large", Route::agent("a"));
    let id = rig.engine.submit(vec![NewTask { spec, input }]).await.unwrap();
    assert_eq!(rig.output(id).await["got"]["large"].as_str().unwrap().len(), large.len());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_agent_gets_nothing_until_it_is_back() {
    let rig = rig(echo, 1).await;
    let drain = |drained| Command::Drain { agent: "a".into(), drained };
    rig.engine.command(drain(true)).await.unwrap();
    let id = rig.engine.submit(vec![task("one", &json!(1))]).await.unwrap();
    let task = rig.engine.store().task(id).await.unwrap().unwrap();
    assert_eq!(task.state, TaskState::Ready);
    rig.engine.command(drain(false)).await.unwrap();
    assert_eq!(rig.output(id).await, json!({ "got": 1 }));
    rig.stop().await;
}

/// Refuses whatever comes to a host, for good.
async fn refuse_everything(mut consumer: Box<dyn Consumer>) {
    while let Ok(batch) = consumer.next(16).await {
        for delivery in batch {
            let _ =
                consumer.reject(delivery.token, Some("this host is full of doubt".into())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_whose_letter_died_fails_with_the_reason_and_other_dead_letters_are_left() {
    let bus = InProcessBus::new();
    let parts = Parts {
        store: Arc::new(MemoryStore::new(Arc::new(Now), 7, [7; 32])),
        blobs: Arc::new(MapBlobs::default()),
        bus: bus.clone(),
        signals: InProcessSignals::new(),
        presence: InProcessSoft::new(),
    };
    let engine = Engine::start(parts, Config { beat_ms: 200, ..Config::default() }).await.unwrap();
    let local =
        LocalHost { host: HostId(Uuid::new_v4()), incarnation: Incarnation(Uuid::new_v4()) };
    let consumer = bus.consume(Address::Host(local.host)).await.unwrap();
    let refusing = tokio::spawn(refuse_everything(consumer));
    engine.register(&local, vec![spec("a", 1)]).await.unwrap();
    // A question to the host, which is no work, is refused as well.
    let question = segue_testkit::bus_suite::letter(&Address::Host(local.host), 77);
    bus.publish(vec![question]).await.unwrap();

    let mut doomed = task("doomed", &json!(1));
    doomed.spec.retry.base_ms = 5;
    let id = engine.submit(vec![doomed]).await.unwrap();
    let wait = engine.wait_for(id);
    let task = tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it ends").unwrap();
    assert_eq!(task.state, TaskState::Failed);
    let error = task.error.as_ref().unwrap();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("this host is full of doubt"), "{error:?}");
    // Every attempt was tried, and each ended by itself.
    let attempts = engine.store().attempts(id).await.unwrap();
    assert_eq!(attempts.len() as u32, task.spec.retry.attempts);

    let left = bus.look_at_dead(10).await.unwrap();
    let numbers: Vec<_> = left.iter().map(|dead| dead.letter.as_ref().unwrap().seq).collect();
    assert_eq!(numbers, [77]);
    engine.stop().await;
    bus.close();
    refusing.await.unwrap();
}
