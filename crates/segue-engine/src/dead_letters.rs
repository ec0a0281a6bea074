//! Work that died on its way: its attempt ends with a failure, instead of waiting for a lease that may never end.

use crate::complain::complain;
use crate::engine::{Engine, stopped};
use segue_core::command::Command;
use segue_core::ids::TaskId;
use segue_core::letter::{LetterBody, TaskRequest, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::ports::{BusError, Consumer, Delivery};
use segue_core::state::OutcomeState;
use segue_core::task::{ErrorClass, TaskError};
use std::sync::Arc;
use std::time::Duration;

/// Dead letters that one batch takes up.
const BATCH_MAX: usize = 256;
/// After the bus or the store refused, this long until the next try.
const BACKOFF: Duration = Duration::from_millis(500);
/// Characters of a reason that the error of the attempt repeats.
const REASON_MAX: usize = 1_000;

/// Takes up dead letters that brought work, until the engine stops. What is none of these is left to be looked at.
pub(crate) async fn dead_letter_loop(engine: Arc<Engine>, mut consumer: Box<dyn Consumer>) {
    let mut stopping = engine.stopping();
    loop {
        let batch = tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            batch = consumer.next(BATCH_MAX) => batch,
        };
        let done = match batch {
            Ok(batch) => take_up(&engine, &mut *consumer, batch).await,
            Err(BusError::Closed) => return,
            Err(error) => {
                complain(&error, "cannot take dead letters for now");
                false
            }
        };
        if !done {
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => return,
                () = tokio::time::sleep(BACKOFF) => {}
            }
        }
    }
}

/// Ends the attempts of these letters. False when that cannot be written for now: then they come again.
async fn take_up(engine: &Engine, consumer: &mut dyn Consumer, batch: Vec<Delivery>) -> bool {
    let (mut commands, mut tokens) = (Vec::new(), Vec::new());
    for Delivery { token, letter, dead, .. } in batch {
        let reason = dead.unwrap_or_else(|| "no reason was given".to_owned());
        match (letter.task, letter.body) {
            (Some(task), LetterBody::TaskRequest(request)) => {
                tracing::warn!(%task, attempt = %request.attempt, %reason, "the letter that brought work is dead");
                commands.push(failure(task, &request, &reason));
                tokens.push(token);
            }
            _ => {
                let _ = consumer.reject(token, Some(reason)).await;
            }
        }
    }
    if commands.is_empty() {
        return true;
    }
    match engine.apply(commands).await {
        // Those that are refused belong to attempts that have ended already.
        Ok(_) => {
            let _ = consumer.ack(tokens).await;
            true
        }
        Err(error) => {
            complain(&error, "attempts whose letters are dead could not be ended; they wait");
            for token in tokens {
                let _ = consumer.reject(token, None).await;
            }
            false
        }
    }
}

fn failure(task: TaskId, request: &TaskRequest, reason: &str) -> Command {
    let reason: String = reason.chars().take(REASON_MAX).collect();
    let message = format!("the letter with the work was refused: {reason}");
    let response = TaskResponse {
        attempt: request.attempt,
        secret: request.secret.clone(),
        started_at: None,
        process: None,
        outcome: Outcome::Fail {
            error: TaskError::new(ErrorClass::Transient, message),
            retry_after_ms: None,
        },
        state: OutcomeState::default(),
        usage: None,
        ended: Vec::new(),
    };
    Command::Finish { task, response: Box::new(response) }
}
