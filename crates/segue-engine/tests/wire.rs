//! The agent and the worker in Python that `docs/wire.md` show, at work for an engine over a SQLite store and RabbitMQ.

use segue_bus::rabbitmq::{Options, RabbitBus};
use segue_bus::signals::InProcessSignals;
use segue_core::command::NewTask;
use segue_core::ids::{ProjectId, TaskId};
use segue_core::payload::Payload;
use segue_core::ports::WorkBus;
use segue_core::state::Writer;
use segue_core::task::{ErrorClass, Need, Route, Task, TaskSpec, TaskState};
use segue_core::worker::{TokenMaker, WorkerToken};
use segue_engine::workflow::new_task_id;
use segue_engine::{Config, Engine, Parts};
use segue_store::soft::InProcessSoft;
use segue_store::sqlite::{Options as StoreOptions, SqliteStore};
use segue_testkit::servers::RabbitMq;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use uuid::Uuid;

const WIRE: &str = include_str!("../../../docs/wire.md");
/// Lines that the example may have, so that it stays one.
const LINES_MAX: usize = 48;
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs of the page: the agent, and the worker that it is part of.
fn examples() -> [String; 2] {
    let examples: Vec<String> = WIRE
        .split("```python\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("the example ends").0.to_owned())
        .collect();
    for example in &examples {
        assert!(example.lines().count() <= LINES_MAX, "{} lines", example.lines().count());
    }
    examples.try_into().expect("the page has two examples")
}

fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// Starts the worker, and returns once its agent takes work.
async fn start(folder: &Path, url: &str, token: &WorkerToken) -> Child {
    let [agent, worker] = examples();
    for (name, text) in [("agent.py", agent), ("worker.py", worker), ("token", token.reveal())] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let mut command = Command::new(python());
    command.current_dir(folder).args(["worker.py", url, "token"]);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut agent = command.spawn().expect("Python starts");
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = ready.expect("it takes work").unwrap();
    assert_eq!(line.as_deref(), Some("ready"), "pika is missing? Install Debian's python3-pika");
    agent
}

/// Prints the body of every message to hosts and to the engine, as it stands on the wire.
const TAP: &str = r#"
import sys, pika
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
queue = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(queue, sys.argv[2] + ".agent.tasks", "host.#")
channel.queue_bind(queue, sys.argv[2] + ".agent.responses", "engine")
print("ready", flush=True)
for _, _, body in channel.consume(queue, auto_ack=True):
    print(body.decode(), flush=True)
"#;

/// What goes over the broker, a message a line.
struct Tap {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tap {
    async fn open(folder: &Path, url: &str, project: ProjectId) -> Tap {
        std::fs::write(folder.join("tap.py"), TAP).unwrap();
        let mut command = Command::new(python());
        command.current_dir(folder).args(["tap.py", url, &project.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().expect("Python starts");
        let mut tap =
            Tap { lines: BufReader::new(child.stdout.take().unwrap()).lines(), _child: child };
        assert_eq!(tap.line().await, "ready");
        tap
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("something comes").unwrap().expect("it goes on")
    }

    /// The next letter of this type about a task.
    async fn letter(&mut self, task: TaskId, kind: &str) -> Value {
        loop {
            let message: Value = serde_json::from_str(&self.line().await).unwrap();
            let mut letters = message["letters"].as_array().unwrap().iter();
            let is_it = |letter: &&Value| {
                letter["task"] == task.to_string() && letter["body"]["type"] == kind
            };
            if let Some(letter) = letters.find(is_it) {
                return letter.clone();
            }
        }
    }
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
    async fn the_worker_in_python_registers_works_for_an_engine_and_leaves() {
        let broker = RabbitMq::start().await;
        let folder = tempfile::tempdir().unwrap();
        let url = broker.url(0, "%2f");
        let project = ProjectId(Uuid::new_v4());
        let options = Options::new(vec![url.clone()], project.to_string());
        let bus = RabbitBus::connect(options).await.unwrap();
        let store = SqliteStore::open(StoreOptions::new(folder.path(), project, [7; 32])).unwrap();
        let parts = Parts {
            store: store.clone(),
            blobs: store,
            bus: bus.clone(),
            signals: InProcessSignals::new(),
            presence: InProcessSoft::new(),
        };
        let maker = TokenMaker::new(project, [8; 32]);
        let token = maker.worker("python-1").unwrap();
        let config = Config { beat_ms: 200, workers: Some(maker), ..Config::default() };
        let engine = Engine::start(parts, config).await.unwrap();
        let mut worker = start(folder.path(), &url, &token).await;

        let mut tap = Tap::open(folder.path(), &url, project).await;
        let first = task("first", &json!({ "text": "wait for me" }));
        let mut second = task("second", &json!({ "text": "grüß dich" }));
        second.spec.needs = vec![Need { task: first.spec.id, name: None, order_only: false }];
        let wrong = task("wrong", &json!({ "no": "text" }));
        let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        second.spec.traceparent = span.parse().ok();
        second.spec.state_keys = vec!["shouts".into()];
        let mut third = task("third", &json!({ "text": "again" }));
        third.spec.needs = vec![Need { task: second.spec.id, name: None, order_only: false }];
        third.spec.state_keys = second.spec.state_keys.clone();
        let (last, third_id, wrong_id) = (second.spec.id, third.spec.id, wrong.spec.id);
        engine.submit(vec![first, second, third]).await.unwrap();
        engine.submit(vec![wrong]).await.unwrap();

        let done = ended(&engine, last).await;
        assert_eq!(done.state, TaskState::Completed, "{:?}", done.error);
        let output = engine.text_of(done.output.as_ref().unwrap()).await.unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&output).unwrap(),
            json!({ "text": "GRÜSS DICH" })
        );
        // On the wire: the trace of whoever asked, a span of the attempt, and handed on by the agent.
        let attempt = done.attempt.as_ref().expect("it was tried").id.to_string();
        let expected = format!("{}{}-01", &span[..36], &attempt.replace('-', "")[16..]);
        for (kind, causation) in [("task_request", Value::Null), ("task_response", json!(attempt))]
        {
            let letter = tap.letter(last, kind).await;
            assert_eq!(letter["traceparent"], expected, "{letter:#}");
            assert_eq!((&letter["hops"], &letter["causation"]), (&json!(0), &causation));
        }
        // It counts under a key of shared state, by its outcomes alone.
        let third = ended(&engine, third_id).await;
        assert_eq!(third.state, TaskState::Completed, "{:?}", third.error);
        let history = engine.store().state_history("shouts".into(), None, 10).await.unwrap();
        let by = |task: &Task| Writer::Task {
            task: task.id(),
            attempt: task.attempt.as_ref().expect("it was tried").id,
        };
        let found: Vec<_> = history
            .iter()
            .map(|row| (row.value.as_ref().and_then(Payload::text), row.writer.clone()))
            .collect();
        assert_eq!(found, [(Some("2"), by(&third)), (Some("1"), by(&done))]);
        let failed = ended(&engine, wrong_id).await;
        let error = failed.error.as_ref().expect("it has an error");
        assert_eq!((failed.state, error.class), (TaskState::Failed, ErrorClass::Permanent));
        assert!(error.message.contains("has no text"), "{error:?}");
        assert_eq!(bus.look_at_dead(10).await.unwrap(), []);

        // It goes when it is told to, and says so.
        assert_eq!(engine.drain_host(token.host()).await.unwrap(), 1);
        let status = tokio::time::timeout(PATIENCE, worker.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status}");
        let agents = engine.store().agents().await.unwrap();
        assert_eq!(agents.iter().map(|agent| agent.gone).collect::<Vec<_>>(), [true]);
        engine.stop().await;
        bus.close().await;
    }
}
