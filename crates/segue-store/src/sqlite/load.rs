//! What a batch needs to know, from the tables into a [`Snapshot`].

use super::error::Failure;
use super::hot::{Hot, Stored};
use super::state;
use super::{cells, decode};
use rusqlite::{Connection, OptionalExtension, Row, params};
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::agent::Agent;
use segue_core::changes::{Edge, IdempotencyRecord};
use segue_core::command::{Assign, CASCADE_MAX, Command};
use segue_core::fleet::Candidates;
use segue_core::ids::{AttemptId, HostId, TaskId};
use segue_core::payload::Hash;
use segue_core::scope::{Load, missing};
use segue_core::snapshot::{Page, Snapshot};
use segue_core::task::{Route, Task, TaskState};
use segue_core::time::Time;
use std::sync::Arc;

/// Rows that a page is read with: one more than it holds tells whether there are more.
const PAGE_MAX: i64 = CASCADE_MAX as i64 + 1;

/// Rounds of loading for one command. A handful are enough, but for a requeue that climbs a deep tree; a command that asks for
/// more is refused by `decide`, which finds something missing.
const ROUNDS_MAX: usize = 256;

/// Loads from the tables as they were when the transaction began.
pub(super) struct Loader<'a> {
    pub(super) conn: &'a Connection,
    pub(super) project: i64,
    pub(super) hot: &'a mut Hot,
    /// Routes that may have ready rows in the table. Only a look that finds none takes one out.
    pub(super) ready_routes: &'a mut FxHashSet<Route>,
    /// No task in the table has a greater id.
    pub(super) last_id: TaskId,
    /// The tasks that were loaded, as the store has them.
    pub(super) origin: FxHashMap<TaskId, Stored>,
}

impl Loader<'_> {
    /// Loads all that this command needs.
    pub(super) fn load(
        &mut self,
        snapshot: &mut Snapshot,
        command: &Command,
        now: Time,
    ) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            let loads = missing(snapshot, command, now);
            if loads.is_empty() {
                break;
            }
            for load in loads {
                self.one(snapshot, load, now)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, snapshot: &mut Snapshot, load: Load, now: Time) -> Result<(), Failure> {
        match load {
            Load::Task(id) => {
                if !snapshot.knows_task(id) {
                    match self.task(id)? {
                        Some(task) => snapshot.add_task(task),
                        None => snapshot.add_absent(id),
                    }
                }
            }
            Load::Dependents(id, after) => {
                let page = self.dependents(id, after)?;
                snapshot.add_dependents(id, page);
            }
            Load::Children(id, after) => {
                let page = self.children(id, after)?;
                snapshot.add_children(id, page);
            }
            Load::Call(parent, key) => {
                let sql = "SELECT id FROM tasks WHERE parent = ?1 AND call_key = ?2";
                let found = self.ids(sql, params![parent.as_bytes(), key.as_ref()])?;
                snapshot.add_call(parent, key, found.first().copied());
            }
            Load::Idempotency(key) => {
                let record = self.idempotency(&key)?;
                snapshot.add_idempotency(key, record);
            }
            Load::OldAttempt(task, attempt) => {
                let record = self.old_attempt(task, attempt)?;
                snapshot.add_old_attempt(task, attempt, record);
            }
            Load::Held(instance) => {
                let sql = "SELECT id FROM tasks WHERE held_by = ?1";
                let held = self.ids(sql, params![instance.as_bytes()])?;
                snapshot.add_held(instance, held);
            }
            Load::Due(limit) => {
                let sql = "SELECT id FROM tasks WHERE project = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3";
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                snapshot.set_due(self.ids(sql, params![self.project, now.0, limit])?);
            }
            Load::Stamp => snapshot.state_mut().set_stamp(state::stamp(self.conn, self.project)?),
            Load::StateKey(key) => state::load_key(self.conn, self.project, snapshot, key)?,
            Load::StateVersion(version) => {
                state::load_version(self.conn, self.project, snapshot, version)?;
            }
            Load::Policies => {
                let policies = state::policies(self.conn, self.project)?;
                snapshot.state_mut().set_policies(policies);
            }
            Load::Lock(name) => {
                let lock = state::lock(self.conn, self.project, &name)?;
                snapshot.state_mut().add_lock(name, lock);
            }
        }
        Ok(())
    }

    /// The task as the store has it.
    fn task(&mut self, id: TaskId) -> Result<Option<Arc<Task>>, Failure> {
        if let Some(stored) = self.hot.get(id) {
            return Ok(Some(self.remember(id, stored)));
        }
        // Ids are ordered by time: one above all others is new, and needs no search.
        if id > self.last_id {
            return Ok(None);
        }
        let mut statement = self.conn.prepare_cached(&cells::TASK_BY_ID)?;
        let mut rows = statement.query(params![self.project, id.as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (n, task) = decode::task(row)?;
        let task = Arc::new(task);
        drop(rows);
        let stored = Stored { n, task };
        self.hot.keep(stored.clone());
        Ok(Some(self.remember(id, stored)))
    }

    fn remember(&mut self, id: TaskId, stored: Stored) -> Arc<Task> {
        let task = stored.task.clone();
        self.origin.insert(id, stored);
        task
    }

    fn ids(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<TaskId>, Failure> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_and_then(params, |row| decode::task_id(row, 0))?;
        rows.collect()
    }

    fn dependents(&self, need: TaskId, after: Option<TaskId>) -> Result<Page<Edge>, Failure> {
        let mut statement = self.conn.prepare_cached(
            "SELECT task, order_only FROM edges WHERE need = ?1 AND task > ?2 ORDER BY task LIMIT ?3",
        )?;
        let after = after.unwrap_or(TaskId(uuid::Uuid::nil()));
        let rows = statement
            .query_and_then(params![need.as_bytes(), after.as_bytes(), PAGE_MAX], |row| {
                Ok(Edge { need, task: decode::task_id(row, 0)?, order_only: row.get(1)? })
            })?;
        rows.collect::<Result<Vec<_>, Failure>>().map(page)
    }

    fn children(&self, parent: TaskId, after: Option<TaskId>) -> Result<Page<TaskId>, Failure> {
        let after = after.unwrap_or(TaskId(uuid::Uuid::nil()));
        let sql = "SELECT id FROM tasks WHERE parent = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.ids(sql, params![parent.as_bytes(), after.as_bytes(), PAGE_MAX]).map(page)
    }

    fn idempotency(&self, key: &Arc<str>) -> Result<Option<IdempotencyRecord>, Failure> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT task, body FROM idempotency WHERE project = ?1 AND key = ?2")?;
        let record = |row: &Row<'_>| {
            Ok(IdempotencyRecord {
                key: key.clone(),
                task: decode::task_id(row, 0)?,
                body: Hash(decode::bytes(row, 1)?),
            })
        };
        statement.query_and_then(params![self.project, key.as_ref()], record)?.next().transpose()
    }

    fn old_attempt(
        &self,
        task: TaskId,
        attempt: AttemptId,
    ) -> Result<Option<segue_core::task::AttemptRecord>, Failure> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {} FROM attempts WHERE task = ?1 AND attempt = ?2",
            decode::RECORD
        ))?;
        let params = params![task.as_bytes(), attempt.as_bytes()];
        statement.query_and_then(params, |row| decode::record(row))?.next().transpose()
    }

    /// Loads the head of the queue of every route for which somebody has a free slot.
    pub(super) fn heads(
        &mut self,
        snapshot: &mut Snapshot,
        assign: &Assign,
    ) -> Result<(), Failure> {
        if self.ready_routes.is_empty() {
            return Ok(());
        }
        let candidates = Candidates::new(&assign.candidates);
        let ready = &self.ready_routes;
        let fleet = snapshot.agents();
        let open = fleet
            .open_queues(&candidates, assign.limit, ready.iter(), |route| ready.contains(route));
        for (route, free) in open {
            self.head(snapshot, &route, free)?;
        }
        Ok(())
    }

    /// Loads the first `wanted` tasks of a queue that the batch has left ready.
    fn head(
        &mut self,
        snapshot: &mut Snapshot,
        route: &Route,
        wanted: usize,
    ) -> Result<(), Failure> {
        let conn = self.conn;
        let mut queue = conn.prepare_cached(
            "SELECT id FROM tasks INDEXED BY tasks_ready \
             WHERE project = ?1 AND state = 1 AND route = ?2 ORDER BY rank, id",
        )?;
        let mut rows = queue.query(params![self.project, route.to_string()])?;
        let (mut seen, mut found) = (false, 0);
        while found < wanted
            && let Some(row) = rows.next()?
        {
            seen = true;
            let id = decode::task_id(row, 0)?;
            if !snapshot.knows_task(id)
                && let Some(task) = self.task(id)?
            {
                snapshot.add_task(task);
            }
            // The batch may have given it away already, or cancelled it.
            found +=
                usize::from(snapshot.task(id).is_some_and(|task| task.state == TaskState::Ready));
        }
        if !seen && wanted > 0 {
            self.ready_routes.remove(route);
        }
        Ok(())
    }
}

/// A page of one row more than it may hold, cut.
fn page<T>(mut items: Vec<T>) -> Page<T> {
    let more = items.len() > CASCADE_MAX;
    items.truncate(CASCADE_MAX);
    Page { items, more }
}

/// The agent instances of the project, or those of one host, in the order of their ids.
pub(super) fn agents(
    conn: &Connection,
    project: i64,
    host: Option<HostId>,
) -> Result<Vec<Agent>, Failure> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {} FROM agents WHERE project = ?1 AND (?2 IS NULL OR host = ?2) ORDER BY instance",
        decode::AGENT
    ))?;
    let host = host.map(|host| *host.as_bytes());
    let rows = statement.query_and_then(params![project, host], |row| decode::agent(row))?;
    rows.collect()
}

/// The routes that have ready tasks: one step of the index for each, however many tasks stand behind it.
pub(super) fn ready_routes(conn: &Connection, project: i64) -> Result<FxHashSet<Route>, Failure> {
    let mut next = conn.prepare_cached(
        "SELECT route FROM tasks INDEXED BY tasks_ready \
         WHERE project = ?1 AND state = 1 AND route > ?2 ORDER BY route LIMIT 1",
    )?;
    let mut routes = FxHashSet::default();
    let mut last = String::new();
    while let Some(route) =
        next.query_row(params![project, last], |row| row.get::<_, String>(0)).optional()?
    {
        routes.insert(route.parse().map_err(Failure::corrupt)?);
        last = route;
    }
    Ok(routes)
}
