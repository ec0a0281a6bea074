//! The tables: made where they are missing, brought to this version, refused where they are of a newer one.

use super::cells::read;
use super::line::{Ask, Line};
use super::options::Options;
use super::trouble::Trouble;
use crate::failure::{Failure, Kind};
use segue_core::payload::Hash;

/// "Segu" and "migr": the advisory lock under which tables are changed.
const MIGRATION_LOCK: i64 = 0x5365_6775_6d69_6772;
/// The oldest PostgreSQL that has all that is used here.
const SERVER_MIN: i32 = 150_000;

/// A step from one shape of the tables to the next. What is published is never changed, only followed by another.
struct Migration {
    number: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 3] = [
    Migration { number: 1, name: "start", sql: include_str!("migrations/001_start.sql") },
    Migration { number: 2, name: "state", sql: include_str!("migrations/002_state.sql") },
    Migration { number: 3, name: "lookups", sql: include_str!("migrations/003_lookups.sql") },
];

/// The version of the tables that this program makes.
pub(super) fn version() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.number)
}

/// Brings the database to this version, one node at a time.
pub(super) async fn migrate(line: &Line) -> Result<(), Trouble> {
    check_server(line).await?;
    if is_current(line).await? {
        return Ok(());
    }
    line.script("BEGIN").await?;
    let done = migrate_locked(line).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = line.script(end).await;
    done.and(ended)
}

async fn check_server(line: &Line) -> Result<(), Trouble> {
    let sql = "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'), \
               current_setting('synchronous_commit')";
    let rows = line.ask(Ask::new(sql)).await?;
    let Some(row) = rows.first() else { return Err(Trouble::data("it does not say what it is")) };
    let (number, encoding): (i32, &str) = (read(row, 0)?, read(row, 1)?);
    if number < SERVER_MIN {
        let detail = format!("its version is {number}: PostgreSQL 15 or later is needed");
        return Err(Failure::new(Kind::Version, detail).into());
    }
    if encoding != "UTF8" {
        let detail = format!(
            "the database keeps text as {encoding}: make one with `createdb --encoding=UTF8 --template=template0`"
        );
        return Err(Failure::new(Kind::Version, detail).into());
    }
    Ok(())
}

/// Whether there is nothing to do, found without waiting for anybody.
async fn is_current(line: &Line) -> Result<bool, Trouble> {
    let there = line.ask(Ask::new("SELECT to_regclass('segue.migrations') IS NOT NULL")).await?;
    let there = there.first().map(|row| read::<bool>(row, 0)).transpose()?;
    if there != Some(true) {
        return Ok(false);
    }
    Ok(check(line).await? == version())
}

/// The newest version that was applied, whose steps are those of this program.
async fn check(line: &Line) -> Result<i32, Trouble> {
    let rows = line
        .ask(Ask::new("SELECT number, name, checksum FROM segue.migrations ORDER BY number"))
        .await?;
    let mut newest = 0;
    for row in &rows {
        let (number, name, checksum): (i32, &str, &str) =
            (read(row, 0)?, read(row, 1)?, read(row, 2)?);
        newest = number;
        let known = MIGRATIONS.iter().find(|migration| migration.number == number);
        if known.is_some_and(|known| Hash::of(known.sql.as_bytes()).hex() != checksum) {
            let detail = format!(
                "step {number} ({name}) of its tables is not the one of this program: it was made by an unpublished version"
            );
            return Err(Failure::new(Kind::Version, detail).into());
        }
    }
    if newest > version() {
        let detail = format!(
            "this database was made by a newer Segue: it is of version {newest}, and this program knows up to {}. Use the newer program",
            version()
        );
        return Err(Failure::new(Kind::Version, detail).into());
    }
    Ok(newest)
}

async fn migrate_locked(line: &Line) -> Result<(), Trouble> {
    line.ask(Ask::new("SELECT pg_advisory_xact_lock($1)").with(MIGRATION_LOCK)).await?;
    line.script(
        "CREATE SCHEMA IF NOT EXISTS segue;
         CREATE TABLE IF NOT EXISTS segue.migrations (
            number     integer PRIMARY KEY,
            name       text NOT NULL,
            checksum   text NOT NULL, -- SHA-256 of the statements
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
         )",
    )
    .await?;
    let newest = check(line).await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.number > newest) {
        line.script(migration.sql).await?;
        let note =
            Ask::new("INSERT INTO segue.migrations (number, name, checksum) VALUES ($1, $2, $3)")
                .with(migration.number)
                .with(migration.name)
                .with(Hash::of(migration.sql.as_bytes()).hex());
        line.ask(note).await?;
        tracing::info!(
            number = migration.number,
            name = migration.name,
            "brought the tables to a new version"
        );
    }
    Ok(())
}

/// The small number of the project, made where it is new.
pub(super) async fn project_number(line: &Line, options: &Options) -> Result<i32, Trouble> {
    let find = || Ask::new("SELECT number FROM projects WHERE id = $1").with(options.project.0);
    let mut rows = line.ask(find()).await?;
    if rows.is_empty() {
        let make = Ask::new(
            "INSERT INTO projects (id, label) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
        )
        .with(options.project.0)
        .with(options.label.as_str());
        line.ask(make).await?;
        rows = line.ask(find()).await?;
    }
    let row = rows.first().ok_or_else(|| Trouble::data("the project went while it was opened"))?;
    read(row, 0)
}
