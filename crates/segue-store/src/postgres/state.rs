//! Shared state and locks: their rows, read and written.
//!
//! One row is locked for all of it, the counter of the project; see [`Load::Stamp`]. What is read behind that lock is as the last one who
//! held it has left it.

use super::cells::{self, read};
use super::line::{Ask, Line};
use super::store::PostgresStore;
use super::trouble::Trouble;
use crate::failure::Failure;
use crate::rows::decode;
use crate::rows::encode::{self, Bodies, number};
use rustc_hash::FxHashMap;
use segue_core::payload::Payload;
use segue_core::ports::StoreError;
use segue_core::scope::Load;
use segue_core::snapshot::Snapshot;
use segue_core::state::{KeyRow, Lock, Policy, StateChanges, StateVersion, body_owner, prefix_end};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Row;

/// Deleted keys that one transaction removes, with their history.
const KEYS_MAX: i64 = 30;
/// Behind every key.
const END: &str = "\u{7f}";

const MAKE_STAMP: &str =
    "INSERT INTO stamps (project, last) VALUES ($1, 0) ON CONFLICT (project) DO NOTHING";
const LOCK_STAMP: &str = "SELECT last FROM stamps WHERE project = $1 FOR UPDATE";
const READ_STAMP: &str = "SELECT last FROM stamps WHERE project = $1";
const KEPT: &str = "SELECT w.key, v.version FROM unnest($2::text[]) AS w (key) CROSS JOIN LATERAL (
    SELECT version FROM state_versions AS n WHERE n.project = $1 AND n.key = w.key ORDER BY version OFFSET 0) AS v";
const LATEST: &str = "SELECT v.key, v.version, v.value, v.writer, v.at, v.merged FROM unnest($2::text[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT version FROM state_keys AS k WHERE k.project = $1 AND k.key = w.wanted OFFSET 0) AS k
    CROSS JOIN LATERAL (SELECT * FROM state_versions AS n WHERE n.project = $1 AND n.version = k.version OFFSET 0) AS v";
/// With the body where that stands in the database.
const VERSIONS: &str =
    "SELECT v.key, v.version, v.value, v.writer, v.at, v.merged, p.body FROM unnest($2::int8[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT * FROM state_versions AS n WHERE n.project = $1 AND n.version = w.wanted OFFSET 0) AS v
    LEFT JOIN LATERAL (SELECT body FROM payloads AS b WHERE b.project = $1
        AND b.hash = CASE WHEN left(v.value, 1) = '#' THEN decode(substr(v.value, 2, 64), 'hex') END OFFSET 0) AS p ON true";
const POLICIES: &str = "SELECT pattern, policy FROM state_policies WHERE project = $1";
const LOCKS: &str =
    "SELECT name, token, holder, taken_at, until FROM unnest($2::text[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT * FROM locks WHERE project = $1 AND name = w.wanted OFFSET 0) AS l";

const ADD_VERSIONS: &str = "INSERT INTO state_versions (project, version, key, value, writer, at, merged)
    SELECT $1, u.* FROM unnest($2::int8[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::bool[])
    AS u (version, key, value, writer, at, merged)";
const PUT_KEYS: &str = "INSERT INTO state_keys (project, key, version)
    SELECT $1, u.* FROM unnest($2::text[], $3::int8[]) AS u (key, version)
    ON CONFLICT (project, key) DO UPDATE SET version = excluded.version";
const PUT_POLICIES: &str = "INSERT INTO state_policies (project, pattern, policy)
    SELECT $1, u.* FROM unnest($2::text[], $3::text[]) AS u (pattern, policy)
    ON CONFLICT (project, pattern) DO UPDATE SET policy = excluded.policy";
const END_POLICIES: &str = "DELETE FROM state_policies WHERE ctid = ANY(ARRAY(SELECT p.ctid FROM unnest($2::text[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT ctid FROM state_policies WHERE project = $1 AND pattern = w.wanted OFFSET 0) AS p))";
const PUT_LOCKS: &str = "INSERT INTO locks (project, name, token, holder, taken_at, until)
    SELECT $1, u.* FROM unnest($2::text[], $3::int8[], $4::text[], $5::int8[], $6::int8[]) AS u (name, token, holder, taken_at, until)
    ON CONFLICT (project, name) DO UPDATE SET token = excluded.token, holder = excluded.holder, taken_at = excluded.taken_at,
    until = excluded.until";
const END_LOCKS: &str = "DELETE FROM locks WHERE ctid = ANY(ARRAY(SELECT l.ctid FROM unnest($2::text[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT ctid FROM locks WHERE project = $1 AND name = w.wanted OFFSET 0) AS l))";
const SET_STAMP: &str = "UPDATE stamps SET last = $2 WHERE project = $1";
const FORGET: &str = "DELETE FROM state_versions WHERE ctid = ANY(ARRAY(SELECT v.ctid FROM unnest($2::int8[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT ctid FROM state_versions WHERE project = $1 AND version = w.wanted OFFSET 0) AS v))";
/// Whoever keeps one of these bodies meanwhile waits, and then keeps it anew.
const LOCK_BODIES: &str = "SELECT 1 FROM
    (SELECT DISTINCT r.hash FROM unnest($2::uuid[]) AS o (run)
        CROSS JOIN LATERAL (SELECT hash FROM payload_refs WHERE project = $1 AND payload_refs.run = o.run OFFSET 0) AS r ORDER BY r.hash) AS w
    CROSS JOIN LATERAL (SELECT 1 FROM payloads AS p WHERE p.project = $1 AND p.hash = w.hash FOR UPDATE) AS p";
const END_BODIES: &str = "WITH gone AS (DELETE FROM payload_refs WHERE ctid = ANY(ARRAY(SELECT r.ctid FROM unnest($2::uuid[]) AS o (run)
        CROSS JOIN LATERAL (SELECT ctid FROM payload_refs WHERE project = $1 AND payload_refs.run = o.run OFFSET 0) AS r))
        RETURNING hash)
    DELETE FROM payloads WHERE ctid = ANY(ARRAY(SELECT b.ctid FROM (SELECT DISTINCT hash FROM gone) AS g
        CROSS JOIN LATERAL (SELECT ctid FROM payloads AS p WHERE p.project = $1 AND p.hash = g.hash OFFSET 0) AS b
        WHERE (SELECT r.run FROM payload_refs AS r WHERE r.project = $1 AND r.hash = g.hash AND r.run <> ALL ($2) LIMIT 1) IS NULL))
    RETURNING 1";

const GET: &str =
    "SELECT v.key, v.version, v.value, v.writer, v.at, v.merged FROM state_versions AS v
    WHERE v.project = $1 AND v.key = $2 AND v.value IS NOT NULL
    AND v.version = coalesce($3, (SELECT version FROM state_keys WHERE project = $1 AND key = $2))";
const LIST: &str = "SELECT v.key, v.version, v.value, v.writer, v.at, v.merged FROM state_keys AS k
    CROSS JOIN LATERAL (SELECT * FROM state_versions AS n WHERE n.project = $1 AND n.version = k.version AND n.value IS NOT NULL OFFSET 0) AS v
    WHERE k.project = $1 AND k.key >= $2 AND k.key < $3 AND k.key > $4 ORDER BY k.key LIMIT $5";
const HISTORY: &str =
    "SELECT v.key, v.version, v.value, v.writer, v.at, v.merged FROM state_versions AS v
    WHERE v.project = $1 AND v.key = $2 AND v.version < $3 ORDER BY v.version DESC LIMIT $4";
const CHANGES: &str = "SELECT v.key, v.version, v.value, v.writer, v.at, v.merged FROM state_versions AS v
    WHERE v.project = $1 AND v.version > $2 AND v.key >= $3 AND v.key < $4 ORDER BY v.version LIMIT $5";
const LIST_LOCKS: &str = "SELECT name, token, holder, taken_at, until FROM locks
    WHERE project = $1 AND name > $2 ORDER BY name LIMIT $3";

const FREE_LOCKS: &str = "DELETE FROM locks WHERE project = $1 AND until < $2";
const DELETED: &str = "SELECT k.key, (SELECT array_agg(o.version) FROM state_versions AS o
        WHERE o.project = k.project AND o.key = k.key)
    FROM state_keys AS k
    CROSS JOIN LATERAL (SELECT * FROM state_versions AS n WHERE n.project = $1 AND n.version = k.version OFFSET 0) AS v
    WHERE k.project = $1 AND v.value IS NULL AND v.at < $2 LIMIT $3";
const END_KEYS: &str = "DELETE FROM state_keys WHERE project = $1 AND key = ANY($2)";

/// What an answer about shared state is about.
pub(super) enum About {
    Nothing,
    Stamp,
    Kept(Vec<Arc<str>>),
    Latest,
    Versions(Vec<u64>),
    Policies,
    Locks(Vec<Arc<str>>),
}

/// Loads of shared state, gathered out of those of a round.
#[derive(Default)]
struct Wanted {
    stamp: bool,
    keys: Vec<Arc<str>>,
    versions: Vec<u64>,
    policies: bool,
    locks: Vec<Arc<str>>,
}

impl Wanted {
    /// Takes a load of shared state; gives back any other.
    fn take(&mut self, load: Load) -> Option<Load> {
        match load {
            Load::Stamp => self.stamp = true,
            Load::StateKey(key) => self.keys.push(key),
            Load::StateVersion(version) => self.versions.push(version),
            Load::Policies => self.policies = true,
            Load::Lock(name) => self.locks.push(name),
            other => return Some(other),
        }
        None
    }

    /// The statements that lock the counter: they come before every other of their round.
    fn lock(&self, project: i32) -> Option<[Ask<'static>; 2]> {
        let of = |sql: &'static str| Ask::new(sql).with(project);
        self.stamp.then(|| [of(MAKE_STAMP), of(LOCK_STAMP)])
    }

    /// The statements for the rest.
    fn asks(self, project: i32, asks: &mut Vec<(About, Ask<'static>)>) {
        let texts = |names: &[Arc<str>]| names.iter().map(|it| it.to_string()).collect::<Vec<_>>();
        if !self.keys.is_empty() {
            let of = |sql: &'static str| Ask::new(sql).with(project).with(texts(&self.keys));
            // The newest versions first: the list of what is kept completes the row.
            asks.push((About::Latest, of(LATEST)));
            let ask = of(KEPT);
            asks.push((About::Kept(self.keys), ask));
        }
        if !self.versions.is_empty() {
            let numbers = self.versions.iter().map(|version| number(*version));
            let ask = Ask::new(VERSIONS).with(project).column(numbers);
            asks.push((About::Versions(self.versions), ask));
        }
        if self.policies {
            asks.push((About::Policies, Ask::new(POLICIES).with(project)));
        }
        if !self.locks.is_empty() {
            let ask = Ask::new(LOCKS).with(project).with(texts(&self.locks));
            asks.push((About::Locks(self.locks), ask));
        }
    }
}

/// Gives the statements for the loads of shared state to `push`, the one that locks the counter first, and the other loads back.
pub(super) fn asks(
    project: i32,
    loads: Vec<Load>,
    mut push: impl FnMut(About, Ask<'static>),
) -> Vec<Load> {
    let mut wanted = Wanted::default();
    let rest = loads.into_iter().filter_map(|load| wanted.take(load)).collect();
    if let Some([make, lock]) = wanted.lock(project) {
        push(About::Nothing, make);
        push(About::Stamp, lock);
    }
    let mut asks = Vec::new();
    wanted.asks(project, &mut asks);
    asks.into_iter().for_each(|(about, ask)| push(about, ask));
    rest
}

/// Puts what was read into the snapshot. `latest` holds newest versions until the list of their key comes.
pub(super) fn take_in(
    snapshot: &mut Snapshot,
    latest: &mut FxHashMap<Arc<str>, StateVersion>,
    about: About,
    rows: &[Row],
) -> Result<(), Trouble> {
    let state = snapshot.state_mut();
    match about {
        About::Nothing => {}
        About::Stamp => {
            let row = rows.first().ok_or_else(|| Trouble::data("the stamp went meanwhile"))?;
            state.set_stamp(decode::unsigned(row, 0)?);
        }
        About::Latest => {
            for row in rows {
                let version = version(row)?;
                latest.insert(version.key.clone(), version);
            }
        }
        About::Kept(keys) => {
            let mut kept: FxHashMap<Arc<str>, Vec<u64>> = FxHashMap::default();
            for row in rows {
                let versions = kept.entry(read::<&str>(row, 0)?.into()).or_default();
                versions.push(decode::unsigned(row, 1)?);
            }
            for key in keys {
                let (latest, kept) = (latest.remove(&key), kept.remove(&key).unwrap_or_default());
                state.add_key(key, KeyRow { latest, kept });
            }
        }
        About::Versions(versions) => {
            for row in rows {
                let mut found = version(row)?;
                if let Some(body) = read::<Option<&str>>(row, 6)? {
                    found.value = Some(Payload::of_trusted_text(body));
                }
                state.add_version(found.version, Some(found));
            }
            for version in versions {
                // What was found stays.
                state.add_version(version, None);
            }
        }
        About::Policies => state.set_policies(policies_of(rows)?),
        About::Locks(names) => {
            for row in rows {
                let lock = lock_in(row)?;
                state.add_lock(lock.name.clone(), Some(lock));
            }
            for name in names {
                state.add_lock(name, None);
            }
        }
    }
    Ok(())
}

fn version(row: &Row) -> Result<StateVersion, Trouble> {
    Ok(StateVersion {
        key: read::<&str>(row, 0)?.into(),
        version: decode::unsigned(row, 1)?,
        value: crate::rows::Cells::payload(row, 2)?,
        writer: decode::json(row, 3)?.ok_or_else(|| Failure::corrupt("a version has no writer"))?,
        at: Time(read(row, 4)?),
        merged: read(row, 5)?,
    })
}

fn policies_of(rows: &[Row]) -> Result<BTreeMap<Arc<str>, Policy>, Trouble> {
    let mut policies = BTreeMap::new();
    for row in rows {
        let policy = read::<&str>(row, 1)?.parse().map_err(Failure::corrupt)?;
        policies.insert(read::<&str>(row, 0)?.into(), policy);
    }
    Ok(policies)
}

fn lock_in(row: &Row) -> Result<Lock, Trouble> {
    Ok(Lock {
        name: read::<&str>(row, 0)?.into(),
        token: decode::unsigned(row, 1)?,
        holder: read::<&str>(row, 2)?.into(),
        taken_at: Time(read(row, 3)?),
        until: Time(read(row, 4)?),
    })
}

/// Every statement of a lane about shared state, to be prepared beforehand.
pub(super) fn statements() -> Vec<&'static str> {
    vec![
        MAKE_STAMP,
        LOCK_STAMP,
        KEPT,
        LATEST,
        VERSIONS,
        POLICIES,
        LOCKS,
        ADD_VERSIONS,
        PUT_KEYS,
        PUT_POLICIES,
        END_POLICIES,
        PUT_LOCKS,
        END_LOCKS,
        SET_STAMP,
        FORGET,
        LOCK_BODIES,
        END_BODIES,
    ]
}

/// Bodies with no room in a row become references, and are noted.
pub(super) fn keep_bodies(changes: &mut StateChanges, bodies: &mut Bodies) {
    for row in &mut changes.versions {
        if let Some(value) = &mut row.value {
            bodies.keep(body_owner(row.version), value);
        }
    }
}

/// The statements that write what a batch changed. They come after those that note the bodies: a new version may have the body of one that is
/// forgotten.
pub(super) fn write<'a>(
    project: i32,
    changes: &'a StateChanges,
    asks: &mut Vec<Ask<'a>>,
) -> Result<(), Trouble> {
    let StateChanges { versions, forgotten, policies, locks, stamp } = changes;
    if !forgotten.is_empty() {
        forget(project, forgotten, asks);
    }
    if !versions.is_empty() {
        let writers = versions.iter().map(|row| encode::json(&row.writer));
        let writers: Vec<String> = writers.collect::<Result<_, _>>()?;
        asks.push(
            Ask::new(ADD_VERSIONS)
                .with(project)
                .column(versions.iter().map(|row| number(row.version)))
                .column(versions.iter().map(|row| row.key.as_ref()))
                .column(versions.iter().map(|row| row.value.as_ref().map(cells::payload)))
                .with(writers)
                .column(versions.iter().map(|row| row.at.0))
                .column(versions.iter().map(|row| row.merged)),
        );
        let newest: BTreeMap<&str, u64> =
            versions.iter().map(|row| (row.key.as_ref(), row.version)).collect();
        let versions = newest.values().map(|version| number(*version)).collect::<Vec<_>>();
        asks.push(Ask::new(PUT_KEYS).with(project).column(newest.into_keys()).with(versions));
    }
    let (put, end): (Vec<_>, Vec<_>) = policies.iter().partition(|(_, policy)| policy.is_some());
    if !put.is_empty() {
        asks.push(
            Ask::new(PUT_POLICIES)
                .with(project)
                .column(put.iter().map(|(pattern, _)| pattern.as_ref()))
                .column(put.iter().filter_map(|(_, policy)| Some((*policy)?.as_str()))),
        );
    }
    if !end.is_empty() {
        let patterns = end.iter().map(|(pattern, _)| pattern.as_ref());
        asks.push(Ask::new(END_POLICIES).with(project).column(patterns));
    }
    let held: Vec<&Lock> = locks.iter().filter_map(|(_, lock)| lock.as_ref()).collect();
    if !held.is_empty() {
        asks.push(
            Ask::new(PUT_LOCKS)
                .with(project)
                .column(held.iter().map(|lock| lock.name.as_ref()))
                .column(held.iter().map(|lock| number(lock.token)))
                .column(held.iter().map(|lock| lock.holder.as_ref()))
                .column(held.iter().map(|lock| lock.taken_at.0))
                .column(held.iter().map(|lock| lock.until.0)),
        );
    }
    let free = locks.iter().filter(|(_, lock)| lock.is_none()).map(|(name, _)| name.as_ref());
    let free: Vec<&str> = free.collect();
    if !free.is_empty() {
        asks.push(Ask::new(END_LOCKS).with(project).with(free));
    }
    if let Some(stamp) = stamp {
        asks.push(Ask::new(SET_STAMP).with(project).with(number(*stamp)));
    }
    Ok(())
}

/// Removes versions, and the bodies in the database to which nothing else refers.
fn forget(project: i32, versions: &[u64], asks: &mut Vec<Ask<'_>>) {
    let owners = || versions.iter().map(|version| body_owner(*version).0);
    asks.push(Ask::new(LOCK_BODIES).with(project).column(owners()));
    asks.push(Ask::new(END_BODIES).with(project).column(owners()));
    let numbers = versions.iter().map(|version| number(*version));
    asks.push(Ask::new(FORGET).with(project).column(numbers));
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

async fn several(line: &Line, ask: Ask<'_>) -> Result<Vec<StateVersion>, Trouble> {
    line.ask(ask).await?.iter().map(version).collect()
}

/// The current version of a key, or the one of this number, if it is no deletion.
pub(super) async fn get(
    line: &Line,
    project: i32,
    key: &str,
    version: Option<u64>,
) -> Result<Option<StateVersion>, Trouble> {
    let ask = Ask::new(GET).with(project).with(key).with(version.map(number));
    Ok(several(line, ask).await?.pop())
}

/// Current versions of keys with this prefix, after this key.
pub(super) async fn list(
    line: &Line,
    project: i32,
    prefix: &str,
    after: &str,
    max: usize,
) -> Result<Vec<StateVersion>, Trouble> {
    let end = prefix_end(prefix).unwrap_or_else(|| END.to_owned());
    let ask = Ask::new(LIST).with(project).with(prefix).with(end).with(after).with(limit(max));
    several(line, ask).await
}

/// Versions of a key, newest first, before this one.
pub(super) async fn history(
    line: &Line,
    project: i32,
    key: &str,
    before: Option<u64>,
    max: usize,
) -> Result<Vec<StateVersion>, Trouble> {
    let before = before.map_or(i64::MAX, number);
    let ask = Ask::new(HISTORY).with(project).with(key).with(before).with(limit(max));
    several(line, ask).await
}

/// Versions after this one of keys with this prefix, rising.
pub(super) async fn changes(
    line: &Line,
    project: i32,
    prefix: &str,
    after: u64,
    max: usize,
) -> Result<Vec<StateVersion>, Trouble> {
    let end = prefix_end(prefix).unwrap_or_else(|| END.to_owned());
    let ask = Ask::new(CHANGES).with(project).with(number(after)).with(prefix).with(end);
    several(line, ask.with(limit(max))).await
}

/// The last stamp that was issued.
pub(super) async fn stamp(line: &Line, project: i32) -> Result<u64, Trouble> {
    let rows = line.ask(Ask::new(READ_STAMP).with(project)).await?;
    match rows.first() {
        Some(row) => Ok(decode::unsigned(row, 0)?),
        None => Ok(0),
    }
}

/// Every policy, by its pattern.
pub(super) async fn policies(
    line: &Line,
    project: i32,
) -> Result<BTreeMap<Arc<str>, Policy>, Trouble> {
    policies_of(&line.ask(Ask::new(POLICIES).with(project)).await?)
}

/// A lock, if there is a row of it.
pub(super) async fn lock(line: &Line, project: i32, name: &str) -> Result<Option<Lock>, Trouble> {
    let rows = line.ask(Ask::new(LOCKS).with(project).with(vec![name])).await?;
    rows.first().map(lock_in).transpose()
}

/// Locks by name, after this one.
pub(super) async fn locks(
    line: &Line,
    project: i32,
    after: &str,
    max: usize,
) -> Result<Vec<Lock>, Trouble> {
    let ask = Ask::new(LIST_LOCKS).with(project).with(after).with(limit(max));
    line.ask(ask).await?.iter().map(lock_in).collect()
}

impl PostgresStore {
    /// Removes locks that have been free since before this time, and keys that were deleted before it. Returns how many keys.
    pub(super) async fn prune_state(&self, line: &Line, before: Time) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let step = self.prune_state_step(line, before).await;
            let found = match step {
                Ok(found) => found,
                Err(trouble) => {
                    let _ = line.script("ROLLBACK").await;
                    return Err(self.shared.failed(trouble));
                }
            };
            removed += found;
            if (found as i64) < KEYS_MAX {
                return Ok(removed);
            }
        }
    }

    async fn prune_state_step(&self, line: &Line, before: Time) -> Result<u64, Trouble> {
        let project = self.shared.project;
        line.script("BEGIN").await?;
        // Whoever writes a key meanwhile waits.
        line.ask(Ask::new(LOCK_STAMP).with(project)).await?;
        line.ask(Ask::new(FREE_LOCKS).with(project).with(before.0)).await?;
        let ask = Ask::new(DELETED).with(project).with(before.0).with(KEYS_MAX);
        let rows = line.ask(ask).await?;
        let (mut keys, mut versions) = (Vec::new(), Vec::new());
        for row in &rows {
            keys.push(read::<&str>(row, 0)?);
            let kept: Vec<i64> = read(row, 1)?;
            versions.extend(kept.into_iter().map(|version| u64::try_from(version).unwrap_or(0)));
        }
        if !keys.is_empty() {
            let mut asks = Vec::new();
            forget(project, &versions, &mut asks);
            asks.push(Ask::new(END_KEYS).with(project).with(keys.clone()));
            line.flight(&asks).await?;
        }
        line.script("COMMIT").await?;
        Ok(keys.len() as u64)
    }
}
