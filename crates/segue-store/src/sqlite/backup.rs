//! A copy of the database and its bodies in a folder, with a manifest by which it can be checked.

use super::audit;
use super::blobs::{self, DirBlobs};
use super::error::{Failure, Kind};
use super::export::{publish, remove_if_there};
use super::options::{Options, Sync};
use super::{schema, store};
use crate::rows::tables::{COUNTERS, JUMP, STAMPS};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use segue_core::ports::StoreError;
use segue_core::time::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path};

/// The version of the manifest.
const FORMAT: u32 = 1;
/// The manifest, in the folder of the backup. It is written last: without it, a backup is not finished.
const MANIFEST: &str = "manifest.json";

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub segue_backup: u32,
    /// The version of the tables.
    pub tables_version: i64,
    /// Whose state it is.
    pub project: ProjectId,
    /// When it was made, by the store's clock.
    pub made_at: Time,
    /// Every file but this one.
    pub files: Vec<FileSum>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Where it is, in the folder of the backup.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: Hash,
}

/// Copies the database by SQLite's online backup and the bodies that it refers to, all of one moment, into an empty folder.
pub(super) fn backup(
    conn: &Connection,
    blobs: &DirBlobs,
    of: (ProjectId, Time),
    to: &Path,
) -> Result<Manifest, Failure> {
    make_empty(to)?;
    let database = to.join(schema::FILE);
    let outside = copy_database(conn, &database)?;
    let mut files = vec![sum(to, schema::FILE)?];
    for hash in outside {
        let name = format!("{}/{}", blobs::FOLDER, DirBlobs::name(hash));
        let body = blobs.read(hash)?.ok_or_else(|| {
            Failure::corrupt(format!("payload {} is missing: the backup would be too", hash.hex()))
        })?;
        write_synced(&to.join(&name), &body)?;
        files.push(FileSum { path: name, bytes: body.len() as u64, sha256: hash });
    }
    let manifest = Manifest {
        segue_backup: FORMAT,
        tables_version: schema::version(),
        project: of.0,
        made_at: of.1,
        files,
    };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Failure::new(Kind::Data, format!("the manifest is no JSON: {error}")))?;
    write_synced(&to.join(MANIFEST), &text)?;
    File::open(to)?.sync_all()?;
    Ok(manifest)
}

/// An empty folder, made where it is missing.
fn make_empty(dir: &Path) -> Result<(), Failure> {
    let here = |error| at(dir, error);
    // It holds every input and output of the project: nobody else's business.
    fs::DirBuilder::new().mode(0o700).recursive(true).create(dir).map_err(here)?;
    if fs::read_dir(dir).map_err(here)?.next().is_some() {
        let detail = format!("{} is not empty: name a new folder for the backup", dir.display());
        return Err(Failure::new(Kind::Data, detail));
    }
    Ok(())
}

/// Trouble with a file of a backup says nothing about the database.
fn at(path: &Path, error: io::Error) -> Failure {
    let failure = Failure::from(error);
    let kind = match failure.kind {
        Kind::Full => Kind::Full,
        _ => Kind::Data,
    };
    Failure::new(kind, format!("{}: {}", path.display(), failure.detail))
}

/// Copies in one step, so that the copy is of one moment. Returns the bodies that the copy refers to.
fn copy_database(conn: &Connection, to: &Path) -> Result<Vec<Hash>, Failure> {
    let mut copy = Connection::open(to)?;
    let step = Backup::new(conn, &mut copy)?.step(-1)?;
    if step != StepResult::Done {
        return Err(Failure::new(Kind::Locked, "somebody keeps the database from being copied"));
    }
    // A file alone, with no log beside it.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let outside = audit::outside(&copy)?;
    copy.close().map_err(|(_, error)| error)?;
    File::open(to)?.sync_all()?;
    Ok(outside)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| at(path, error))
}

fn sum(dir: &Path, name: &str) -> Result<FileSum, Failure> {
    let path = dir.join(name);
    let read = || -> io::Result<(u64, Hash)> {
        let (mut file, mut digest, mut bytes) = (File::open(&path)?, Sha256::new(), 0);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok((bytes, Hash(digest.finalize().into())));
            }
            digest.update(&buffer[..length]);
            bytes += length as u64;
        }
    };
    let (bytes, sha256) = read().map_err(|error| at(&path, error))?;
    Ok(FileSum { path: name.to_owned(), bytes, sha256 })
}

/// Checks a backup: every file against the manifest, the database against its own rules, and that it has every body it
/// refers to.
///
/// # Errors
/// [`StoreError::Io`] names the file that is missing, damaged or too much; [`StoreError::Version`] where a newer Segue made it.
pub fn verify(dir: &Path) -> Result<Manifest, StoreError> {
    verify_at(dir).map_err(|failure| failure.at(dir))
}

fn verify_at(dir: &Path) -> Result<Manifest, Failure> {
    let path = dir.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            Kind::Data,
            "there is no manifest: this is no backup, or it was not finished",
        ),
        _ => at(&path, error),
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Kind::Data, format!("{MANIFEST} does not fit: {error}")))?;
    if manifest.segue_backup > FORMAT || manifest.tables_version > schema::version() {
        let detail = "the backup was made by a newer Segue: use that one to read it";
        return Err(Failure::new(Kind::Version, detail));
    }
    for file in &manifest.files {
        let inside =
            Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            let detail = format!("{MANIFEST} names `{}`, which lies elsewhere", file.path);
            return Err(Failure::new(Kind::Data, detail));
        }
        if sum(dir, &file.path)? != *file {
            let detail = format!("{} is not as it was when the backup was made", file.path);
            return Err(Failure::new(Kind::Data, detail));
        }
    }
    check_database(dir, &manifest)?;
    Ok(manifest)
}

fn check_database(dir: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let path = dir.join(schema::FILE);
    let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut findings = audit::audit(&conn, None)?;
    // Without the folder, every body outside counts as missing: those that the manifest lists are there.
    findings
        .retain(|finding| !manifest.files.iter().any(|file| finding.contains(&file.sha256.hex())));
    match findings.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(Kind::Data, format!("{}: {first}", schema::FILE))),
    }
}

/// Lets the numbers jump, so that none that was issued after the backup is issued again. The tables are brought to this version before: one that an
/// older version did not have counts from zero otherwise, as it did once.
fn jump(path: &Path, options: &Options) -> Result<(), Failure> {
    let conn = schema::open_nameless(path, options)?;
    // The row is made with the first stamp: what was issued after the backup may have been it.
    let none = "INSERT INTO stamps (project, last) SELECT number, 0 FROM projects WHERE NOT EXISTS (SELECT 1 FROM stamps)";
    conn.execute(none, [])?;
    for (table, columns) in [COUNTERS, STAMPS] {
        let more: Vec<String> =
            columns.iter().map(|name| format!("{name} = {name} + ?1")).collect();
        let changed = conn.execute(&format!("UPDATE {table} SET {}", more.join(", ")), [JUMP])?;
        if changed != 1 {
            return Err(Failure::corrupt(format!("`{table}` has {changed} rows instead of one")));
        }
    }
    conn.close().map_err(|(_, error)| error.into())
}

/// Checks a backup and copies it into a folder that has no database yet, for the same project: the numbers of events, letters, tasks and stamps jump. The
/// database appears there last, whole.
///
/// # Errors
/// As [`verify`]; [`StoreError::Locked`] where a process has a store open there; [`StoreError::Io`] where the folder has a database.
pub fn restore(from: &Path, dir: &Path) -> Result<Manifest, StoreError> {
    let manifest = verify(from)?;
    let path = dir.join(schema::FILE);
    restore_at(from, dir, &path, &manifest).map_err(|failure| failure.at(&path))?;
    Ok(manifest)
}

fn restore_at(from: &Path, dir: &Path, path: &Path, manifest: &Manifest) -> Result<(), Failure> {
    fs::create_dir_all(dir)?;
    let _lock = store::lock(dir)?;
    for file in [schema::FILE, "segue.db-wal"] {
        if dir.join(file).exists() {
            let detail = format!("there is a {file} already: move it away, or restore elsewhere");
            return Err(Failure::new(Kind::Data, detail));
        }
    }
    let bodies = manifest.files.iter().filter(|file| file.path != schema::FILE);
    let kept = DirBlobs::open(dir.join(blobs::FOLDER), Sync::Full)?;
    for file in bodies {
        let source = from.join(&file.path);
        kept.keep(&fs::read(&source).map_err(|error| at(&source, error))?)?;
    }
    let unfinished = path.with_extension("db-restoring");
    remove_if_there(&unfinished)?;
    fs::copy(from.join(schema::FILE), &unfinished)?;
    jump(&unfinished, &Options::new(dir, manifest.project, [0; 32]))?;
    publish(&unfinished, path, Sync::Full)
}
