//! The node: one process that holds the project's lock and runs its engine and its agents.

use crate::backend::Base;
use crate::cluster::settings::machine;
use crate::ending;
use crate::project::{NodeLock, Project};
use crate::remains::{self, Remains};
use crate::worktrees;
use anyhow::Result;
use segue_agent::host::{Host, HostParts, Hosted};
use segue_core::command::{Command, Proof};
use segue_core::decide::secret_of;
use segue_core::ids::Incarnation;
use segue_core::ports::{NodeBeat, OwnHost, Store};
use segue_core::worker::TokenMaker;
use segue_engine::{Config, Engine, EngineError, HostBus, LocalHost};
use segue_store::sqlite::SystemClock;
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
    /// What it stands on.
    pub base: Base,
    local: LocalHost,
    _lock: NodeLock,
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// How the engine behaves.
    pub engine: Config,
    /// Work for its own agents goes over the bus as well, as it does to agents elsewhere: to measure that way.
    pub over_the_bus: bool,
}

/// How long outcomes that are on their way may take to be written when a node leaves a cluster.
const LAST_OUTCOMES: Duration = Duration::from_secs(3);
/// Between two looks whether they are.
const LOOK: Duration = Duration::from_millis(50);

/// How the engine of this project's node behaves.
fn engine_config(project: &Project, store: &dyn Store, config: Config) -> Config {
    let Some(settings) = &project.cluster else { return config };
    let node = NodeBeat {
        node: project.host,
        name: settings.node.name.as_str().into(),
        machine: machine().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started: store.now(),
        roles: vec!["node".into()],
        address: None,
        load: 0.0,
        draining: false,
        trouble: None,
    };
    Config {
        has_peers: true,
        workers: Some(TokenMaker::new(project.id, project.key)),
        node: Some(node),
        lease_ms: settings.node.lease_ms.unwrap_or(config.lease_ms),
        ..config
    }
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
        let base = Base::open(&project).await?;
        let parts = base.parts.clone();
        let local = LocalHost { host: project.host, incarnation: Incarnation(Uuid::new_v4()) };
        let specs = agents.iter().map(|agent| agent.spec.clone()).collect();
        let bus = match &project.cluster {
            Some(_) => HostBus::beside(parts.bus.clone()),
            None => HostBus::over(parts.bus.clone()),
        };
        let host_parts = HostParts {
            host: local.host,
            incarnation: local.incarnation,
            bus: bus.clone(),
            blobs: parts.blobs.clone(),
            clock: Arc::new(SystemClock),
        };
        // The host first: letters that the earlier life left unsent find their queue.
        let host = Host::start(host_parts, agents).await?;
        let config = engine_config(&project, parts.store.as_ref(), options.engine);
        let engine = Engine::start(parts, config).await?;
        bus.set_engine(&engine);
        if !options.over_the_bus {
            engine.set_own_host(&(host.clone() as Arc<dyn OwnHost>));
        }
        // First the processes of the earlier life, then its tasks: two attempts at one task must not share a folder.
        let ending = remains::end(&project).await;
        engine.register(&local, specs).await?;
        engine.keep_alive(local.clone());
        let node = Arc::new(Node { project, engine, host, base, local, _lock: lock });
        node.clone().note_remains(ending);
        tokio::spawn(worktrees::sweep(node.project.clone(), node.store().clone()));
        Ok(node)
    }

    /// Has these agents from now on.
    ///
    /// # Errors
    /// When an agent is refused.
    pub async fn set_agents(&self, hosted: Vec<Hosted>) -> Result<()> {
        let specs = hosted.iter().map(|agent| agent.spec.clone()).collect();
        if self.engine.is_leaving(&self.local) {
            return Ok(());
        }
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

    /// Stops: gives out no more work, lets what runs end for as long as `patience`, then ends it. A server that is away holds up none of it for longer
    /// than [`ending::LAST_STEPS`].
    pub async fn stop(&self, patience: Duration) {
        self.engine.stop_assigning();
        let is_shared = self.project.cluster.is_some();
        // What was assigned just now may still be on its way to the host.
        let quiet = async {
            if is_shared {
                self.tell("that this one leaves", self.engine.leave(&self.local)).await;
            }
            self.host.idle().await;
            self.settle().await;
            self.host.idle().await;
        };
        if tokio::time::timeout(patience, quiet).await.is_err() {
            let ended = self.host.cancel_all("the node stops");
            ending::within(ending::ATTEMPTS, "ending what runs", ended).await;
        }
        // Outcomes that are on their way are written before the engine ends.
        self.settle().await;
        if is_shared {
            let left = self.engine.left(&self.local, "its node ended");
            self.tell("that this one has gone", left).await;
        }
        self.engine.stop().await;
        self.host.stop().await;
        self.base.close().await;
    }

    /// Lets the other nodes know something, where the tables can be written within a moment.
    async fn tell(&self, what: &str, word: impl Future<Output = Result<(), EngineError>>) {
        let what = format!("telling the other nodes {what}");
        if let Some(Err(error)) = ending::within(ending::WORD, &what, word).await {
            tracing::warn!("{what}: {error}");
        }
    }

    /// Waits until what its attempts reported is written, by whichever node; at most a moment.
    async fn settle(&self) {
        if self.project.cluster.is_none() {
            return self.engine.drain_reports().await;
        }
        let written = async {
            loop {
                let agents = self.store().agents().await.unwrap_or_default();
                let mut own = agents.iter().filter(|agent| agent.host == self.local.host);
                if self.host.unpublished() == 0 && own.all(|agent| agent.slots_used == 0) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(LAST_OUTCOMES, written).await;
    }

    /// Waits until somebody drained this node. Never returns where nobody does.
    pub async fn told_to_leave(&self) {
        self.engine.told_to_leave(&self.local).await;
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.engine.store()
    }
}
