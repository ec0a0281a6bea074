//! A node in this process with agents that do nothing, on a database of its own.

use crate::node::{Node, NodeOptions};
use crate::project::Project;
use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use segue_agent::host::Hosted;
use segue_agent::runner::{End, Job, Ran, Runner};
use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::{NewTask, Submit};
use segue_core::ids::{InstanceId, TaskId};
use segue_core::payload::Payload;
use segue_core::ports::Fut;
use segue_core::task::{Route, TaskSpec, TaskState};
use segue_engine::workflow::new_task_id;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::Notify;
use uuid::Uuid;

/// Bytes of the payloads, in and out.
pub const PAYLOAD_BYTES: usize = 200;
/// The agents of the rig, and the slots of each.
pub const AGENTS: usize = 4;
/// Slots of each agent.
pub const SLOTS: u32 = 256;

/// What the agents of the rig saw.
#[derive(Default)]
pub struct Seen {
    /// Attempts that ran.
    pub runs: AtomicUsize,
    /// When the attempts of these tasks began; only what is asked for beforehand is kept.
    pub starts: Mutex<HashMap<TaskId, Option<Instant>>>,
    changed: Notify,
}

impl Seen {
    /// Waits until so many attempts ran.
    pub async fn reached(&self, runs: usize) {
        loop {
            let changed = self.changed.notified();
            if self.runs.load(Ordering::SeqCst) >= runs {
                return;
            }
            changed.await;
        }
    }
}

struct NoOp {
    seen: Arc<Seen>,
    output: String,
}

impl Runner for NoOp {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        let now = Instant::now();
        if let Some(start) = self.seen.starts.lock().get_mut(&job.task) {
            *start = Some(now);
        }
        self.seen.runs.fetch_add(1, Ordering::SeqCst);
        self.seen.changed.notify_waiters();
        Box::pin(std::future::ready(Ran::plain(End::Complete(self.output.clone()))))
    }
}

/// A node with agents that do nothing.
pub struct Rig {
    /// The node.
    pub node: Arc<Node>,
    /// What its agents saw.
    pub seen: Arc<Seen>,
    _folder: TempDir,
}

impl Rig {
    /// Starts a rig on a new database under `base`, with its agents.
    pub async fn start(base: &Path) -> Result<Rig> {
        let rig = Rig::without_agents(base).await?;
        rig.register_agents().await?;
        Ok(rig)
    }

    /// Starts a rig whose agents come later.
    pub async fn without_agents(base: &Path) -> Result<Rig> {
        let folder = tempfile::Builder::new()
            .prefix("segue-bench-")
            .tempdir_in(base)
            .with_context(|| format!("cannot make a folder in {}", base.display()))?;
        let project = Project::open_or_make(folder.path())?;
        let lock = project.lock()?;
        let node = Node::start(project, lock, Vec::new(), NodeOptions::default()).await?;
        Ok(Rig { node, seen: Arc::default(), _folder: folder })
    }

    /// Has its agents from now on.
    pub async fn register_agents(&self) -> Result<()> {
        let agents = (0..AGENTS).map(|number| self.agent(number)).collect();
        self.node.set_agents(agents).await
    }

    fn agent(&self, number: usize) -> Hosted {
        let spec = AgentSpec {
            instance: InstanceId(Uuid::from_u128(0xbe9c_0000 + number as u128)),
            name: "noop".into(),
            kind: AgentKind::Builtin,
            description: "does nothing".into(),
            capabilities: Arc::from([]),
            max_concurrency: SLOTS,
            delegates: false,
        };
        let runner = NoOp { seen: self.seen.clone(), output: payload_text('o') };
        Hosted { spec, runner: Arc::new(runner) }
    }

    /// Stops, and checks in the database that exactly so many tasks completed and nothing else is there.
    pub async fn finish(self, completed: u64) -> Result<()> {
        let counts = self.node.store().counts().await?;
        let others: u64 = counts
            .iter()
            .filter(|(state, _)| **state != TaskState::Completed)
            .map(|(_, count)| count)
            .sum();
        let found = counts.get(&TaskState::Completed).copied().unwrap_or_default();
        self.node.stop(Duration::from_secs(5)).await;
        if found != completed || others != 0 {
            bail!(
                "the database holds {found} completed and {others} other tasks; {completed} completed ones were expected: {counts:?}"
            );
        }
        Ok(())
    }

    /// Waits until the tasks that the agents have run are written as completed.
    pub async fn all_written(&self, completed: u64) -> Result<()> {
        loop {
            let counts = self.node.store().counts().await?;
            if counts.get(&TaskState::Completed).copied().unwrap_or_default() >= completed {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A JSON text of [`PAYLOAD_BYTES`].
fn payload_text(fill: char) -> String {
    let filling: String = std::iter::repeat_n(fill, PAYLOAD_BYTES - 8).collect();
    format!(r#"{{"x":"{filling}"}}"#)
}

/// A task for the agents of the rig.
pub fn noop(id: TaskId) -> NewTask {
    NewTask {
        spec: TaskSpec::new(id, "noop", Route::agent("noop")),
        input: Payload::of_trusted_text(&payload_text('i')),
    }
}

/// A submit of one task.
pub fn single() -> Submit {
    Submit { tasks: vec![noop(new_task_id())] }
}
