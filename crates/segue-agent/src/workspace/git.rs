//! Running git: separate arguments, a scrubbed environment, no hooks, no questions.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::WorkspaceError;
use crate::process::scrubbed_env;

/// What git wrote, without the newline at the end.
pub(super) fn git<I, A>(folder: &Path, args: I) -> Result<Vec<u8>, WorkspaceError>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let mut command = Command::new("git");
    // The project's hooks and its file monitor are for people at work: in here they would run
    // programs that nobody waits for, and whose failure would be the task's.
    command
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-C"])
        .arg(folder)
        .args(args);
    // Without its environment, GIT_DIR and its like cannot lead it to another repository.
    let settings = [("GIT_TERMINAL_PROMPT", "0"), ("GIT_OPTIONAL_LOCKS", "0"), ("LC_ALL", "C")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    command.env_clear().envs(scrubbed_env(&[], &settings)?).stdin(Stdio::null());
    let output = command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => WorkspaceError::GitMissing,
        _ => WorkspaceError::Io { what: "run git in", path: folder.to_owned(), source },
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let text = if text.is_empty() { output.status.to_string() } else { text };
        return Err(WorkspaceError::Git { folder: folder.to_owned(), text });
    }
    let mut bytes = output.stdout;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

/// What git wrote, as text.
pub(super) fn git_text<I, A>(folder: &Path, args: I) -> Result<String, WorkspaceError>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    Ok(String::from_utf8_lossy(&git(folder, args)?).into_owned())
}

/// A path that `git rev-parse` tells, absolute.
pub(super) fn git_path(folder: &Path, what: &str) -> Option<PathBuf> {
    let path = git(folder, ["rev-parse", what]).ok()?;
    Some(folder.join(OsStr::from_bytes(&path)))
}

/// A project's repository.
#[derive(Debug)]
pub(super) struct Repository {
    /// The top of the working tree that the project is in.
    pub top: PathBuf,
    /// Where the project is in it; empty if it is the top.
    pub prefix: PathBuf,
    /// The commit that is checked out.
    pub head: String,
}

impl Repository {
    /// Finds the repository of a project.
    pub(super) fn of(project: &Path) -> Result<Self, WorkspaceError> {
        let path = |bytes: Vec<u8>| PathBuf::from(OsStr::from_bytes(&bytes));
        let top = git(project, ["rev-parse", "--show-toplevel"])
            .map_err(|error| not_git(project, error))?;
        let prefix = git(project, ["rev-parse", "--show-prefix"])?;
        let head = git_text(project, ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
            .map_err(|_| WorkspaceError::NoCommit { project: project.to_owned() })?;
        Ok(Self { top: path(top), prefix: path(prefix), head })
    }

    /// Keeps other nodes and threads from changing the repository's worktrees at the same time, until
    /// the file is dropped: git reads the administration of all worktrees while it adds one, and
    /// fails on one that another git is just making.
    pub(super) fn lock(&self) -> Result<File, WorkspaceError> {
        let folder =
            git_path(&self.top, "--git-common-dir").unwrap_or_else(|| self.top.join(".git"));
        let path = folder.join("segue.lock");
        let lock = || {
            let file = File::options().write(true).create(true).truncate(false).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|source| WorkspaceError::Io { what: "lock", path, source })
    }

    /// Whether there is a branch of this name.
    pub(super) fn has_branch(&self, branch: &str) -> bool {
        git(
            &self.top,
            ["rev-parse", "--verify", "--quiet", &format!("refs/heads/{branch}^{{commit}}")],
        )
        .is_ok()
    }
}

/// Says what to do where the folder is no working tree; other errors keep git's own words.
fn not_git(project: &Path, error: WorkspaceError) -> WorkspaceError {
    match error {
        WorkspaceError::Git { text, .. }
            if text.contains("not a git repository")
                || text.contains("must be run in a work tree") =>
        {
            WorkspaceError::NotGit { project: project.to_owned() }
        }
        other => other,
    }
}
