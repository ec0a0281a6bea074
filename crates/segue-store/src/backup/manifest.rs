//! What a backup consists of, as it is written: a line of JSON, a line with its sum, and, once retention has given it up, a line that says so.

use super::error::BackupError;
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use segue_core::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The version of this format; 1 is the folder with a copy of the database.
pub(super) const FORMAT: u32 = 2;
/// The folder of all manifests.
pub(super) const FOLDER: &str = "manifests";
/// The folder of all parts and bodies.
pub(super) const OBJECTS: &str = "objects";
/// Longest manifest that is read.
pub(super) const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The line behind a manifest that retention has given up.
const RETIRED: &[u8] = b"{\"retired\":true}\n";

/// What a backup consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub segue_backup: u32,
    /// Its number, from 1.
    pub number: u64,
    /// Whose state it is.
    pub project: ProjectId,
    /// When it was made, by the store's clock.
    pub made_at: Time,
    /// The token of the lease under which it was made; 0 where a person made it.
    pub fence: u64,
    /// Who wrote it: a number of its own for each try.
    pub writer: Uuid,
    /// The latest backup before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Link>,
    /// The first line of the export.
    pub header: Value,
    /// SHA-256 over the lines of all rows.
    pub rows_sha256: Hash,
    /// The rows, in the order of the export.
    pub tables: Vec<Rows>,
    /// Bodies outside the database, in the order of the export.
    pub bodies: Vec<Body>,
    /// What had to be written for it.
    pub written: Written,
    /// Whether retention has given it up.
    #[serde(skip)]
    pub retired: bool,
    /// Its sum.
    #[serde(skip, default = "no_hash")]
    pub sha256: Hash,
}

fn no_hash() -> Hash {
    Hash([0; 32])
}

/// Another backup, and the sum of its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number.
    pub number: u64,
    /// The sum of its manifest.
    pub sha256: Hash,
}

/// The rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The table.
    pub table: String,
    /// How many there are.
    pub rows: u64,
    /// Where they are.
    pub parts: Vec<Part>,
}

/// Some rows of a table, in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// SHA-256 of the object.
    pub sha256: Hash,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Which backup wrote it.
    pub by: Uuid,
}

/// A body outside the database, in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// SHA-256 of the object, by which rows refer to it.
    pub sha256: Hash,
    /// Its length.
    pub bytes: u64,
    /// Which backup wrote it.
    pub by: Uuid,
}

/// What had to be written for a backup, its manifest apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The line with the sum.
#[derive(Serialize, Deserialize)]
struct Sum {
    sha256: Hash,
}

/// The name of a part or body. Nobody else ever writes it.
pub(super) fn object_name(by: Uuid, sha256: Hash) -> String {
    format!("{OBJECTS}/{}/{}", by.simple(), sha256.hex())
}

/// The name of a manifest.
pub(super) fn name(number: u64) -> String {
    format!("{FOLDER}/{number:010}.json")
}

/// The reverse of [`name`].
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".json")?;
    let is_plain = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_plain && *number > 0)
}

impl Manifest {
    /// How it is written, and its sum.
    pub(super) fn spell(&self) -> Result<(Vec<u8>, Hash), BackupError> {
        let spelled = |error| std::io::Error::other(format!("the manifest is no JSON: {error}"));
        let mut bytes = serde_json::to_vec(self).map_err(spelled)?;
        let sha256 = Hash::of(&bytes);
        bytes.push(b'\n');
        bytes.extend(serde_json::to_vec(&Sum { sha256 }).map_err(spelled)?);
        bytes.push(b'\n');
        Ok((bytes, sha256))
    }

    /// How one is written that retention has given up: what was there, and a line more.
    pub(super) fn retire(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.extend_from_slice(RETIRED);
        bytes
    }

    /// Reads what stands at `at`, and checks its sum.
    pub(super) fn read(at: &str, number: u64, bytes: &[u8]) -> Result<Manifest, BackupError> {
        let damaged = |what: &str| {
            let means = format!("backup {number} cannot be restored; others can");
            BackupError::damaged(at, what, means)
        };
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let (Some(line), Some(sum)) = (lines.next(), lines.next()) else {
            return Err(damaged("was cut"));
        };
        let (Some(line), Some(sum)) = (line.strip_suffix(b"\n"), sum.strip_suffix(b"\n")) else {
            return Err(damaged("was cut"));
        };
        let sum: Sum = serde_json::from_slice(sum).map_err(|_| damaged("has no sum"))?;
        if Hash::of(line) != sum.sha256 {
            return Err(damaged("does not fit its own sum"));
        }
        let rest: Vec<&[u8]> = lines.collect();
        let retired = match rest.as_slice() {
            [] => false,
            [one] if *one == RETIRED => true,
            _ => return Err(damaged("has something behind it")),
        };
        #[derive(Deserialize)]
        struct Version {
            segue_backup: u32,
        }
        let version: Version =
            serde_json::from_slice(line).map_err(|_| damaged("is no manifest of a backup"))?;
        if version.segue_backup > FORMAT {
            return Err(BackupError::Newer(format!(
                "{at} was written by a newer Segue (format {}, this program reads up to {FORMAT})",
                version.segue_backup
            )));
        }
        let manifest: Manifest = serde_json::from_slice(line)
            .map_err(|error| damaged(&format!("does not fit: {error}")))?;
        if manifest.number != number {
            return Err(damaged(&format!("says that it is number {}", manifest.number)));
        }
        Ok(Manifest { retired, sha256: sum.sha256, ..manifest })
    }

    /// The names of all objects that it refers to, with their lengths.
    pub(super) fn objects(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let parts = self.tables.iter().flat_map(|table| &table.parts);
        let parts = parts.map(|part| (object_name(part.by, part.sha256), part.bytes));
        let bodies = self.bodies.iter();
        parts.chain(bodies.map(|body| (object_name(body.by, body.sha256), body.bytes)))
    }

    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Objects that it refers to, and their bytes, each once.
    pub fn size(&self) -> (u64, u64) {
        let objects: BTreeSet<(String, u64)> = self.objects().collect();
        (objects.len() as u64, objects.iter().map(|(_, bytes)| bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            segue_backup: FORMAT,
            number: 7,
            project: ProjectId(Uuid::from_u128(1)),
            made_at: Time(5),
            fence: 0,
            writer: Uuid::from_u128(2),
            previous: None,
            header: serde_json::json!({"segue_export": 1}),
            rows_sha256: Hash::of(b""),
            tables: Vec::new(),
            bodies: Vec::new(),
            written: Written::default(),
            retired: false,
            sha256: no_hash(),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_retired_without_a_change() {
        let (bytes, sha256) = sample().spell().unwrap();
        let read = Manifest::read("here", 7, &bytes).unwrap();
        assert_eq!(read, Manifest { sha256, ..sample() });
        let retired = Manifest::read("here", 7, &Manifest::retire(bytes)).unwrap();
        assert_eq!(retired, Manifest { retired: true, sha256, ..sample() });
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let (bytes, _) = sample().spell().unwrap();
        for end in 0..bytes.len() {
            Manifest::read("here", 7, &bytes[..end]).expect_err("it was cut");
        }
        for at in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            Manifest::read("here", 7, &changed).expect_err("it was changed");
        }
        Manifest::read("here", 8, &bytes).expect_err("it is another one");
    }

    #[test]
    fn names_sort_as_numbers_do() {
        assert_eq!(number_of(&name(42)), Some(42));
        assert!(name(9) < name(10));
        for strange in
            ["manifests/1.json", "manifests/000000000x.json", "manifests/0000000000.json", "x"]
        {
            assert_eq!(number_of(strange), None);
        }
    }
}
