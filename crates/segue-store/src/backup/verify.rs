//! Reading a backup back: every object, and, where asked, the store that it would be.

use super::cut::{Base, Cutter, Desk};
use super::error::BackupError;
use super::manifest::{self, Manifest};
use super::place::{Backups, Progress, Stage};
use super::read::{Numbers, READS};
use crate::sqlite;
use futures_util::StreamExt;
use parking_lot::Mutex;
use segue_core::payload::Hash;
use sha2::{Digest, Sha256};
use std::io::BufReader;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// Findings that are gathered before it is said that there are more.
const FINDINGS_MAX: usize = 50;

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The backup.
    pub number: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that were counted.
    pub rows: u64,
    /// Whether a store was made of it and read again.
    pub deep: bool,
    /// What is wrong with it, a sentence each; nothing where all is well.
    pub findings: Vec<String>,
}

impl Verified {
    fn note(&mut self, finding: String) {
        match self.findings.len() {
            0..FINDINGS_MAX => self.findings.push(finding),
            FINDINGS_MAX => self.findings.push("and more".into()),
            _ => {}
        }
    }
}

impl Backups {
    /// Reads every object of the backup of this number, or of the latest one, and checks sums and rows; with `deep`, makes a store of it on this machine as
    /// well, audits it, and compares what that exports.
    ///
    /// # Errors
    /// What the place reports; [`BackupError::None`]. What is wrong with the backup itself is among the findings.
    pub async fn verify(&self, number: Option<u64>, deep: bool) -> Result<Verified, BackupError> {
        let manifest = self.at(number).await?;
        let mut verified = Verified {
            number: manifest.number,
            objects: 0,
            bytes: 0,
            rows: 0,
            deep: false,
            findings: Vec::new(),
        };
        self.check_parts(&manifest, &mut verified).await?;
        self.check_bodies(&manifest, &mut verified).await?;
        check_counts(&manifest, &mut verified);
        self.check_chain(&manifest, &mut verified).await?;
        if deep && verified.findings.is_empty() {
            verified.deep = true;
            self.check_deep(&manifest, &mut verified).await?;
        }
        Ok(verified)
    }

    async fn check_parts(
        &self,
        manifest: &Manifest,
        out: &mut Verified,
    ) -> Result<(), BackupError> {
        let parts = manifest.parts();
        let of = (parts.len() + manifest.bodies.len()) as u64;
        let mut fetched = futures_util::stream::iter(parts)
            .map(|(wanted, table, rows)| async move {
                let bytes = self.fetch(manifest.number, &wanted).await?;
                self.check_rows(manifest.number, &wanted, &bytes, table, rows)?;
                Ok::<_, BackupError>((bytes, rows))
            })
            .buffered(READS);
        let mut digest = Sha256::new();
        while let Some(one) = fetched.next().await {
            match one {
                Ok((bytes, rows)) => {
                    digest.update(&bytes);
                    out.rows += rows;
                    self.count(out, bytes.len(), of);
                }
                Err(error @ BackupError::Damaged { .. }) => out.note(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if out.findings.is_empty() && Hash(digest.finalize().into()) != manifest.rows_sha256 {
            out.note(format!("the parts of backup {} are not its rows", manifest.number));
        }
        Ok(())
    }

    async fn check_bodies(
        &self,
        manifest: &Manifest,
        out: &mut Verified,
    ) -> Result<(), BackupError> {
        let of = out.objects + manifest.bodies.len() as u64;
        let mut fetched = futures_util::stream::iter(manifest.wanted_bodies())
            .map(|wanted| async move { self.fetch(manifest.number, &wanted).await })
            .buffered(READS);
        while let Some(one) = fetched.next().await {
            match one {
                Ok(bytes) => self.count(out, bytes.len(), of),
                Err(error @ BackupError::Damaged { .. }) => out.note(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&self, out: &mut Verified, bytes: usize, of: u64) {
        out.objects += 1;
        out.bytes += bytes as u64;
        let (done, bytes) = (out.objects, out.bytes);
        (self.watch)(Progress { stage: Stage::Checking, done, of, bytes });
    }

    /// The manifest before it is the one that was there when it was written, if it is still there.
    async fn check_chain(
        &self,
        manifest: &Manifest,
        out: &mut Verified,
    ) -> Result<(), BackupError> {
        let Some(link) = manifest.previous else { return Ok(()) };
        match self.read(link.number).await {
            Ok(previous) if previous.sha256 == link.sha256 => {}
            Ok(_) => out.note(format!(
                "{}/{} is another one than when backup {} was written: somebody replaced it",
                self.url(),
                manifest::name(link.number),
                manifest.number
            )),
            Err(BackupError::None(_)) => {}
            Err(error @ BackupError::Damaged { .. }) => out.note(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn check_deep(&self, manifest: &Manifest, out: &mut Verified) -> Result<(), BackupError> {
        let file = self.spell(manifest, Numbers::AsTheyWere).await?;
        let folder = Folder::new(self.scratch.join(format!("verify-{}", Uuid::new_v4().simple())))?;
        let cutter = Cutter::new(Arc::new(Base::default()), manifest.writer, None);
        let desk = Desk(Arc::new(Mutex::new(cutter)));
        let options = sqlite::Options::new(&folder.0, manifest.project, [0; 32]);
        let made = {
            let mut desk = desk.clone();
            let work = move || {
                sqlite::import(&options, &mut BufReader::new(file))?;
                sqlite::export_file(&options, &mut desk)
            };
            tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
        };
        let again = made.map_err(|error| error.to_string()).and_then(|_| {
            let cut = desk.0.lock().finish();
            cut.map_err(|error| error.to_string())
        });
        let bodies = |bodies: &[manifest::Body]| -> Vec<Hash> {
            bodies.iter().map(|body| body.sha256).collect()
        };
        match again {
            Err(error) => {
                out.note(format!("no store can be made of backup {}: {error}", manifest.number))
            }
            Ok(cut) if cut.rows_sha256 != manifest.rows_sha256 => out.note(format!(
                "the store that was made of backup {} exports other rows than were backed up",
                manifest.number
            )),
            Ok(cut) if bodies(&cut.bodies) != bodies(&manifest.bodies) => out.note(format!(
                "the store that was made of backup {} has other bodies than were backed up",
                manifest.number
            )),
            Ok(_) => {}
        }
        Ok(())
    }
}

/// The tables have as many rows as the export announced.
fn check_counts(manifest: &Manifest, out: &mut Verified) {
    let Some(announced) = manifest.header.get("rows").and_then(|rows| rows.as_object()) else {
        return out.note(format!("the header of backup {} announces no rows", manifest.number));
    };
    for (table, count) in announced {
        let found = manifest.tables.iter().find(|rows| rows.table == *table);
        let found = found.map_or(0, |rows| rows.parts.iter().map(|part| part.rows).sum());
        if count.as_u64() != Some(found) {
            out.note(format!(
                "backup {} has {found} rows of `{table}`, where {count} were announced",
                manifest.number
            ));
        }
    }
}

/// A folder that goes when nobody needs it any more.
struct Folder(PathBuf);

impl Folder {
    fn new(path: PathBuf) -> std::io::Result<Folder> {
        // It holds every input and output of a project: nobody else's business.
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "cannot be removed");
        }
    }
}
