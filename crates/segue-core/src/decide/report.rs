//! What a host reports while an attempt goes on, and the proof that it may.

use super::draft::Draft;
use crate::command::{Proof, Reject, Reply};
use crate::event::Fact;
use crate::ids::{AttemptId, TaskId};
use crate::letter::{EndedProcess, Secret};
use crate::payload::{Hash, Payload};
use crate::task::{Attempt, ProcessRef, TaskState};
use crate::time::Time;
use subtle::ConstantTimeEq;

/// Whose report it is.
pub(super) enum Standing {
    /// Of the latest attempt of the task.
    Latest(Attempt),
    /// Of an earlier one.
    Superseded(Attempt),
}

/// Finds the attempt and checks the secret.
pub(super) fn standing(
    draft: &Draft<'_>,
    id: TaskId,
    attempt: AttemptId,
    secret: &Secret,
) -> Result<Standing, Reject> {
    let task = draft.task(id)?;
    let (found, latest) = match &task.attempt {
        Some(latest) if latest.id == attempt => (latest.clone(), true),
        Some(_) | None => match draft.snapshot.old_attempt(id, attempt) {
            Some(Some(record)) => (record.attempt.clone(), false),
            Some(None) => {
                return Err(Reject::Unknown { what: "attempt", id: attempt.to_string() });
            }
            None => return Err(Reject::NotLoaded(format!("attempt {attempt}"))),
        },
    };
    let given = Hash::of(&secret.0);
    if !bool::from(given.0.ct_eq(&found.secret_hash.0)) {
        return Err(Reject::Forbidden(attempt));
    }
    Ok(if latest { Standing::Latest(found) } else { Standing::Superseded(found) })
}

/// The attempt, if it is the one that may still report.
fn current(draft: &Draft<'_>, proof: &Proof) -> Result<Option<Attempt>, Reject> {
    match standing(draft, proof.task, proof.attempt, &proof.secret)? {
        Standing::Latest(attempt) if attempt.end.is_none() => Ok(Some(attempt)),
        Standing::Latest(_) | Standing::Superseded(_) => Ok(None),
    }
}

pub(super) fn start(
    draft: &mut Draft<'_>,
    proof: &Proof,
    at: Time,
    process: Option<ProcessRef>,
) -> Result<Reply, Reject> {
    match current(draft, proof)? {
        None => Ok(Reply::Late),
        Some(attempt) if attempt.started_at.is_some() => Ok(Reply::Duplicate),
        Some(_) => {
            mark_started(draft, proof.task, at, process)?;
            Ok(Reply::Accepted)
        }
    }
}

/// Notes that the current attempt began.
pub(super) fn mark_started(
    draft: &mut Draft<'_>,
    id: TaskId,
    began_at: Time,
    process: Option<ProcessRef>,
) -> Result<(), Reject> {
    let now = draft.now();
    let task = draft.task_mut(id)?;
    let Some(attempt) = task.attempt.as_mut() else { return Ok(()) };
    // Limits count from here by the store's clock; the host's clock is only told.
    attempt.started_at = Some(now);
    attempt.process = process;
    let number = attempt.number;
    task.state = TaskState::Running;
    draft.event(id, Fact::Started { number, began_at, process })
}

pub(super) fn progress(
    draft: &mut Draft<'_>,
    proof: &Proof,
    note: &Payload,
) -> Result<Reply, Reject> {
    let Some(attempt) = current(draft, proof)? else { return Ok(Reply::Late) };
    let fact = Fact::Progress { number: attempt.number, note: note.clone() };
    draft.event(proof.task, fact)?;
    Ok(Reply::Accepted)
}

pub(super) fn reaped(
    draft: &mut Draft<'_>,
    proof: &Proof,
    ended: &[EndedProcess],
) -> Result<Reply, Reject> {
    standing(draft, proof.task, proof.attempt, &proof.secret)?;
    if ended.is_empty() {
        return Ok(Reply::Done { changed: false });
    }
    let fact = Fact::ProcessesEnded { attempt: proof.attempt, processes: ended.to_vec() };
    draft.event(proof.task, fact)?;
    Ok(Reply::Accepted)
}
