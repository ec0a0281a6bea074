//! Restoring: the export is put together again, checked object by object, and only then given to the store that is to be.

use super::Imports;
use super::error::BackupError;
use super::manifest::{self, Manifest};
use super::place::{Backups, Progress, Stage};
use super::spool::nameless;
use crate::objects::{ObjectError, Trouble};
use crate::rows::tables::{COUNTERS, JUMP, STAMPS};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use segue_core::payload::Hash;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use uuid::Uuid;

/// Objects that are read at a time.
pub(super) const READS: usize = 6;
/// Bytes of a body in one line.
const BODY_LINE_BYTES: usize = 48 * 1024;
/// What becomes of the numbers of events, letters and tasks, of versions and of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// They go on where they were: for comparing, never for a store that works.
    AsTheyWere,
    /// They jump, so that none that was issued after the backup is issued again.
    Jump,
}

/// An object of a backup.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) by: Uuid,
    pub(super) sha256: Hash,
    pub(super) bytes: u64,
    /// What is in it, in words.
    pub(super) holds: String,
}

impl Manifest {
    /// The parts in their order, each with its table and rows.
    pub(super) fn parts(&self) -> Vec<(Wanted, &str, u64)> {
        let mut all = Vec::new();
        for table in &self.tables {
            for (at, part) in table.parts.iter().enumerate() {
                let of = table.parts.len();
                let holds =
                    format!("{} rows of `{}` (part {} of {of})", part.rows, table.table, at + 1);
                let wanted = Wanted { by: part.by, sha256: part.sha256, bytes: part.bytes, holds };
                all.push((wanted, table.table.as_str(), part.rows));
            }
        }
        all
    }

    /// The bodies in their order.
    pub(super) fn wanted_bodies(&self) -> Vec<Wanted> {
        let wanted = |body: &manifest::Body| Wanted {
            by: body.by,
            sha256: body.sha256,
            bytes: body.bytes,
            holds: format!("a body of {} bytes", body.bytes),
        };
        self.bodies.iter().map(wanted).collect()
    }
}

impl Backups {
    /// Restores the backup of this number, or the latest one, into a place for a store that holds nothing yet. Every object is read and checked before
    /// the store is touched.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] names the object; [`BackupError::Store`] where the place is not empty or cannot be written. Nothing was restored then.
    pub async fn restore(
        &self,
        number: Option<u64>,
        into: &dyn Imports,
    ) -> Result<Manifest, BackupError> {
        let manifest = self.at(number).await?;
        let file = self.spell(&manifest, Numbers::Jump).await?;
        into.import_rows(Box::new(BufReader::new(file))).await?;
        Ok(manifest)
    }

    /// The export that a backup was made of, in a file that has no name.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] names the object that is missing or not as it was.
    pub async fn spell(&self, manifest: &Manifest, numbers: Numbers) -> Result<File, BackupError> {
        let mut out = Lines::new(nameless(&self.scratch)?);
        let (parts, bodies) = (manifest.parts(), manifest.wanted_bodies());
        // A store that had issued no stamp when the backup was made may have issued some since.
        let unstamped =
            numbers == Numbers::Jump && !parts.iter().any(|(_, table, _)| *table == STAMPS.0);
        let mut header = manifest.header.clone();
        if unstamped {
            let rows = header.get_mut("rows").and_then(Value::as_object_mut);
            let rows = rows.ok_or_else(|| self.unfit(manifest, "its header"))?;
            rows.insert(STAMPS.0.to_owned(), json!(1));
        }
        out.line(&header)?;
        let of = (parts.len() + bodies.len()) as u64;
        let (mut done, mut read) = (0, 0);
        let mut rows = Sha256::new();
        let mut fetched = futures_util::stream::iter(parts)
            .map(|(wanted, table, rows)| async move {
                let bytes = self.fetch(manifest.number, &wanted).await?;
                self.check_rows(manifest.number, &wanted, &bytes, table, rows)?;
                Ok::<_, BackupError>((table, bytes))
            })
            .buffered(READS);
        while let Some((table, bytes)) = fetched.try_next().await? {
            rows.update(&bytes);
            (done, read) = (done + 1, read + bytes.len() as u64);
            (self.watch)(Progress { stage: Stage::Checking, done, of, bytes: read });
            let jumps = [COUNTERS, STAMPS].into_iter().find(|(name, _)| *name == table);
            match jumps.filter(|_| numbers == Numbers::Jump) {
                Some(of) => out
                    .text(&jump(&bytes, of).ok_or_else(|| self.unfit(manifest, "its counters"))?)?,
                None => out.text(&bytes)?,
            }
        }
        if unstamped {
            out.line(&json!({ STAMPS.0: { "last": JUMP } }))?;
        }
        if Hash(rows.finalize().into()) != manifest.rows_sha256 {
            return Err(self.unfit(manifest, "the rows together"));
        }
        let mut fetched = futures_util::stream::iter(bodies)
            .map(|wanted| async move {
                let bytes = self.fetch(manifest.number, &wanted).await?;
                Ok::<_, BackupError>((wanted.sha256, bytes))
            })
            .buffered(READS);
        while let Some((hash, bytes)) = fetched.try_next().await? {
            (done, read) = (done + 1, read + bytes.len() as u64);
            (self.watch)(Progress { stage: Stage::Checking, done, of, bytes: read });
            for part in bytes.chunks(BODY_LINE_BYTES) {
                out.line(&json!({ "blob": { "hash": hash, "hex": hex(part) } }))?;
            }
        }
        Ok(out.end()?)
    }

    /// Reads an object and checks it against its sum.
    pub(super) async fn fetch(&self, number: u64, wanted: &Wanted) -> Result<Bytes, BackupError> {
        let name = manifest::object_name(wanted.by, wanted.sha256);
        let at = format!("{}/{name}", self.url());
        let means = format!(
            "it holds {}, without which backup {number} and every other one that refers to it cannot be restored",
            wanted.holds
        );
        let damaged = |what: String| BackupError::damaged(&at, what, &means);
        match self.objects.get(&name, wanted.bytes).await {
            Ok(bytes) if bytes.len() as u64 != wanted.bytes => {
                Err(damaged(format!("has {} bytes instead of {}", bytes.len(), wanted.bytes)))
            }
            Ok(bytes) if Hash::of(&bytes) != wanted.sha256 => {
                Err(damaged("is not what its sum says".into()))
            }
            Ok(bytes) => Ok(bytes),
            Err(ObjectError { trouble: Trouble::Missing, .. }) => Err(damaged("is missing".into())),
            Err(ObjectError { trouble: Trouble::TooLong, what, .. }) => {
                Err(damaged(format!("is not as it was written: {what}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that a part holds what the manifest says it does.
    pub(super) fn check_rows(
        &self,
        number: u64,
        wanted: &Wanted,
        bytes: &[u8],
        table: &str,
        rows: u64,
    ) -> Result<(), BackupError> {
        let start = format!("{{\"{table}\":");
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let fit = lines.all(|line| line.starts_with(start.as_bytes()) && line.ends_with(b"\n"));
        let found = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        if fit && found == rows {
            return Ok(());
        }
        let at = format!("{}/{}", self.url(), manifest::object_name(wanted.by, wanted.sha256));
        let means = format!("backup {number} was written wrong; make a new one, and tell us");
        Err(BackupError::damaged(at, format!("does not hold {}", wanted.holds), means))
    }

    fn unfit(&self, manifest: &Manifest, what: &str) -> BackupError {
        let at = format!("{}/{}", self.url(), manifest::name(manifest.number));
        let means =
            format!("backup {} was written wrong; make a new one, and tell us", manifest.number);
        BackupError::damaged(at, format!("does not fit {what}"), means)
    }
}

/// The row of a table with numbers that nobody was given yet.
fn jump(line: &[u8], (table, columns): (&str, &[&str])) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(line).ok()?;
    for name in columns {
        let number = value.get_mut(table)?.get_mut(*name)?;
        *number = json!(number.as_i64()?.checked_add(JUMP)?);
    }
    let mut text = serde_json::to_vec(&value).ok()?;
    text.push(b'\n');
    Some(text)
}

/// Lines of an export on their way into a file.
struct Lines {
    out: BufWriter<File>,
    digest: Sha256,
    lines: u64,
}

impl Lines {
    fn new(file: File) -> Lines {
        Lines { out: BufWriter::with_capacity(256 * 1024, file), digest: Sha256::new(), lines: 0 }
    }

    fn text(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.digest.update(bytes);
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.out.write_all(bytes)
    }

    fn line(&mut self, value: &Value) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec(value)?;
        bytes.push(b'\n');
        self.text(&bytes)
    }

    fn end(mut self) -> std::io::Result<File> {
        let sha256 = Hash(self.digest.clone().finalize().into());
        let lines = self.lines;
        self.line(&json!({ "end": { "lines": lines, "sha256": sha256 } }))?;
        let mut file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
