//! Hosts that are processes of their own: they begin, die, are cut off, and begin again in another life.

use crate::nodes::hosted;
use crate::sim::{Node, Place, Sim, agents, host_id, with};
use segue_agent::host::{Host, HostParts};
use segue_core::command::{Command, Reject};
use segue_core::ids::{Incarnation, InstanceId};
use segue_core::ports::BusError;
use segue_engine::{EngineError, LocalHost};
use segue_testkit::faults::{FaultyBus, Life};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Keeps a host running: whenever it has died, it begins again in another life.
pub async fn keep_host(sim: Arc<Sim>, index: usize) {
    let mut dice = sim.dice();
    loop {
        let place = Place { life: Life::new(), cut_off_until_ms: Arc::new(AtomicU64::new(0)) };
        sim.hosts.lock()[index] = Some(place.clone());
        tokio::select! {
            biased;
            () = place.life.ended() => tracing::info!(index, "the host died"),
            Err(error) = live(&sim, index, &place) => tracing::info!(index, %error, "the host could not begin"),
        }
        place.life.end();
        sim.hosts.lock()[index] = None;
        sim.downtime(&mut dice, 60_000).await;
    }
}

async fn live(sim: &Arc<Sim>, index: usize, place: &Place) -> Result<(), BusError> {
    let local = LocalHost { host: host_id(index), incarnation: Incarnation(sim.uuid()) };
    let (life, trouble) = (place.life.clone(), sim.trouble.clone());
    let parts = HostParts {
        host: local.host,
        incarnation: local.incarnation,
        bus: FaultyBus::over(sim.broker.clone(), life.clone(), trouble),
        blobs: sim.blobs.clone(),
        clock: sim.clock.clone(),
    };
    let _host = Host::start(parts, hosted(sim, index, &life)).await?;
    tracing::info!(index, incarnation = %local.incarnation, "a host runs");
    let mut known = BTreeSet::new();
    loop {
        let changed = sim.changed.notified();
        if place.cut_off_until_ms.load(Ordering::SeqCst) <= sim.clock.elapsed_ms() {
            for node in sim.running() {
                say_hello(&node, &local, index, &mut known).await;
            }
        }
        let pause = Duration::from_millis(sim.setting.lease_ms / 3);
        let _ = tokio::time::timeout(pause, changed).await;
    }
}

/// Registers with a node that does not know it yet; else says that it lives.
async fn say_hello(node: &Node, local: &LocalHost, index: usize, known: &mut BTreeSet<u64>) {
    let engine = &node.engine;
    if known.contains(&node.number) {
        let renew = Command::Renew {
            host: local.host,
            incarnation: local.incarnation,
            lease_ms: engine.config().lease_ms,
        };
        match with(node, engine.command(renew)).await {
            Some(Ok(_)) if !is_gone(node, index).await => {
                let instances: Vec<InstanceId> =
                    agents(index).iter().map(|spec| spec.instance).collect();
                engine.directory.beat(instances, 0.0);
                return;
            }
            Some(Ok(_)) => tracing::info!(index, "an agent was taken for gone; registers again"),
            Some(Err(EngineError::Rejected(Reject::Superseded(why)))) => {
                tracing::info!(index, why, "registers again");
            }
            Some(Err(error)) => return tracing::info!(index, %error, "could not renew"),
            None => return,
        }
    }
    match with(node, engine.register(local, agents(index))).await {
        Some(Ok(())) => {
            known.insert(node.number);
        }
        Some(Err(error)) => tracing::info!(index, %error, "could not register"),
        None => {}
    }
}

/// Whether somebody took an agent of this host for gone.
async fn is_gone(node: &Node, index: usize) -> bool {
    let Some(Ok(agents)) = with(node, node.engine.store().agents()).await else { return false };
    agents.iter().any(|agent| agent.host == host_id(index) && agent.gone)
}
