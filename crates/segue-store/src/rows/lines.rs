//! The lines of an export, whatever database they are from.
//!
//! The first line is the header, `{"segue_export": 1, ..}`. Then comes a line a row, `{"tasks": {..}}`, table by table as
//! [`TABLES`](super::tables::TABLES) spells them; then large bodies in parts, `{"blob": {"hash": .., "hex": ..}}`; and at the end
//! `{"end": {"lines": .., "sha256": ..}}` over all the bytes before it.

use crate::failure::{Failure, Kind};
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use segue_core::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

/// The version of this format.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a large body in one line.
pub(crate) const PART_BYTES: usize = 48 * 1024;
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
pub(crate) struct End {
    lines: u64,
    sha256: String,
}

/// Counts and sums what passes.
pub(crate) struct Summed<'a> {
    pub(crate) out: &'a mut (dyn Write + Send),
    digest: Sha256,
    lines: u64,
}

impl<'a> Summed<'a> {
    pub(crate) fn new(out: &'a mut (dyn Write + Send)) -> Summed<'a> {
        Summed { out, digest: Sha256::new(), lines: 0 }
    }

    pub(crate) fn line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec(value)
            .map_err(|error| Failure::new(Kind::Data, format!("a row is no JSON: {error}")))?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.lines += 1;
        self.out.write_all(&bytes).map_err(unwritable)
    }

    /// Writes the last line.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        let end = End { lines: self.lines, sha256: hex(&self.digest.clone().finalize()) };
        self.line(&json!({ "end": end }))?;
        self.out.flush().map_err(unwritable)
    }
}

pub(crate) fn unwritable(error: io::Error) -> Failure {
    let failure = Failure::from(error);
    let kind = if failure.kind == Kind::Full { Kind::Full } else { Kind::Data };
    Failure::new(kind, format!("the export cannot be written: {}", failure.detail))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

/// Lines with their numbers and the sum of all before.
pub(crate) struct Lines<'a> {
    from: &'a mut (dyn BufRead + Send),
    number: u64,
    digest: Sha256,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(from: &'a mut (dyn BufRead + Send)) -> Lines<'a> {
        Lines { from, number: 0, digest: Sha256::new(), line: Vec::new() }
    }

    /// The next line as JSON.
    pub(crate) fn next(&mut self) -> Result<Value, Failure> {
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

    pub(crate) fn wrong(&self, what: &str) -> Failure {
        Failure::new(Kind::Data, format!("line {} of the export {what}", self.number))
    }
}

pub(crate) fn read_header(lines: &mut Lines<'_>, tables_version: i64) -> Result<Header, Failure> {
    let line = lines.next()?;
    let version = |key: &str| line.get(key).and_then(Value::as_i64).unwrap_or(0);
    let (format, tables) = (version("segue_export"), version("tables_version"));
    if format == 0 {
        return Err(lines.wrong("is not the first line of an export"));
    }
    if format > i64::from(FORMAT) || tables > tables_version {
        let detail = format!(
            "the export was made by a newer Segue (format {format}, tables {tables}); this program reads up to format {FORMAT}, tables {}",
            tables_version
        );
        return Err(Failure::new(Kind::Version, detail));
    }
    serde_json::from_value(line).map_err(|error| lines.wrong(&format!("does not fit: {error}")))
}

pub(crate) fn single(line: &Value) -> Option<(&str, &Value)> {
    let object = line.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(key, value)| (key.as_str(), value))
}

pub(crate) fn read_part(value: &Value) -> Option<(Hash, Vec<u8>)> {
    Some((Hash::from_hex(value.get("hash")?.as_str()?)?, unhex(value.get("hex")?.as_str()?)?))
}

pub(crate) fn check_end(lines: &Lines<'_>, value: &Value) -> Result<(), Failure> {
    let found = End { lines: lines.number - 1, sha256: hex(&lines.digest.clone().finalize()) };
    let announced: Option<End> = End::deserialize(value).ok();
    if announced.as_ref() != Some(&found) {
        return Err(lines.wrong("does not fit what stands before it: the export was changed"));
    }
    Ok(())
}
