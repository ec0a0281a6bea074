//! What is read beside the writer.

use super::error::Failure;
use super::{cells, decode};
use crate::rows::letters::request;
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};
use segue_core::command::Duty;
use segue_core::event::Event;
use segue_core::ids::{AttemptId, HostId, TaskId};
use segue_core::letter::Letter;
use segue_core::ports::{EventFilter, TaskFilter};
use segue_core::task::{AttemptRecord, Task, TaskState};
use segue_core::time::Time;
use std::sync::Arc;

use super::encode::{number, state_number};

/// Ids asked for by one statement.
const IDS_MAX: usize = 500;
/// So many ready tasks are sorted rather than looked for among all others.
const SORTED_MAX: u64 = 10_000;

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn task(
    conn: &Connection,
    project: i64,
    id: TaskId,
) -> Result<Option<Arc<Task>>, Failure> {
    let mut found = tasks_of(conn, &cells::TASK_BY_ID, &[&project, id.as_bytes()])?;
    Ok(found.pop())
}

fn tasks_of(
    conn: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
) -> Result<Vec<Arc<Task>>, Failure> {
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_and_then(params, |row| decode::task(row))?;
    rows.map(|task| task.map(|(_, task)| Arc::new(task))).collect()
}

pub(super) fn tasks_by_id(
    conn: &Connection,
    project: i64,
    ids: &[TaskId],
) -> Result<Vec<Arc<Task>>, Failure> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(IDS_MAX) {
        if chunk.len() < 16 {
            for id in chunk {
                found.extend(task(conn, project, *id)?);
            }
            continue;
        }
        let places = vec!["?"; chunk.len()].join(", ");
        let sql = format!(
            "SELECT {} FROM tasks WHERE project = {project} AND id IN ({places})",
            decode::TASK
        );
        let mut statement = conn.prepare(&sql)?;
        let ids = params_from_iter(chunk.iter().map(|id| id.as_bytes().as_slice()));
        for row in statement.query_and_then(ids, |row| decode::task(row))? {
            found.push(Arc::new(row?.1));
        }
    }
    Ok(found)
}

/// Tasks of a filter: by the index of the run or the parent, else by state, else all by id.
pub(super) fn tasks(
    conn: &Connection,
    project: i64,
    filter: &TaskFilter,
    counts: &[u64; 9],
) -> Result<Vec<Arc<Task>>, Failure> {
    let mut states = filter.states.clone();
    states.sort_unstable();
    states.dedup();
    let numbers: Vec<String> =
        states.iter().map(|state| state_number(*state).to_string()).collect();
    let among = match numbers.is_empty() {
        true => String::new(),
        // The plus keeps the planner from an index by state: here the rows come in the order of another one.
        false => format!("AND +state IN ({})", numbers.join(", ")),
    };
    let before = filter.before.unwrap_or(TaskId::from_bytes([0xff; 16]));
    let columns = decode::TASK;
    let limit = limit(filter.limit);
    if let Some(parent) = filter.parent {
        // Oldest first: there `before` means those before it in the list of a reader who pages from the end.
        let run = if filter.run.is_some() { "AND +ifnull(root, id) = ?4" } else { "" };
        let sql = format!(
            "SELECT {columns} FROM tasks WHERE parent = ?1 AND id < ?2 {run} {among} ORDER BY id LIMIT ?3"
        );
        return match &filter.run {
            Some(run) => tasks_of(
                conn,
                &sql,
                &[parent.as_bytes(), before.as_bytes(), &limit, run.as_bytes()],
            ),
            None => tasks_of(conn, &sql, &[parent.as_bytes(), before.as_bytes(), &limit]),
        };
    }
    if let Some(run) = filter.run {
        // The root is the oldest of its run in practice, but its id need not be the least: it is put in its place.
        let children = format!(
            "SELECT {columns} FROM tasks WHERE root = ?1 AND id < ?2 {among} ORDER BY id DESC LIMIT ?3"
        );
        let root = format!(
            "SELECT {columns} FROM tasks WHERE project = ?4 AND id = ?1 AND root IS NULL AND id < ?2 {among} LIMIT ?3"
        );
        let mut found = tasks_of(conn, &children, &[run.as_bytes(), before.as_bytes(), &limit])?;
        found.extend(tasks_of(
            conn,
            &root,
            &[run.as_bytes(), before.as_bytes(), &limit, &project],
        )?);
        return Ok(newest(found, filter.limit));
    }
    if !states.is_empty() && states.iter().all(|state| is_listed(*state, counts)) {
        let mut found = Vec::new();
        for state in &states {
            found.extend(of_state(conn, project, *state, before, limit)?);
        }
        return Ok(newest(found, filter.limit));
    }
    let sql = format!(
        "SELECT {columns} FROM tasks WHERE project = ?1 AND id < ?2 {among} ORDER BY id DESC LIMIT ?3"
    );
    tasks_of(conn, &sql, &[&project, before.as_bytes(), &limit])
}

fn newest(mut tasks: Vec<Arc<Task>>, limit: usize) -> Vec<Arc<Task>> {
    tasks.sort_unstable_by_key(|task| std::cmp::Reverse(task.id()));
    tasks.truncate(limit);
    tasks
}

/// Whether the tasks of a state are found without passing those of others.
fn is_listed(state: TaskState, counts: &[u64; 9]) -> bool {
    let count = counts[state_number(state) as usize];
    match state {
        TaskState::Blocked
        | TaskState::Waiting
        | TaskState::Retrying
        | TaskState::Failed
        | TaskState::Cancelled
        | TaskState::Assigned
        | TaskState::Running => true,
        TaskState::Ready => count <= SORTED_MAX,
        TaskState::Completed => count == 0,
    }
}

fn of_state(
    conn: &Connection,
    project: i64,
    state: TaskState,
    before: TaskId,
    limit: i64,
) -> Result<Vec<Arc<Task>>, Failure> {
    let columns = decode::TASK;
    let (from, order) = match state {
        TaskState::Blocked
        | TaskState::Waiting
        | TaskState::Retrying
        | TaskState::Failed
        | TaskState::Cancelled => {
            ("INDEXED BY tasks_listed WHERE state NOT BETWEEN 1 AND 3 AND state <> 6 AND", "id")
        }
        TaskState::Assigned | TaskState::Running => {
            ("INDEXED BY tasks_held WHERE held_by IS NOT NULL AND", "+id")
        }
        TaskState::Ready => ("INDEXED BY tasks_ready WHERE state = 1 AND", "+id"),
        TaskState::Completed => return Ok(Vec::new()),
    };
    let sql = format!(
        "SELECT {columns} FROM tasks {from} project = ?1 AND state = ?2 AND id < ?3 ORDER BY {order} DESC LIMIT ?4"
    );
    tasks_of(conn, &sql, &[&project, &state_number(state), before.as_bytes(), &limit])
}

pub(super) fn attempts(conn: &Connection, task: TaskId) -> Result<Vec<AttemptRecord>, Failure> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {} FROM attempts WHERE task = ?1 ORDER BY number",
        decode::RECORD
    ))?;
    let rows = statement.query_and_then(params![task.as_bytes()], |row| decode::record(row))?;
    rows.collect()
}

pub(super) fn events(
    conn: &Connection,
    project: i64,
    filter: &EventFilter,
) -> Result<Vec<Event>, Failure> {
    let columns = decode::EVENT;
    let (after, limit) = (number(filter.after), limit(filter.limit));
    let run = match (filter.run, filter.task) {
        (Some(run), _) => Some(run),
        // The events of a task stand in the log of its run.
        (None, Some(id)) => match task(conn, project, id)? {
            Some(task) => Some(task.spec.root),
            None => return Ok(Vec::new()),
        },
        (None, None) => None,
    };
    let (condition, which): (&str, Vec<TaskId>) = match (run, filter.task) {
        (None, _) => ("project = ?3", Vec::new()),
        (Some(run), None) => ("run = ?3", vec![run]),
        (Some(run), Some(task)) if run == task => ("run = ?3 AND task IS NULL", vec![run]),
        (Some(run), Some(task)) => ("run = ?3 AND task = ?4", vec![run, task]),
    };
    let sql = format!(
        "SELECT {columns} FROM events WHERE cursor > ?1 AND {condition} ORDER BY cursor LIMIT ?2"
    );
    let mut params: Vec<&dyn ToSql> = vec![&after, &limit];
    if which.is_empty() {
        params.push(&project);
    }
    params.extend(which.iter().map(|id| id.as_bytes() as &dyn ToSql));
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_and_then(params.as_slice(), |row| decode::event(row))?;
    rows.collect()
}

/// Letters after this number, those that give out work made again from their tasks; and the numbers of those that give out an attempt
/// which has ended meanwhile: nobody needs to begin it.
pub(super) fn unsent(
    conn: &Connection,
    project: i64,
    key: &[u8; 32],
    after: u64,
    limit: usize,
) -> Result<(Vec<Letter>, Vec<u64>), Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, task, attempt, host, body FROM letters WHERE seq > ?1 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![number(after)])?;
    let (mut letters, mut stale) = (Vec::new(), Vec::new());
    while letters.len() < limit
        && let Some(row) = rows.next()?
    {
        let seq: u64 = decode::unsigned(row, 0)?;
        if let Some(body) = decode::text_option(row, 4)? {
            let letter: Letter = serde_json::from_str(body)
                .map_err(|error| Failure::corrupt(format!("letter {seq} does not fit: {error}")))?;
            letters.push(letter);
            continue;
        }
        let attempt = AttemptId::from_bytes(decode::bytes(row, 2)?);
        let host = HostId::from_bytes(decode::bytes(row, 3)?);
        let found = task(conn, project, decode::task_id(row, 1)?)?;
        let letter = match &found {
            None => None,
            Some(found) => {
                let given = match found.is_root() {
                    true => found.spec.traceparent,
                    false => {
                        task(conn, project, found.spec.root)?.and_then(|it| it.spec.traceparent)
                    }
                };
                request(seq, found, given, attempt, host, key)
            }
        };
        match letter {
            Some(letter) => letters.push(letter),
            None => stale.push(seq),
        }
    }
    Ok((letters, stale))
}

pub(super) fn duties(conn: &Connection, project: i64, max: usize) -> Result<Vec<Duty>, Failure> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {} FROM duties WHERE project = ?1 ORDER BY task, kind LIMIT ?2",
        decode::DUTY
    ))?;
    let rows = statement.query_and_then(params![project, limit(max)], |row| decode::duty(row))?;
    rows.collect()
}

pub(super) fn next_due(conn: &Connection, project: i64) -> Result<Option<Time>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT due_at FROM tasks WHERE project = ?1 AND due_at IS NOT NULL ORDER BY due_at LIMIT 1",
    )?;
    let due: Option<i64> = statement.query_row(params![project], |row| row.get(0)).optional()?;
    Ok(due.map(Time))
}
