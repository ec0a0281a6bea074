//! The hosts of this process: which agents it has, and that they are alive.

use crate::complain::complain;
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
    /// taken for lost at once, and their tasks are ready again. A host that somebody has drained meanwhile stays so.
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
        if let Some(before) = hosted.get(&host.host)
            && are_drained(before, &self.agents_of(host.host, host.incarnation).await?)
        {
            // Whoever drained it meant all of it, whatever its agents are from now on.
            self.leaving.send_if_modified(|leaving| leaving.insert(host.host));
            return Ok(());
        }
        self.register_these(host, &agents).await?;
        hosted.insert(host.host, agents);
        Ok(())
    }

    async fn register_these(
        &self,
        host: &LocalHost,
        agents: &[AgentSpec],
    ) -> Result<(), EngineError> {
        self.register_host(host.host, host.incarnation, agents, self.config.lease_ms).await
    }

    /// Registers the agents of any host.
    pub(crate) async fn register_host(
        &self,
        host: HostId,
        incarnation: Incarnation,
        agents: &[AgentSpec],
        lease_ms: u64,
    ) -> Result<(), EngineError> {
        let before = self.agents_of(host, incarnation).await?;
        self.directory.introduce(host, agents);
        let now: Vec<InstanceId> = agents.iter().map(|agent| agent.instance).collect();
        let before = before.iter().map(|agent| agent.spec.instance);
        for gone in before.filter(|instance| !now.contains(instance)) {
            self.directory.remove(gone);
        }
        let registered = agents.to_vec();
        self.command(Command::Register { host, incarnation, agents: registered, lease_ms }).await?;
        self.directory.arrived(host, agents);
        self.look_again().await;
        Ok(())
    }

    /// Says of the agents of this life of a host that they have gone: what they had is ready again.
    pub(crate) async fn expire_host(
        &self,
        host: HostId,
        incarnation: Incarnation,
        reason: &str,
    ) -> Result<(), EngineError> {
        let agents = self.agents_of(host, incarnation).await?;
        let commands = agents.iter().filter(|agent| !agent.gone).map(|agent| {
            self.directory.remove(agent.spec.instance);
            let reason = reason.to_owned();
            Command::ExpireAgent { instance: agent.spec.instance, reason }
        });
        for decision in self.apply(commands.collect()).await? {
            decision?;
        }
        Ok(())
    }

    /// Takes the slots of every agent of a host, whichever node it is on: it gets no more work, in this life. Returns how many agents that are.
    ///
    /// # Errors
    /// When the host has no agents, or the store cannot.
    pub async fn drain_host(&self, host: HostId) -> Result<usize, EngineError> {
        let mut agents = self.parts.store.agents_of(host).await?;
        agents.retain(|agent| !agent.gone);
        let latest = agents.iter().map(|agent| agent.incarnation).max();
        let Some(incarnation) = latest else {
            return Err(Reject::Unknown { what: "agent of host", id: host.to_string() }.into());
        };
        agents.retain(|agent| agent.incarnation == incarnation);
        let lease_ms = agents
            .iter()
            .map(|agent| agent.lease_until.since_ms(self.now()))
            .max()
            .unwrap_or(self.config.lease_ms);
        let specs: Vec<AgentSpec> = agents.iter().map(|agent| without_slots(&agent.spec)).collect();
        let count = specs.len();
        self.command(Command::Register { host, incarnation, agents: specs, lease_ms }).await?;
        Ok(count)
    }

    /// A host of this process takes no more work, from any node: what it has goes on.
    ///
    /// # Errors
    /// When the store cannot.
    pub async fn leave(&self, host: &LocalHost) -> Result<(), EngineError> {
        let mut hosted = self.hosted.lock().await;
        let Some(agents) = hosted.get_mut(&host.host) else { return Ok(()) };
        *agents = agents.iter().map(without_slots).collect();
        let agents = agents.clone();
        self.leaving.send_if_modified(|leaving| leaving.insert(host.host));
        self.register_these(host, &agents).await
    }

    /// A host of this process has gone for good: nothing of it runs any more, and nobody need wait for its lease to end.
    ///
    /// # Errors
    /// When the store cannot.
    pub async fn left(&self, host: &LocalHost, reason: &str) -> Result<(), EngineError> {
        self.hosted.lock().await.remove(&host.host);
        self.expire_host(host.host, host.incarnation, reason).await
    }

    /// Whether this host of this process takes no more work because it leaves.
    pub fn is_leaving(&self, host: &LocalHost) -> bool {
        self.leaving.borrow().contains(&host.host)
    }

    /// Waits until somebody drained this host of this process. Never returns where nobody does.
    pub async fn told_to_leave(&self, host: &LocalHost) {
        let mut leaving = self.leaving.subscribe();
        let told = leaving.wait_for(|leaving| leaving.contains(&host.host)).await;
        if told.is_err() {
            // The sender lives as long as the engine.
            std::future::pending::<()>().await;
        }
    }

    async fn agents_of(
        &self,
        host: HostId,
        incarnation: Incarnation,
    ) -> Result<Vec<Agent>, EngineError> {
        let mut agents = self.parts.store.agents_of(host).await?;
        agents.retain(|agent| agent.incarnation == incarnation);
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
            Ok(_) => match self.agents_of(host.host, host.incarnation).await {
                Ok(agents) => self.check_presence(host, &agents).await,
                Err(error) => complain(&error, "could not read the agents of this host"),
            },
            Err(EngineError::Rejected(reject @ Reject::Superseded(_))) => {
                // A pause longer than the lease (a suspended laptop): what ran is known to be lost already.
                tracing::warn!(%reject, "the lease of this host ended; its agents register again");
                self.register_again(host).await;
            }
            Err(error) => complain(&error, "the lease of this host could not be renewed"),
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
        if are_drained(&hosted, agents) {
            self.leaving.send_if_modified(|leaving| leaving.insert(host.host));
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

/// Whether somebody took the slots of all that a host has.
fn are_drained(hosted: &[AgentSpec], agents: &[Agent]) -> bool {
    let has_none = |spec: &AgentSpec| {
        agents
            .iter()
            .any(|agent| agent.spec.instance == spec.instance && agent.spec.max_concurrency == 0)
    };
    !hosted.is_empty() && hosted.iter().all(has_none)
}

/// The same agent of a host that leaves.
fn without_slots(spec: &AgentSpec) -> AgentSpec {
    AgentSpec { max_concurrency: 0, ..spec.clone() }
}
