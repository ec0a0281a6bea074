//! All rows as JSON lines, and back.
//!
//! The first line is the header, `{"segue_export": 1, ..}`. Then comes a line a row, `{"tasks": {..}}`, table by table as
//! [`TABLES`] spells them; then large bodies in parts, `{"blob": {"hash": .., "hex": ..}}`; and at the end
//! `{"end": {"lines": .., "sha256": ..}}` over all the bytes before it.

use super::audit;
use super::blobs::{self, DirBlobs};
use super::error::{Failure, Kind};
use super::options::{Options, Sync};
use super::schema;
use super::store;
use super::tables::{TABLES, Table};
use rusqlite::{Connection, params_from_iter};
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use segue_core::ports::StoreError;
use segue_core::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

/// The version of this format.
const FORMAT: u32 = 1;
/// Bytes of a large body in one line.
const PART_BYTES: usize = 48 * 1024;
/// Longest line that is read. The longest that is written holds what an agent says of itself, its schemas included.
const LINE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The first line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub segue_export: u32,
    /// The version of the tables.
    pub tables_version: i64,
    /// Whose rows these are.
    pub project: ProjectId,
    /// When it was made, by the store's clock.
    pub made_at: Time,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// The last line of an export.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    lines: u64,
    sha256: String,
}

/// Counts and sums what passes.
struct Summed<'a> {
    out: &'a mut dyn Write,
    digest: Sha256,
    lines: u64,
}

impl Summed<'_> {
    fn line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec(value)
            .map_err(|error| Failure::new(Kind::Data, format!("a row is no JSON: {error}")))?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.lines += 1;
        self.out.write_all(&bytes).map_err(unwritable)
    }
}

fn unwritable(error: io::Error) -> Failure {
    let failure = Failure::from(error);
    let kind = if failure.kind == Kind::Full { Kind::Full } else { Kind::Data };
    Failure::new(kind, format!("the export cannot be written: {}", failure.detail))
}

/// Writes everything as it stands at one moment. Memory is bounded, whatever the size. A body that is `known` is named only.
pub(super) fn export(
    conn: &Connection,
    blobs: &DirBlobs,
    header: (ProjectId, Time),
    known: &dyn Fn(Hash) -> bool,
    out: &mut dyn Write,
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
    let mut out = Summed { out, digest: Sha256::new(), lines: 0 };
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
    let end = End { lines: out.lines, sha256: hex(&out.digest.clone().finalize()) };
    out.line(&json!({ "end": end }))?;
    out.out.flush().map_err(unwritable)?;
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

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

/// Exports what [`import`] has made, without opening it as a store: that would tidy up what does not belong to a store that works.
///
/// # Errors
/// As [`SqliteStore::export`](super::SqliteStore::export).
pub fn export_file(options: &Options, out: &mut dyn Write) -> Result<Header, StoreError> {
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
pub fn import(options: &Options, from: &mut dyn BufRead) -> Result<Header, StoreError> {
    let path = options.dir.join(schema::FILE);
    import_at(&path, options, from).map_err(|failure| failure.at(&path))
}

fn import_at(path: &Path, options: &Options, from: &mut dyn BufRead) -> Result<Header, Failure> {
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

/// Nothing may be lost by an import: there is no database yet, or one with nothing in it.
fn check_empty(path: &Path, options: &Options) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let (conn, _) = schema::open_writer(path, options)?;
    for table in ["tasks", "events", "agents"] {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
        if conn.query_row(&sql, [], |row| row.get(0))? {
            let detail = format!("there are {table} already: import into an empty folder");
            return Err(Failure::new(Kind::Data, detail));
        }
    }
    conn.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Lines with their numbers and the sum of all before.
struct Lines<'a> {
    from: &'a mut dyn BufRead,
    number: u64,
    digest: Sha256,
    line: Vec<u8>,
}

impl Lines<'_> {
    /// The next line as JSON.
    fn next(&mut self) -> Result<Value, Failure> {
        self.digest.update(&self.line);
        self.line.clear();
        self.number += 1;
        let mut bounded = (&mut *self.from).take(LINE_BYTES_MAX);
        bounded
            .read_until(b'\n', &mut self.line)
            .map_err(|error| self.wrong(&format!("cannot be read: {error}")))?;
        if self.line.is_empty() {
            return Err(self.wrong("is missing: the export was cut"));
        }
        if self.line.last() != Some(&b'\n') {
            return Err(self.wrong("has no end: the export was cut, or is none"));
        }
        serde_json::from_slice(&self.line)
            .map_err(|error| self.wrong(&format!("is no JSON: {error}")))
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::new(Kind::Data, format!("line {} of the export {what}", self.number))
    }
}

fn fill(
    path: &Path,
    options: &Options,
    blobs: &DirBlobs,
    from: &mut dyn BufRead,
) -> Result<Header, Failure> {
    let mut lines = Lines { from, number: 0, digest: Sha256::new(), line: Vec::new() };
    let header = read_header(&mut lines)?;
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

fn read_header(lines: &mut Lines<'_>) -> Result<Header, Failure> {
    let line = lines.next()?;
    let version = |key: &str| line.get(key).and_then(Value::as_i64).unwrap_or(0);
    let (format, tables) = (version("segue_export"), version("tables_version"));
    if format == 0 {
        return Err(lines.wrong("is not the first line of an export"));
    }
    if format > i64::from(FORMAT) || tables > schema::version() {
        let detail = format!(
            "the export was made by a newer Segue (format {format}, tables {tables}); this program reads up to format {FORMAT}, tables {}",
            schema::version()
        );
        return Err(Failure::new(Kind::Version, detail));
    }
    serde_json::from_value(line).map_err(|error| lines.wrong(&format!("does not fit: {error}")))
}

fn single(line: &Value) -> Option<(&str, &Value)> {
    let object = line.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(key, value)| (key.as_str(), value))
}

fn insert(conn: &Connection, table: &Table, value: &Value) -> Result<(), Failure> {
    let empty = Map::new();
    let mut cells = table.read(value.as_object().unwrap_or(&empty))?;
    let (mut names, mut places) = (table.names(), vec!["?"; cells.len()].join(", "));
    if table.has_project {
        names.push_str(", project");
        places.push_str(", ?");
        cells.push(rusqlite::types::Value::Integer(1));
    }
    let sql = format!("INSERT OR ABORT INTO {} ({names}) VALUES ({places})", table.name);
    conn.prepare_cached(&sql)?.execute(params_from_iter(cells))?;
    Ok(())
}

fn read_part(value: &Value) -> Option<(Hash, Vec<u8>)> {
    Some((Hash::from_hex(value.get("hash")?.as_str()?)?, unhex(value.get("hex")?.as_str()?)?))
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

fn check_end(lines: &Lines<'_>, value: &Value) -> Result<(), Failure> {
    let found = End { lines: lines.number - 1, sha256: hex(&lines.digest.clone().finalize()) };
    let announced: Option<End> = End::deserialize(value).ok();
    if announced.as_ref() != Some(&found) {
        return Err(lines.wrong("does not fit what stands before it: the export was changed"));
    }
    Ok(())
}
