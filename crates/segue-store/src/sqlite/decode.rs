//! Values from rows. What does not fit was written by somebody else, or is damaged.

use super::error::Failure;
use rusqlite::Row;
use rusqlite::types::ValueRef;
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
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

/// The columns that [`task`] reads, in its order.
pub(super) const TASK: &str = "n, id, parent, root, name, call_key, route, priority, hops, spec, \
    created_at, input, state, unmet, rank, attempts, tried, lost, open_children, children, dependents, \
    wait_for, continuation, prefer, ready_at, retry_at, finished_at, output, error, run_events, \
    held_by, attempt, number, secret_hash, instance, incarnation, assigned_at, started_at, pid, \
    pid_start, ending, ended_at";

/// A task by project and id.
pub(super) static TASK_BY_ID: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {TASK} FROM tasks WHERE project = ?1 AND id = ?2"));

/// The columns that [`record`] reads, in its order.
pub(super) const RECORD: &str = "task, number, attempt, secret_hash, instance, incarnation, assigned_at, \
    started_at, pid, pid_start, ending, ended_at, error, usage";

/// The columns that [`event`] reads, in its order.
pub(super) const EVENT: &str = "cursor, run, run_seq, task, at, kind, data";

/// The columns that [`agent`] reads, in its order.
pub(super) const AGENT: &str =
    "instance, host, incarnation, spec, slots_used, drained, lease_until, gone";

/// The columns that [`duty`] reads, in its order.
pub(super) const DUTY: &str = "task, kind, after, parent";

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
    idempotency_key: Option<Arc<str>>,
}

pub(super) fn wrong(row: &Row<'_>, column: usize, what: &str) -> Failure {
    let name = row.as_ref().column_name(column).unwrap_or("?").to_owned();
    Failure::corrupt(format!("column `{name}` holds {what}"))
}

pub(super) fn bytes<const N: usize>(row: &Row<'_>, column: usize) -> Result<[u8; N], Failure> {
    bytes_option(row, column)?.ok_or_else(|| wrong(row, column, "nothing"))
}

pub(super) fn bytes_option<const N: usize>(
    row: &Row<'_>,
    column: usize,
) -> Result<Option<[u8; N]>, Failure> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Blob(bytes) => match bytes.try_into() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(wrong(row, column, &format!("{} bytes instead of {N}", bytes.len()))),
        },
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => {
            Err(wrong(row, column, "no bytes"))
        }
    }
}

pub(super) fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str, Failure> {
    text_option(row, column)?.ok_or_else(|| wrong(row, column, "nothing"))
}

pub(super) fn text_option<'a>(row: &'a Row<'_>, column: usize) -> Result<Option<&'a str>, Failure> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| wrong(row, column, "text that is not UTF-8")),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => {
            Err(wrong(row, column, "no text"))
        }
    }
}

pub(super) fn unsigned<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<T, Failure> {
    let value: i64 = row.get(column)?;
    T::try_from(value).map_err(|_| wrong(row, column, &format!("{value}")))
}

fn time(row: &Row<'_>, column: usize) -> Result<Time, Failure> {
    Ok(Time(row.get(column)?))
}

fn time_option(row: &Row<'_>, column: usize) -> Result<Option<Time>, Failure> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Time))
}

pub(super) fn json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> Result<Option<T>, Failure> {
    let Some(text) = text_option(row, column)? else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| wrong(row, column, &format!("JSON that does not fit: {error}")))
}

pub(super) fn task_id(row: &Row<'_>, column: usize) -> Result<TaskId, Failure> {
    bytes(row, column).map(TaskId::from_bytes)
}

pub(super) fn payload(row: &Row<'_>, column: usize) -> Result<Option<Payload>, Failure> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(_) => Ok(text_option(row, column)?.map(Payload::of_trusted_text)),
        ValueRef::Blob(_) => {
            let bytes: [u8; 40] = bytes(row, column)?;
            let (mut hash, mut size) = ([0; 32], [0; 8]);
            hash.copy_from_slice(&bytes[..32]);
            size.copy_from_slice(&bytes[32..]);
            Ok(Some(Payload::Stored { hash: Hash(hash), size: u64::from_be_bytes(size) }))
        }
        ValueRef::Integer(_) | ValueRef::Real(_) => Err(wrong(row, column, "no payload")),
    }
}

pub(super) fn state(row: &Row<'_>, column: usize) -> Result<TaskState, Failure> {
    let number: usize = unsigned(row, column)?;
    TaskState::ALL
        .get(number)
        .copied()
        .ok_or_else(|| wrong(row, column, &format!("the unknown state {number}")))
}

fn ending(row: &Row<'_>, column: usize) -> Result<Option<AttemptEnd>, Failure> {
    Ok(Some(match row.get::<_, Option<i64>>(column)? {
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

fn process(row: &Row<'_>, pid: usize) -> Result<Option<ProcessRef>, Failure> {
    if row.get_ref(pid)? == ValueRef::Null {
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

fn attempt(row: &Row<'_>, columns: &AttemptColumns) -> Result<Attempt, Failure> {
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
pub(super) fn task(row: &Row<'_>) -> Result<(i64, Task), Failure> {
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
        hops: unsigned(row, 8)?,
        idempotency_key: rest.idempotency_key,
    };
    let latest = AttemptColumns { id: 31, number: 32, secret_hash: 33, held_by: Some(30) };
    let has_attempt = row.get_ref(latest.id)? != ValueRef::Null;
    let task = Task {
        spec: Arc::new(spec),
        state: state(row, 12)?,
        unmet: unsigned(row, 13)?,
        rank: row.get(14)?,
        input: payload(row, 11)?.ok_or_else(|| wrong(row, 11, "nothing"))?,
        attempts: unsigned(row, 15)?,
        tried: unsigned(row, 16)?,
        lost: unsigned(row, 17)?,
        attempt: if has_attempt { Some(attempt(row, &latest)?) } else { None },
        open_children: unsigned(row, 18)?,
        children: unsigned(row, 19)?,
        dependents: unsigned(row, 20)?,
        wait_for: match row.get::<_, Option<i64>>(21)? {
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
    Ok((row.get(0)?, task))
}

/// The record of an attempt of the columns [`RECORD`].
pub(super) fn record(row: &Row<'_>) -> Result<AttemptRecord, Failure> {
    let columns = AttemptColumns { id: 2, number: 1, secret_hash: 3, held_by: None };
    Ok(AttemptRecord {
        task: task_id(row, 0)?,
        attempt: attempt(row, &columns)?,
        error: json(row, 12)?,
        usage: json(row, 13)?,
    })
}

/// An event of the columns [`EVENT`].
pub(super) fn event(row: &Row<'_>) -> Result<Event, Failure> {
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
fn fact(row: &Row<'_>, kind: usize) -> Result<Fact, Failure> {
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
pub(super) fn agent(row: &Row<'_>) -> Result<Agent, Failure> {
    Ok(Agent {
        spec: Arc::new(json(row, 3)?.ok_or_else(|| wrong(row, 3, "nothing"))?),
        host: HostId::from_bytes(bytes(row, 1)?),
        incarnation: Incarnation::from_bytes(bytes(row, 2)?),
        slots_used: unsigned(row, 4)?,
        drained: row.get(5)?,
        lease_until: time(row, 6)?,
        gone: row.get(7)?,
    })
}

/// A duty of the columns [`DUTY`].
pub(super) fn duty(row: &Row<'_>) -> Result<Duty, Failure> {
    let after = bytes_option(row, 2)?.map(TaskId::from_bytes);
    let kind = match text(row, 1)? {
        "propagate" => {
            DutyKind::Propagate { after, parent: row.get::<_, Option<bool>>(3)?.unwrap_or(false) }
        }
        "cancel_children" => DutyKind::CancelChildren { after },
        "render" => DutyKind::Render,
        "collect" => DutyKind::Collect,
        other => return Err(wrong(row, 1, &format!("the unknown duty `{other}`"))),
    };
    Ok(Duty { task: task_id(row, 0)?, kind })
}
