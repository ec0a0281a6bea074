//! The side stair: what time brings.

use crate::engine::{Engine, EngineError};
use segue_core::command::{Command, Reply};
use segue_core::ports::Topic;
use std::sync::Arc;
use std::time::Duration;

/// Tasks that one tick looks at.
const TICK_MAX: usize = 512;

/// Waits until something is due, or for the slow beat, and lets `decide` look at it.
pub(crate) async fn timer_loop(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    let mut listener = engine.parts.signals.listen();
    let beat = Duration::from_millis(engine.config.beat_ms);
    let mut failed = false;
    loop {
        let due = Duration::from_millis(engine.next_due().since_ms(engine.now()));
        // What is due stays due while the store cannot write: then it is looked at once a beat.
        let wait = if failed { beat } else { due.min(beat) };
        tokio::select! {
            biased;
            () = crate::engine::stopped(&mut stopping) => return,
            () = tokio::time::sleep(wait) => {}
            _ = listener.next(&[Topic::Due]), if !failed => continue,
        }
        failed = tick(&engine).await.is_err();
    }
}

/// Lets everything that is due happen.
async fn tick(engine: &Engine) -> Result<(), EngineError> {
    loop {
        // What becomes due while the tick runs lowers the mark again.
        engine.set_next_due(None);
        match engine.command(Command::Tick { limit: TICK_MAX }).await {
            Ok(Reply::Done { changed: true }) => continue,
            Ok(_) => break,
            Err(error) => {
                tracing::warn!(%error, "timers could not be looked at");
                return Err(error);
            }
        }
    }
    match engine.parts.store.next_due().await {
        Ok(Some(due)) => engine.lower_next_due(due),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "could not read when the next timer is due");
            return Err(error.into());
        }
    }
    Ok(())
}
