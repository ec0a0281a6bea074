//! Removing runs that ended long ago, one run a transaction, so that nobody waits long.

use super::cells::read;
use super::line::{Ask, Line};
use super::store::PostgresStore;
use super::trouble::Trouble;
use super::write::{self, Moved};
use crate::failure::Failure;
use crate::rows::decode;
use crate::rows::encode::state_number;
use segue_core::ids::TaskId;
use segue_core::payload::Hash;
use segue_core::ports::{Pruned, StoreError};
use segue_core::task::Task;
use segue_core::time::Time;
use std::sync::LazyLock;
use uuid::Uuid;

/// Roots that one look finds.
const ROOTS_MAX: i64 = 500;
/// Tasks or events that one transaction removes.
const REMOVED_MAX: i64 = 5_000;

/// Roots are looked at in the order of their ids, which is that of their submits.
const ROOTS: &str = "SELECT id, created_at, state IN (6, 7, 8) AND finished_at < $3 FROM tasks
    WHERE project = $1 AND root IS NULL AND id > $2 ORDER BY id LIMIT $4";
static RUN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM tasks WHERE project = $1 AND id = ANY(ARRAY(
            SELECT id FROM tasks WHERE project = $1 AND root = $2 UNION ALL SELECT $2 ORDER BY 1 LIMIT $3))
         ORDER BY id FOR UPDATE",
        decode::TASK
    )
});
/// Whether something in the run has not ended, has work left behind, or is needed by a task that goes on.
const OPEN: &str = "SELECT EXISTS (SELECT 1 FROM tasks WHERE project = $1 AND (root = $2 OR id = $2) AND state NOT IN (6, 7, 8))
    OR EXISTS (SELECT 1 FROM duties AS d JOIN tasks AS t ON t.project = d.project AND t.id = d.task
        WHERE d.project = $1 AND (t.root = $2 OR t.id = $2))
    OR EXISTS (SELECT 1 FROM tasks AS t JOIN edges AS e ON e.project = t.project AND e.need = t.id
        JOIN tasks AS w ON w.project = t.project AND w.id = e.task
        WHERE t.project = $1 AND (t.root = $2 OR t.id = $2) AND t.dependents > 0 AND w.state NOT IN (6, 7, 8))";
const EVENTS: &str = "DELETE FROM events WHERE project = $1 AND cursor = ANY(ARRAY(
    SELECT cursor FROM events WHERE project = $1 AND run = $2 LIMIT $3)) RETURNING 1";
const EDGES: &str = "DELETE FROM edges WHERE project = $1 AND need = ANY($2)";
/// Where a task was cancelled before what it needs had ended, that task must not look for it any more.
const EDGES_FROM: &str =
    "DELETE FROM edges AS e USING unnest($2::uuid[], $3::uuid[]) AS u (need, task)
    WHERE e.project = $1 AND e.need = u.need AND e.task = u.task";
const ATTEMPTS: &str = "DELETE FROM attempts WHERE project = $1 AND task = ANY($2)";
const KEYS: &str =
    "DELETE FROM idempotency AS i USING unnest($2::text[], $3::uuid[]) AS u (key, task)
    WHERE i.project = $1 AND i.key = u.key AND i.task = u.task";
const TASKS: &str = "DELETE FROM tasks WHERE project = $1 AND id = ANY($2)";
const REFS: &str = "DELETE FROM payload_refs WHERE project = $1 AND run = $2 RETURNING hash";
/// Whoever keeps one of these bodies meanwhile waits, and then keeps it anew.
const LOCK_BODIES: &str =
    "SELECT hash FROM payloads WHERE project = $1 AND hash = ANY($2) ORDER BY hash FOR UPDATE";
const UNREFERRED: &str = "DELETE FROM payloads AS p WHERE p.project = $1 AND p.hash = ANY($2)
    AND NOT EXISTS (SELECT 1 FROM payload_refs AS r WHERE r.project = p.project AND r.hash = p.hash) RETURNING hash";

impl PostgresStore {
    /// Removes what ended before this time. Bodies outside the database are left to whoever keeps them: they cannot be
    /// told apart here from those that somebody is about to refer to.
    pub(super) async fn prune_all(&self, before: Time) -> Result<Pruned, StoreError> {
        let project = self.shared.project;
        let mut total = Pruned::default();
        let mut after = Uuid::nil();
        // A connection of its own: its transactions must not be mixed with what readers ask.
        let line = self.own_line().await?;
        loop {
            let ask = Ask::new(ROOTS).with(project).with(after).with(before.0).with(ROOTS_MAX);
            let rows = line.ask(ask).await.map_err(|trouble| self.shared.failed(trouble))?;
            let mut all_young = true;
            for row in &rows {
                let (id, created, ended) =
                    root(row).map_err(|trouble| self.shared.failed(trouble))?;
                after = id.0;
                all_young &= created >= before;
                if ended {
                    let run = self.prune_run(&line, id, &mut total).await;
                    run.map_err(|trouble| self.shared.failed(trouble))?;
                }
            }
            // Rows come in the order of their submit. Where none of so many is old enough, none after them is.
            if (rows.len() as i64) < ROOTS_MAX || all_young {
                total.keys = self.prune_state(&line, before).await?;
                return Ok(total);
            }
        }
    }

    pub(super) async fn own_line(&self) -> Result<Line, StoreError> {
        let line = self.shared.target.open([], "").await;
        line.map_err(|trouble| self.shared.failed(trouble))
    }

    /// Removes a run, as often as it takes; leaves it where it is, as long as something in it goes on.
    async fn prune_run(&self, line: &Line, run: TaskId, total: &mut Pruned) -> Result<(), Trouble> {
        loop {
            line.script("BEGIN").await?;
            let step = self.prune_step(line, run).await;
            match step {
                Ok(Some((pruned, whole))) => {
                    line.script("COMMIT").await?;
                    crate::rows::add(total, pruned);
                    if whole {
                        return Ok(());
                    }
                }
                Ok(None) => return line.script("ROLLBACK").await,
                // Somebody was in the way: the next prune finds it.
                Err(Trouble::Again(_)) => return line.script("ROLLBACK").await,
                Err(trouble) => {
                    let _ = line.script("ROLLBACK").await;
                    return Err(trouble);
                }
            }
        }
    }

    /// A bounded piece of a run, and whether nothing is left; `None` where the run is not to be removed.
    async fn prune_step(
        &self,
        line: &Line,
        run: TaskId,
    ) -> Result<Option<(Pruned, bool)>, Trouble> {
        let project = self.shared.project;
        let rows = line.ask(Ask::new(&RUN).with(project).with(run.0).with(REMOVED_MAX)).await?;
        let open = line.ask(Ask::new(OPEN).with(project).with(run.0)).await?;
        if open.first().map(|row| read::<bool>(row, 0)).transpose()? != Some(false) {
            return Ok(None);
        }
        let mut pruned = Pruned::default();
        let events = line.ask(Ask::new(EVENTS).with(project).with(run.0).with(REMOVED_MAX)).await?;
        pruned.events = events.len() as u64;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in &rows {
            tasks.push(decode::task(row)?.1);
        }
        // The root goes last, so that a run of which a part is left still has it.
        let mut whole = (rows.len() as i64) < REMOVED_MAX && (events.len() as i64) < REMOVED_MAX;
        if !whole {
            tasks.retain(|task| task.id() != run);
        }
        self.remove(line, &tasks).await?;
        pruned.tasks = tasks.len() as u64;
        if whole {
            pruned.runs = 1;
            pruned.payloads = self.remove_bodies(line, run).await?;
        } else if tasks.is_empty() && events.is_empty() {
            whole = true;
        }
        Ok(Some((pruned, whole)))
    }

    async fn remove(&self, line: &Line, tasks: &[Task]) -> Result<(), Trouble> {
        let project = self.shared.project;
        let ids: Vec<Uuid> = tasks.iter().map(|task| task.id().0).collect();
        let needs = || {
            tasks
                .iter()
                .flat_map(|task| task.spec.needs.iter().map(move |need| (need.task.0, task.id().0)))
        };
        let keys = || {
            tasks.iter().filter_map(|task| Some((task.spec.idempotency_key.clone()?, task.id().0)))
        };
        let mut moved: Moved = [0; 9];
        for task in tasks {
            moved[state_number(task.state) as usize] -= 1;
        }
        line.ask(Ask::new(EDGES).with(project).with(ids.clone())).await?;
        let ask = Ask::new(EDGES_FROM).with(project);
        line.ask(ask.column(needs().map(|(need, _)| need)).column(needs().map(|(_, task)| task)))
            .await?;
        line.ask(Ask::new(ATTEMPTS).with(project).with(ids.clone())).await?;
        let ask = Ask::new(KEYS).with(project).column(keys().map(|(key, _)| key.to_string()));
        line.ask(ask.column(keys().map(|(_, task)| task))).await?;
        line.ask(Ask::new(TASKS).with(project).with(ids)).await?;
        line.ask(write::count(project, 0, Time(i64::MIN), &moved)).await?;
        Ok(())
    }

    /// Removes the run's references, and the bodies in the database to which no other run refers.
    async fn remove_bodies(&self, line: &Line, run: TaskId) -> Result<u64, Trouble> {
        let project = self.shared.project;
        let rows = line.ask(Ask::new(REFS).with(project).with(run.0)).await?;
        let hashes = rows.iter().map(|row| Ok(Hash(decode::bytes(row, 0)?)));
        let hashes: Vec<Hash> = hashes.collect::<Result<_, Failure>>()?;
        if hashes.is_empty() {
            return Ok(0);
        }
        let of = |sql: &'static str| {
            Ask::new(sql).with(project).column(hashes.iter().map(|hash| hash.0.to_vec()))
        };
        line.ask(of(LOCK_BODIES)).await?;
        Ok(line.ask(of(UNREFERRED)).await?.len() as u64)
    }
}

fn root(row: &tokio_postgres::Row) -> Result<(TaskId, Time, bool), Trouble> {
    Ok((TaskId(read(row, 0)?), Time(read(row, 1)?), read::<Option<bool>>(row, 2)?.unwrap_or(false)))
}
