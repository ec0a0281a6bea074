//! The outcome of an attempt.

use super::delegate;
use super::draft::Draft;
use super::ended::{self, Ending};
use super::report::{self, Standing};
use super::state;
use crate::command::{Reject, Reply};
use crate::event::Fact;
use crate::ids::TaskId;
use crate::letter::TaskResponse;
use crate::outcome::Outcome;
use crate::payload::Payload;
use crate::task::{Attempt, AttemptEnd, AttemptRecord, ErrorClass, TaskError, TaskState, Usage};

pub(super) fn finish(
    draft: &mut Draft<'_>,
    id: TaskId,
    response: &TaskResponse,
) -> Result<Reply, Reject> {
    let attempt = match report::standing(draft, id, response.attempt, &response.secret)? {
        Standing::Latest(attempt) => attempt,
        Standing::Superseded(attempt) => return late(draft, id, &attempt, response),
    };
    match attempt.end {
        None => {}
        // Given up without a word from it, but nobody else has it: what it brings still counts.
        Some(AttemptEnd::Lost | AttemptEnd::TimedOut) if !has_reported(draft, id, &attempt)? => {
            let open = matches!(draft.task(id)?.state, TaskState::Ready | TaskState::Retrying);
            let brings =
                matches!(response.outcome, Outcome::Complete { .. } | Outcome::Delegate { .. });
            if !(open && brings) {
                return late(draft, id, &attempt, response);
            }
        }
        Some(_) => return late(draft, id, &attempt, response),
    }
    if let (None, Some(began_at), None) = (attempt.end, response.started_at, attempt.started_at) {
        report::mark_started(draft, id, began_at, response.process)?;
    }
    note_processes(draft, id, response)?;
    let usage = response.usage.clone();
    match &response.outcome {
        Outcome::Complete { output } => match state::with_outcome(draft, id, response)? {
            Ok(()) => complete(draft, id, output, usage)?,
            Err(error) => fail(draft, id, &error, None, Some(usage.unwrap_or_default()))?,
        },
        Outcome::Fail { error, retry_after_ms } => {
            fail(draft, id, error, *retry_after_ms, Some(usage.unwrap_or_default()))?;
        }
        Outcome::Delegate { tasks, resume, continuation } => {
            let wish = delegate::Wish { tasks, resume: *resume, continuation, response };
            delegate::park(draft, id, &wish, usage)?;
        }
        Outcome::Cancelled => {
            // The host ended it without being told by us: somebody stopped the host.
            let message = "its host ended it while it shut down";
            lose(draft, id, message, Some(usage.unwrap_or_default()))?;
        }
    }
    Ok(Reply::Accepted)
}

fn note_processes(
    draft: &mut Draft<'_>,
    id: TaskId,
    response: &TaskResponse,
) -> Result<(), Reject> {
    if response.ended.is_empty() {
        return Ok(());
    }
    let processes = response.ended.clone();
    draft.event(id, Fact::ProcessesEnded { attempt: response.attempt, processes })
}

fn complete(
    draft: &mut Draft<'_>,
    id: TaskId,
    output: &Payload,
    usage: Option<Usage>,
) -> Result<(), Reject> {
    draft.end_attempt(id, AttemptEnd::Completed, None, usage)?;
    let number = draft.task(id)?.attempt.as_ref().map_or(0, |attempt| attempt.number);
    ended::end(draft, id, Ending::Completed(number, output.clone()))
}

/// An attempt brought an error: the task is tried again later, or is a dead letter.
pub(super) fn fail(
    draft: &mut Draft<'_>,
    id: TaskId,
    error: &TaskError,
    retry_after_ms: Option<u64>,
    usage: Option<Usage>,
) -> Result<(), Reject> {
    let end = match error.class {
        ErrorClass::Timeout => AttemptEnd::TimedOut,
        ErrorClass::Transient
        | ErrorClass::Permanent
        | ErrorClass::RateLimited
        | ErrorClass::InvalidOutput
        | ErrorClass::Lost
        | ErrorClass::Upstream
        | ErrorClass::Skipped
        | ErrorClass::Cancelled
        | ErrorClass::Template => AttemptEnd::Failed,
    };
    draft.end_attempt(id, end, Some(error.clone()), usage)?;
    let now = draft.now();
    let chance = draft.ctx.chance.next_u64();
    let task = draft.task_mut(id)?;
    task.tried += 1;
    let policy = &task.spec.retry;
    let again = error.class.is_retryable() && task.tried < policy.attempts;
    let retry_at = again.then(|| now.plus_ms(policy.delay_ms(task.tried, retry_after_ms, chance)));
    let number = task.attempt.as_ref().map_or(0, |attempt| attempt.number);
    let fact = Fact::AttemptFailed {
        number,
        class: error.class,
        message: error.message.clone(),
        retry_at,
    };
    if retry_at.is_some() {
        task.state = TaskState::Retrying;
        task.retry_at = retry_at;
        task.error = Some(error.clone());
        return draft.event(id, fact);
    }
    draft.event(id, fact)?;
    ended::end(draft, id, Ending::Failed(error.clone()))
}

/// An attempt ended with its host: the task is ready again at once, unless that happened too often.
pub(super) fn lose(
    draft: &mut Draft<'_>,
    id: TaskId,
    reason: &str,
    usage: Option<Usage>,
) -> Result<(), Reject> {
    let error = TaskError::new(ErrorClass::Lost, reason);
    draft.end_attempt(id, AttemptEnd::Lost, Some(error.clone()), usage)?;
    let task = draft.task_mut(id)?;
    task.lost += 1;
    let (lost, lost_max) = (task.lost, task.spec.retry.lost_max);
    let number = task.attempt.as_ref().map_or(0, |attempt| attempt.number);
    draft.event(id, Fact::AttemptLost { number, reason: reason.to_owned() })?;
    if lost > lost_max {
        let message = format!(
            "{lost} attempts were lost with the process that hosted them, the last one since {reason}: it may be this task that ends them"
        );
        return ended::end(draft, id, Ending::Failed(TaskError::new(ErrorClass::Lost, message)));
    }
    // It keeps its place in the queue: it has waited already.
    let task = draft.task_mut(id)?;
    task.error = Some(error);
    let rank = task.rank;
    draft.make_ready(id)?;
    draft.task_mut(id)?.rank = rank;
    Ok(())
}

/// Whether the host of an attempt that has ended has reported its outcome already: the record of an attempt that was
/// given up holds no usage until it has.
fn has_reported(draft: &Draft<'_>, id: TaskId, attempt: &Attempt) -> Result<bool, Reject> {
    match attempt.end {
        None => Ok(false),
        Some(AttemptEnd::Completed | AttemptEnd::Failed | AttemptEnd::Delegated) => Ok(true),
        Some(AttemptEnd::Lost | AttemptEnd::TimedOut | AttemptEnd::Cancelled) => {
            Ok(record(draft, id, attempt)?.usage.is_some())
        }
    }
}

fn record(draft: &Draft<'_>, id: TaskId, attempt: &Attempt) -> Result<AttemptRecord, Reject> {
    match draft.snapshot.old_attempt(id, attempt.id) {
        Some(Some(record)) => Ok(record.clone()),
        Some(None) => {
            Err(Reject::Unknown { what: "record of attempt", id: attempt.id.to_string() })
        }
        None => Err(Reject::NotLoaded(format!("the record of attempt {}", attempt.id))),
    }
}

/// An outcome that can no longer change its task: what it brought goes into the log, what it used into its record.
fn late(
    draft: &mut Draft<'_>,
    id: TaskId,
    attempt: &Attempt,
    response: &TaskResponse,
) -> Result<Reply, Reject> {
    // The same letter a second time.
    if has_reported(draft, id, attempt)? {
        return Ok(Reply::Duplicate);
    }
    let mut record = record(draft, id, attempt)?;
    record.usage = Some(response.usage.clone().unwrap_or_default());
    draft.put_record(record);
    note_processes(draft, id, response)?;
    let (outcome, output, message) = match &response.outcome {
        Outcome::Complete { output } => ("completed", Some(output.clone()), None),
        Outcome::Fail { error, .. } => ("failed", None, Some(error.message.clone())),
        Outcome::Delegate { tasks, continuation, .. } => {
            let keys: Vec<&str> = tasks.iter().take(10).map(|task| task.key.as_ref()).collect();
            let message = format!("it delegated {} tasks: {}", tasks.len(), keys.join(", "));
            let message = TaskError::new(ErrorClass::Cancelled, message).message;
            ("delegated", continuation.clone(), Some(message))
        }
        // It was told to end, and has: nothing was brought.
        Outcome::Cancelled => return Ok(Reply::Late),
    };
    let fact =
        Fact::LateOutcome { attempt: attempt.id, outcome: outcome.to_owned(), output, message };
    draft.event(id, fact)?;
    Ok(Reply::Late)
}
