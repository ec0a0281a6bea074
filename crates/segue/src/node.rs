//! The node: one process that holds the project's lock and runs its engine and its agents.

use crate::project::{NodeLock, Project};
use anyhow::{Context, Result};
use segue_agent::command::evidence;
use segue_agent::host::{Host, HostParts, Hosted};
use segue_agent::place::{RunningRecord, records_folder};
use segue_agent::process::end_leftover;
use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::command::{Command, Proof};
use segue_core::decide::secret_of;
use segue_core::ids::{AttemptId, Incarnation, TaskId};
use segue_core::ports::Store;
use segue_engine::{Config, Engine, LocalHost, Parts};
use segue_store::sqlite::{Options, SqliteStore, SystemClock};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A running node.
pub struct Node {
    /// The project.
    pub project: Project,
    /// Its engine.
    pub engine: Arc<Engine>,
    /// Its agents' host.
    pub host: Arc<Host>,
    /// Its bus.
    pub bus: Arc<InProcessBus>,
    /// Its store.
    pub store: Arc<SqliteStore>,
    local: LocalHost,
    _lock: NodeLock,
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// How the engine behaves.
    pub engine: Config,
}

/// The store of a project, opened by whoever holds its lock.
///
/// # Errors
/// When the database cannot be opened.
pub fn open_store(project: &Project) -> Result<Arc<SqliteStore>> {
    let options = Options::new(&project.state, project.id, project.key);
    SqliteStore::open(options)
        .with_context(|| format!("cannot open the database in {}", project.state.display()))
}

impl Node {
    /// Starts the node of a project with these agents. What an earlier life of the node left running is ended, and its tasks are ready again.
    ///
    /// # Errors
    /// When another node runs, the database cannot be opened, or an agent is refused.
    pub async fn start(
        project: Project,
        lock: NodeLock,
        agents: Vec<Hosted>,
        options: NodeOptions,
    ) -> Result<Arc<Node>> {
        let store = open_store(&project)?;
        let bus = InProcessBus::new();
        let parts = Parts {
            store: store.clone(),
            blobs: store.clone(),
            bus: bus.clone(),
            signals: InProcessSignals::new(),
        };
        let engine = Engine::start(parts, options.engine).await?;
        let local = LocalHost { host: project.host, incarnation: Incarnation(Uuid::new_v4()) };
        let specs = agents.iter().map(|agent| agent.spec.clone()).collect();
        let host_parts = HostParts {
            host: local.host,
            incarnation: local.incarnation,
            bus: bus.clone(),
            blobs: store.clone(),
            clock: Arc::new(SystemClock),
        };
        let host = Host::start(host_parts, agents).await?;
        // First the processes of the earlier life, then its tasks: two attempts at one task must not share a folder.
        let leftovers = end_leftovers(&project).await;
        engine.register(&local, specs).await?;
        engine.keep_alive(local.clone());
        let node = Arc::new(Node { project, engine, host, bus, store, local, _lock: lock });
        node.note_leftovers(leftovers).await;
        Ok(node)
    }

    /// Has these agents from now on.
    ///
    /// # Errors
    /// When an agent is refused.
    pub async fn set_agents(&self, hosted: Vec<Hosted>) -> Result<()> {
        let specs = hosted.iter().map(|agent| agent.spec.clone()).collect();
        self.host.set_agents(hosted);
        self.engine.register(&self.local, specs).await?;
        Ok(())
    }

    /// Writes into the log which processes of an earlier life were ended.
    async fn note_leftovers(&self, leftovers: Vec<Leftover>) {
        for (record, ended) in leftovers {
            let (Ok(task), Ok(attempt)) =
                (record.task.parse::<TaskId>(), record.attempt.parse::<AttemptId>())
            else {
                continue;
            };
            let proof = Proof { task, attempt, secret: secret_of(&self.project.key, attempt) };
            if let Err(error) = self.engine.command(Command::Reaped { proof, ended }).await {
                tracing::warn!(%error, %task, "could not note which processes were ended");
            }
        }
    }

    /// Stops: gives out no more work, lets what runs end for as long as `patience`, then ends it.
    pub async fn stop(&self, patience: Duration) {
        self.engine.stop_assigning();
        if tokio::time::timeout(patience, self.host.idle()).await.is_err() {
            self.host.cancel_all("the node stops").await;
        }
        // Outcomes that are on their way are written before the engine ends.
        self.engine.drain_reports().await;
        self.engine.stop().await;
        self.host.stop().await;
        self.bus.close();
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.engine.store()
    }
}

/// How long a new node waits for what an earlier one left running to end, before it goes on all the same. Supervisors kill
/// it the moment their node dies, so this is long for anything but a process that hangs in the kernel.
const LEFTOVER_WAIT: Duration = Duration::from_millis(1_500);

/// Ends what an earlier life of the node left running. Its supervisors do it by themselves, so this waits for them and finds what survived.
async fn end_leftovers(project: &Project) -> Vec<Leftover> {
    let state = project.state.clone();
    let found = tokio::task::spawn_blocking(move || leftovers(&state));
    match tokio::time::timeout(LEFTOVER_WAIT, found).await {
        Ok(found) => found.unwrap_or_default(),
        Err(_) => {
            tracing::warn!(
                "processes of the earlier node are still ending; work goes on beside them"
            );
            Vec::new()
        }
    }
}

type Leftover = (RunningRecord, Vec<segue_core::letter::EndedProcess>);

fn leftovers(state: &Path) -> Vec<Leftover> {
    let folder = records_folder(state);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let record: Option<RunningRecord> =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(record) = record {
            let last_words = folder.join(format!("{}.last", record.attempt));
            let ended = end_leftover(&record.started, Some(&record.attempt), Some(&last_words));
            match ended {
                Ok(ended) => found.push((record, ended.iter().map(evidence).collect())),
                Err(error) => {
                    tracing::warn!(%error, attempt = record.attempt, "cannot make sure that nothing is left of an attempt")
                }
            }
        }
        let _ = std::fs::remove_file(&path);
    }
    found
}
