//! Health, retention and backup.

use super::error::ApiError;
use super::extract::Json;
use super::state::Shared;
use super::views::{AuditView, BackupView, HealthView, ManifestView, PrunedView};
use crate::project::Project;
use crate::{backups, transfer};
use axum::Json as Answer;
use axum::extract::State;
use segue_core::ids::TaskId;
use segue_core::ports::{Store, StoreError};
use segue_core::time::Time;
use segue_store::objects::Options;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// `GET /v1/health`
pub async fn health(State(api): State<Shared>) -> Result<Answer<HealthView>, ApiError> {
    let store = api.store();
    let status = match store.health() {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    let counts = store.counts().await?;
    let agents = store.agents().await?.iter().filter(|agent| !agent.gone).count();
    Ok(Answer(HealthView {
        status,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        project: api.project.id.to_string(),
        dir: api.project.dir.display().to_string(),
        pid: std::process::id(),
        engine: api.engine.is_some(),
        team: api.roster().team.as_ref().map(|team| team.display().to_string()),
        agents,
        tasks: counts.into_iter().map(|(state, count)| (state.to_string(), count)).collect(),
    }))
}

/// What to remove.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pruning {
    /// Runs that ended at least so long ago.
    pub older_than_ms: u64,
}

/// `POST /v1/prune`
pub async fn prune(
    State(api): State<Shared>,
    Json(pruning): Json<Pruning>,
) -> Result<Answer<PrunedView>, ApiError> {
    let now = api.store().now();
    let age = i64::try_from(pruning.older_than_ms).unwrap_or(i64::MAX);
    let pruned = api.store().prune(Time(now.0.saturating_sub(age))).await?;
    let folders = sweep_folders(&api.project, api.store()).await?;
    Ok(Answer(PrunedView::of(&pruned, folders)))
}

/// Removes the folders of logs and of work that belong to no task any more.
///
/// # Errors
/// When the store cannot be read.
pub async fn sweep_folders(project: &Project, store: &dyn Store) -> Result<u64, StoreError> {
    let mut removed = 0;
    for kind in ["logs", "work"] {
        let folder = project.state.join(kind);
        let found = blocking(move || folders_in(&folder)).await?;
        let ids: Vec<TaskId> = found.iter().map(|(id, _)| *id).collect();
        let known: BTreeSet<TaskId> =
            store.tasks_by_id(ids).await?.iter().map(|task| task.id()).collect();
        let gone: Vec<PathBuf> =
            found.into_iter().filter(|(id, _)| !known.contains(id)).map(|(_, path)| path).collect();
        removed += blocking(move || remove_all(&gone)).await?;
    }
    Ok(removed)
}

fn folders_in(folder: &Path) -> Vec<(TaskId, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect()
}

fn remove_all(folders: &[PathBuf]) -> u64 {
    let mut removed = 0;
    for folder in folders {
        match std::fs::remove_dir_all(folder) {
            Ok(()) => removed += 1,
            Err(error) => tracing::warn!(%error, folder = %folder.display(), "cannot be removed"),
        }
    }
    removed
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Io(format!("it was cut off: {error}")))
}

/// Where to write a backup: `to` or `dir`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackingUp {
    /// A place of numbered backups: `s3://bucket/prefix`, `file:///folder` or an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How S3 is reached; what is left out is taken from the node's environment.
    #[serde(default)]
    pub objects: Options,
    /// Instead: an absolute path of a folder that does not exist, or is empty, for a copy of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum BackedUp {
    /// A numbered backup.
    Objects(ManifestView),
    /// A copy.
    Folder(BackupView),
}

/// `POST /v1/backup`
pub async fn backup(
    State(api): State<Shared>,
    Json(wanted): Json<BackingUp>,
) -> Result<Answer<BackedUp>, ApiError> {
    let folder = match (&wanted.to, &wanted.dir) {
        (Some(to), None) => backups::folder(to),
        (None, Some(dir)) => Some(dir.clone()),
        _ => return Err(ApiError::invalid("a backup goes either `to` a place or into a `dir`")),
    };
    if folder.is_some_and(|folder| !folder.is_absolute()) {
        let what = "the folder has to be an absolute path of the node's machine";
        return Err(ApiError::invalid(what));
    }
    if let Some(dir) = wanted.dir {
        let manifest = api.backend.backup(&dir).await?;
        return Ok(Answer(BackedUp::Folder(BackupView::of(&manifest, &dir))));
    }
    let to = wanted.to.unwrap_or_default();
    let backups = backups::at(&to, &wanted.objects, &backups::scratch(&api.project))?;
    let manifest = backups.write(&api.backend, None).await?;
    Ok(Answer(BackedUp::Objects(ManifestView::of(&manifest, backups.url()))))
}

/// Where to write an export.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exporting {
    /// An absolute path of a file that is not there.
    pub to: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exported {
    /// The file.
    pub to: String,
    /// Its length.
    pub bytes: u64,
}

/// `POST /v1/export`
pub async fn export(
    State(api): State<Shared>,
    Json(wanted): Json<Exporting>,
) -> Result<Answer<Exported>, ApiError> {
    if !wanted.to.is_absolute() {
        let what = "the file has to be an absolute path of the node's machine";
        return Err(ApiError::invalid(what));
    }
    let bytes = transfer::to_file(&api.backend, &wanted.to).await?;
    Ok(Answer(Exported { to: wanted.to.display().to_string(), bytes }))
}

/// `GET /v1/audit`
pub async fn audit(State(api): State<Shared>) -> Result<Answer<AuditView>, ApiError> {
    Ok(Answer(AuditView { findings: api.backend.audit().await? }))
}
