//! Shared state and locks: their rows, read and written.

use super::decode;
use super::encode::{self, Bodies, Cell, number};
use super::error::Failure;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use segue_core::payload::{DATABASE_MAX, Hash, Payload};
use segue_core::snapshot::Snapshot;
use segue_core::state::{KeyRow, Lock, Policy, StateChanges, StateVersion, body_owner, prefix_end};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The columns that [`version`] reads, in its order.
const VERSION: &str = "v.key, v.version, v.value, v.writer, v.at, v.merged";

/// A version of the columns [`VERSION`].
fn version(row: &Row<'_>) -> Result<StateVersion, Failure> {
    Ok(StateVersion {
        key: decode::text(row, 0)?.into(),
        version: decode::unsigned(row, 1)?,
        value: decode::payload(row, 2)?,
        writer: decode::json(row, 3)?.ok_or_else(|| decode::wrong(row, 3, "nothing"))?,
        at: Time(row.get(4)?),
        merged: row.get(5)?,
    })
}

fn versions(
    conn: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
) -> Result<Vec<StateVersion>, Failure> {
    let mut statement = conn.prepare_cached(sql)?;
    statement.query_and_then(params, version)?.collect()
}

/// The last stamp that was issued.
pub(super) fn stamp(conn: &Connection, project: i64) -> Result<u64, Failure> {
    let mut statement = conn.prepare_cached("SELECT last FROM stamps WHERE project = ?1")?;
    let found = statement.query_and_then(params![project], |row| decode::unsigned(row, 0))?.next();
    found.transpose().map(Option::unwrap_or_default)
}

/// Loads a key into the snapshot.
pub(super) fn load_key(
    conn: &Connection,
    project: i64,
    snapshot: &mut Snapshot,
    key: Arc<str>,
) -> Result<(), Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT version FROM state_versions WHERE project = ?1 AND key = ?2 ORDER BY version",
    )?;
    let rows =
        statement.query_and_then(params![project, key.as_ref()], |row| decode::unsigned(row, 0))?;
    let kept: Vec<u64> = rows.collect::<Result<_, Failure>>()?;
    let latest = match kept.last() {
        None => None,
        Some(version) => one(conn, project, *version)?,
    };
    snapshot.state_mut().add_key(key, KeyRow { latest, kept });
    Ok(())
}

fn one(conn: &Connection, project: i64, number_of: u64) -> Result<Option<StateVersion>, Failure> {
    let sql = format!(
        "SELECT {VERSION} FROM state_versions AS v WHERE v.version = ?1 AND v.project = ?2"
    );
    Ok(versions(conn, &sql, &[&number(number_of), &project])?.pop())
}

/// Loads a version into the snapshot, with its body where that stands in the database.
pub(super) fn load_version(
    conn: &Connection,
    project: i64,
    snapshot: &mut Snapshot,
    version: u64,
) -> Result<(), Failure> {
    let mut row = one(conn, project, version)?;
    if let Some(StateVersion { value: Some(value), .. }) = &mut row
        && value.text().is_none()
        && value.size() <= DATABASE_MAX as u64
    {
        let mut statement = conn.prepare_cached("SELECT body FROM payloads WHERE hash = ?1")?;
        let body = statement
            .query_and_then(params![value.hash().0], |row| {
                decode::text(row, 0).map(Payload::of_trusted_text)
            })?
            .next();
        if let Some(body) = body.transpose()? {
            *value = body;
        }
    }
    snapshot.state_mut().add_version(version, row);
    Ok(())
}

/// Every policy, by its pattern.
pub(super) fn policies(
    conn: &Connection,
    project: i64,
) -> Result<BTreeMap<Arc<str>, Policy>, Failure> {
    let mut statement =
        conn.prepare_cached("SELECT pattern, policy FROM state_policies WHERE project = ?1")?;
    let rows = statement.query_and_then(params![project], |row| {
        let policy = decode::text(row, 1)?.parse().map_err(Failure::corrupt)?;
        Ok((decode::text(row, 0)?.into(), policy))
    })?;
    rows.collect()
}

fn lock_of(row: &Row<'_>) -> Result<Lock, Failure> {
    Ok(Lock {
        name: decode::text(row, 0)?.into(),
        token: decode::unsigned(row, 1)?,
        holder: decode::text(row, 2)?.into(),
        taken_at: Time(row.get(3)?),
        until: Time(row.get(4)?),
    })
}

/// A lock, if there is a row of it.
pub(super) fn lock(conn: &Connection, project: i64, name: &str) -> Result<Option<Lock>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT name, token, holder, taken_at, until FROM locks WHERE project = ?1 AND name = ?2",
    )?;
    statement.query_and_then(params![project, name], lock_of)?.next().transpose()
}

/// Locks by name, after this one.
pub(super) fn locks(
    conn: &Connection,
    project: i64,
    after: &str,
    max: usize,
) -> Result<Vec<Lock>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT name, token, holder, taken_at, until FROM locks WHERE project = ?1 AND name > ?2 \
         ORDER BY name LIMIT ?3",
    )?;
    statement.query_and_then(params![project, after, limit(max)], lock_of)?.collect()
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The current version of a key, or the one of this number, if it is no deletion.
pub(super) fn get(
    conn: &Connection,
    project: i64,
    key: &str,
    version: Option<u64>,
) -> Result<Option<StateVersion>, Failure> {
    let version = match version {
        Some(version) => Some(number(version)),
        None => conn
            .prepare_cached("SELECT version FROM state_keys WHERE project = ?1 AND key = ?2")?
            .query_row(params![project, key], |row| row.get(0))
            .optional()?,
    };
    let sql = format!(
        "SELECT {VERSION} FROM state_versions AS v \
         WHERE v.version = ?1 AND v.project = ?2 AND v.key = ?3 AND v.value IS NOT NULL"
    );
    Ok(versions(conn, &sql, &[&version, &project, &key])?.pop())
}

/// Behind every key.
const END: &str = "\u{7f}";

/// Current versions of keys with this prefix, after this key.
pub(super) fn list(
    conn: &Connection,
    project: i64,
    prefix: &str,
    after: &str,
    max: usize,
) -> Result<Vec<StateVersion>, Failure> {
    let sql = format!(
        "SELECT {VERSION} FROM state_keys AS k JOIN state_versions AS v ON v.version = k.version \
         WHERE k.project = ?1 AND k.key >= ?2 AND k.key < ?3 AND k.key > ?4 AND v.value IS NOT NULL \
         ORDER BY k.key LIMIT ?5"
    );
    let end = prefix_end(prefix).unwrap_or_else(|| END.to_owned());
    versions(conn, &sql, &[&project, &prefix, &end, &after, &limit(max)])
}

/// Versions of a key, newest first, before this one.
pub(super) fn history(
    conn: &Connection,
    project: i64,
    key: &str,
    before: Option<u64>,
    max: usize,
) -> Result<Vec<StateVersion>, Failure> {
    let sql = format!(
        "SELECT {VERSION} FROM state_versions AS v \
         WHERE v.project = ?1 AND v.key = ?2 AND v.version < ?3 ORDER BY v.version DESC LIMIT ?4"
    );
    let before = before.map_or(i64::MAX, number);
    versions(conn, &sql, &[&project, &key, &before, &limit(max)])
}

/// Versions after this one of keys with this prefix, rising.
pub(super) fn changes(
    conn: &Connection,
    project: i64,
    prefix: &str,
    after: u64,
    max: usize,
) -> Result<Vec<StateVersion>, Failure> {
    let sql = format!(
        "SELECT {VERSION} FROM state_versions AS v \
         WHERE v.version > ?1 AND v.project = ?2 AND +v.key >= ?3 AND +v.key < ?4 ORDER BY v.version LIMIT ?5"
    );
    let end = prefix_end(prefix).unwrap_or_else(|| END.to_owned());
    versions(conn, &sql, &[&number(after), &project, &prefix, &end, &limit(max)])
}

/// Writes what a batch changed, all but what is forgotten; bodies are noted.
pub(super) fn write(
    conn: &Connection,
    project: i64,
    bodies: &mut Bodies,
    changes: &StateChanges,
) -> Result<(), Failure> {
    for row in &changes.versions {
        let mut value = row.value.clone();
        if let Some(value) = &mut value {
            bodies.keep(body_owner(row.version), value);
        }
        conn.prepare_cached(
            "INSERT INTO state_versions (version, project, key, value, writer, at, merged) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            number(row.version),
            project,
            row.key.as_ref(),
            Cell::of_option(value.as_ref()),
            encode::json(&row.writer)?,
            row.at.0,
            row.merged,
        ])?;
        conn.prepare_cached(
            "INSERT OR REPLACE INTO state_keys (project, key, version) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![project, row.key.as_ref(), number(row.version)])?;
    }
    for (pattern, policy) in &changes.policies {
        match policy {
            Some(policy) => conn
                .prepare_cached("INSERT OR REPLACE INTO state_policies (project, pattern, policy) VALUES (?1, ?2, ?3)")?
                .execute(params![project, pattern.as_ref(), policy.as_str()])?,
            None => conn
                .prepare_cached("DELETE FROM state_policies WHERE project = ?1 AND pattern = ?2")?
                .execute(params![project, pattern.as_ref()])?,
        };
    }
    for (name, lock) in &changes.locks {
        match lock {
            Some(lock) => conn
                .prepare_cached(
                    "INSERT OR REPLACE INTO locks (project, name, token, holder, taken_at, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    project,
                    name.as_ref(),
                    number(lock.token),
                    lock.holder.as_ref(),
                    lock.taken_at.0,
                    lock.until.0,
                ])?,
            None => conn
                .prepare_cached("DELETE FROM locks WHERE project = ?1 AND name = ?2")?
                .execute(params![project, name.as_ref()])?,
        };
    }
    if let Some(stamp) = changes.stamp {
        conn.prepare_cached("INSERT OR REPLACE INTO stamps (project, last) VALUES (?1, ?2)")?
            .execute(params![project, number(stamp)])?;
    }
    Ok(())
}

/// Removes versions with their references, and bodies in the database to which nothing refers any more. Files are swept with the next
/// prune. Comes after the references of the batch are written: a new version may have the body of an old one.
pub(super) fn forget(conn: &Connection, forgotten: &[u64]) -> Result<(), Failure> {
    for version in forgotten {
        conn.prepare_cached("DELETE FROM state_versions WHERE version = ?1")?
            .execute(params![number(*version)])?;
        let owner = body_owner(*version);
        let hashes: Vec<Hash> = conn
            .prepare_cached("SELECT hash FROM payload_refs WHERE run = ?1")?
            .query_and_then(params![owner.as_bytes()], |row| decode::bytes(row, 0).map(Hash))?
            .collect::<Result<_, Failure>>()?;
        if hashes.is_empty() {
            continue;
        }
        conn.prepare_cached("DELETE FROM payload_refs WHERE run = ?1")?
            .execute(params![owner.as_bytes()])?;
        for hash in hashes {
            conn.prepare_cached(
                "DELETE FROM payloads WHERE hash = ?1 AND NOT EXISTS (SELECT 1 FROM payload_refs WHERE hash = ?1)",
            )?
            .execute(params![hash.0])?;
        }
    }
    Ok(())
}

/// Keys that were deleted before this time, with the versions that are kept of each.
pub(super) fn deleted(
    conn: &Connection,
    project: i64,
    before: Time,
    max: i64,
) -> Result<Vec<(String, Vec<u64>)>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT k.key FROM state_keys AS k JOIN state_versions AS v ON v.version = k.version \
         WHERE k.project = ?1 AND v.value IS NULL AND v.at < ?2 LIMIT ?3",
    )?;
    let keys: Vec<String> = statement
        .query_map(params![project, before.0, max], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let kept = history(conn, project, &key, None, usize::MAX)?;
        found.push((key, kept.iter().map(|row| row.version).collect()));
    }
    Ok(found)
}
