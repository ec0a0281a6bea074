//! All rows as JSON lines, and back. See [`lines`](crate::rows::lines) for how they are spelled.

use super::audit;
use super::blobs::{self, DirBlobs};
use super::error::{Failure, Kind};
use super::options::{Options, Sync};
use super::schema;
use super::store;
use crate::rows::encode;
use crate::rows::lines::{
    FORMAT, Header, Lines, PART_BYTES, Summed, check_end, hex, read_header, read_part, single,
};
use crate::rows::tables::{Cell, TABLES, Table};
use rusqlite::types::Value as Column;
use rusqlite::{Connection, params_from_iter};
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use segue_core::ports::StoreError;
use segue_core::time::Time;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::Path;

/// Writes everything as it stands at one moment. Memory is bounded, whatever the size. A body that is `known` is named only.
pub(super) fn export(
    conn: &Connection,
    blobs: &DirBlobs,
    header: (ProjectId, Time),
    known: &dyn Fn(Hash) -> bool,
    out: &mut (dyn Write + Send),
) -> Result<Header, Failure> {
    // One reading transaction: commits that come meanwhile are not seen.
    let snapshot = conn.unchecked_transaction()?;
    let header = Header {
        segue_export: FORMAT,
        tables_version: schema::version(),
        project: header.0,
        made_at: header.1,
        rows: counts(&snapshot)?,
    };
    let mut out = Summed::new(out);
    out.line(&header)?;
    for table in &TABLES {
        let sql = format!("SELECT {} FROM {} ORDER BY {}", table.names(), table.name, table.order);
        let mut statement = snapshot.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            out.line(&json!({ table.name: table.spell(row)? }))?;
        }
    }
    for hash in audit::outside(&snapshot)? {
        if known(hash) {
            out.line(&json!({ "blob": { "hash": hash } }))?;
            continue;
        }
        let body = blobs.read(hash)?.ok_or_else(|| {
            Failure::corrupt(format!("payload {} is missing: the export would be too", hash.hex()))
        })?;
        for part in body.chunks(PART_BYTES) {
            out.line(&json!({ "blob": { "hash": hash, "hex": hex(part) } }))?;
        }
    }
    out.end()?;
    Ok(header)
}

fn counts(conn: &Connection) -> Result<BTreeMap<String, u64>, Failure> {
    let count = |table: &Table| {
        let sql = format!("SELECT count(*) FROM {}", table.name);
        let count: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
        Ok((table.name.to_owned(), u64::try_from(count).unwrap_or(0)))
    };
    TABLES.iter().map(count).collect()
}

/// Exports what [`import`] has made, without opening it as a store: that would tidy up what does not belong to a store that works.
///
/// # Errors
/// As [`SqliteStore::export`](super::SqliteStore::export).
pub fn export_file(options: &Options, out: &mut (dyn Write + Send)) -> Result<Header, StoreError> {
    let path = options.dir.join(schema::FILE);
    let mut export = || {
        let conn = schema::open_reader(&path)?;
        let blobs = DirBlobs::open(options.dir.join(blobs::FOLDER), options.sync)?;
        export(&conn, &blobs, (options.project, options.clock.now()), &|_| false, out)
    };
    export().map_err(|failure| failure.at(&path))
}

/// Makes a store of an export in `options.dir`, for the project of the options, which may be another than the exported one. All of it or nothing: the database appears
/// under its name once every row was read, the checksum fits and the rows fit together. Numbers stay as they were.
///
/// # Errors
/// [`StoreError::Locked`] where a process has the store open; [`StoreError::Version`] where the export is of a newer version;
/// [`StoreError::Io`] with the number of the line where it is damaged, or where the folder holds a store with anything in it.
pub fn import(options: &Options, from: &mut (dyn BufRead + Send)) -> Result<Header, StoreError> {
    let path = options.dir.join(schema::FILE);
    import_at(&path, options, from).map_err(|failure| failure.at(&path))
}

fn import_at(
    path: &Path,
    options: &Options,
    from: &mut (dyn BufRead + Send),
) -> Result<Header, Failure> {
    fs::create_dir_all(&options.dir)?;
    let _lock = store::lock(&options.dir)?;
    check_empty(path, options)?;
    let unfinished = path.with_extension("db-importing");
    remove_if_there(&unfinished)?;
    let blobs = DirBlobs::open(options.dir.join(blobs::FOLDER), options.sync)?;
    let header = fill(&unfinished, options, &blobs, from);
    let header = match header {
        Ok(header) => header,
        Err(failure) => {
            // The first failure counts. Bodies that were kept already are swept like any that nobody refers to.
            let _ = fs::remove_file(&unfinished);
            return Err(failure);
        }
    };
    publish(&unfinished, path, options.sync)?;
    Ok(header)
}

/// Gives a whole database its name.
pub(super) fn publish(unfinished: &Path, path: &Path, sync: Sync) -> Result<(), Failure> {
    if sync == Sync::Full {
        File::open(unfinished)?.sync_all()?;
    }
    fs::rename(unfinished, path)?;
    if let (Sync::Full, Some(folder)) = (sync, path.parent()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What a project may hold that an import would lose, in words and as rows. Numbers that were issued are among it: whoever got a
/// token from here must not meet it again.
const HOLDS: [(&str, &str); 7] = [
    ("tasks", "tasks"),
    ("events", "events"),
    ("agents", "agents"),
    ("keys of shared state", "state_keys"),
    ("policies of shared state", "state_policies"),
    ("locks", "locks"),
    ("tokens of locks and versions that were issued", "stamps WHERE last > 0"),
];

/// Nothing may be lost by an import: there is no database yet, or one with nothing in it.
fn check_empty(path: &Path, options: &Options) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let (conn, _) = schema::open_writer(path, options)?;
    for (what, from) in HOLDS {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {from})");
        if conn.query_row(&sql, [], |row| row.get(0))? {
            let detail = format!("there are {what} already: import into an empty folder");
            return Err(Failure::new(Kind::NotEmpty, detail));
        }
    }
    conn.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn fill(
    path: &Path,
    options: &Options,
    blobs: &DirBlobs,
    from: &mut (dyn BufRead + Send),
) -> Result<Header, Failure> {
    let mut lines = Lines::new(from);
    let header = read_header(&mut lines, schema::version())?;
    let conn = schema::create(path, options)?;
    let transaction = conn.unchecked_transaction()?;
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    let mut body: Option<(Hash, Vec<u8>)> = None;
    loop {
        let line = lines.next()?;
        let Some((kind, value)) = single(&line) else {
            return Err(lines.wrong("is no object with one key"));
        };
        if let Some(table) = TABLES.iter().find(|table| table.name == kind) {
            insert(&transaction, table, value)
                .map_err(|failure| lines.wrong(&format!("does not fit: {}", failure.detail)))?;
            *rows.entry(kind.to_owned()).or_default() += 1;
        } else if kind == "blob" {
            let (hash, part) =
                read_part(value).ok_or_else(|| lines.wrong("is no part of a body"))?;
            match &mut body {
                Some((current, bytes)) if *current == hash => bytes.extend(part),
                _ => {
                    finish_body(blobs, body.replace((hash, part)), &lines)?;
                }
            }
        } else if kind == "end" {
            finish_body(blobs, body.take(), &lines)?;
            check_end(&lines, value)?;
            break;
        } else {
            return Err(lines.wrong(&format!("is of the unknown kind `{kind}`")));
        }
    }
    rows.extend(
        header.rows.iter().filter(|(_, count)| **count == 0).map(|(name, _)| (name.clone(), 0)),
    );
    if rows != header.rows {
        return Err(lines.wrong(&format!("ends {rows:?}, where {:?} were announced", header.rows)));
    }
    transaction.commit()?;
    let findings = audit::audit(&conn, Some(blobs))?;
    if let Some(first) = findings.first() {
        let detail = format!("the rows of the export do not fit together: {first}");
        return Err(Failure::new(Kind::Data, detail));
    }
    conn.close().map_err(|(_, error)| error)?;
    Ok(header)
}

fn insert(conn: &Connection, table: &Table, value: &Value) -> Result<(), Failure> {
    let empty = Map::new();
    let cells = table.read(value.as_object().unwrap_or(&empty))?;
    let mut cells: Vec<Column> = cells.into_iter().map(column).collect();
    let (mut names, mut places) = (table.names(), vec!["?"; cells.len()].join(", "));
    if table.has_project {
        names.push_str(", project");
        places.push_str(", ?");
        cells.push(Column::Integer(1));
    }
    let sql = format!("INSERT OR ABORT INTO {} ({names}) VALUES ({places})", table.name);
    conn.prepare_cached(&sql)?.execute(params_from_iter(cells))?;
    Ok(())
}

fn finish_body(
    blobs: &DirBlobs,
    body: Option<(Hash, Vec<u8>)>,
    lines: &Lines<'_>,
) -> Result<(), Failure> {
    let Some((hash, bytes)) = body else { return Ok(()) };
    if Hash::of(&bytes) != hash {
        return Err(lines.wrong(&format!("follows on body {}, which is damaged", hash.hex())));
    }
    blobs.keep(&bytes).map(drop)
}

/// A value of an export as SQLite holds it.
fn column(cell: Cell) -> Column {
    match cell {
        Cell::Null => Column::Null,
        Cell::Number(number) => Column::Integer(number),
        Cell::Text(text) => Column::Text(text),
        Cell::Id(id) => Column::Blob(id.as_bytes().to_vec()),
        Cell::Hash(hash) => Column::Blob(hash.0.to_vec()),
        Cell::Payload(payload) => match encode::Cell::of(&payload) {
            encode::Cell::Text(text) => Column::Text(text.to_owned()),
            encode::Cell::Reference(bytes) => Column::Blob(bytes.to_vec()),
            encode::Cell::Null => Column::Null,
        },
    }
}
