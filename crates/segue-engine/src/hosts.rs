//! The hosts of this process: which agents it has, and that they are alive.

use crate::engine::{Engine, EngineError, stopped};
use segue_core::agent::AgentSpec;
use segue_core::command::{Command, Reject};
use segue_core::ids::{HostId, Incarnation, InstanceId};
use std::sync::Arc;
use std::time::Duration;

/// A host that lives in the same process as the engine.
#[derive(Clone, Debug)]
pub struct LocalHost {
    /// The host; the same over restarts.
    pub host: HostId,
    /// This life of it.
    pub incarnation: Incarnation,
}

impl Engine {
    /// Registers the agents of a host of this process, or what they are now. Attempts of an earlier life of the host are
    /// taken for lost at once, and their tasks are ready again.
    ///
    /// # Errors
    /// When an agent is refused, or the store cannot.
    pub async fn register(
        &self,
        host: &LocalHost,
        agents: Vec<AgentSpec>,
    ) -> Result<(), EngineError> {
        let before = self.instances_of(host).await?;
        self.directory.introduce(&agents);
        let now: Vec<InstanceId> = agents.iter().map(|agent| agent.instance).collect();
        for gone in before.iter().filter(|instance| !now.contains(instance)) {
            self.directory.remove(*gone);
        }
        let register = Command::Register {
            host: host.host,
            incarnation: host.incarnation,
            agents,
            lease_ms: self.config.lease_ms,
        };
        self.command(register).await?;
        self.directory.beat(now, 0.0);
        self.look_again().await;
        Ok(())
    }

    async fn instances_of(&self, host: &LocalHost) -> Result<Vec<InstanceId>, EngineError> {
        let agents = self.parts.store.agents().await?;
        Ok(agents
            .into_iter()
            .filter(|agent| agent.host == host.host && agent.incarnation == host.incarnation)
            .map(|agent| agent.spec.instance)
            .collect())
    }

    /// Keeps the lease of a host of this process until the engine stops.
    pub fn keep_alive(self: &Arc<Self>, host: LocalHost) {
        let engine = self.clone();
        self.spawn(async move {
            let mut stopping = engine.stopping();
            let pause = Duration::from_millis(engine.config.lease_ms / 3);
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => engine.renew(&host).await,
                    () = stopped(&mut stopping) => return,
                }
            }
        });
    }

    async fn renew(&self, host: &LocalHost) {
        let renew = Command::Renew {
            host: host.host,
            incarnation: host.incarnation,
            lease_ms: self.config.lease_ms,
        };
        match self.command(renew).await {
            Ok(_) => match self.instances_of(host).await {
                Ok(instances) => self.directory.beat(instances, 0.0),
                Err(error) => tracing::warn!(%error, "could not read the agents of this host"),
            },
            Err(EngineError::Rejected(reject @ Reject::Superseded(_))) => {
                // A pause longer than the lease (a suspended laptop): what ran is known to be lost already.
                tracing::warn!(%reject, "the lease of this host ended; its agents register again");
                self.register_again(host).await;
            }
            Err(error) => tracing::warn!(%error, "the lease of this host could not be renewed"),
        }
    }

    async fn register_again(&self, host: &LocalHost) {
        let specs = match self.parts.store.agents().await {
            Ok(agents) => agents
                .into_iter()
                .filter(|agent| agent.host == host.host && agent.incarnation == host.incarnation)
                .map(|agent| agent.spec.as_ref().clone())
                .collect(),
            Err(error) => return tracing::warn!(%error, "could not read the agents of this host"),
        };
        if let Err(error) = self.register(host, specs).await {
            tracing::error!(%error, "the agents of this host could not register again");
        }
    }
}
