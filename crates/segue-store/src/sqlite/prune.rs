//! Removing runs that ended long ago, a bounded piece at a time, so that nobody waits long for the writer.

use super::blobs::DirBlobs;
use super::copies::Copies;
use super::decode;
use super::encode::number;
use super::error::Failure;
use super::state;
use super::write::Counters;
use super::writer::Writer;
use rusqlite::{Connection, OptionalExtension, params};
use segue_core::ids::TaskId;
use segue_core::payload::Hash;
use segue_core::ports::{Pruned, StoreError};
use segue_core::state::body_owner;
use segue_core::task::Task;
use segue_core::time::Time;

/// Rows that one step removes, more or less.
const REMOVED_MAX: i64 = 2_000;
/// Roots that one step looks at.
const ROOTS_MAX: i64 = 1_000;

/// Where pruning begins: before the first root, with shared state.
pub(super) const BEGINNING: i64 = -1;
/// Deleted keys that one step removes, with their history.
const KEYS_MAX: i64 = 30;

/// What one step did.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) pruned: Pruned,
    /// Bodies outside the database to which no run refers any more.
    pub(super) unreferred: Vec<Hash>,
    /// After which row the next step goes on; `None` where nothing is left to do.
    pub(super) next: Option<i64>,
}

impl Writer {
    /// One step: the roots after row `after` that ended before this time, as far as a bounded transaction goes.
    pub(super) fn prune(&mut self, before: Time, after: i64) -> Result<Step, StoreError> {
        self.shared.writable()?;
        self.prune_piece(before, after).map_err(|failure| {
            let failure = self.roll_back(failure);
            self.shared.failed(failure)
        })
    }

    fn prune_piece(&mut self, before: Time, after: i64) -> Result<Step, Failure> {
        self.begin()?;
        let mut counters = self.counters.clone();
        let mut eraser = Eraser {
            conn: &self.conn,
            project: self.project,
            before,
            counters: &mut counters,
            step: Step::default(),
            removed: 0,
        };
        match after {
            BEGINNING => eraser.state()?,
            _ => eraser.roots(after)?,
        }
        let (step, removed) = (eraser.step, eraser.removed);
        if removed > 0 {
            counters.write(&self.conn, self.project)?;
        }
        self.end()?;
        self.counters = counters;
        self.shared.committed(&self.counters);
        Ok(step)
    }
}

struct Eraser<'a> {
    conn: &'a Connection,
    project: i64,
    before: Time,
    counters: &'a mut Counters,
    step: Step,
    /// Rows removed so far in this transaction.
    removed: i64,
}

/// How far a run has been removed.
#[derive(PartialEq)]
enum Progress {
    /// All of it.
    Gone,
    /// A part; the rest is for the next step.
    Part,
    /// Nothing: something in it has not ended, or something that goes on needs it.
    Open,
}

impl Eraser<'_> {
    /// Removes locks that have been free since before the time, and keys that were deleted before it.
    fn state(&mut self) -> Result<(), Failure> {
        let mut locks =
            self.conn.prepare_cached("DELETE FROM locks WHERE project = ?1 AND until < ?2")?;
        self.removed += locks.execute(params![self.project, self.before.0])? as i64;
        let keys = state::deleted(self.conn, self.project, self.before, KEYS_MAX)?;
        self.step.next = Some(if keys.len() as i64 == KEYS_MAX { BEGINNING } else { 0 });
        for (key, versions) in keys {
            for version in versions {
                self.payloads(body_owner(version))?;
                self.removed += self
                    .conn
                    .prepare_cached("DELETE FROM state_versions WHERE version = ?1")?
                    .execute(params![number(version)])? as i64;
            }
            self.removed += self
                .conn
                .prepare_cached("DELETE FROM state_keys WHERE project = ?1 AND key = ?2")?
                .execute(params![self.project, key])? as i64;
            self.step.pruned.keys += 1;
        }
        Ok(())
    }

    /// Goes over roots in the order in which they came.
    fn roots(&mut self, after: i64) -> Result<(), Failure> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {} FROM tasks WHERE n > ?1 AND project = ?2 AND root IS NULL ORDER BY n LIMIT ?3",
            decode::TASK
        ))?;
        let roots: Vec<(i64, Task)> = statement
            .query_and_then(params![after, self.project, ROOTS_MAX], |row| decode::task(row))?
            .collect::<Result<_, _>>()?;
        let full = roots.len() as i64 == ROOTS_MAX;
        // Rows come in the order of their submit. Where none of so many is old enough, none after them is; a single one may
        // only look young, since a requeue counts anew.
        let all_young = roots.iter().all(|(_, root)| root.created_at >= self.before);
        let last = roots.last().map(|(n, _)| *n);
        for (n, root) in roots {
            let ended = root.state.is_terminal()
                && root.finished_at.is_some_and(|finished_at| finished_at < self.before);
            if ended && self.run(n, &root)? == Progress::Part {
                self.step.next = Some(n - 1);
                return Ok(());
            }
            if self.removed >= REMOVED_MAX {
                self.step.next = Some(n);
                return Ok(());
            }
        }
        self.step.next = last.filter(|_| full && !all_young);
        Ok(())
    }

    /// Removes a run from its leaves to its root, so that a run of which a part is left still has its root.
    fn run(&mut self, n: i64, root: &Task) -> Result<Progress, Failure> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {} FROM tasks WHERE root = ?1 ORDER BY id LIMIT ?2",
            decode::TASK
        ))?;
        let tasks: Vec<(i64, Task)> = statement
            .query_and_then(params![root.id().as_bytes(), REMOVED_MAX + 1], |row| {
                decode::task(row)
            })?
            .collect::<Result<_, _>>()?;
        for (_, task) in tasks.iter().chain([&(n, root.clone())]) {
            if !task.state.is_terminal() || self.has_duty(task.id())? || self.is_needed(task)? {
                return Ok(Progress::Open);
            }
        }
        for (n, task) in &tasks {
            if self.removed >= REMOVED_MAX {
                return Ok(Progress::Part);
            }
            self.task(*n, task)?;
        }
        let events = self.conn.prepare_cached(
            "DELETE FROM events WHERE cursor IN (SELECT cursor FROM events WHERE run = ?1 LIMIT ?2)",
        )?.execute(params![root.id().as_bytes(), REMOVED_MAX])? as i64;
        self.step.pruned.events += events as u64;
        self.removed += events;
        if events == REMOVED_MAX {
            return Ok(Progress::Part);
        }
        self.payloads(root.id())?;
        self.task(n, root)?;
        self.step.pruned.runs += 1;
        Ok(Progress::Gone)
    }

    fn has_duty(&self, task: TaskId) -> Result<bool, Failure> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM duties WHERE task = ?1")?;
        Ok(statement.exists(params![task.as_bytes()])?)
    }

    /// Whether a task that goes on needs this one: it will ask for its output.
    fn is_needed(&self, task: &Task) -> Result<bool, Failure> {
        if task.dependents == 0 {
            return Ok(false);
        }
        let mut statement = self.conn.prepare_cached(
            "SELECT 1 FROM edges JOIN tasks ON tasks.project = ?1 AND tasks.id = edges.task \
             WHERE edges.need = ?2 AND tasks.state NOT IN (6, 7, 8) LIMIT 1",
        )?;
        Ok(statement.exists(params![self.project, task.id().as_bytes()])?)
    }

    fn task(&mut self, n: i64, task: &Task) -> Result<(), Failure> {
        let id = task.id();
        let delete = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<i64, Failure> {
            Ok(self.conn.prepare_cached(sql)?.execute(params)? as i64)
        };
        let mut removed = delete("DELETE FROM edges WHERE need = ?1", &[id.as_bytes()])?;
        // Where it was cancelled before what it needs had ended, that task must not look for it any more.
        for need in &task.spec.needs {
            let sql = "DELETE FROM edges WHERE need = ?1 AND task = ?2";
            removed += delete(sql, &[need.task.as_bytes(), id.as_bytes()])?;
        }
        removed += delete("DELETE FROM attempts WHERE task = ?1", &[id.as_bytes()])?;
        if let Some(key) = &task.spec.idempotency_key {
            let sql = "DELETE FROM idempotency WHERE project = ?1 AND key = ?2 AND task = ?3";
            removed += delete(sql, &[&self.project, &key.as_ref(), id.as_bytes()])?;
        }
        removed += delete("DELETE FROM tasks WHERE n = ?1", &[&n])?;
        self.counters.gone(task.state);
        self.step.pruned.tasks += 1;
        self.removed += removed;
        Ok(())
    }

    /// Removes the run's references, and the bodies to which no other run refers.
    fn payloads(&mut self, run: TaskId) -> Result<(), Failure> {
        let mut statement =
            self.conn.prepare_cached("SELECT hash FROM payload_refs WHERE run = ?1")?;
        let hashes: Vec<Hash> = statement
            .query_and_then(params![run.as_bytes()], |row| decode::bytes(row, 0).map(Hash))?
            .collect::<Result<_, _>>()?;
        if hashes.is_empty() {
            return Ok(());
        }
        self.conn
            .prepare_cached("DELETE FROM payload_refs WHERE run = ?1")?
            .execute(params![run.as_bytes()])?;
        for hash in hashes {
            self.removed += 1;
            if is_referred(self.conn, hash)? {
                continue;
            }
            let in_database = self
                .conn
                .prepare_cached("DELETE FROM payloads WHERE hash = ?1")?
                .execute(params![hash.0])?;
            match in_database {
                0 => self.step.unreferred.push(hash),
                _ => self.step.pruned.payloads += 1,
            }
        }
        Ok(())
    }
}

fn is_referred(conn: &Connection, hash: Hash) -> Result<bool, Failure> {
    let mut statement =
        conn.prepare_cached("SELECT 1 FROM payload_refs WHERE hash = ?1 LIMIT 1")?;
    Ok(statement.query_row(params![hash.0], |_| Ok(())).optional()?.is_some())
}

/// Removes these files, those put lately apart. While a copy is being made, which may be of a moment when something referred to
/// them, they stay for the next sweep.
pub(super) fn remove_files(
    blobs: &DirBlobs,
    copies: &Copies,
    hashes: &[Hash],
) -> Result<Pruned, Failure> {
    let mut gone = Pruned::default();
    for hash in hashes {
        if copies.any() {
            break;
        }
        if let Some(bytes) = blobs.remove(*hash)? {
            gone.payloads += 1;
            gone.bytes += bytes;
        }
    }
    Ok(gone)
}

/// Removes files to which nothing refers: bodies that were put for a command which never came, or which a crash
/// kept from being removed.
pub(super) fn sweep(
    conn: &Connection,
    blobs: &DirBlobs,
    copies: &Copies,
) -> Result<Pruned, Failure> {
    let mut orphans = Vec::new();
    for hash in blobs.list()? {
        if !is_referred(conn, hash)? {
            orphans.push(hash);
        }
    }
    remove_files(blobs, copies, &orphans)
}
