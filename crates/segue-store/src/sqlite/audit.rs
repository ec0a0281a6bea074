//! Whether a database is whole, and its rows fit together.

use super::blobs::DirBlobs;
use super::decode;
use super::error::Failure;
use rusqlite::Connection;
use segue_core::payload::Hash;

/// Findings of one kind, at most.
const FINDINGS_MAX: usize = 10;

/// What must find nothing, in words and as a query whose first column says where.
const RULES: [(&str, &str); 6] = [
    (
        "the log of a run has a gap",
        "SELECT hex(run) FROM events GROUP BY run HAVING count(*) <> max(run_seq) - min(run_seq) + 1",
    ),
    (
        "a run has more or fewer events than it counts",
        "SELECT hex(t.id) || ' counts ' || t.run_events FROM tasks AS t WHERE t.root IS NULL AND t.run_events <>
            (SELECT ifnull(max(e.run_seq), t.run_events) FROM events AS e WHERE e.run = t.id)",
    ),
    (
        "an agent has more or fewer slots in use than tasks",
        "SELECT hex(instance) || ' counts ' || slots_used FROM agents AS a WHERE slots_used <>
            (SELECT count(*) FROM tasks WHERE held_by = a.instance)",
    ),
    (
        "a task holds a slot of an agent that is not known",
        "SELECT hex(id) FROM tasks WHERE held_by IS NOT NULL AND held_by NOT IN (SELECT instance FROM agents)",
    ),
    (
        "a number was issued that is still to come",
        "SELECT 'event' FROM events, counters WHERE cursor >= next_cursor
         UNION ALL SELECT 'letter' FROM letters, counters WHERE seq >= next_letter
         UNION ALL SELECT 'task' FROM tasks, counters WHERE n >= next_task",
    ),
    (
        "a task is missing its parent or root",
        "SELECT hex(t.id) FROM tasks AS t WHERE
            (t.parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks AS p WHERE p.project = t.project AND p.id = t.parent))
            OR (t.root IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks AS r WHERE r.project = t.project AND r.id = t.root))",
    ),
];

/// The same of the tables of shared state, which a backup by an older version does not have.
const STATE_RULES: [(&str, &str); 4] = [
    (
        "a stamp was issued that is still to come",
        "SELECT 'version ' || version FROM state_versions WHERE version > (SELECT ifnull(max(last), 0) FROM stamps)
         UNION ALL SELECT 'lock ' || name FROM locks WHERE token > (SELECT ifnull(max(last), 0) FROM stamps)",
    ),
    (
        "a key does not stand at its newest version",
        "SELECT k.key FROM state_keys AS k WHERE k.version IS NOT
            (SELECT max(v.version) FROM state_versions AS v WHERE v.project = k.project AND v.key = k.key)",
    ),
    (
        "a version is that of no key",
        "SELECT v.version FROM state_versions AS v WHERE NOT EXISTS
            (SELECT 1 FROM state_keys AS k WHERE k.project = v.project AND k.key = v.key)",
    ),
    (
        "a version refers to a body that is not noted",
        "SELECT v.version FROM state_versions AS v WHERE typeof(v.value) = 'blob' AND NOT EXISTS
            (SELECT 1 FROM payload_refs AS r WHERE r.hash = substr(v.value, 1, 32)
             AND r.run = unhex(printf('%032x', v.version)))",
    ),
];

/// Looks at everything: takes as long as reading all of the file does. Returns what is wrong, each in a sentence; nothing where all is well.
pub(super) fn audit(conn: &Connection, blobs: Option<&DirBlobs>) -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    let mut statement = conn.prepare("PRAGMA integrity_check(20)")?;
    for line in statement.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            findings.push(line);
        }
    }
    if !findings.is_empty() {
        // What rows say counts for nothing then.
        return Ok(findings);
    }
    states(conn, &mut findings)?;
    let has_state =
        conn.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'state_versions'")?.exists([])?;
    for (what, sql) in RULES.into_iter().chain(STATE_RULES.into_iter().filter(|_| has_state)) {
        let mut statement = conn.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0))?;
        for row in rows.take(FINDINGS_MAX) {
            let place = match row? {
                rusqlite::types::Value::Text(text) => text.to_lowercase(),
                rusqlite::types::Value::Integer(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            findings.push(format!("{what}: {place}"));
        }
    }
    bodies(conn, blobs, &mut findings)?;
    Ok(findings)
}

/// Tasks are counted by state with every commit.
fn states(conn: &Connection, findings: &mut Vec<String>) -> Result<(), Failure> {
    let mut counted = [0_u64; 9];
    let mut statement = conn.prepare("SELECT state, count(*) FROM tasks GROUP BY state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let count = decode::unsigned(row, 1)?;
        match counted.get_mut(decode::unsigned::<usize, _>(row, 0)?) {
            Some(place) => *place = count,
            None => findings.push(format!("{count} tasks are in no known state")),
        }
    }
    let text: String = conn.query_row("SELECT states FROM counters", [], |row| row.get(0))?;
    if serde_json::from_str::<[u64; 9]>(&text).ok() != Some(counted) {
        findings.push(format!("the tasks by state are {counted:?}, and counted as {text}"));
    }
    Ok(())
}

/// Every body that is referred to is there, in the database or as a file of the right name.
fn bodies(
    conn: &Connection,
    blobs: Option<&DirBlobs>,
    findings: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut statement = conn.prepare("SELECT hash, body FROM payloads")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let hash = Hash(decode::bytes(row, 0)?);
        if Hash::of(decode::text(row, 1)?.as_bytes()) != hash {
            findings.push(format!("payload {} is not what its hash says", hash.hex()));
        }
    }
    for hash in outside(conn)? {
        if blobs.is_none_or(|blobs| !blobs.has(hash)) {
            findings.push(format!("payload {} is missing", hash.hex()));
            if findings.len() > 2 * FINDINGS_MAX {
                break;
            }
        }
    }
    Ok(())
}

/// Bodies that are referred to and stand outside the database.
pub(super) fn outside(conn: &Connection) -> Result<Vec<Hash>, Failure> {
    let mut statement = conn.prepare(
        "SELECT DISTINCT hash FROM payload_refs WHERE hash NOT IN (SELECT hash FROM payloads) ORDER BY hash",
    )?;
    let rows = statement.query_and_then([], |row| decode::bytes(row, 0).map(Hash))?;
    rows.collect()
}
