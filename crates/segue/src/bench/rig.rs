//! A node in this process with agents that do nothing, on a database of its own, or in a project of its own on the servers of a cluster.

use crate::cluster::{Settings, place};
use crate::node::{Node, NodeOptions};
use crate::project::Project;
use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use segue_agent::host::Hosted;
use segue_agent::runner::{End, Job, Ran, Runner};
use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::{NewTask, Submit};
use segue_core::ids::{InstanceId, ProjectId, TaskId};
use segue_core::payload::Payload;
use segue_core::ports::Fut;
use segue_core::task::{Route, TaskSpec, TaskState};
use segue_engine::workflow::new_task_id;
use std::collections::HashMap;
use std::path::PathBuf;
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

/// Between two looks at how many tasks are written: a cluster answers each with a query.
const LOOK: Duration = Duration::from_millis(2);

/// On what the rigs of a run stand.
#[derive(Clone)]
pub struct Ground {
    /// The folder in which each makes one of its own.
    pub dir: PathBuf,
    /// The servers of a cluster; SQLite in the folder where there are none.
    pub cluster: Option<Arc<Settings>>,
    /// Work goes over the bus, as it does to agents elsewhere.
    pub over_the_bus: bool,
}

impl Ground {
    /// The word by which figures say it.
    pub fn deployment(&self) -> &'static str {
        match (self.cluster.is_some(), self.over_the_bus) {
            (true, false) => "cluster",
            (true, true) => "cluster, over the bus",
            (false, false) => "embedded",
            (false, true) => "embedded, over the bus",
        }
    }

    /// A project that nobody else has, for one rig.
    fn project(&self, folder: &TempDir) -> Result<Project> {
        let Some(settings) = &self.cluster else { return Project::open_or_make(folder.path()) };
        let mut settings = Settings::clone(settings);
        let project = settings.project.as_mut().context("the file names no [project]")?;
        project.id = ProjectId(Uuid::new_v4());
        project.name = format!("bench {}", project.id);
        if let Some(prefix) = &mut settings.rabbitmq.prefix {
            prefix.push_str(&format!("{}.", project.id));
        }
        settings.node.name = "bench".to_owned();
        place::node_project(Arc::new(settings), folder.path())
    }
}

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
    /// Its agents are its own, also where several rigs share a database.
    first_instance: u128,
    _folder: TempDir,
}

impl Rig {
    /// Starts a rig on this ground, with its agents.
    pub async fn start(ground: &Ground) -> Result<Rig> {
        let rig = Rig::without_agents(ground).await?;
        rig.register_agents().await?;
        Ok(rig)
    }

    /// Starts a rig whose agents come later.
    pub async fn without_agents(ground: &Ground) -> Result<Rig> {
        let folder = tempfile::Builder::new()
            .prefix("segue-bench-")
            .tempdir_in(&ground.dir)
            .with_context(|| format!("cannot make a folder in {}", ground.dir.display()))?;
        let project = ground.project(&folder)?;
        let lock = project.lock()?;
        let options = NodeOptions { over_the_bus: ground.over_the_bus, ..NodeOptions::default() };
        let node = Node::start(project, lock, Vec::new(), options).await?;
        let first_instance = Uuid::new_v4().as_u128() >> 8 << 8;
        Ok(Rig { node, seen: Arc::default(), first_instance, _folder: folder })
    }

    /// Has its agents from now on.
    pub async fn register_agents(&self) -> Result<()> {
        let agents = (0..AGENTS).map(|number| self.agent(number)).collect();
        self.node.set_agents(agents).await
    }

    fn agent(&self, number: usize) -> Hosted {
        let spec = AgentSpec {
            instance: InstanceId(Uuid::from_u128(self.first_instance + number as u128)),
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
            tokio::time::sleep(LOOK).await;
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
