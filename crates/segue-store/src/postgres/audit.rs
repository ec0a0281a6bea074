//! Whether the rows of a project fit together.

use super::cells::read;
use super::line::{Ask, Line};
use super::store::PostgresStore;
use super::trouble::Trouble;
use crate::failure::Failure;
use crate::rows::decode;
use segue_core::payload::Hash;
use segue_core::ports::{Blobs, StoreError};
use std::sync::Arc;

/// Findings of one kind, at most.
const FINDINGS_MAX: usize = 10;
/// Bodies whose hash is counted anew at a time.
const BODIES_AT_A_TIME: i64 = 200;

/// What must find nothing, in words and as a query whose first column says where.
const RULES: [(&str, &str); 8] = [
    (
        "the log of a run has a gap",
        "SELECT run::text FROM events WHERE project = $1 GROUP BY run HAVING count(*) <> max(run_seq) - min(run_seq) + 1",
    ),
    (
        "a run has more or fewer events than it counts",
        "SELECT t.id || ' counts ' || t.run_events FROM tasks AS t WHERE t.project = $1 AND t.root IS NULL AND t.run_events <>
            (SELECT coalesce(max(e.run_seq), t.run_events) FROM events AS e WHERE e.project = $1 AND e.run = t.id)",
    ),
    (
        "an agent has more or fewer slots in use than tasks",
        "SELECT instance || ' counts ' || slots_used FROM agents AS a WHERE a.project = $1 AND slots_used <>
            (SELECT count(*) FROM tasks WHERE project = $1 AND held_by = a.instance)",
    ),
    (
        "a task holds a slot of an agent that is not known",
        "SELECT id::text FROM tasks AS t WHERE project = $1 AND held_by IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM agents AS a WHERE a.project = $1 AND a.instance = t.held_by)",
    ),
    (
        "a number was issued that is still to come",
        "SELECT 'event' FROM events, cursors WHERE project = $1 AND cursor > last_value
         UNION ALL SELECT 'letter' FROM letters, letter_numbers WHERE project = $1 AND seq > last_value
         UNION ALL SELECT 'task' FROM tasks, task_numbers WHERE project = $1 AND n > last_value",
    ),
    (
        "a task is missing its parent or root",
        "SELECT t.id::text FROM tasks AS t WHERE t.project = $1 AND (
            (t.parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks AS p WHERE p.project = $1 AND p.id = t.parent))
            OR (t.root IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks AS r WHERE r.project = $1 AND r.id = t.root)))",
    ),
    (
        "a task stands in the wrong queue or list",
        "SELECT id::text FROM tasks WHERE project = $1 AND (coalesce(queued, false) <> (state = 1)
            OR listed IS DISTINCT FROM CASE WHEN state IN (0, 4, 5, 7, 8) THEN state END)",
    ),
    (
        "the tasks by state are not as they are counted",
        "SELECT 'found ' || found::text || ', counted ' || counted::text FROM
            (SELECT array_agg((SELECT count(*) FROM tasks WHERE project = $1 AND state = s.state) ORDER BY s.state) AS found
                FROM generate_series(0, 8) AS s (state)) AS f,
            (SELECT array[sum(s0), sum(s1), sum(s2), sum(s3), sum(s4), sum(s5), sum(s6), sum(s7), sum(s8)]::int8[] AS counted
                FROM counters WHERE project = $1) AS c WHERE found <> counted",
    ),
];
const BODIES: &str =
    "SELECT hash, body FROM payloads WHERE project = $1 AND hash > $2 ORDER BY hash LIMIT $3";
const OUTSIDE: &str = "SELECT DISTINCT hash FROM payload_refs AS r WHERE project = $1
    AND NOT EXISTS (SELECT 1 FROM payloads AS p WHERE p.project = $1 AND p.hash = r.hash) ORDER BY hash";

impl PostgresStore {
    /// Looks at everything: takes as long as reading all of the project does. Returns what is wrong, each in a sentence; nothing where all is well.
    /// Only while nobody writes do all rows fit together at one moment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn audit(&self) -> Result<Vec<String>, StoreError> {
        let line = self.own_line().await?;
        let found = audit(&line, self.shared.project, Some(&self.blobs)).await;
        found.map_err(|trouble| self.shared.failed(trouble))
    }
}

pub(super) async fn audit(
    line: &Line,
    project: i32,
    blobs: Option<&Arc<dyn Blobs>>,
) -> Result<Vec<String>, Trouble> {
    let mut findings = Vec::new();
    for (what, sql) in RULES {
        for row in line.ask(Ask::new(sql).with(project)).await?.iter().take(FINDINGS_MAX) {
            findings.push(format!("{what}: {}", read::<&str>(row, 0)?));
        }
    }
    let mut after: Vec<u8> = Vec::new();
    loop {
        let ask = Ask::new(BODIES).with(project).with(after.clone()).with(BODIES_AT_A_TIME);
        let rows = line.ask(ask).await?;
        for row in &rows {
            let hash = Hash(decode::bytes(row, 0)?);
            if Hash::of(decode::text(row, 1)?.as_bytes()) != hash {
                findings.push(format!("payload {} is not what its hash says", hash.hex()));
            }
            after = hash.0.to_vec();
        }
        if (rows.len() as i64) < BODIES_AT_A_TIME || findings.len() > 2 * FINDINGS_MAX {
            break;
        }
    }
    for hash in outside(line, project).await? {
        let Some(blobs) = blobs else { break };
        if blobs.get(hash).await.is_err() {
            findings.push(format!("payload {} is missing", hash.hex()));
            if findings.len() > 2 * FINDINGS_MAX {
                break;
            }
        }
    }
    Ok(findings)
}

/// Bodies that are referred to and stand outside the database.
pub(super) async fn outside(line: &Line, project: i32) -> Result<Vec<Hash>, Trouble> {
    let rows = line.ask(Ask::new(OUTSIDE).with(project)).await?;
    let hashes = rows.iter().map(|row| Ok(Hash(decode::bytes(row, 0)?)));
    Ok(hashes.collect::<Result<_, Failure>>()?)
}
