//! Once a beat nodes tell each other whom they heard of.

use crate::complain::complain;
use crate::engine::{Engine, stopped};
use segue_core::ports::{Beat, NodeBeat, SoftError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// With so many instances the directory is read at every second beat, with twice as many at every third, and so on: all nodes read it.
const READ_STEP: usize = 2_500;
/// While nobody tells anything, the tables are read for valid leases this often at most.
const LEASES_EVERY: Duration = Duration::from_secs(5);
/// A node that stops waits no longer than this to say so.
const LEAVE: Duration = Duration::from_secs(1);

/// Tells and asks once a beat, until the engine stops.
pub(crate) async fn presence_loop(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    let pause = Duration::from_millis(engine.config.beat_ms);
    let mut talk = Talk::default();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            () = talk.beat(&engine) => {}
        }
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    let leave = engine.parts.presence.leave(engine.id());
    // It is forgotten by itself as well, only later.
    let _ = tokio::time::timeout(LEAVE, leave).await;
}

#[derive(Default)]
struct Talk {
    /// Beats until the directory is read again.
    read_in: usize,
    /// Since when nobody tells anything.
    is_alone: bool,
    leases_read: Option<Instant>,
}

impl Talk {
    async fn beat(&mut self, engine: &Engine) {
        if engine.directory.knows_not_who() {
            match engine.roster.agents(engine.parts.store.as_ref()).await {
                Ok(agents) => engine.directory.learn(&agents),
                Err(error) => tracing::debug!(%error, "cannot read who the agents are"),
            }
        }
        match self.tell_and_ask(engine).await {
            Ok(()) => {
                if std::mem::take(&mut self.is_alone) {
                    tracing::info!("nodes tell each other again who is there");
                }
                self.leases_read = None;
            }
            Err(error) => self.alone(engine, &error).await,
        }
    }

    async fn tell_and_ask(&mut self, engine: &Engine) -> Result<(), SoftError> {
        let (presence, directory, me) = (&engine.parts.presence, &engine.directory, engine.id());
        let gone = directory.take_gone();
        if !gone.is_empty()
            && let Err(error) = presence.remove(gone).await
        {
            // They are forgotten by themselves as well, only later.
            tracing::debug!(%error, "could not tell who has gone");
        }
        let (instances, health) = directory.word(me);
        let load = instances.iter().map(|beat| beat.load).fold(0.0, f32::max);
        let node = engine.config.node.clone();
        let trouble = engine.parts.bus.trouble().map(Into::into);
        let draining = !engine.is_assigning();
        let node = node.map(|node| NodeBeat { load, draining, trouble, ..node });
        let told = presence.beat(Beat { from: me, node, instances, health }).await;
        match told {
            Ok(()) => {}
            Err(SoftError::Invalid(why)) => tracing::warn!(why, "not everything could be told"),
            Err(error @ SoftError::Away(_)) => return Err(error),
        }
        if self.read_in == 0 || self.is_alone {
            directory.hear(me, presence.everybody().await?);
            self.read_in = directory.told_count() / READ_STEP;
        } else {
            self.read_in -= 1;
        }
        Ok(())
    }

    async fn alone(&mut self, engine: &Engine, error: &SoftError) {
        if !std::mem::replace(&mut self.is_alone, true) {
            complain(
                error,
                "nodes cannot tell each other who is there; valid leases count until they can",
            );
        }
        if self.leases_read.is_some_and(|at| at.elapsed() < LEASES_EVERY) {
            return;
        }
        let store = engine.parts.store.as_ref();
        match tokio::try_join!(engine.roster.agents(store), store.leases()) {
            Ok((agents, leases)) => {
                self.leases_read = Some(Instant::now());
                engine.directory.hear_nothing(&agents, &leases, engine.now());
                // What waited for somebody of whom nobody told can go now.
                engine.look_again().await;
            }
            Err(error) => complain(&error, "cannot read whose leases are valid"),
        }
    }
}
