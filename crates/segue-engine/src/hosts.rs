//! The hosts of this process: which agents it has, and that they are alive.

use crate::engine::{Engine, EngineError, stopped};
use segue_core::agent::{Agent, AgentSpec};
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
        // One after another: an earlier list must not overtake a later one.
        let mut hosted = self.hosted.lock().await;
        self.register_these(host, &agents).await?;
        hosted.insert(host.host, agents);
        Ok(())
    }

    async fn register_these(
        &self,
        host: &LocalHost,
        agents: &[AgentSpec],
    ) -> Result<(), EngineError> {
        let before = self.agents_of(host).await?;
        self.directory.introduce(agents);
        let now: Vec<InstanceId> = agents.iter().map(|agent| agent.instance).collect();
        let before = before.iter().map(|agent| agent.spec.instance);
        for gone in before.filter(|instance| !now.contains(instance)) {
            self.directory.remove(gone);
        }
        let register = Command::Register {
            host: host.host,
            incarnation: host.incarnation,
            agents: agents.to_vec(),
            lease_ms: self.config.lease_ms,
        };
        self.command(register).await?;
        self.directory.beat(now, 0.0);
        self.look_again().await;
        Ok(())
    }

    async fn agents_of(&self, host: &LocalHost) -> Result<Vec<Agent>, EngineError> {
        let mut agents = self.parts.store.agents_of(host.host).await?;
        agents.retain(|agent| agent.incarnation == host.incarnation);
        Ok(agents)
    }

    /// Keeps the lease of a host of this process until the engine stops.
    pub fn keep_alive(self: &Arc<Self>, host: LocalHost) {
        let engine = self.clone();
        self.spawn(async move {
            let mut stopping = engine.stopping();
            let pause = Duration::from_millis(engine.config.lease_ms / 3);
            loop {
                tokio::select! {
                    biased;
                    () = stopped(&mut stopping) => return,
                    () = tokio::time::sleep(pause) => engine.renew(&host).await,
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
            Ok(_) => match self.agents_of(host).await {
                Ok(agents) => self.check_presence(host, &agents).await,
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

    /// Beats for the agents of a host. Where somebody took one for gone that is there, all of them register again: otherwise nothing
    /// would ever bring it back.
    async fn check_presence(&self, host: &LocalHost, agents: &[Agent]) {
        let gone = |spec: &AgentSpec| {
            agents.iter().any(|agent| agent.gone && agent.spec.instance == spec.instance)
        };
        let hosted = self.hosted.lock().await.get(&host.host).cloned().unwrap_or_default();
        if hosted.iter().any(gone) {
            tracing::warn!("an agent of this host was taken for gone; its agents register again");
            return self.register_again(host).await;
        }
        self.directory.beat(agents.iter().map(|agent| agent.spec.instance), 0.0);
    }

    async fn register_again(&self, host: &LocalHost) {
        let hosted = self.hosted.lock().await;
        let agents = hosted.get(&host.host).map(Vec::as_slice).unwrap_or_default();
        if let Err(error) = self.register_these(host, agents).await {
            tracing::error!(%error, "the agents of this host could not register again");
        }
    }
}
