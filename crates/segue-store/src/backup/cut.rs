//! Cuts an export into parts, whose ends depend on the rows near them only.

use super::manifest::{Body, Part, Rows};
use super::spool::{Piece, Spool};
use parking_lot::Mutex;
use segue_core::payload::Hash;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use uuid::Uuid;

/// No part is shorter, unless its table ends.
const PART_BYTES_MIN: usize = 256 * 1024;
/// How many bytes more a part has on average.
const PART_BYTES_MEAN: u64 = 1024 * 1024;
/// A part ends behind the row with which it reaches this.
const PART_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest line that is taken; an import reads none that is longer.
const LINE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the latest backup has already.
#[derive(Default)]
pub(super) struct Base {
    pub(super) parts: HashMap<Hash, Part>,
    pub(super) bodies: HashMap<Hash, Body>,
}

/// A part or body that has to be written.
pub(super) struct New {
    pub(super) sha256: Hash,
    pub(super) piece: Piece,
}

/// What an export came to.
pub(super) struct Cut {
    pub(super) header: Value,
    pub(super) rows_sha256: Hash,
    pub(super) tables: Vec<Rows>,
    pub(super) bodies: Vec<Body>,
    pub(super) new: Vec<New>,
}

/// A body whose lines are coming.
struct Coming {
    hash: Hash,
    digest: Sha256,
    piece: Option<Piece>,
}

/// Takes an export and cuts it. What the base has is not kept.
pub(super) struct Cutter {
    base: Arc<Base>,
    by: Uuid,
    /// Where new parts go; nowhere where only the sums are wanted.
    spool: Option<Spool>,
    line: Vec<u8>,
    part: Vec<u8>,
    part_rows: u64,
    /// Of all lines so far, which the last one has to fit.
    digest: Sha256,
    lines: u64,
    rows: Sha256,
    header: Option<Value>,
    tables: Vec<Rows>,
    bodies: Vec<Body>,
    coming: Option<Coming>,
    new: HashMap<Hash, Part>,
    writes: Vec<New>,
    ended: bool,
}

/// The last line of an export.
#[derive(Deserialize)]
struct End {
    lines: u64,
    sha256: Hash,
}

/// A line about a body. Without `hex` it is known already.
#[derive(Deserialize)]
struct BodyLine {
    hash: Hash,
    #[serde(default)]
    hex: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Other {
    Blob(BodyLine),
    End(End),
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Cutter {
    pub(super) fn new(base: Arc<Base>, by: Uuid, spool: Option<Spool>) -> Cutter {
        Cutter {
            base,
            by,
            spool,
            line: Vec::new(),
            part: Vec::new(),
            part_rows: 0,
            digest: Sha256::new(),
            lines: 0,
            rows: Sha256::new(),
            header: None,
            tables: Vec::new(),
            bodies: Vec::new(),
            coming: None,
            new: HashMap::new(),
            writes: Vec::new(),
            ended: false,
        }
    }

    fn take_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.ended {
            return Err(wrong("the export goes on behind its end"));
        }
        if self.header.is_none() {
            let header: Value = serde_json::from_slice(line)?;
            if header.get("segue_export").is_none() {
                return Err(wrong("the export has no header"));
            }
            self.header = Some(header);
        } else {
            let kind = kind(line).ok_or_else(|| wrong("a line of the export is no row"))?;
            match kind {
                "blob" => self.take_body(line)?,
                "end" => return self.take_end(line),
                table => self.take_row(table, line)?,
            }
        }
        self.digest.update(line);
        self.lines += 1;
        Ok(())
    }

    fn take_row(&mut self, table: &str, line: &[u8]) -> io::Result<()> {
        if self.tables.last().is_none_or(|last| last.table != table) {
            self.end_part()?;
            if self.tables.iter().any(|earlier| earlier.table == table) {
                return Err(wrong(format!("rows of `{table}` stand in two places of the export")));
            }
            self.tables.push(Rows { table: table.to_owned(), rows: 0, parts: Vec::new() });
        }
        self.rows.update(line);
        self.part.extend_from_slice(line);
        self.part_rows += 1;
        if self.part.len() >= PART_BYTES_MAX
            || (self.part.len() >= PART_BYTES_MIN && is_an_end(line))
        {
            self.end_part()?;
        }
        Ok(())
    }

    fn end_part(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let sha256 = Hash::of(&self.part);
        let known = self.base.parts.get(&sha256).or_else(|| self.new.get(&sha256));
        let part = match known {
            Some(part) => *part,
            None => {
                let bytes = self.part.len() as u64;
                let part = Part { sha256, bytes, rows: self.part_rows, by: self.by };
                if let Some(spool) = &self.spool {
                    let piece = spool.write(&self.part)?;
                    self.writes.push(New { sha256, piece });
                }
                self.new.insert(sha256, part);
                part
            }
        };
        if let Some(table) = self.tables.last_mut() {
            table.rows += self.part_rows;
            table.parts.push(part);
        }
        self.part.clear();
        self.part_rows = 0;
        Ok(())
    }

    fn take_body(&mut self, line: &[u8]) -> io::Result<()> {
        self.end_part()?;
        let Other::Blob(BodyLine { hash, hex }) = serde_json::from_slice(line)? else {
            return Err(wrong("a line of the export is no part of a body"));
        };
        if self.coming.as_ref().is_some_and(|coming| coming.hash != hash) {
            self.end_body()?;
        }
        let known = self.base.bodies.get(&hash);
        let Some(hex) = hex else {
            let known = *known.ok_or_else(|| wrong("a body was left out that is not known"))?;
            self.bodies.push(known);
            return Ok(());
        };
        let bytes = unhex(&hex).ok_or_else(|| wrong("a body is not in hexadecimal digits"))?;
        let coming =
            self.coming.get_or_insert_with(|| Coming { hash, digest: Sha256::new(), piece: None });
        coming.digest.update(&bytes);
        if known.is_none()
            && let Some(spool) = &self.spool
        {
            let piece = spool.write(&bytes)?;
            coming.piece = Some(coming.piece.map_or(piece, |before| before.and(piece)));
        } else {
            let length = Piece::of_length(bytes.len() as u64);
            coming.piece = Some(coming.piece.map_or(length, |before| before.and(length)));
        }
        Ok(())
    }

    fn end_body(&mut self) -> io::Result<()> {
        let Some(Coming { hash, digest, piece }) = self.coming.take() else { return Ok(()) };
        if Hash(digest.finalize().into()) != hash {
            return Err(wrong(format!("body {} is not what its hash says", hash.hex())));
        }
        let piece = piece.unwrap_or(Piece::of_length(0));
        let body = match self.base.bodies.get(&hash) {
            Some(known) => *known,
            None => {
                if self.spool.is_some() {
                    self.writes.push(New { sha256: hash, piece });
                }
                Body { sha256: hash, bytes: piece.bytes, by: self.by }
            }
        };
        self.bodies.push(body);
        Ok(())
    }

    fn take_end(&mut self, line: &[u8]) -> io::Result<()> {
        self.end_part()?;
        self.end_body()?;
        let Other::End(end) = serde_json::from_slice(line)? else {
            return Err(wrong("a line of the export is no end"));
        };
        let sha256 = Hash(self.digest.clone().finalize().into());
        if (end.lines, end.sha256) != (self.lines, sha256) {
            return Err(wrong("the end of the export does not fit what stands before it"));
        }
        self.ended = true;
        Ok(())
    }

    /// What it came to, once the end was there.
    pub(super) fn finish(&mut self) -> io::Result<Cut> {
        let header = self.header.take().filter(|_| self.ended && self.line.is_empty());
        let header = header.ok_or_else(|| wrong("the export has no end"))?;
        Ok(Cut {
            header,
            rows_sha256: Hash(self.rows.clone().finalize().into()),
            tables: std::mem::take(&mut self.tables),
            bodies: std::mem::take(&mut self.bodies),
            new: std::mem::take(&mut self.writes),
        })
    }

    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.line.is_empty() {
                self.take_line(head)?;
            } else {
                self.line.extend_from_slice(head);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)?;
                self.line = line;
                self.line.clear();
            }
        }
        if self.line.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(wrong(format!(
                "a line of the export is longer than {LINE_BYTES_MAX} bytes"
            )));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

/// A cutter that an exporter writes to while somebody waits for what it came to.
#[derive(Clone)]
pub(super) struct Desk(pub(super) Arc<Mutex<Cutter>>);

impl Write for Desk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().take(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The one key of a line `{"key": ..}`.
fn kind(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(b"{\"")?;
    let end = rest.iter().take(64).position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// Whether a part may end behind this row: chance by its content, in proportion to its length, so that parts have the same length
/// whatever the rows are. Never to be changed: every part would be written anew.
fn is_an_end(line: &[u8]) -> bool {
    // FNV-1a, <http://www.isthe.com/chongo/tech/comp/fnv/>, with the finish of SplitMix64 for even bits.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in line {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    hash < (u64::MAX / PART_BYTES_MEAN).saturating_mul(line.len() as u64)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
