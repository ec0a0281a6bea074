//! Writing a backup: what is new is read into a file of this machine, written as objects, and then named by a manifest.

use super::cut::{Base, Cut, Cutter, Desk, New};
use super::error::BackupError;
use super::manifest::{self, FORMAT, Link, Manifest, OBJECTS, Written};
use super::place::{Backups, Progress, Stage};
use super::spool::Spool;
use super::{Exports, Known};
use crate::objects::Created;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use segue_core::time::Time;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Objects that are written at a time.
const WRITES: usize = 6;
/// Numbers that are tried for.
const NUMBERS: usize = 64;
/// A backup that takes longer is given up. Half of what [`GRACE_MS`](super::sweep::GRACE_MS) is, so that what it refers to is still there.
const HOURS_MAX: u64 = 12;

/// What has to be known of an export's first line.
#[derive(Deserialize)]
struct Header {
    project: ProjectId,
    made_at: Time,
}

impl Backups {
    /// Makes a backup: what changed since the latest one is written, everything else referred to. `fence` is the token of the
    /// lease under which it is made, if it is a duty.
    ///
    /// # Errors
    /// [`BackupError::Fenced`], [`BackupError::OtherProject`], and what the store or the place report. Without a manifest, what was written
    /// is nothing, and is swept later.
    pub async fn write(
        &self,
        store: &dyn Exports,
        fence: Option<u64>,
    ) -> Result<Manifest, BackupError> {
        let began = self.objects.now().await?;
        let (latest, _) = self.latest().await?;
        check_fence(latest.as_ref(), fence)?;
        let writer = Uuid::new_v4();
        let spool = Spool::new(&self.scratch)?;
        let cut = self.cut(store, latest.as_ref(), writer, &spool).await?;
        let header = Header::deserialize(&cut.header)
            .map_err(|error| std::io::Error::other(format!("the export's header: {error}")))?;
        if let Some(latest) = latest.filter(|latest| latest.project != header.project) {
            return Err(BackupError::OtherProject(format!(
                "{} holds the backups of project {}, and this one is {}",
                self.url(),
                latest.project,
                header.project
            )));
        }
        let written = self.write_new(cut.new, writer, &spool).await?;
        let manifest = Manifest {
            segue_backup: FORMAT,
            number: 0,
            project: header.project,
            made_at: header.made_at,
            fence: 0,
            writer,
            previous: None,
            header: cut.header,
            rows_sha256: cut.rows_sha256,
            tables: cut.tables,
            bodies: cut.bodies,
            written,
            retired: false,
            sha256: Hash([0; 32]),
        };
        self.check_there(&manifest).await?;
        self.publish(manifest, fence, began).await
    }

    async fn cut(
        &self,
        store: &dyn Exports,
        latest: Option<&Manifest>,
        writer: Uuid,
        spool: &Spool,
    ) -> Result<Cut, BackupError> {
        (self.watch)(Progress { stage: Stage::Reading, done: 0, of: 0, bytes: 0 });
        let base = Arc::new(latest.map(Base::of).unwrap_or_default());
        let known: Known = {
            let base = base.clone();
            Arc::new(move |hash| base.bodies.contains_key(&hash))
        };
        let cutter = Cutter::new(base, writer, Some(spool.clone()));
        let desk = Desk(Arc::new(Mutex::new(cutter)));
        store.export_rows(known, Box::new(desk.clone())).await?;
        let cut = desk.0.lock().finish()?;
        Ok(cut)
    }

    async fn write_new(
        &self,
        new: Vec<New>,
        writer: Uuid,
        spool: &Spool,
    ) -> Result<Written, BackupError> {
        let of = new.len() as u64;
        let mut written = Written::default();
        let mut writes = futures_util::stream::iter(new)
            .map(|New { sha256, piece }| async move {
                let bytes = spool.read(piece).await?;
                self.objects.put(&manifest::object_name(writer, sha256), bytes).await?;
                Ok::<u64, BackupError>(piece.bytes)
            })
            .buffer_unordered(WRITES);
        while let Some(bytes) = writes.try_next().await? {
            written.objects += 1;
            written.bytes += bytes;
            let (done, bytes) = (written.objects, written.bytes);
            (self.watch)(Progress { stage: Stage::Writing, done, of, bytes });
        }
        Ok(written)
    }

    /// Reads back that every object is there with its length, before anybody is told to rely on it.
    async fn check_there(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let found = self.objects.list(OBJECTS).await?;
        let there: HashMap<&str, u64> =
            found.iter().map(|found| (found.name.as_str(), found.bytes)).collect();
        for (name, bytes) in manifest.objects() {
            let what = match there.get(name.as_str()) {
                Some(found) if *found == bytes => continue,
                Some(found) => format!("has {found} bytes instead of {bytes}"),
                None => "is not there".to_owned(),
            };
            let means = "the backup that was being made would refer to it, and so do earlier ones: `segue backup verify` says which. Move them away, so that a new one is made whole";
            return Err(BackupError::damaged(format!("{}/{name}", self.url()), what, means));
        }
        Ok(())
    }

    async fn publish(
        &self,
        mut manifest: Manifest,
        fence: Option<u64>,
        began: Time,
    ) -> Result<Manifest, BackupError> {
        for _ in 0..NUMBERS {
            if self.objects.now().await?.since_ms(began) > HOURS_MAX * 60 * 60 * 1000 {
                return Err(BackupError::TooSlow(HOURS_MAX));
            }
            let (latest, last) = self.latest().await?;
            check_fence(latest.as_ref(), fence)?;
            // A person's backup carries on the fence: it does not let an earlier holder in again.
            let before = latest.as_ref().map_or(0, |latest| latest.fence);
            manifest.fence = fence.unwrap_or(before);
            manifest.number = last + 1;
            manifest.previous =
                latest.map(|latest| Link { number: latest.number, sha256: latest.sha256 });
            let (bytes, sha256) = manifest.spell()?;
            let name = manifest::name(manifest.number);
            if self.objects.create(&name, Bytes::from(bytes)).await? == Created::Mine {
                manifest.sha256 = sha256;
                return Ok(manifest);
            }
        }
        Err(BackupError::Crowded(NUMBERS))
    }
}

impl Base {
    fn of(manifest: &Manifest) -> Base {
        let parts = manifest.tables.iter().flat_map(|table| &table.parts);
        Base {
            parts: parts.map(|part| (part.sha256, *part)).collect(),
            bodies: manifest.bodies.iter().map(|body| (body.sha256, *body)).collect(),
        }
    }
}

fn check_fence(latest: Option<&Manifest>, fence: Option<u64>) -> Result<(), BackupError> {
    match (latest, fence) {
        (Some(latest), Some(mine)) if latest.fence > mine => {
            Err(BackupError::Fenced { number: latest.number, theirs: latest.fence, mine })
        }
        _ => Ok(()),
    }
}
