//! What is a node's or a worker's own: a folder with its host id, its lock, its socket, its logs and worktrees.

use super::settings::Settings;
use crate::project::{Project, STATE_FOLDER, make_state, write_private};
use anyhow::{Context, Result, bail};
use segue_core::ids::{HostId, Incarnation, ProjectId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// The project as the node of these settings sees it, in this folder.
///
/// # Errors
/// When the node's folder cannot be written, or belongs to another project.
pub fn node_project(settings: Arc<Settings>, dir: &Path) -> Result<Project> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("the folder {} cannot be entered", dir.display()))?;
    let state = dir.join(STATE_FOLDER).join("nodes").join(&settings.node.name);
    make_state(&dir.join(STATE_FOLDER))?;
    make_state(&state)?;
    let project = settings.project.clone().context("the file names no [project]")?;
    let host = host_of(&state, project.id)?;
    let (id, key) = (project.id, project.key);
    Ok(Project { dir, state, id, host, key, cluster: Some(settings) })
}

/// The host id of a node: made once, and kept in its folder.
fn host_of(state: &Path, project: ProjectId) -> Result<HostId> {
    let path = state.join("host");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let ids: Option<(HostId, ProjectId)> = text
                .trim()
                .split_once(' ')
                .and_then(|(host, project)| Some((host.parse().ok()?, project.parse().ok()?)));
            match ids {
                Some((host, of)) if of == project => Ok(host),
                Some((_, of)) => bail!(
                    "{} is the node of another project ({of}): give this node another name, or remove the folder",
                    state.display()
                ),
                None => bail!(
                    "{} is damaged: remove it, and the node gets a new host id",
                    path.display()
                ),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let host = HostId(Uuid::new_v4());
            write_private(&path, &format!("{host} {project}\n"))?;
            Ok(host)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The folder of a worker.
///
/// # Errors
/// When it cannot be written.
pub fn worker_state(settings: &Settings, dir: &Path, name: &str) -> Result<PathBuf> {
    let state = match &settings.worker.state {
        Some(state) => dir.join(state),
        None => {
            make_state(&dir.join(STATE_FOLDER))?;
            dir.join(STATE_FOLDER).join("workers").join(name)
        }
    };
    make_state(&state)?;
    Ok(state)
}

/// A new life of a worker: its id is greater than that of every life before, whatever the clock says.
///
/// # Errors
/// When the folder cannot be written.
pub fn next_life(state: &Path) -> Result<Incarnation> {
    let path = state.join("life");
    let before: Option<Uuid> = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let mut life = uuid::Builder::from_unix_timestamp_millis(now, &bytes).into_uuid();
    if let Some(before) = before.filter(|before| *before >= life) {
        life = Uuid::from_u128(before.as_u128().saturating_add(1));
    }
    write_private(&path, &format!("{life}\n"))?;
    Ok(Incarnation(life))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_grow_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let first = next_life(folder.path()).unwrap();
        assert!(next_life(folder.path()).unwrap() > first);
        let late = "fffffff0-0000-7000-8000-000000000000";
        std::fs::write(folder.path().join("life"), late).unwrap();
        assert!(next_life(folder.path()).unwrap().0 > late.parse::<Uuid>().unwrap());
    }

    #[test]
    fn a_node_keeps_its_host_id_and_is_that_of_one_project() {
        let folder = tempfile::tempdir().unwrap();
        let project = ProjectId(Uuid::from_u128(1));
        let host = host_of(folder.path(), project).unwrap();
        assert_eq!(host_of(folder.path(), project).unwrap(), host);
        let other = host_of(folder.path(), ProjectId(Uuid::from_u128(2))).unwrap_err();
        assert!(other.to_string().contains("another project"), "{other}");
    }
}
