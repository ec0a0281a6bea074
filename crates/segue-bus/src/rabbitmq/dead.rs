//! Dead letters: where they go, and how they are looked at.

use super::Shared;
use super::names::{OTHER, WORK};
use super::publish::{Said, send};
use crate::wire::{self, Expected};
use lapin::options::BasicGetOptions;
use lapin::types::{AMQPValue, FieldTable};
use segue_core::letter::{Letter, LetterBody};
use segue_core::ports::{BusError, DeadLetter};
use std::sync::Arc;
use uuid::Uuid;

/// Whether an attempt hangs on this letter.
pub(super) fn is_work(letter: &Letter) -> bool {
    matches!(letter.body, LetterBody::TaskRequest(_))
}

/// Puts a letter, or the beginning of what was none, among the dead ones.
pub(super) async fn bury(
    shared: &Arc<Shared>,
    reason: &str,
    dead: wire::Dead<'_>,
    work: bool,
) -> Result<(), BusError> {
    let body = wire::dead_message(reason, dead);
    let target = shared.names.dead_target(if work { WORK } else { OTHER });
    let other = shared.names.dead_target(OTHER);
    let sending = {
        let shared = shared.clone();
        // In a task of its own: whoever waits may go away, and a channel must not be left with half a message.
        tokio::spawn(async move {
            let said = send(&shared, &target, &body, 1, Uuid::new_v4()).await?;
            match said {
                Said::Taken => Ok(()),
                // As long as nobody ends attempts, the rest is at least kept to be looked at.
                Said::Full => send(&shared, &other, &body, 1, Uuid::new_v4()).await.map(|_| ()),
                Said::Nobody => Err(BusError::Away("the queue of dead letters is missing".into())),
            }
        })
    };
    sending.await.unwrap_or(Err(BusError::Closed))
}

/// Why the broker itself made a message a dead letter.
pub(super) fn reason_of(headers: Option<&FieldTable>) -> Option<String> {
    let text = |name: &str| match headers?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    };
    let reason = text("x-first-death-reason")?;
    let queue = text("x-first-death-queue").unwrap_or_default();
    Some(match reason.as_str() {
        "delivery_limit" => {
            format!("it was handed over too often without being accepted (queue {queue})")
        }
        other => format!("{other} (queue {queue})"),
    })
}

/// Looks at the dead letters that are left, oldest first, and leaves them where they are.
pub(super) async fn look(shared: &Arc<Shared>, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
    if shared.is_closed() {
        return Err(BusError::Closed);
    }
    let live = shared.consuming.now()?;
    let away = |error: lapin::Error| BusError::Away(format!("{}: {error}", live.place));
    let looking = async {
        let channel = live.connection.create_channel().await.map_err(away)?;
        let mut found = Vec::new();
        while found.len() < limit {
            let queue = shared.names.dead_other();
            let got = channel.basic_get(queue, BasicGetOptions::default()).await.map_err(away)?;
            let Some(got) = got else { break };
            let headers = got.delivery.properties.headers().as_ref();
            found.extend(dead_letters(shared, &got.delivery.data, reason_of(headers)));
        }
        // What was taken and not acknowledged goes back to where it was.
        super::topology::close(&channel).await;
        found.truncate(limit);
        Ok(found)
    };
    let timeout = shared.options.connect_timeout;
    let late = || BusError::Away(format!("{}: no answer in time", live.place));
    tokio::time::timeout(timeout, looking).await.unwrap_or_else(|_| Err(late()))
}

fn dead_letters(shared: &Shared, data: &[u8], broker: Option<String>) -> Vec<DeadLetter> {
    let unreadable = |bad: wire::Unreadable, broker: Option<String>| DeadLetter {
        letter: None,
        excerpt: Some(bad.excerpt),
        reason: broker.unwrap_or(bad.reason),
    };
    let expected = Expected {
        project: &shared.options.project,
        to: None,
        // The reason comes on top of the largest letter.
        bytes_max: 2 * shared.options.message_bytes_max,
        from_engine: None,
    };
    let message = match wire::read(data, &expected) {
        Ok(message) => message,
        Err(bad) => return vec![unreadable(bad, broker)],
    };
    let reason = message.dead.or(broker);
    if let Some(excerpt) = message.excerpt {
        let reason = reason.unwrap_or_default();
        return vec![DeadLetter { letter: None, excerpt: Some(excerpt), reason }];
    }
    let of = |found: wire::Found| match found.letter {
        Ok(letter) => {
            let reason = reason.clone().unwrap_or_default();
            DeadLetter { letter: Some(letter), excerpt: None, reason }
        }
        Err(bad) => unreadable(bad, reason.clone()),
    };
    message.letters.into_iter().map(of).collect()
}
