//! The backups of one place: which there are.

use super::error::BackupError;
use super::manifest::{self, BYTES_MAX, Manifest};
use crate::objects::{Found, ObjectError, Objects, Trouble};
use futures_util::{StreamExt, TryStreamExt};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Manifests that are read at a time.
const READS: usize = 8;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The store is read.
    Reading,
    /// Objects are written.
    Writing,
    /// Objects are read and checked.
    Checking,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Objects so far.
    pub done: u64,
    /// Objects in all.
    pub of: u64,
    /// Bytes of those so far.
    pub bytes: u64,
}

/// Who hears how far it is.
pub(super) type Watch = Arc<dyn Fn(Progress) + Send + Sync>;

/// The backups of a project at one place.
#[derive(Clone)]
pub struct Backups {
    pub(super) objects: Objects,
    /// A folder of this machine for what is on its way.
    pub(super) scratch: PathBuf,
    pub(super) watch: Watch,
}

impl fmt::Debug for Backups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backups({})", self.objects.url())
    }
}

impl Backups {
    /// The backups at this place. What is on its way there or back goes through a file without a name in `scratch`, which is made where it is missing.
    pub fn new(objects: Objects, scratch: impl Into<PathBuf>) -> Backups {
        Backups { objects, scratch: scratch.into(), watch: Arc::new(|_| {}) }
    }

    /// The same, and somebody hears how far it is.
    #[must_use]
    pub fn watched(mut self, watch: impl Fn(Progress) + Send + Sync + 'static) -> Backups {
        self.watch = Arc::new(watch);
        self
    }

    /// The address.
    pub fn url(&self) -> &str {
        self.objects.url()
    }

    /// The manifests that are there, the first one first.
    pub(super) async fn found(&self) -> Result<Vec<(u64, Found)>, BackupError> {
        let found = self.objects.list(manifest::FOLDER).await?;
        let mut numbered: Vec<_> = found
            .into_iter()
            .filter_map(|found| Some((manifest::number_of(&found.name)?, found)))
            .collect();
        numbered.sort_by_key(|(number, _)| *number);
        Ok(numbered)
    }

    /// Reads one, whether retention has given it up or not.
    pub(super) async fn read(&self, number: u64) -> Result<Manifest, BackupError> {
        let name = manifest::name(number);
        let bytes = self.objects.get(&name, BYTES_MAX).await.map_err(|error| match error {
            ObjectError { trouble: Trouble::Missing, .. } => {
                BackupError::None(format!("{} has no backup {number}", self.url()))
            }
            other => other.into(),
        })?;
        Manifest::read(&format!("{}/{name}", self.url()), number, &bytes)
    }

    /// All backups, the first one first; one that cannot be read with the reason.
    ///
    /// # Errors
    /// What the place reports; [`BackupError::None`] where it holds something else than backups.
    pub async fn list(&self) -> Result<Vec<(u64, Result<Manifest, BackupError>)>, BackupError> {
        let found = self.found().await?;
        futures_util::stream::iter(found)
            .map(|(number, _)| async move {
                match self.read(number).await {
                    // It was removed a moment ago.
                    Err(BackupError::None(_)) => Ok(None),
                    Err(error @ (BackupError::Damaged { .. } | BackupError::Newer(_))) => {
                        Ok(Some((number, Err(error))))
                    }
                    Err(error) => Err(error),
                    Ok(manifest) => Ok(Some((number, Ok(manifest)))),
                }
            })
            .buffered(READS)
            .try_filter_map(|one| async { Ok(one) })
            .try_collect()
            .await
    }

    /// The latest backup that can be read, and the latest number.
    pub(super) async fn latest(&self) -> Result<(Option<Manifest>, u64), BackupError> {
        let found = self.found().await?;
        let last = found.last().map_or(0, |(number, _)| *number);
        for (number, _) in found.iter().rev() {
            match self.read(*number).await {
                Ok(manifest) if !manifest.retired => return Ok((Some(manifest), last)),
                Ok(_) | Err(BackupError::None(_)) => {}
                Err(error @ BackupError::Damaged { .. }) => {
                    tracing::warn!(%error, "a backup is damaged; an earlier one is built on");
                }
                Err(error) => return Err(error),
            }
        }
        Ok((None, last))
    }

    /// The backup of this number, or the latest one.
    ///
    /// # Errors
    /// [`BackupError::None`] where there is none; [`BackupError::Damaged`] where its manifest is.
    pub async fn at(&self, number: Option<u64>) -> Result<Manifest, BackupError> {
        let number = match number {
            Some(number) => number,
            None => self.newest().await?,
        };
        self.read(number).await
    }

    /// The latest number that retention has not given up. One that is damaged counts: whoever wants the latest has to hear of it.
    async fn newest(&self) -> Result<u64, BackupError> {
        for (number, _) in self.found().await?.iter().rev() {
            match self.read(*number).await {
                Ok(manifest) if manifest.retired => {}
                _ => return Ok(*number),
            }
        }
        Err(self.none().await)
    }

    /// There is none: why.
    async fn none(&self) -> BackupError {
        let url = self.url();
        if let Ok(Some(_)) = self.objects.look("manifest.json").await {
            return BackupError::None(format!(
                "{url} holds a single backup of the earlier form: `segue restore` reads it, but it has no numbers"
            ));
        }
        BackupError::None(format!("there is no backup at {url}"))
    }
}
