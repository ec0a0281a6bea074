//! Opening the file: whose it is, of which version, and how it is used.

use super::error::{Failure, Kind};
use super::options::Options;
use crate::rows::tables::TABLES_VERSION;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use std::path::Path;

/// The database, in the folder of the store.
pub(super) const FILE: &str = "segue.db";
/// The file whose lock says that a process has the store open.
pub(super) const LOCK_FILE: &str = "segue.db-lock";
/// "Segu": marks the file as ours, for us and for `file(1)`.
pub(super) const APPLICATION_ID: i32 = 0x5365_6775;
/// KiB of pages that the writing connection keeps.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// KiB of pages that a reading connection keeps.
const READER_CACHE_KIB: i64 = 4 * 1024;

/// A step from one shape of the tables to the next. What is published is never changed, only followed by another.
struct Migration {
    number: i64,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 2] = [
    Migration { number: 1, name: "start", sql: include_str!("migrations/001_start.sql") },
    Migration { number: 2, name: "state", sql: include_str!("migrations/002_state.sql") },
];

/// The statements that make every table, for tests of what has to name them all.
#[cfg(test)]
pub(crate) fn statements() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.iter().map(|migration| migration.sql)
}

/// Opens the database for the one writer: makes it where it is missing, and brings it to this version.
pub(super) fn open_writer(path: &Path, options: &Options) -> Result<(Connection, i64), Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.busy_timeout(std::time::Duration::ZERO)?;
    check_owner(&conn)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let detail = format!(
            "the file system does not allow a write-ahead log (journal mode `{mode}`): put the folder on a local disk"
        );
        return Err(Failure::new(Kind::ReadOnly, detail));
    }
    conn.pragma_update(None, "synchronous", options.sync.word())?;
    // See `checkpoint`.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    migrate(&mut conn, options)?;
    let project = project_number(&mut conn, options.project)?;
    Ok((conn, project))
}

/// The version of the tables that this program makes.
pub(super) const fn version() -> i64 {
    MIGRATIONS[MIGRATIONS.len() - 1].number
}

/// These are the tables that an export spells.
const _: () = assert!(version() == TABLES_VERSION);

/// Makes a database that nobody knows of yet, to be filled and then given its name: without a log, without syncing, without a row of counters.
pub(super) fn create(path: &Path, options: &Options) -> Result<Connection, Failure> {
    let conn = open_nameless(path, options)?;
    conn.execute("DELETE FROM counters", [])?;
    Ok(conn)
}

/// Opens a database that nobody knows of yet, and brings it to this version: without a log, without syncing.
pub(super) fn open_nameless(path: &Path, options: &Options) -> Result<Connection, Failure> {
    let mut conn = Connection::open(path)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "foreign_keys", false)?;
    check_owner(&conn)?;
    migrate(&mut conn, options)?;
    project_number(&mut conn, options.project)?;
    Ok(conn)
}

/// Opens the database for reading beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    // A reader never waits for the writer in this mode, but it may meet another process that recovers the log.
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(conn)
}

/// Refuses files that are no database of ours before anything is written into them.
fn check_owner(conn: &Connection) -> Result<(), Failure> {
    let id: i32 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if id == 0 && tables == 0 {
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        return Ok(());
    }
    let detail = format!(
        "this is a database of another program (application id {id:#x}): move it away, or choose another folder"
    );
    Err(Failure::new(Kind::Version, detail))
}

fn migrate(conn: &mut Connection, options: &Options) -> Result<(), Failure> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
            number     INTEGER PRIMARY KEY,
            name       TEXT NOT NULL,
            checksum   TEXT NOT NULL, -- SHA-256 of the statements
            applied_at INTEGER NOT NULL
        )",
    )?;
    let newest: i64 =
        conn.query_row("SELECT ifnull(max(number), 0) FROM migrations", [], |row| row.get(0))?;
    let known = version();
    if newest > known {
        let detail = format!(
            "this database was made by a newer Segue: it is of version {newest}, and this program knows up to {known}. Use the newer program"
        );
        return Err(Failure::new(Kind::Version, detail));
    }
    for migration in &MIGRATIONS {
        apply(conn, migration, options)?;
    }
    Ok(())
}

fn apply(conn: &mut Connection, migration: &Migration, options: &Options) -> Result<(), Failure> {
    let checksum = Hash::of(migration.sql.as_bytes()).hex();
    let applied: Option<String> = conn
        .query_row("SELECT checksum FROM migrations WHERE number = ?1", [migration.number], |row| {
            row.get(0)
        })
        .optional()?;
    match applied {
        Some(applied) if applied == checksum => Ok(()),
        Some(_) => {
            let detail = format!(
                "this database was made by another build of Segue: its version {} (`{}`) differs from the one of this program",
                migration.number, migration.name
            );
            Err(Failure::new(Kind::Version, detail))
        }
        None => {
            let transaction =
                conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute_batch(migration.sql)?;
            transaction.execute(
                "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
                params![migration.number, migration.name, checksum, options.clock.now().0],
            )?;
            Ok(transaction.commit()?)
        }
    }
}

/// The small number of the project. A new database takes the project in; one of another project is refused.
fn project_number(conn: &mut Connection, project: ProjectId) -> Result<i64, Failure> {
    let known = conn
        .query_row("SELECT number, id FROM projects ORDER BY number LIMIT 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    match known {
        Some((number, id)) if id == project.as_bytes() => Ok(number),
        Some((_, id)) => {
            let theirs = <[u8; 16]>::try_from(id).map(ProjectId::from_bytes);
            let theirs = theirs.map_or("of no known id".to_owned(), |id| id.to_string());
            let detail = format!(
                "this database belongs to project {theirs}, not to {project}: a copied folder is a new project, and needs a database of its own"
            );
            Err(Failure::new(Kind::Version, detail))
        }
        None => {
            let transaction =
                conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO projects (number, id) VALUES (1, ?1)",
                params![project.as_bytes()],
            )?;
            transaction.execute(
                "INSERT INTO counters (project, committed_at, next_cursor, next_letter, next_task, project_events, states) \
                 VALUES (1, 0, 1, 1, 1, 0, '[0,0,0,0,0,0,0,0,0]')",
                [],
            )?;
            transaction.commit()?;
            Ok(1)
        }
    }
}
