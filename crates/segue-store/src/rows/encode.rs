//! Rows from values: what is written as a column of its own, and what as JSON.

use crate::failure::{Failure, Kind};
use segue_core::command::{Duty, DutyKind};
use segue_core::event::Fact;
use segue_core::ids::TaskId;
use segue_core::letter::{LetterBody, Notice};
use segue_core::payload::{Hash, INLINE_MAX, Payload};
use segue_core::retry::RetryPolicy;
use segue_core::task::{
    AttemptEnd, Need, OnFailure, Task, TaskSpec, TaskState, Template, Timeouts, WaitFor,
    WorkspaceKind,
};
use segue_core::trace::Traceparent;
use serde::Serialize;
use std::sync::Arc;

/// A payload as a column holds it: the text itself, or a reference of hash and length.
#[derive(Debug)]
pub(crate) enum Cell<'a> {
    Text(&'a str),
    Reference([u8; 40]),
    Null,
}

impl<'a> Cell<'a> {
    pub(crate) fn of(payload: &'a Payload) -> Cell<'a> {
        match payload.text() {
            Some(text) if text.len() <= INLINE_MAX => Cell::Text(text),
            Some(_) | None => {
                let mut bytes = [0; 40];
                bytes[..32].copy_from_slice(&payload.hash().0);
                bytes[32..].copy_from_slice(&payload.size().to_be_bytes());
                Cell::Reference(bytes)
            }
        }
    }

    pub(crate) fn of_option(payload: Option<&'a Payload>) -> Cell<'a> {
        payload.map_or(Cell::Null, Cell::of)
    }
}

/// The number by which a column holds a state: its place in [`TaskState::ALL`].
pub(crate) fn state_number(state: TaskState) -> i64 {
    match state {
        TaskState::Blocked => 0,
        TaskState::Ready => 1,
        TaskState::Assigned => 2,
        TaskState::Running => 3,
        TaskState::Waiting => 4,
        TaskState::Retrying => 5,
        TaskState::Completed => 6,
        TaskState::Failed => 7,
        TaskState::Cancelled => 8,
    }
}

pub(crate) fn wait_number(wait_for: WaitFor) -> i64 {
    match wait_for {
        WaitFor::Resume => 0,
        WaitFor::Collect => 1,
    }
}

pub(crate) fn end_number(end: AttemptEnd) -> i64 {
    match end {
        AttemptEnd::Completed => 0,
        AttemptEnd::Failed => 1,
        AttemptEnd::Delegated => 2,
        AttemptEnd::Lost => 3,
        AttemptEnd::TimedOut => 4,
        AttemptEnd::Cancelled => 5,
    }
}

/// A counter as a column holds it.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A value as JSON text.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| {
        Failure::new(Kind::Data, format!("a row does not turn into JSON: {error}"))
    })
}

/// What of a [`TaskSpec`] has no column of its own. See [`Rest`](super::decode::Rest) for the reverse.
#[derive(Serialize)]
struct RestOut<'a> {
    #[serde(skip_serializing_if = "<[Need]>::is_empty")]
    needs: &'a [Need],
    #[serde(skip_serializing_if = "is_default")]
    on_failure: OnFailure,
    #[serde(skip_serializing_if = "is_default")]
    retry: RetryPolicy,
    #[serde(skip_serializing_if = "is_default")]
    timeouts: Timeouts,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<WorkspaceKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<&'a Template>,
    #[serde(skip_serializing_if = "<[Arc<str>]>::is_empty")]
    state_keys: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<Traceparent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The column `spec`: `None` where all of it is at its default.
pub(crate) fn rest(spec: &TaskSpec) -> Result<Option<String>, Failure> {
    // Taken apart by name, so that a new field cannot be forgotten here.
    let TaskSpec {
        id: _,
        parent: _,
        root: _,
        name: _,
        key: _,
        route: _,
        needs,
        priority: _,
        on_failure,
        retry,
        timeouts,
        workspace,
        template,
        state_keys,
        hops: _,
        traceparent,
        idempotency_key,
    } = spec;
    let plain = needs.is_empty()
        && is_default(on_failure)
        && is_default(retry)
        && is_default(timeouts)
        && workspace.is_none()
        && template.is_none()
        && state_keys.is_empty()
        && traceparent.is_none()
        && idempotency_key.is_none();
    if plain {
        return Ok(None);
    }
    json(&RestOut {
        needs,
        on_failure: *on_failure,
        retry: *retry,
        timeouts: *timeouts,
        workspace: *workspace,
        template: template.as_deref(),
        state_keys,
        traceparent: *traceparent,
        idempotency_key: idempotency_key.as_deref(),
    })
    .map(Some)
}

/// A fact as the columns `kind` and `data` hold it: the tag, and the JSON object without it.
pub(crate) fn fact(fact: &Fact) -> Result<(String, String), Failure> {
    let text = json(fact)?;
    let odd = || Failure::new(Kind::Data, format!("a fact has no tag in front: {text}"));
    let tagged = text.strip_prefix(r#"{"event":""#).ok_or_else(odd)?;
    let (kind, rest) = tagged.split_once('"').ok_or_else(odd)?;
    let mut data = String::with_capacity(rest.len() + 1);
    data.push('{');
    data.push_str(rest.strip_prefix(',').unwrap_or(rest));
    Ok((kind.to_owned(), data))
}

/// The columns `after` and `parent` of a duty.
pub(crate) fn duty(duty: &Duty) -> (Option<TaskId>, Option<bool>) {
    match duty.kind {
        DutyKind::Propagate { after, parent } => (after, Some(parent)),
        DutyKind::CancelChildren { after } => (after, None),
        DutyKind::Render | DutyKind::Collect => (None, None),
    }
}

/// Bodies that a batch refers to and that have no room in a row.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    /// Which run refers to which body; with the body, where it goes to the table `payloads`.
    pub(crate) refs: Vec<(TaskId, Hash, Option<Payload>)>,
}

impl Bodies {
    /// The payload as it is kept: bodies too large for a row become references.
    pub(crate) fn keep(&mut self, run: TaskId, payload: &mut Payload) {
        match payload {
            Payload::Stored { hash, .. } => self.refs.push((run, *hash, None)),
            Payload::Here(_) if payload.size() <= INLINE_MAX as u64 => {}
            Payload::Here(_) => {
                let (hash, size) = (payload.hash(), payload.size());
                let body = std::mem::replace(payload, Payload::Stored { hash, size });
                self.refs.push((run, hash, Some(body)));
            }
        }
    }

    /// The task as it is kept. `before` is how the store has it: what both have in common is noted already.
    pub(crate) fn keep_task(&mut self, task: Arc<Task>, before: Option<&Task>) -> Arc<Task> {
        if payloads(&task).all(is_inline) {
            return task;
        }
        let run = task.spec.root;
        let mut kept = task.as_ref().clone();
        if before.is_none_or(|before| before.input != kept.input) {
            self.keep(run, &mut kept.input);
        }
        if let Some(output) = &mut kept.output
            && before.is_none_or(|before| before.output.as_ref() != Some(output))
        {
            self.keep(run, output);
        }
        if let Some(continuation) = &mut kept.continuation
            && before.is_none_or(|before| before.continuation.as_ref() != Some(continuation))
        {
            self.keep(run, continuation);
        }
        let same_spec = before.is_some_and(|before| Arc::ptr_eq(&before.spec, &kept.spec));
        if !same_spec && let Some(template) = &kept.spec.template {
            let mut template = template.clone();
            template.output.iter_mut().for_each(|payload| self.keep(run, payload));
            kept.spec =
                Arc::new(TaskSpec { template: Some(template), ..kept.spec.as_ref().clone() });
        }
        Arc::new(kept)
    }

    /// The fact as it is kept.
    pub(crate) fn keep_fact(&mut self, run: TaskId, fact: &mut Fact) {
        match fact {
            Fact::Progress { note, .. } => self.keep(run, note),
            Fact::LateOutcome { output: Some(output), .. } => self.keep(run, output),
            Fact::LateOutcome { output: None, .. }
            | Fact::Submitted { .. }
            | Fact::Unblocked
            | Fact::Assigned { .. }
            | Fact::Started { .. }
            | Fact::Completed { .. }
            | Fact::AttemptFailed { .. }
            | Fact::AttemptLost { .. }
            | Fact::Retried
            | Fact::Failed { .. }
            | Fact::Waiting { .. }
            | Fact::Resumed
            | Fact::Cancelled { .. }
            | Fact::Skipped { .. }
            | Fact::Requeued
            | Fact::ProcessesEnded { .. }
            | Fact::AgentRegistered { .. }
            | Fact::AgentDrained { .. }
            | Fact::AgentGone { .. } => {}
        }
    }
}

fn is_inline(payload: &Payload) -> bool {
    payload.text().is_some_and(|text| text.len() <= INLINE_MAX)
}

/// Every payload of a task, those of its templates included.
fn payloads(task: &Task) -> impl Iterator<Item = &Payload> {
    let template = task.spec.template.as_deref();
    std::iter::once(&task.input)
        .chain(&task.output)
        .chain(&task.continuation)
        .chain(template.and_then(|template| template.output.as_ref()))
}

/// Secrets are never written. `decide` puts none into letters but those that give out work, which are made again from the key.
pub(crate) fn refuse_secret(body: &LetterBody) -> Result<(), Failure> {
    let holds_secret = match body {
        LetterBody::TaskRequest(_) | LetterBody::TaskResponse(_) => true,
        LetterBody::Event(notice) => match notice {
            Notice::Started { .. } | Notice::Progress { .. } | Notice::Reaped { .. } => true,
            Notice::Cancel { .. } => false,
        },
        LetterBody::Query { .. } | LetterBody::Host(_) => false,
    };
    if holds_secret {
        return Err(Failure::new(
            Kind::Data,
            "a letter with a secret cannot be kept in the outbox: a defect",
        ));
    }
    Ok(())
}

/// Whether only columns changed that stand in no index and in no payload.
pub(crate) fn is_touched_only(before: &Task, after: &Task) -> bool {
    // Taken apart by name, so that a new field cannot be forgotten here.
    let Task {
        spec: _,
        state,
        unmet: _,
        rank,
        input: _,
        attempts,
        tried,
        lost,
        attempt,
        open_children: _,
        children: _,
        dependents: _,
        wait_for,
        continuation,
        prefer,
        created_at,
        ready_at,
        retry_at,
        finished_at,
        output,
        error,
        run_events: _,
    } = after;
    let same_attempt = match (&before.attempt, attempt) {
        (None, None) => true,
        (Some(before), Some(after)) => before.id == after.id && before.end == after.end,
        (None, Some(_)) | (Some(_), None) => false,
    };
    // `due_at` moves with the start of an attempt.
    same_attempt
        && before.state.holds_slot() == state.holds_slot()
        && before.rank == *rank
        && before.attempts == *attempts
        && before.tried == *tried
        && before.lost == *lost
        && before.wait_for == *wait_for
        && before.continuation == *continuation
        && before.prefer == *prefer
        && before.created_at == *created_at
        && before.ready_at == *ready_at
        && before.retry_at == *retry_at
        && before.finished_at == *finished_at
        && before.output == *output
        && before.error == *error
        && before.due_at() == after.due_at()
}
