//! What several test files share. Each of them uses a part.
#![allow(dead_code)]

pub mod full;

use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::{Assign, Candidate, Command, NewTask, Submit};
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::payload::Payload;
use segue_core::ports::{Store, TaskFilter};
use segue_core::task::{Route, TaskSpec};
use segue_store::sqlite::{Options, SqliteStore};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use uuid::Uuid;

/// The project of all stores here.
pub const PROJECT: ProjectId = ProjectId(Uuid::from_u128(7));
/// The key of all stores here.
pub const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

pub fn options(dir: &Path) -> Options {
    Options::new(dir, PROJECT, KEY)
}

pub fn open(dir: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(options(dir)).expect("the store opens")
}

/// A connection beside the store, such as somebody with a shell has.
pub fn shell(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("segue.db")).expect("opens")
}

pub fn spec(agent: &str) -> TaskSpec {
    TaskSpec::new(TaskId(Uuid::now_v7()), "a task", Route::agent(agent))
}

pub fn submit(specs: Vec<TaskSpec>) -> Command {
    submit_with(specs, "{\"n\":1}")
}

pub fn submit_with(specs: Vec<TaskSpec>, input: &str) -> Command {
    let input = Payload::of_text(input).expect("JSON");
    let tasks = specs.into_iter().map(|spec| NewTask { spec, input: input.clone() }).collect();
    Command::Submit(Submit { tasks })
}

/// Registers an agent, and returns the command that assigns to it.
pub async fn register(store: &dyn Store, name: &str, slots: u32) -> Command {
    let instance = InstanceId(Uuid::now_v7());
    let spec = AgentSpec {
        instance,
        name: name.into(),
        kind: AgentKind::Builtin,
        description: "".into(),
        capabilities: [].into(),
        max_concurrency: slots,
        delegates: false,
    };
    let register = Command::Register {
        host: HostId(Uuid::now_v7()),
        incarnation: Incarnation(Uuid::now_v7()),
        agents: vec![spec],
        lease_ms: 1_000_000,
    };
    accept(store, vec![register]).await;
    let candidates = [Candidate { instance, health: 1.0, load: 0.0 }].into();
    Command::Assign(Assign { candidates, limit: 1_000 })
}

/// Applies commands that must all be accepted.
pub async fn accept(store: &dyn Store, batch: Vec<Command>) -> Vec<segue_core::ports::Effects> {
    let decisions = store.apply(batch).await.expect("the store commits");
    decisions.into_iter().map(|decision| decision.expect("accepted")).collect()
}

/// The ids of all tasks.
pub async fn all_tasks(store: &dyn Store) -> Vec<TaskId> {
    let filter = TaskFilter { limit: usize::MAX, ..TaskFilter::default() };
    store.tasks(filter).await.expect("reads").iter().map(|task| task.id()).collect()
}

/// What `PRAGMA integrity_check` says; `ok` where all is well.
pub fn integrity(dir: &Path) -> String {
    shell(dir).query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("reads")
}

/// The variable that tells a child process which folder it works in. Without it, the test that plays the child does nothing.
pub const CHILD: &str = "SEGUE_STORE_TEST_CHILD";

/// The folder of this process, where it is a child.
pub fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

/// The command that runs one test of this very file in a process of its own, in this folder.
pub fn child(test: &str, dir: &Path) -> Process {
    let mut process = Process::new(std::env::current_exe().expect("this program has a path"));
    as_child(&mut process, test, dir);
    process
}

/// The same behind a shell that first does `before`.
pub fn child_after(before: &str, test: &str, dir: &Path) -> Process {
    let mut process = Process::new("sh");
    process.arg("-c").arg(format!("{before}; exec \"$0\" \"$@\""));
    process.arg(std::env::current_exe().expect("this program has a path"));
    as_child(&mut process, test, dir);
    process
}

fn as_child(process: &mut Process, test: &str, dir: &Path) {
    process.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    process.env(CHILD, dir).stdin(Stdio::piped()).stdout(Stdio::piped());
}

/// Ends a child at once.
pub fn kill(mut child: Child) {
    child.kill().expect("it is ours");
    child.wait().expect("it has ended");
}
