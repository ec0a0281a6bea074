//! Values from rows. What does not fit was written by somebody else, or is damaged.

use super::Cells;
use crate::failure::Failure;
use segue_core::agent::Agent;
use segue_core::command::{Duty, DutyKind};
use segue_core::event::{Event, Fact};
use segue_core::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use segue_core::payload::{Hash, Payload};
use segue_core::retry::RetryPolicy;
use segue_core::task::{
    Attempt, AttemptEnd, AttemptRecord, Need, OnFailure, Priority, ProcessRef, Route, Task,
    TaskSpec, TaskState, Template, Timeouts, WaitFor, WorkspaceKind,
};
use segue_core::time::Time;
use segue_core::trace::Traceparent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;
use std::sync::Arc;

/// The columns that [`task`] reads, in its order.
pub(crate) const TASK: &str = "n, id, parent, root, name, call_key, route, priority, hops, spec, \
    created_at, input, state, unmet, rank, attempts, tried, lost, open_children, children, dependents, \
    wait_for, continuation, prefer, ready_at, retry_at, finished_at, output, error, run_events, \
    held_by, attempt, number, secret_hash, instance, incarnation, assigned_at, started_at, pid, \
    pid_start, ending, ended_at";

/// The columns that [`record`] reads, in its order.
pub(crate) const RECORD: &str = "task, number, attempt, secret_hash, instance, incarnation, assigned_at, \
    started_at, pid, pid_start, ending, ended_at, error, usage";

/// The columns that [`event`] reads, in its order.
pub(crate) const EVENT: &str = "cursor, run, run_seq, task, at, kind, data";

/// The columns that [`agent`] reads, in its order.
pub(crate) const AGENT: &str =
    "instance, host, incarnation, spec, slots_used, drained, lease_until, gone";

/// The columns that [`duty`] reads, in its order.
pub(crate) const DUTY: &str = "task, kind, after, parent";

/// What of a [`TaskSpec`] has no column of its own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rest {
    needs: Vec<Need>,
    on_failure: OnFailure,
    retry: RetryPolicy,
    timeouts: Timeouts,
    workspace: Option<WorkspaceKind>,
    template: Option<Box<Template>>,
    state_keys: Vec<Arc<str>>,
    traceparent: Option<Traceparent>,
    idempotency_key: Option<Arc<str>>,
}

pub(crate) fn wrong<R: Cells>(row: &R, column: usize, what: &str) -> Failure {
    Failure::corrupt(format!("column `{}` holds {what}", row.name(column)))
}

pub(crate) fn bytes<R: Cells, const N: usize>(row: &R, column: usize) -> Result<[u8; N], Failure> {
    bytes_option(row, column)?.ok_or_else(|| wrong(row, column, "nothing"))
}

pub(crate) fn bytes_option<R: Cells, const N: usize>(
    row: &R,
    column: usize,
) -> Result<Option<[u8; N]>, Failure> {
    row.bytes(column)
}

pub(crate) fn text<R: Cells>(row: &R, column: usize) -> Result<&str, Failure> {
    text_option(row, column)?.ok_or_else(|| wrong(row, column, "nothing"))
}

pub(crate) fn text_option<R: Cells>(row: &R, column: usize) -> Result<Option<&str>, Failure> {
    row.text(column)
}

pub(crate) fn integer<R: Cells>(row: &R, column: usize) -> Result<i64, Failure> {
    row.integer(column)?.ok_or_else(|| wrong(row, column, "nothing"))
}

pub(crate) fn unsigned<T: TryFrom<i64>, R: Cells>(row: &R, column: usize) -> Result<T, Failure> {
    let value = integer(row, column)?;
    T::try_from(value).map_err(|_| wrong(row, column, &format!("{value}")))
}

fn time<R: Cells>(row: &R, column: usize) -> Result<Time, Failure> {
    integer(row, column).map(Time)
}

fn time_option<R: Cells>(row: &R, column: usize) -> Result<Option<Time>, Failure> {
    Ok(row.integer(column)?.map(Time))
}

pub(crate) fn json<T: DeserializeOwned, R: Cells>(
    row: &R,
    column: usize,
) -> Result<Option<T>, Failure> {
    let Some(text) = text_option(row, column)? else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| wrong(row, column, &format!("JSON that does not fit: {error}")))
}

pub(crate) fn task_id<R: Cells>(row: &R, column: usize) -> Result<TaskId, Failure> {
    bytes(row, column).map(TaskId::from_bytes)
}

pub(crate) fn payload<R: Cells>(row: &R, column: usize) -> Result<Option<Payload>, Failure> {
    row.payload(column)
}

/// The reverse of [`Cell::Reference`](super::encode::Cell).
pub(crate) fn reference(bytes: [u8; 40]) -> Payload {
    let (mut hash, mut size) = ([0; 32], [0; 8]);
    hash.copy_from_slice(&bytes[..32]);
    size.copy_from_slice(&bytes[32..]);
    Payload::Stored { hash: Hash(hash), size: u64::from_be_bytes(size) }
}

pub(crate) fn state<R: Cells>(row: &R, column: usize) -> Result<TaskState, Failure> {
    let number: usize = unsigned(row, column)?;
    TaskState::ALL
        .get(number)
        .copied()
        .ok_or_else(|| wrong(row, column, &format!("the unknown state {number}")))
}

fn ending<R: Cells>(row: &R, column: usize) -> Result<Option<AttemptEnd>, Failure> {
    Ok(Some(match row.integer(column)? {
        None => return Ok(None),
        Some(0) => AttemptEnd::Completed,
        Some(1) => AttemptEnd::Failed,
        Some(2) => AttemptEnd::Delegated,
        Some(3) => AttemptEnd::Lost,
        Some(4) => AttemptEnd::TimedOut,
        Some(5) => AttemptEnd::Cancelled,
        Some(other) => return Err(wrong(row, column, &format!("the unknown ending {other}"))),
    }))
}

fn process<R: Cells>(row: &R, pid: usize) -> Result<Option<ProcessRef>, Failure> {
    if row.is_null(pid)? {
        return Ok(None);
    }
    Ok(Some(ProcessRef { pid: unsigned(row, pid)?, start_time: unsigned(row, pid + 1)? }))
}

/// The columns from `attempt` on; `number` and what follows it stand where the caller says.
struct AttemptColumns {
    id: usize,
    number: usize,
    /// `secret_hash`; then come `instance`, `incarnation` and the rest.
    secret_hash: usize,
    /// Where the instance stands while it holds a slot.
    held_by: Option<usize>,
}

fn attempt<R: Cells>(row: &R, columns: &AttemptColumns) -> Result<Attempt, Failure> {
    let first = columns.secret_hash;
    let held_by = columns.held_by.map(|column| bytes_option(row, column)).transpose()?.flatten();
    let instance = match held_by {
        Some(instance) => instance,
        None => bytes(row, first + 1)?,
    };
    Ok(Attempt {
        id: AttemptId::from_bytes(bytes(row, columns.id)?),
        number: unsigned(row, columns.number)?,
        secret_hash: Hash(bytes(row, first)?),
        instance: InstanceId::from_bytes(instance),
        incarnation: Incarnation::from_bytes(bytes(row, first + 2)?),
        assigned_at: time(row, first + 3)?,
        started_at: time_option(row, first + 4)?,
        process: process(row, first + 5)?,
        end: ending(row, first + 7)?,
        ended_at: time_option(row, first + 8)?,
    })
}

/// A task of the columns [`TASK`], with its place in the table.
pub(crate) fn task<R: Cells>(row: &R) -> Result<(i64, Task), Failure> {
    let rest: Rest = json(row, 9)?.unwrap_or_default();
    let id = task_id(row, 1)?;
    let priority = Priority::new(unsigned(row, 7)?)
        .map_err(|error| wrong(row, 7, &format!("no priority: {error}")))?;
    let spec = TaskSpec {
        id,
        parent: bytes_option(row, 2)?.map(TaskId::from_bytes),
        root: bytes_option(row, 3)?.map_or(id, TaskId::from_bytes),
        name: text(row, 4)?.into(),
        key: text_option(row, 5)?.map(Arc::from),
        route: Route::from_str(text(row, 6)?).map_err(|error| wrong(row, 6, &error))?,
        needs: rest.needs,
        priority,
        on_failure: rest.on_failure,
        retry: rest.retry,
        timeouts: rest.timeouts,
        workspace: rest.workspace,
        template: rest.template,
        state_keys: rest.state_keys,
        hops: unsigned(row, 8)?,
        traceparent: rest.traceparent,
        idempotency_key: rest.idempotency_key,
    };
    let latest = AttemptColumns { id: 31, number: 32, secret_hash: 33, held_by: Some(30) };
    let has_attempt = !row.is_null(latest.id)?;
    let task = Task {
        spec: Arc::new(spec),
        state: state(row, 12)?,
        unmet: unsigned(row, 13)?,
        rank: integer(row, 14)?,
        input: payload(row, 11)?.ok_or_else(|| wrong(row, 11, "nothing"))?,
        attempts: unsigned(row, 15)?,
        tried: unsigned(row, 16)?,
        lost: unsigned(row, 17)?,
        attempt: if has_attempt { Some(attempt(row, &latest)?) } else { None },
        open_children: unsigned(row, 18)?,
        children: unsigned(row, 19)?,
        dependents: unsigned(row, 20)?,
        wait_for: match row.integer(21)? {
            None => None,
            Some(0) => Some(WaitFor::Resume),
            Some(1) => Some(WaitFor::Collect),
            Some(other) => return Err(wrong(row, 21, &format!("the unknown wait {other}"))),
        },
        continuation: payload(row, 22)?,
        prefer: bytes_option(row, 23)?.map(InstanceId::from_bytes),
        created_at: time(row, 10)?,
        ready_at: time_option(row, 24)?,
        retry_at: time_option(row, 25)?,
        finished_at: time_option(row, 26)?,
        output: payload(row, 27)?,
        error: json(row, 28)?,
        run_events: unsigned(row, 29)?,
    };
    Ok((integer(row, 0)?, task))
}

/// The record of an attempt of the columns [`RECORD`].
pub(crate) fn record<R: Cells>(row: &R) -> Result<AttemptRecord, Failure> {
    let columns = AttemptColumns { id: 2, number: 1, secret_hash: 3, held_by: None };
    Ok(AttemptRecord {
        task: task_id(row, 0)?,
        attempt: attempt(row, &columns)?,
        error: json(row, 12)?,
        usage: json(row, 13)?,
    })
}

/// An event of the columns [`EVENT`].
pub(crate) fn event<R: Cells>(row: &R) -> Result<Event, Failure> {
    let run = task_id(row, 1)?;
    Ok(Event {
        cursor: unsigned(row, 0)?,
        run,
        run_seq: unsigned(row, 2)?,
        task: bytes_option(row, 3)?.map_or(run, TaskId::from_bytes),
        at: time(row, 4)?,
        fact: fact(row, 5)?,
    })
}

/// The reverse of [`encode::fact`](super::encode::fact): `kind` stands in this column, `data` in the next.
fn fact<R: Cells>(row: &R, kind: usize) -> Result<Fact, Failure> {
    let data = text(row, kind + 1)?;
    let mut json = format!(r#"{{"event":"{}""#, text(row, kind)?);
    match data.strip_prefix('{') {
        Some("}") => json.push('}'),
        Some(rest) => {
            json.push(',');
            json.push_str(rest);
        }
        None => return Err(wrong(row, kind + 1, "no JSON object")),
    }
    serde_json::from_str(&json)
        .map_err(|error| wrong(row, kind + 1, &format!("a fact that does not fit: {error}")))
}

/// An agent instance of the columns [`AGENT`].
pub(crate) fn agent<R: Cells>(row: &R) -> Result<Agent, Failure> {
    Ok(Agent {
        spec: Arc::new(json(row, 3)?.ok_or_else(|| wrong(row, 3, "nothing"))?),
        host: HostId::from_bytes(bytes(row, 1)?),
        incarnation: Incarnation::from_bytes(bytes(row, 2)?),
        slots_used: unsigned(row, 4)?,
        drained: integer(row, 5)? != 0,
        lease_until: time(row, 6)?,
        gone: integer(row, 7)? != 0,
    })
}

/// A duty of the columns [`DUTY`].
pub(crate) fn duty<R: Cells>(row: &R) -> Result<Duty, Failure> {
    let after = bytes_option(row, 2)?.map(TaskId::from_bytes);
    let kind = match text(row, 1)? {
        "propagate" => DutyKind::Propagate { after, parent: row.integer(3)?.unwrap_or(0) != 0 },
        "cancel_children" => DutyKind::CancelChildren { after },
        "render" => DutyKind::Render,
        "collect" => DutyKind::Collect,
        other => return Err(wrong(row, 1, &format!("the unknown duty `{other}`"))),
    };
    Ok(Duty { task: task_id(row, 0)?, kind })
}
