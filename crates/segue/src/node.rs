//! The node: one process that holds the project's lock and runs its engine and its agents.

use crate::project::{NodeLock, Project};
use crate::remains::{self, Remains};
use crate::worktrees;
use anyhow::{Context, Result};
use segue_agent::host::{Host, HostParts, Hosted};
use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::command::{Command, Proof};
use segue_core::decide::secret_of;
use segue_core::ids::Incarnation;
use segue_core::ports::Store;
use segue_engine::{Config, Engine, LocalHost, Parts};
use segue_store::soft::InProcessSoft;
use segue_store::sqlite::{Options, SqliteStore, SystemClock};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
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
            presence: InProcessSoft::new(),
        };
        let local = LocalHost { host: project.host, incarnation: Incarnation(Uuid::new_v4()) };
        let specs = agents.iter().map(|agent| agent.spec.clone()).collect();
        let host_parts = HostParts {
            host: local.host,
            incarnation: local.incarnation,
            bus: bus.clone(),
            blobs: store.clone(),
            clock: Arc::new(SystemClock),
        };
        // The host first: letters that the earlier life left unsent find their queue.
        let host = Host::start(host_parts, agents).await?;
        let engine = Engine::start(parts, options.engine).await?;
        // First the processes of the earlier life, then its tasks: two attempts at one task must not share a folder.
        let ending = remains::end(&project).await;
        engine.register(&local, specs).await?;
        engine.keep_alive(local.clone());
        let node = Arc::new(Node { project, engine, host, bus, store, local, _lock: lock });
        node.clone().note_remains(ending);
        tokio::spawn(worktrees::sweep(node.project.clone(), node.store.clone()));
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

    /// Writes into the log which processes of an earlier life were ended, once that is known.
    fn note_remains(self: Arc<Self>, ending: JoinHandle<Vec<Remains>>) {
        tokio::spawn(async move {
            let commands: Vec<Command> = ending
                .await
                .unwrap_or_default()
                .into_iter()
                .filter(|remains| !remains.ended.is_empty())
                .map(|Remains { task, attempt, ended }| {
                    let secret = secret_of(&self.project.key, attempt);
                    Command::Reaped { proof: Proof { task, attempt, secret }, ended }
                })
                .collect();
            if commands.is_empty() {
                return;
            }
            match self.engine.apply(commands).await {
                Ok(decisions) => {
                    for reject in decisions.into_iter().filter_map(Result::err) {
                        tracing::warn!(%reject, "could not note which processes were ended");
                    }
                }
                Err(error) => tracing::warn!(%error, "could not note which processes were ended"),
            }
        });
    }

    /// Stops: gives out no more work, lets what runs end for as long as `patience`, then ends it.
    pub async fn stop(&self, patience: Duration) {
        self.engine.stop_assigning();
        // What was assigned just now may still be on its way to the host.
        let quiet = async {
            self.host.idle().await;
            self.engine.drain_reports().await;
            self.host.idle().await;
        };
        if tokio::time::timeout(patience, quiet).await.is_err() {
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
