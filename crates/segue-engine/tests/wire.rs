//! The agent in Python that `docs/wire.md` shows, at work for an engine over a SQLite store and RabbitMQ.

use segue_bus::rabbitmq::{Options, RabbitBus};
use segue_bus::signals::InProcessSignals;
use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::NewTask;
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::payload::Payload;
use segue_core::ports::WorkBus;
use segue_core::task::{ErrorClass, Need, Route, Task, TaskSpec, TaskState};
use segue_engine::workflow::new_task_id;
use segue_engine::{Config, Engine, LocalHost, Parts};
use segue_store::soft::InProcessSoft;
use segue_store::sqlite::{Options as StoreOptions, SqliteStore};
use segue_testkit::servers::RabbitMq;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

const WIRE: &str = include_str!("../../../docs/wire.md");
/// Lines that the example may have, so that it stays one.
const LINES_MAX: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);

fn example() -> String {
    let (_, rest) = WIRE.split_once("```python\n").expect("the page has an example");
    let (example, _) = rest.split_once("```").expect("the example ends");
    assert!(example.lines().count() <= LINES_MAX, "{} lines", example.lines().count());
    example.to_owned()
}

/// Starts it, and returns once it takes work.
async fn start(folder: &Path, url: &str, project: &str, host: HostId) -> Child {
    let program = folder.join("agent.py");
    std::fs::write(&program, example()).unwrap();
    let python =
        if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let mut command = Command::new(python);
    command.arg(program).args([url, project, &host.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut agent = command.spawn().expect("Python starts");
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = ready.expect("it takes work").unwrap();
    assert_eq!(line.as_deref(), Some("ready"), "pika is missing? Install Debian's python3-pika");
    agent
}

async fn ended(engine: &Engine, id: TaskId) -> Arc<Task> {
    tokio::time::timeout(PATIENCE, engine.wait_for(id)).await.expect("the task ends").unwrap()
}

fn task(name: &str, input: &Value) -> NewTask {
    let spec = TaskSpec::new(new_task_id(), name, Route::agent("shouter"));
    NewTask { spec, input: Payload::of(input).unwrap() }
}

mod on_rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_agent_in_python_works_for_an_engine() {
        let broker = RabbitMq::start().await;
        let folder = tempfile::tempdir().unwrap();
        let url = broker.url(0, "%2f");
        let bus = RabbitBus::connect(Options::new(vec![url.clone()], "demo")).await.unwrap();
        let project = ProjectId(Uuid::new_v4());
        let store = SqliteStore::open(StoreOptions::new(folder.path(), project, [7; 32])).unwrap();
        let parts = Parts {
            store: store.clone(),
            blobs: store,
            bus: bus.clone(),
            signals: InProcessSignals::new(),
            presence: InProcessSoft::new(),
        };
        let config = Config { beat_ms: 200, ..Config::default() };
        let engine = Engine::start(parts, config).await.unwrap();
        let host =
            LocalHost { host: HostId(Uuid::new_v4()), incarnation: Incarnation(Uuid::new_v4()) };
        let mut agent = start(folder.path(), &url, "demo", host.host).await;
        let shouter = AgentSpec {
            instance: InstanceId(Uuid::new_v4()),
            name: "shouter".into(),
            kind: AgentKind::Command,
            description: "".into(),
            capabilities: Arc::from([]),
            max_concurrency: 4,
            delegates: false,
        };
        engine.register(&host, vec![shouter]).await.unwrap();

        let first = task("first", &json!({ "text": "wait for me" }));
        let mut second = task("second", &json!({ "text": "grüß dich" }));
        second.spec.needs = vec![Need { task: first.spec.id, name: None, order_only: false }];
        let wrong = task("wrong", &json!({ "no": "text" }));
        let (last, wrong_id) = (second.spec.id, wrong.spec.id);
        engine.submit(vec![first, second]).await.unwrap();
        engine.submit(vec![wrong]).await.unwrap();

        let done = ended(&engine, last).await;
        assert_eq!(done.state, TaskState::Completed, "{:?}", done.error);
        let output = engine.text_of(done.output.as_ref().unwrap()).await.unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&output).unwrap(),
            json!({ "text": "GRÜSS DICH" })
        );
        let failed = ended(&engine, wrong_id).await;
        let error = failed.error.as_ref().expect("it has an error");
        assert_eq!((failed.state, error.class), (TaskState::Failed, ErrorClass::Permanent));
        assert!(error.message.contains("has no text"), "{error:?}");
        assert_eq!(bus.look_at_dead(10).await.unwrap(), []);

        agent.kill().await.unwrap();
        engine.stop().await;
        bus.close().await;
    }
}
