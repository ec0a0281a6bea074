//! Backups of a project: where they go, how often, and how many are kept.

use crate::backend::Backend;
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::project::Project;
use segue_core::time::Time;
use segue_core::workflow::parse_duration_ms;
use segue_store::backup::{BackupError, Backups, Exports, Keep, Manifest, Swept};
use segue_store::objects::{ObjectError, Objects, Options, Trouble};
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The folder for what is on its way to or from a place of backups, in the project's state.
const SCRATCH: &str = "scratch";
/// How often it is looked whether `segue.toml` wants a schedule, or another one.
const LOOK: Duration = Duration::from_secs(60);
/// How long a place that failed is left alone.
pub const PAUSE: Duration = Duration::from_secs(5 * 60);
/// No more often are backups made on a schedule.
pub const EVERY_MS_MIN: u64 = 60 * 1_000;

/// `[backup]` in `segue.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// Where they go: `s3://bucket/prefix`, `file:///folder`, or a folder, beside the file where it is relative.
    pub to: String,
    /// How often a node that stays makes one; without it, none does.
    #[serde(default, deserialize_with = "every")]
    pub every: Option<u64>,
    /// How many are kept.
    #[serde(default)]
    pub keep: Keep,
}

fn every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let ms = parse_duration_ms(&text).map_err(serde::de::Error::custom)?;
    if ms < EVERY_MS_MIN {
        return Err(serde::de::Error::custom("backups are made once a minute at most"));
    }
    Ok(Some(ms))
}

/// Names a place as everybody understands it: a folder becomes an absolute path.
///
/// # Errors
/// Where the path cannot be made absolute, or is not UTF-8.
pub fn absolute(to: &str, beside: &Path) -> Result<String, Failure> {
    if to.contains("://") {
        return Ok(to.to_owned());
    }
    let path = std::path::absolute(beside.join(to))
        .map_err(|error| Failure::usage(format!("{to} is no path: {error}")))?;
    match path.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => {
            Err(Failure::usage(format!("{} is not UTF-8: name another folder", path.display())))
        }
    }
}

/// The folder that a place names, if it is one of this machine.
pub fn folder(to: &str) -> Option<PathBuf> {
    match to.strip_prefix("file://") {
        Some(path) => Some(path.into()),
        None => (!to.contains("://")).then(|| to.into()),
    }
}

/// The backups at a place, for reading: a folder that is not there is not made.
///
/// # Errors
/// Where the address or the options cannot be right.
pub fn existing(to: &str, options: &Options, scratch: &Path) -> Result<Backups, BackupError> {
    if let Some(folder) = folder(to).filter(|folder| !folder.is_dir()) {
        let what = "there is no such folder";
        let error = ObjectError::new(Trouble::Missing, folder.display().to_string(), what);
        return Err(error.into());
    }
    at(to, options, scratch)
}

/// The backups at a place.
///
/// # Errors
/// Where the address or the options cannot be right.
pub fn at(to: &str, options: &Options, scratch: &Path) -> Result<Backups, BackupError> {
    let objects = Objects::open(to, &options.clone().or_environment())?;
    Ok(Backups::new(objects, scratch))
}

/// Where things are on their way to or from the backups of a project.
pub fn scratch(project: &Project) -> PathBuf {
    project.state.join(SCRATCH)
}

/// Makes a backup and gives up those that need not be kept: the whole of the duty. `fence` is the token of the lease under which this is done.
///
/// # Errors
/// As [`Backups::write`] and [`Backups::sweep`].
pub async fn once(
    backups: &Backups,
    store: &dyn Exports,
    keep: &Keep,
    fence: Option<u64>,
) -> Result<(Manifest, Swept), BackupError> {
    let manifest = backups.write(store, fence).await?;
    Ok((manifest, backups.sweep(keep).await?))
}

/// How long until the next backup is due: `every` after the latest one, by the store's clock.
///
/// # Errors
/// What the place reports.
pub async fn due_in(backups: &Backups, now: Time, every: u64) -> Result<Duration, BackupError> {
    match backups.at(None).await {
        Ok(latest) => {
            let age = now.since_ms(latest.made_at);
            Ok(Duration::from_millis(every.saturating_sub(age)))
        }
        // A latest one that is damaged is a reason for a new one.
        Err(BackupError::None(_) | BackupError::Damaged { .. }) => Ok(Duration::ZERO),
        Err(error) => Err(error),
    }
}

/// Makes the backups that `[backup]` of the project's `segue.toml` asks for, for as long as the caller holds the project. A place that fails is tried again later, and the log says so.
pub async fn keep_schedule(project: &Project, backend: &Backend) {
    let mut known: Option<(BackupConfig, Instant)> = None;
    loop {
        // A file that is wrong is reported by whoever loads the agents from it.
        let config = Config::load(&project.dir).unwrap_or_default();
        let Some((wanted, every)) =
            config.backup.and_then(|wanted| wanted.every.map(|every| (wanted, every)))
        else {
            known = None;
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let next = match &known {
            Some((before, next)) if *before == wanted => *next,
            _ => Instant::now(),
        };
        if next > Instant::now() {
            known = Some((wanted, next));
            tokio::time::sleep_until(next.min(Instant::now() + LOOK)).await;
            continue;
        }
        let wait = match make_if_due(project, backend, &wanted, every, &config.objects, None).await
        {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, to = wanted.to, "the backup was not made; it is tried again");
                PAUSE
            }
        };
        known = Some((wanted, Instant::now() + wait));
    }
}

/// Makes a backup if the latest one is old enough, and says how long to wait for the next. `fence` is the token of the lease under which this is done.
///
/// # Errors
/// As [`once`].
pub async fn make_if_due(
    project: &Project,
    backend: &Backend,
    wanted: &BackupConfig,
    every: u64,
    options: &Options,
    fence: Option<u64>,
) -> Result<Duration, BackupError> {
    let to = absolute(&wanted.to, &project.dir)
        .map_err(|failure| ObjectError::new(Trouble::Config, &*wanted.to, failure.message))?;
    let backups = at(&to, options, &scratch(project))?;
    let wait = due_in(&backups, backend.store.now(), every).await?;
    if !wait.is_zero() {
        return Ok(wait);
    }
    let (manifest, swept) = once(&backups, backend, &wanted.keep, fence).await?;
    tracing::info!(
        number = manifest.number,
        objects = manifest.written.objects,
        bytes = manifest.written.bytes,
        given_up = swept.given_up.len(),
        "a backup was made"
    );
    Ok(Duration::from_millis(every))
}

/// How a command fails that could not make, read or remove a backup.
pub fn failure(error: &BackupError) -> Failure {
    let exit = match error {
        BackupError::Objects(error) => match error.trouble {
            Trouble::Away | Trouble::Full | Trouble::Clock | Trouble::Other => Exit::Node,
            _ => Exit::Usage,
        },
        BackupError::Store(_) | BackupError::Scratch(_) | BackupError::TooSlow(_) => Exit::Node,
        BackupError::Fenced { .. } | BackupError::Crowded(_) => Exit::Failed,
        BackupError::None(_)
        | BackupError::Damaged { .. }
        | BackupError::OtherProject(_)
        | BackupError::Newer(_) => Exit::Usage,
    };
    let failure = Failure::new(exit, error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_beside_the_file_that_names_it_and_an_address_is_left_alone() {
        let here = Path::new("/project");
        assert_eq!(absolute("../backups", here).unwrap(), "/project/../backups");
        assert_eq!(absolute("/there", here).unwrap(), "/there");
        assert_eq!(absolute("s3://bucket/prefix", here).unwrap(), "s3://bucket/prefix");
        assert_eq!(folder("file:///there"), Some("/there".into()));
        assert_eq!(folder("s3://bucket"), None);
    }
}
