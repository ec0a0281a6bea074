//! The project: Segue's folder in it, its identity, and the lock that keeps it to one node.

use crate::cluster::Settings;
use anyhow::{Context, Result, bail};
use segue_core::ids::{HostId, ProjectId};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The name of Segue's folder.
pub const STATE_FOLDER: &str = ".segue";
/// The name of the project's configuration.
pub const CONFIG_FILE: &str = "segue.toml";
/// How long a lock is waited for whose holder is dead.
const DEAD_HOLDER_WAIT: Duration = Duration::from_secs(3);
/// The pause between two tries to take it.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A project on this machine.
#[derive(Clone, Debug)]
pub struct Project {
    /// The project's folder.
    pub dir: PathBuf,
    /// Segue's folder in it.
    pub state: PathBuf,
    /// Who it is.
    pub id: ProjectId,
    /// This machine's host of agents in it.
    pub host: HostId,
    /// From which the secrets of attempts are derived. Never leaves this folder, or the file that the nodes of a cluster share.
    pub key: [u8; 32],
    /// The cluster that it is part of, if it is.
    pub cluster: Option<Arc<Settings>>,
}

/// What `.segue/project.json` holds.
#[derive(Serialize, Deserialize)]
struct Identity {
    project: ProjectId,
    host: HostId,
    /// Number of the folder on its disk, and where it was: a copy has neither, a moved folder has the one, a restored one the other.
    inode: u64,
    dir: PathBuf,
}

impl Project {
    /// The project that contains `start`: the nearest folder upwards with `.segue` or `segue.toml`.
    pub fn find(start: &Path) -> Option<PathBuf> {
        start
            .ancestors()
            .find(|dir| dir.join(STATE_FOLDER).is_dir() || dir.join(CONFIG_FILE).is_file())
            .map(Path::to_path_buf)
    }

    /// Opens the project at `dir`, and makes `.segue` where there is none.
    ///
    /// # Errors
    /// When the folder cannot be written, or is a copy of another project's.
    pub fn open_or_make(dir: &Path) -> Result<Project> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("the project's folder {} cannot be entered", dir.display()))?;
        let state = dir.join(STATE_FOLDER);
        make_state(&state)?;
        // Of several first commands at once one makes the identity, and the others read it.
        let _setup = setup_lock(&state)?;
        let identity = identity(&state)?;
        let key = key(&state)?;
        let Identity { project: id, host, .. } = identity;
        Ok(Project { dir, state, id, host, key, cluster: None })
    }

    /// Is this project from now on: a backup of its state was restored here. The host stays another one.
    ///
    /// # Errors
    /// When the identity cannot be written.
    pub fn adopt(&mut self, project: ProjectId) -> Result<()> {
        let known = Identity { project, ..identity(&self.state)? };
        let path = self.state.join("project.json");
        write_private(&path, &serde_json::to_string_pretty(&known)?)?;
        self.id = project;
        Ok(())
    }

    /// Takes the lock of the project's node. It is held until the file is dropped, or the process ends in any way.
    ///
    /// A node that was killed while it started a process may seem to hold it for a moment longer: until that process has
    /// become the program that it was to be, it has the node's open files. So a dead holder is waited for, but not long.
    ///
    /// # Errors
    /// When another node holds it.
    pub fn lock(&self) -> Result<NodeLock> {
        let until = Instant::now() + DEAD_HOLDER_WAIT;
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            let holder = std::fs::read_to_string(self.lock_path()).unwrap_or_default();
            let holder = holder.trim();
            if is_alive(holder) || Instant::now() > until {
                bail!(
                    "another node of this project runs already (process {holder}): use it, or end it first"
                )
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// Takes the lock, if nobody holds it.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_lock(&self) -> Result<Option<NodeLock>> {
        let path = self.lock_path();
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Some(NodeLock(file)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.state.join("node.lock")
    }

    /// Where the project's node listens.
    pub fn socket(&self) -> PathBuf {
        self.state.join("node.sock")
    }
}

/// Makes a folder of Segue's, that nobody else may look into and git leaves alone.
///
/// # Errors
/// When it cannot be made.
pub fn make_state(state: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(state)
        .with_context(|| format!("cannot make the folder {}", state.display()))?;
    let ignore = state.join(".gitignore");
    if !ignore.exists() {
        std::fs::write(&ignore, "*\n")
            .with_context(|| format!("cannot write {}", ignore.display()))?;
    }
    Ok(())
}

/// Whether the process with this number is there.
fn is_alive(pid: &str) -> bool {
    pid.parse().is_ok_and(|pid| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None)
            != Err(nix::errno::Errno::ESRCH)
    })
}

/// Proof that this process is the project's node.
#[derive(Debug)]
pub struct NodeLock(#[allow(dead_code, reason = "held, never read")] File);

/// Held while the files of the project's identity are read or made: for moments only.
fn setup_lock(state: &Path) -> Result<File> {
    let path = state.join("setup.lock");
    let open = || -> std::io::Result<File> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().with_context(|| format!("cannot lock {}", path.display()))
}

fn identity(state: &Path) -> Result<Identity> {
    let path = state.join("project.json");
    let inode = std::fs::metadata(state)?.ino();
    let dir = state.to_path_buf();
    if let Some(text) = read_if_there(&path)? {
        let mut known: Identity = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; restore it from a backup", path.display()))?;
        if known.inode != inode && known.dir != dir {
            bail!(
                "{} is a copy of {}, and a copy is another project: remove it to begin anew (its tasks go with it), or, if it was moved on purpose, remove only {} in it to keep them",
                state.display(),
                known.dir.display(),
                path.display()
            );
        }
        if known.inode != inode || known.dir != dir {
            known = Identity { inode, dir, ..known };
            write_private(&path, &serde_json::to_string_pretty(&known)?)?;
        }
        return Ok(known);
    }
    let identity =
        Identity { project: ProjectId(Uuid::new_v4()), host: HostId(Uuid::new_v4()), inode, dir };
    write_private(&path, &serde_json::to_string_pretty(&identity)?)?;
    Ok(identity)
}

fn key(state: &Path) -> Result<[u8; 32]> {
    let path = state.join("key");
    if let Some(text) = read_if_there(&path)? {
        return segue_core::payload::Hash::from_hex(text.trim()).map(|hash| hash.0).with_context(
            || {
                format!(
                    "{} is damaged: it holds 64 hexadecimal digits; restore it from a backup",
                    path.display()
                )
            },
        );
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    write_private(&path, &segue_core::payload::Hash(key).hex())?;
    Ok(key)
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension(format!("draft-{}", Uuid::new_v4().simple()));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_commands_at_once_agree_who_the_project_is() {
        let folder = tempfile::tempdir().unwrap();
        let opened: Vec<Project> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| Project::open_or_make(folder.path()).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let first = &opened[0];
        assert!(opened.iter().all(|one| one.id == first.id && one.key == first.key));
    }

    #[test]
    fn the_lock_of_a_living_node_is_refused_at_once_and_that_of_a_dead_one_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let project = Project::open_or_make(folder.path()).unwrap();
        let held = project.lock().unwrap();
        let refused = format!("{:#}", project.lock().unwrap_err());
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        // What a process that the dead node was just starting looks like: it has the lock, under the dead node's number.
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        std::fs::write(project.lock_path(), format!("{}\n", dead.id())).unwrap();
        let waiting = {
            let project = project.clone();
            std::thread::spawn(move || project.lock())
        };
        drop(held);
        waiting.join().unwrap().unwrap();
    }
}
