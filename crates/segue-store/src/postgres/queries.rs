//! What is read beside the lanes.

use super::cells::read;
use super::line::{Ask, Line};
use super::store::Shared;
use super::trouble::Trouble;
use super::write::cursor_class;
use crate::failure::Failure;
use crate::rows::decode;
use crate::rows::encode::{number, state_number};
use crate::rows::letters::request;
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::agent::Agent;
use segue_core::command::Duty;
use segue_core::event::Event;
use segue_core::ids::{AttemptId, HostId, InstanceId, TaskId};
use segue_core::letter::Letter;
use segue_core::payload::Hash;
use segue_core::ports::{EventFilter, TaskFilter};
use segue_core::task::{AttemptRecord, Task};
use segue_core::time::Time;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use uuid::Uuid;

/// How long a reader of events waits for those who have cursors and have not committed, before it returns what stands before theirs.
const SETTLE_PATIENCE: Duration = Duration::from_millis(50);
/// The first pause while it waits; each one after it is twice as long.
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// A statement with the columns of tasks, made once.
macro_rules! of_tasks {
    ($name:ident, $rest:literal) => {
        static $name: LazyLock<String> =
            LazyLock::new(|| format!(concat!("SELECT {} FROM tasks WHERE ", $rest), decode::TASK));
    };
}

of_tasks!(BY_ID, "project = $1 AND id = ANY($2)");
of_tasks!(
    CHILDREN,
    "project = $1 AND parent = $2 AND id < $3 AND ($4::int2[] IS NULL OR state = ANY($4)) AND ($6::uuid IS NULL OR coalesce(root, id) = $6)
     ORDER BY id LIMIT $5"
);
of_tasks!(
    OF_RUN,
    "project = $1 AND root = $2 AND id < $3 AND ($4::int2[] IS NULL OR state = ANY($4)) ORDER BY id DESC LIMIT $5"
);
of_tasks!(
    ROOT,
    "project = $1 AND id = $2 AND root IS NULL AND id < $3 AND ($4::int2[] IS NULL OR state = ANY($4)) LIMIT $5"
);
of_tasks!(LISTED, "project = $1 AND listed = $2 AND id < $3 ORDER BY id DESC LIMIT $4");
of_tasks!(
    HELD,
    "project = $1 AND held_by IS NOT NULL AND state = $2 AND id < $3 ORDER BY id DESC LIMIT $4"
);
of_tasks!(QUEUED, "project = $1 AND queued AND id < $2 ORDER BY id DESC LIMIT $3");
of_tasks!(
    ANY,
    "project = $1 AND id < $2 AND ($3::int2[] IS NULL OR state = ANY($3)) ORDER BY id DESC LIMIT $4"
);
static ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM attempts WHERE project = $1 AND task = $2 ORDER BY number",
        decode::RECORD
    )
});
static AGENTS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM agents WHERE project = $1 ORDER BY instance", decode::AGENT)
});
static AGENTS_OF: LazyLock<String> = LazyLock::new(|| {
    let columns = decode::AGENT;
    format!("SELECT {columns} FROM agents WHERE project = $1 AND host = $2 ORDER BY instance")
});
/// Whoever changes the version holds the project's row until the commit: so they are committed in their order.
static AGENTS_SINCE: LazyLock<String> = LazyLock::new(|| {
    let columns = decode::AGENT;
    format!(
        "SELECT {columns}, spec_version FROM agents WHERE project = $1 AND spec_version > $2 ORDER BY spec_version"
    )
});
const LEASES: &str = "SELECT instance, lease_until FROM agents WHERE project = $1 AND NOT gone";
static EVENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM events WHERE project = $1 AND cursor > $2 AND cursor <= $3 ORDER BY cursor LIMIT $4",
        decode::EVENT
    )
});
static RUN_EVENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM events WHERE project = $1 AND run = $5 AND cursor > $2 AND cursor <= $3
         AND ($6::uuid IS NULL OR coalesce(task, run) = $6) ORDER BY cursor LIMIT $4",
        decode::EVENT
    )
});
static DUTIES: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM duties WHERE project = $1 ORDER BY task, kind LIMIT $2", decode::DUTY)
});
const ISSUED: &str =
    "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM cursors";
const WRITERS: &str = "SELECT objid::int8 FROM pg_locks WHERE locktype = 'advisory' AND classid::int8 = $1 AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// This store's own letters, and those that another left lying, which become its own.
const UNSENT: &str = "WITH taken AS (
        UPDATE letters SET owner = $2, at = $5 WHERE project = $1 AND seq = ANY(ARRAY(
            SELECT seq FROM letters WHERE project = $1 AND seq > $3 AND owner <> $2 AND at <= $6
            ORDER BY seq LIMIT $4 FOR UPDATE SKIP LOCKED))
        RETURNING seq, task, attempt, host, body)
    SELECT seq, task, attempt, host, body FROM (
        SELECT seq, task, attempt, host, body FROM letters WHERE project = $1 AND seq > $3 AND owner = $2
        UNION ALL SELECT * FROM taken) AS l
    ORDER BY seq LIMIT $4";
const NEXT_DUE: &str =
    "SELECT due_at FROM tasks WHERE project = $1 AND due_at IS NOT NULL ORDER BY due_at LIMIT 1";
const COUNTS: &str = "SELECT coalesce(sum(s0), 0)::int8, coalesce(sum(s1), 0)::int8, coalesce(sum(s2), 0)::int8,
    coalesce(sum(s3), 0)::int8, coalesce(sum(s4), 0)::int8, coalesce(sum(s5), 0)::int8, coalesce(sum(s6), 0)::int8,
    coalesce(sum(s7), 0)::int8, coalesce(sum(s8), 0)::int8 FROM counters WHERE project = $1";
const BODY: &str = "SELECT body FROM payloads WHERE project = $1 AND hash = $2";
const CLOCK: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8,
    coalesce((SELECT max(committed_at) FROM counters WHERE project = $1), $2)";

/// What readers ask most, prepared when they connect.
pub(super) fn statements() -> Vec<&'static str> {
    vec![
        BY_ID.as_str(),
        ATTEMPTS.as_str(),
        AGENTS.as_str(),
        AGENTS_SINCE.as_str(),
        LEASES,
        EVENTS.as_str(),
        RUN_EVENTS.as_str(),
        DUTIES.as_str(),
        ISSUED,
        WRITERS,
        UNSENT,
        NEXT_DUE,
        COUNTS,
        BODY,
        CHILDREN.as_str(),
        OF_RUN.as_str(),
        ROOT.as_str(),
        LISTED.as_str(),
        HELD.as_str(),
        QUEUED.as_str(),
        ANY.as_str(),
    ]
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The server's clock, and the time of the last commit.
pub(super) struct Heard {
    pub(super) now: Time,
    pub(super) committed: Time,
}

pub(super) async fn clock(line: &Line, project: i32) -> Result<Heard, Trouble> {
    let rows = line.ask(Ask::new(CLOCK).with(project).with(i64::MIN)).await?;
    let row = rows.first().ok_or_else(|| Trouble::data("the server does not tell the time"))?;
    Ok(Heard { now: Time(read(row, 0)?), committed: Time(read(row, 1)?) })
}

fn decoded(rows: &[Row]) -> Result<Vec<Arc<Task>>, Trouble> {
    rows.iter().map(|row| Ok(Arc::new(decode::task(row)?.1))).collect()
}

pub(super) async fn tasks_by_id(
    line: &Line,
    project: i32,
    ids: &[TaskId],
) -> Result<Vec<Arc<Task>>, Trouble> {
    let ask = Ask::new(&BY_ID).with(project).column(ids.iter().map(|id| id.0));
    decoded(&line.ask(ask).await?)
}

/// Tasks of a filter: by the index of the run or the parent, else by state, else all by id.
pub(super) async fn tasks(
    line: &Line,
    project: i32,
    filter: &TaskFilter,
) -> Result<Vec<Arc<Task>>, Trouble> {
    let mut states = filter.states.clone();
    states.sort_unstable();
    states.dedup();
    let numbers: Vec<i16> = states.iter().map(|state| state_number(*state) as i16).collect();
    let among = (!numbers.is_empty()).then_some(numbers);
    let before = filter.before.map_or(Uuid::max(), |before| before.0);
    let limit = limit(filter.limit);
    if let Some(parent) = filter.parent {
        // Oldest first: there `before` means those before it in the list of a reader who pages from the end.
        let ask = Ask::new(&CHILDREN).with(project).with(parent.0).with(before).with(among);
        let ask = ask.with(limit).with(filter.run.map(|run| run.0));
        return decoded(&line.ask(ask).await?);
    }
    if let Some(run) = filter.run {
        // The root is the oldest of its run in practice, but its id need not be the least: it is put in its place.
        let of = |sql: &'static str| {
            Ask::new(sql).with(project).with(run.0).with(before).with(among.clone()).with(limit)
        };
        let answers = line.flight(&[of(&OF_RUN), of(&ROOT)]).await?;
        return Ok(newest(decoded(&answers.concat_rows())?, filter.limit));
    }
    use segue_core::task::TaskState as S;
    if !states.is_empty() && !states.contains(&S::Completed) {
        let of = |state: &S| match state {
            S::Ready => Ask::new(&QUEUED).with(project).with(before).with(limit),
            S::Assigned | S::Running => Ask::new(&HELD)
                .with(project)
                .with(state_number(*state) as i16)
                .with(before)
                .with(limit),
            S::Blocked | S::Waiting | S::Retrying | S::Failed | S::Cancelled | S::Completed => {
                Ask::new(&LISTED)
                    .with(project)
                    .with(state_number(*state) as i16)
                    .with(before)
                    .with(limit)
            }
        };
        let asks: Vec<Ask<'_>> = states.iter().map(of).collect();
        let answers = line.flight(&asks).await?;
        return Ok(newest(decoded(&answers.concat_rows())?, filter.limit));
    }
    let ask = Ask::new(&ANY).with(project).with(before).with(among).with(limit);
    decoded(&line.ask(ask).await?)
}

/// The rows of several answers, one after another.
trait ConcatRows {
    fn concat_rows(self) -> Vec<Row>;
}

impl ConcatRows for Vec<Vec<Row>> {
    fn concat_rows(self) -> Vec<Row> {
        self.into_iter().flatten().collect()
    }
}

fn newest(mut tasks: Vec<Arc<Task>>, limit: usize) -> Vec<Arc<Task>> {
    tasks.sort_unstable_by_key(|task| std::cmp::Reverse(task.id()));
    tasks.truncate(limit);
    tasks
}

pub(super) async fn counts(line: &Line, project: i32) -> Result<[u64; 9], Trouble> {
    let rows = line.ask(Ask::new(COUNTS).with(project)).await?;
    let mut counts = [0; 9];
    for row in &rows {
        for (place, count) in counts.iter_mut().enumerate() {
            *count = decode::unsigned(row, place)?;
        }
    }
    Ok(counts)
}

pub(super) async fn attempts(
    line: &Line,
    project: i32,
    task: TaskId,
) -> Result<Vec<AttemptRecord>, Trouble> {
    let rows = line.ask(Ask::new(&ATTEMPTS).with(project).with(task.0)).await?;
    rows.iter().map(|row| Ok(decode::record(row)?)).collect()
}

pub(super) async fn agents(line: &Line, project: i32) -> Result<Vec<Agent>, Trouble> {
    let rows = line.ask(Ask::new(&AGENTS).with(project)).await?;
    rows.iter().map(|row| Ok(decode::agent(row)?)).collect()
}

/// The agents about which something was said after this version, and the version up to which everything is known then.
pub(super) async fn agents_since(
    line: &Line,
    project: i32,
    version: u64,
) -> Result<(u64, Vec<Agent>), Trouble> {
    let ask = Ask::new(&AGENTS_SINCE).with(project).with(number(version));
    let rows = line.ask(ask).await?;
    let newest = rows.last().map_or(Ok(version), |row| decode::unsigned(row, 8))?;
    let agents = rows.iter().map(|row| Ok(decode::agent(row)?));
    Ok((newest, agents.collect::<Result<_, Trouble>>()?))
}

pub(super) async fn leases(line: &Line, project: i32) -> Result<Vec<(InstanceId, Time)>, Trouble> {
    let rows = line.ask(Ask::new(LEASES).with(project)).await?;
    rows.iter().map(|row| Ok((InstanceId(read(row, 0)?), Time(read(row, 1)?)))).collect()
}

pub(super) async fn agents_of(
    line: &Line,
    project: i32,
    host: HostId,
) -> Result<Vec<Agent>, Trouble> {
    let rows = line.ask(Ask::new(&AGENTS_OF).with(project).with(host.0)).await?;
    rows.iter().map(|row| Ok(decode::agent(row)?)).collect()
}

/// The greatest cursor below which nothing can appear any more: before those that writers who are at it may issue. Waits a moment for
/// writers, so that what was committed before is seen in nearly every case.
///
/// A writer says by a lock from where on it may issue cursors, before it issues any, and gives the lock back after its commit. So the
/// number issued last is read first, then the locks, and then, by another statement, the events.
async fn settled(line: &Line, project: i32) -> Result<i64, Trouble> {
    let class = i64::from(cursor_class(project));
    let writers = || Ask::new(WRITERS).with(class);
    let answers = line.flight(&[Ask::new(ISSUED), writers()]).await?;
    let issued: i64 = match answers.first().and_then(|rows| rows.first()) {
        Some(row) => read(row, 0)?,
        None => return Err(Trouble::data("the numbers of events are missing")),
    };
    let mut bound = least(issued, answers.get(1).map_or(&[], Vec::as_slice))?;
    let (begin, mut pause) = (Instant::now(), SETTLE_PAUSE);
    while bound < issued && begin.elapsed() < SETTLE_PATIENCE {
        tokio::time::sleep(pause).await;
        pause *= 2;
        bound = least(issued, &line.ask(writers()).await?)?;
    }
    Ok(bound)
}

/// What writers say, in the low 31 bits, of where they begin.
fn least(issued: i64, writers: &[Row]) -> Result<i64, Trouble> {
    let mut bound = issued;
    for row in writers {
        let low: i64 = read(row, 0)?;
        // Whoever began after `issued` was read says a number above it, which looks like one far below.
        let back = (issued - low).rem_euclid(1 << 31);
        if back < 1 << 30 {
            bound = bound.min(issued - back);
        }
    }
    Ok(bound)
}

pub(super) async fn events(
    line: &Line,
    project: i32,
    filter: &EventFilter,
) -> Result<Vec<Event>, Trouble> {
    let run = match (filter.run, filter.task) {
        (Some(run), _) => Some(run),
        // The events of a task stand in the log of its run.
        (None, Some(id)) => match tasks_by_id(line, project, &[id]).await?.pop() {
            Some(task) => Some(task.spec.root),
            None => return Ok(Vec::new()),
        },
        (None, None) => None,
    };
    let bound = settled(line, project).await?;
    let base = |sql: &'static str| {
        Ask::new(sql).with(project).with(number(filter.after)).with(bound).with(limit(filter.limit))
    };
    let ask = match run {
        None => base(&EVENTS),
        Some(run) => base(&RUN_EVENTS).with(run.0).with(filter.task.map(|task| task.0)),
    };
    let rows = line.ask(ask).await?;
    rows.iter().map(|row| Ok(decode::event(row)?)).collect()
}

/// Letters after this number, those that give out work made again from their tasks; and the numbers of those that give out an attempt
/// which has ended meanwhile: nobody needs to begin it.
pub(super) async fn unsent(
    line: &Line,
    shared: &Shared,
    now: Time,
    after: u64,
    max: usize,
) -> Result<(Vec<Letter>, Vec<u64>), Trouble> {
    let grace = i64::try_from(shared.letters_grace.as_millis()).unwrap_or(i64::MAX);
    let (mut letters, mut stale) = (Vec::new(), Vec::new());
    let mut after = after;
    while letters.len() < max {
        let ask = Ask::new(UNSENT)
            .with(shared.project)
            .with(shared.owner)
            .with(number(after))
            .with(limit(max))
            .with(now.0)
            .with(now.0.saturating_sub(grace));
        let rows = line.ask(ask).await?;
        let ids = rows.iter().filter(|row| decode::text_option(*row, 4).ok().flatten().is_none());
        let ids: Vec<TaskId> =
            ids.map(|row| read(row, 1).map(TaskId)).collect::<Result<_, Trouble>>()?;
        let mut tasks: FxHashMap<TaskId, Arc<Task>> = FxHashMap::default();
        if !ids.is_empty() {
            let found = tasks_by_id(line, shared.project, &ids).await?;
            // The roots of their runs know the traces.
            let roots: FxHashSet<TaskId> =
                found.iter().filter(|task| !task.is_root()).map(|task| task.spec.root).collect();
            tasks.extend(found.into_iter().map(|task| (task.id(), task)));
            let roots: Vec<TaskId> =
                roots.into_iter().filter(|root| !tasks.contains_key(root)).collect();
            if !roots.is_empty() {
                let found = tasks_by_id(line, shared.project, &roots).await?;
                tasks.extend(found.into_iter().map(|task| (task.id(), task)));
            }
        }
        for row in &rows {
            let seq: u64 = decode::unsigned(row, 0)?;
            after = after.max(seq);
            if let Some(body) = decode::text_option(row, 4)? {
                let letter: Letter = serde_json::from_str(body).map_err(|error| {
                    Failure::corrupt(format!("letter {seq} does not fit: {error}"))
                })?;
                letters.push(Letter { seq, ..letter });
                continue;
            }
            let attempt = AttemptId(read(row, 2)?);
            let host = HostId(read(row, 3)?);
            let task = tasks.get(&TaskId(read(row, 1)?));
            let letter = task.and_then(|task| {
                let given = tasks.get(&task.spec.root).and_then(|root| root.spec.traceparent);
                request(seq, task, given, attempt, host, &shared.key)
            });
            match letter {
                Some(letter) => letters.push(letter),
                None => stale.push(seq),
            }
        }
        if rows.len() < max {
            break;
        }
    }
    letters.truncate(max);
    Ok((letters, stale))
}

pub(super) async fn duties(line: &Line, project: i32, max: usize) -> Result<Vec<Duty>, Trouble> {
    let rows = line.ask(Ask::new(&DUTIES).with(project).with(limit(max))).await?;
    rows.iter().map(|row| Ok(decode::duty(row)?)).collect()
}

pub(super) async fn next_due(line: &Line, project: i32) -> Result<Option<Time>, Trouble> {
    let rows = line.ask(Ask::new(NEXT_DUE).with(project)).await?;
    rows.first().map(|row| read(row, 0).map(Time)).transpose()
}

/// A body in the table `payloads`, checked against its hash.
pub(super) async fn body(
    line: &Line,
    project: i32,
    hash: Hash,
) -> Result<Option<Vec<u8>>, Trouble> {
    let ask = Ask::new(BODY).with(project).with(hash.0.to_vec());
    let rows = line.ask(ask).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let body = decode::text(row, 0)?.as_bytes().to_vec();
    if Hash::of(&body) != hash {
        let detail = format!("payload {} is not what its hash says", hash.hex());
        return Err(Failure::corrupt(detail).into());
    }
    Ok(Some(body))
}
