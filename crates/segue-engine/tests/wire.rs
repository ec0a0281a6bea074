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
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
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

/// Starts the worker, and returns once its agent takes work.
async fn start(folder: &Path, url: &str, token: &WorkerToken) -> Child {
    let [agent, worker] = examples();
    for (name, text) in [("agent.py", agent), ("worker.py", worker), ("token", token.reveal())] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let python =
        if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let mut command = Command::new(python);
    command.current_dir(folder).args(["worker.py", url, "token"]);
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

        let first = task("first", &json!({ "text": "wait for me" }));
        let mut second = task("second", &json!({ "text": "grüß dich" }));
        second.spec.needs = vec![Need { task: first.spec.id, name: None, order_only: false }];
        let wrong = task("wrong", &json!({ "no": "text" }));
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
