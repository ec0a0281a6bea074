//! The side stair: what time brings.

use crate::complain::complain;
use crate::engine::{Engine, EngineError};
use crate::hearing::Hearing;
use segue_core::command::{Command, Excused, Reply};
use segue_core::ports::{Passing, Topic};
use std::sync::Arc;
use std::time::Duration;

/// Tasks that one tick looks at.
const TICK_MAX: usize = 512;
/// The same while those that are due first have to stay so: what is due behind them must not starve.
const TICK_MORE_MAX: usize = 16 * TICK_MAX;

/// How far apart engines over the same tables wake, at most.
const JITTER: Duration = Duration::from_millis(20);

/// Waits until something is due, or for the slow beat, and lets `decide` look at it.
pub(crate) async fn timer_loop(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    let mut listener = engine.parts.signals.listen();
    let beat = Duration::from_millis(engine.config.beat_ms);
    let lease = Duration::from_millis(engine.config.lease_ms);
    let mut hearing = Hearing::new(lease, engine.parts.bus.comebacks());
    let (mut stays_due, mut is_known) = (false, false);
    let mut limit = TICK_MAX;
    loop {
        let due = Duration::from_millis(engine.next_due().since_ms(engine.now()));
        // What is due stays due while the store cannot write, or whoever has it could not be heard: then it is looked at once a beat.
        let wait = if stays_due { beat } else { due.min(beat) } + jitter(&engine);
        tokio::select! {
            biased;
            () = crate::engine::stopped(&mut stopping) => return,
            () = tokio::time::sleep(wait) => {}
            _ = listener.next(&[Topic::Due]), if !stays_due => continue,
        }
        let ticked = tick(&engine, &mut hearing, limit, &mut is_known).await;
        if let Err(EngineError::Store(error)) = &ticked
            && error.is_passing()
        {
            hearing.store_was_away();
        }
        let is_spared = ticked.as_ref().is_ok_and(|excused| *excused != Excused::Nobody)
            && engine.next_due() <= engine.now();
        limit = if is_spared { (limit * 2).min(TICK_MORE_MAX) } else { TICK_MAX };
        stays_due = ticked.is_err() || is_spared;
    }
}

/// Lets everything that is due happen, so many tasks at a time, but for what those have who are excused, as it says. `is_known` tells whether the mark was
/// read from the tables before: what becomes due later lowers it, and what another engine has set becomes due with that one, or with the next beat.
async fn tick(
    engine: &Engine,
    hearing: &mut Hearing,
    limit: usize,
    is_known: &mut bool,
) -> Result<Excused, EngineError> {
    let before = engine.next_due();
    let is_early = before > engine.now();
    let mut excused;
    // What becomes due while the tick runs lowers the mark again.
    engine.set_next_due(None);
    loop {
        excused = hearing.excused(engine.parts.bus.comebacks());
        match engine.command(Command::Tick { limit, excused }).await {
            Ok(Reply::Done { changed: true }) => *is_known = false,
            Ok(_) if *is_known && is_early => {
                engine.lower_next_due(before);
                return Ok(excused);
            }
            Ok(_) => break,
            Err(error) => {
                *is_known = false;
                complain(&error, "timers could not be looked at");
                return Err(error);
            }
        }
    }
    match engine.parts.store.next_due().await {
        Ok(due) => {
            *is_known = true;
            due.into_iter().for_each(|due| engine.lower_next_due(due));
        }
        Err(error) => {
            complain(&error, "could not read when the next timer is due");
            return Err(error.into());
        }
    }
    Ok(excused)
}

/// Engines over the same tables wake for the same timers: one of them comes first, and the others find nothing left to do.
fn jitter(engine: &Engine) -> Duration {
    if !engine.config.has_peers {
        return Duration::ZERO;
    }
    let mut byte = [0];
    // Without chance they wake together, which costs a statement.
    let _ = getrandom::fill(&mut byte);
    JITTER.mul_f32(f32::from(byte[0]) / f32::from(u8::MAX))
}
