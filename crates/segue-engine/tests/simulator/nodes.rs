//! Nodes: they begin, die, end in order, and begin again.

use crate::runner::Scripted;
use crate::setting::Shape;
use crate::sim::{Node, Sim, agents, host_id};
use crate::watch::WatchedBus;
use segue_agent::host::{Host, HostParts, Hosted};
use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::ids::Incarnation;
use segue_engine::{Config, Engine, EngineError, LocalHost, Parts};
use segue_store::soft::InProcessSoft;
use segue_testkit::faults::{FaultyBus, FaultyStore, Life};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Keeps a node running: whenever it has died, it begins again.
pub async fn keep_node(sim: Arc<Sim>, index: usize) {
    let mut dice = sim.dice();
    loop {
        let life = Life::new();
        if dice.roll(8) == 0 && !sim.is_calm() {
            // It dies while it begins.
            life.end_after_steps(dice.between(1, 40));
        }
        tokio::select! {
            biased;
            () = life.ended() => tracing::info!(index, "the node died"),
            ended = live(sim.clone(), index, life.clone()) => match ended {
                Ok(why) => tracing::info!(index, why, "the node ended"),
                Err(error) => tracing::info!(index, %error, "the node could not begin"),
            },
        }
        life.end();
        sim.nodes.lock()[index] = None;
        sim.stores.lock()[index] = None;
        sim.downtime(&mut dice, 40_000).await;
    }
}

/// One life of a node.
async fn live(sim: Arc<Sim>, index: usize, life: Life) -> Result<String, EngineError> {
    let (store, blobs) = sim.open()?;
    sim.stores.lock()[index] = Some(Arc::downgrade(&store));
    let (clock, trouble) = (sim.clock.clone(), sim.trouble.clone());
    // What hosts elsewhere need, too, is kept where they reach it.
    let blobs = if sim.setting.shape == Shape::Embedded { blobs } else { sim.blobs.clone() };
    let store = FaultyStore::over(store, blobs, clock, life.clone(), trouble.clone());
    let own_bus = (sim.setting.shape == Shape::Embedded).then(InProcessBus::new);
    let bus = own_bus.clone().unwrap_or_else(|| sim.broker.clone());
    let bus = FaultyBus::over(bus, life.clone(), trouble);
    let bus = Arc::new(WatchedBus { inner: bus, seen: sim.seen.clone() });
    let presence = match own_bus {
        Some(_) => InProcessSoft::with_clock(sim.clock.clone()),
        None => sim.presence.clone(),
    };
    let parts = Parts {
        store: store.clone(),
        blobs: store.clone(),
        bus: bus.clone(),
        signals: InProcessSignals::new(),
        presence,
    };
    let config = Config {
        beat_ms: sim.setting.beat_ms,
        lease_ms: sim.setting.lease_ms,
        ..Config::default()
    };
    let engine = Engine::start(parts, config).await?;
    let mut host = None;
    if own_bus.is_some() {
        let local = LocalHost { host: host_id(index), incarnation: Incarnation(sim.uuid()) };
        let parts = HostParts {
            host: local.host,
            incarnation: local.incarnation,
            bus,
            blobs: store,
            clock: sim.clock.clone(),
        };
        let started = Host::start(parts, hosted(&sim, index, &life)).await?;
        engine.register(&local, agents(index)).await?;
        engine.keep_alive(local);
        host = Some(started);
    }
    let stop = Arc::new(Notify::new());
    let node = Node { life, engine: engine.clone(), number: sim.number(), stop: stop.clone() };
    tracing::info!(index, number = node.number, "a node runs");
    sim.nodes.lock()[index] = Some(node);
    sim.changed.notify_waiters();
    let why = tokio::select! {
        biased;
        error = engine.failed() => error.to_string(),
        () = stop.notified() => {
            stop_in_order(&engine, host.as_deref()).await;
            "in order".to_owned()
        }
    };
    if let Some(bus) = own_bus {
        sim.note_dead(&bus);
    }
    Ok(why)
}

pub fn hosted(sim: &Sim, index: usize, life: &Life) -> Vec<Hosted> {
    let runner = Arc::new(Scripted { life: life.clone(), seen: sim.seen.clone() });
    agents(index).into_iter().map(|spec| Hosted { spec, runner: runner.clone() }).collect()
}

/// What a node does that is told to end.
async fn stop_in_order(engine: &Engine, host: Option<&Host>) {
    engine.stop_assigning();
    if let Some(host) = host {
        if tokio::time::timeout(Duration::from_secs(3), host.idle()).await.is_err() {
            host.cancel_all("the node stops").await;
        }
        engine.drain_reports().await;
    }
    engine.stop().await;
    if let Some(host) = host {
        host.stop().await;
    }
}
