//! Retention: which backups are given up, and which objects nobody refers to any more.

use super::error::BackupError;
use super::keep::Keep;
use super::manifest::{self, BYTES_MAX, Manifest, OBJECTS};
use super::place::Backups;
use crate::objects::Found;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Whatever is to go stays so long after it was written or given up. A backup takes at most half of it, so one that was begun before finds all that it refers to.
pub(super) const GRACE_MS: u64 = 24 * 60 * 60 * 1000;

/// What retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Backups that are kept.
    pub kept: Vec<u64>,
    /// Backups that were given up now. Their objects go a day later.
    pub given_up: Vec<u64>,
    /// Backups that had been given up and went now.
    pub removed: Vec<u64>,
    /// Objects that went.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Backups {
    /// Gives up the backups that `keep` does not keep, and removes what nobody refers to: objects of backups that were given up a day ago or more, and of those that were never
    /// finished. The latest backup is never given up. Several may do this at once, and others may make backups meanwhile.
    ///
    /// # Errors
    /// What the place reports; [`BackupError::Damaged`] where a manifest cannot be read, since nobody knows what it refers to: nothing is removed then.
    pub async fn sweep(&self, keep: &Keep) -> Result<Swept, BackupError> {
        let now = self.objects.now().await?;
        let is_old = |found: &Found| now.since_ms(found.written_at) >= GRACE_MS;
        let mut manifests = Vec::new();
        for (_, manifest) in self.list().await? {
            manifests.push(manifest?);
        }
        // Looked at after they were read: one that had been given up then has at least that age.
        let found: BTreeMap<u64, Found> = self.found().await?.into_iter().collect();
        let living: Vec<_> = manifests
            .iter()
            .filter(|manifest| !manifest.retired)
            .map(|manifest| (manifest.number, manifest.made_at))
            .collect();
        let kept = keep.keeps(&living);
        let mut swept = Swept { kept: kept.iter().copied().collect(), ..Swept::default() };
        // One that was given up long ago.
        let is_gone = |manifest: &&Manifest| {
            manifest.retired && found.get(&manifest.number).is_some_and(is_old)
        };
        let (gone, there): (Vec<&Manifest>, Vec<&Manifest>) = manifests.iter().partition(is_gone);
        for manifest in there.iter().filter(|manifest| !manifest.retired) {
            if !kept.contains(&manifest.number) {
                self.give_up(manifest.number).await?;
                swept.given_up.push(manifest.number);
            }
        }
        let referred: BTreeSet<String> =
            there.iter().flat_map(|manifest| manifest.objects()).map(|(name, _)| name).collect();
        let mut names = Vec::new();
        for object in self.objects.list(OBJECTS).await? {
            if is_old(&object) && !referred.contains(&object.name) {
                swept.objects += 1;
                swept.bytes += object.bytes;
                names.push(object.name);
            }
        }
        self.objects.remove(&names).await?;
        // Their manifests at last, so that what a crash leaves of them is still known to be theirs.
        swept.removed = gone.iter().map(|manifest| manifest.number).collect();
        let names: Vec<String> =
            swept.removed.iter().map(|number| manifest::name(*number)).collect();
        self.objects.remove(&names).await?;
        Ok(swept)
    }

    /// Marks a manifest. What it says stays, and so does its number.
    async fn give_up(&self, number: u64) -> Result<(), BackupError> {
        let name = manifest::name(number);
        let bytes = self.objects.get(&name, BYTES_MAX).await?;
        let at = format!("{}/{name}", self.url());
        if Manifest::read(&at, number, &bytes)?.retired {
            return Ok(());
        }
        let marked = Manifest::retire(bytes.to_vec());
        Ok(self.objects.put(&name, Bytes::from(marked)).await?)
    }
}
