//! The folder an attempt works in: its own folder, or a git worktree of the project.
//!
//! Everything here blocks, on the disk and on git; call it from a thread that may.
//!
//! Own folders are `work/TASK/ATTEMPT` below the state folder, fresh for each attempt. A worktree is
//! `worktrees/TASK`, on a branch `segue/TASK` that starts at the project's HEAD: one for all attempts
//! of a task, so that a resumed or failed-over attempt goes on where the last one stopped. It is on a
//! branch, not on a detached HEAD, because a commit that no branch holds is lost with the worktree.

mod files;
mod git;
mod path;

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::EnvError;
use files::{io_error, make_folders, names_in, remove_folder, write_whole};
use git::{Repository, git, git_path, git_text};
pub use path::{PathError, read_beneath, safe_join};
pub use segue_core::task::WorkspaceKind;

/// The longest task id that can name a folder and a branch.
const TASK_BYTES_MAX: usize = 100;

/// Why there is no workspace.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A task id that cannot name a folder.
    #[error(
        "the task id {task:?} cannot name a folder: it must be 1 to {TASK_BYTES_MAX} letters, digits, `-` or `_`, and not begin with `-`"
    )]
    BadTask {
        /// The id.
        task: String,
    },
    /// A path that leaves its folder.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The folder of an own workspace is there already, with something in it.
    #[error("the folder {} is not empty, though it is to be fresh; remove it or retry the task", path.display())]
    NotFresh {
        /// The folder.
        path: PathBuf,
    },
    /// `worktree` was asked for, and the project is not in a git working tree.
    #[error("{} is not in a git working tree, so `workspace: worktree` has nothing to start from; run `git init` and commit there, or set `workspace: own` or `workspace: project`", project.display())]
    NotGit {
        /// The project's folder.
        project: PathBuf,
    },
    /// `worktree` was asked for, and the repository has no commit.
    #[error("the git repository of {} has no commit yet, so `workspace: worktree` has nothing to start from; commit once, or set `workspace: own` or `workspace: project`", project.display())]
    NoCommit {
        /// The project's folder.
        project: PathBuf,
    },
    /// There is no git.
    #[error(
        "the program `git` is not in PATH, and `workspace: worktree` needs it; install git, or set `workspace: own` or `workspace: project`"
    )]
    GitMissing,
    /// Git refused.
    #[error("git in {}: {text}", folder.display())]
    Git {
        /// Where it ran.
        folder: PathBuf,
        /// What it said.
        text: String,
    },
    /// The environment for git could not be made.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A folder to work in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The folder; absolute. For a worktree of a project in a subfolder of its repository, that subfolder.
    pub path: PathBuf,
    /// What kind it is.
    pub kind: WorkspaceKind,
    /// The branch of a worktree.
    pub branch: Option<String>,
    /// The commit that a worktree started from.
    pub base: Option<String>,
    /// An earlier attempt of the task has worked in it.
    pub resumed: bool,
}

/// What to do with work that would be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Keep the workspace if it holds anything that is nowhere else.
    KeepWork,
    /// Remove it; uncommitted changes are lost. Commits never are: a branch keeps them.
    Discard,
}

/// What became of a workspace that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// There was none.
    Nothing,
    /// It is gone. Commits that are nowhere else stay on this branch.
    Gone {
        /// The branch, if one was needed.
        kept_branch: Option<String>,
    },
    /// It is still there, for this reason.
    Kept(Work),
}

/// What a workspace holds that is nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    None,
    /// An own folder: only its owner knows what its files are worth.
    Files,
    /// Changed or new files that are not committed.
    Uncommitted {
        /// How many; a folder of new files counts as one.
        files: usize,
    },
    /// Commits that no other branch, tag or remote branch has.
    Unmerged {
        /// How many.
        commits: u64,
    },
    /// The folder of a worktree is gone.
    Missing,
    /// Git cannot tell.
    Unknown {
        /// What it said.
        why: String,
    },
}

/// A workspace of a task that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftoverWorkspace {
    /// The task.
    pub task: String,
    /// Its kind.
    pub kind: WorkspaceKind,
    /// Its folder.
    pub path: PathBuf,
    /// What it holds.
    pub work: Work,
}

/// What is written beside a worktree once it is complete.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    branch: String,
    base: String,
}

/// Makes, finds and removes the workspaces of one project.
#[derive(Clone, Debug)]
pub struct Workspaces {
    project: PathBuf,
    state: PathBuf,
}

impl Workspaces {
    /// For a project, with the state folder that keeps its workspaces; it is made when it is needed.
    /// Both paths must be absolute.
    pub fn new(project: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { project: project.into(), state: state.into() }
    }

    /// The workspace for an attempt of a task.
    ///
    /// # Errors
    /// [`WorkspaceError`]; nothing half-made is ever handed out, and the next call starts over.
    pub fn prepare(
        &self,
        kind: WorkspaceKind,
        task: &str,
        attempt: u32,
    ) -> Result<Workspace, WorkspaceError> {
        check_task(task)?;
        match kind {
            WorkspaceKind::Own => self.own(task, attempt),
            WorkspaceKind::Worktree => self.worktree(task),
            WorkspaceKind::Project => {
                let path = self
                    .project
                    .canonicalize()
                    .map_err(|e| io_error("find the project's folder", &self.project, e))?;
                Ok(Workspace { path, kind, branch: None, base: None, resumed: true })
            }
        }
    }

    /// Removes the worktree of a task, and its branch if that holds nothing of its own; and, if
    /// asked to discard, the task's own folders.
    ///
    /// Files that git ignores count as nothing.
    ///
    /// # Errors
    /// [`WorkspaceError`]; then the workspace is still there.
    pub fn remove(&self, task: &str, removal: Removal) -> Result<Removed, WorkspaceError> {
        check_task(task)?;
        let own = self.state.join("work").join(task);
        let worktree = self.tree(task);
        let had_own = own.symlink_metadata().is_ok();
        let had_worktree = worktree.symlink_metadata().is_ok() || self.record_path(task).exists();
        if had_own && removal == Removal::Discard {
            remove_folder(&own)?;
        }
        match (had_worktree, had_own, removal) {
            (true, _, _) => self.remove_worktree(task, removal),
            (false, true, Removal::KeepWork) => Ok(Removed::Kept(Work::Files)),
            (false, true, Removal::Discard) => Ok(Removed::Gone { kept_branch: None }),
            (false, false, _) => Ok(Removed::Nothing),
        }
    }

    /// The workspaces of tasks that `is_live` does not know: what nobody will come back for.
    ///
    /// # Errors
    /// [`WorkspaceError::Io`] if the state folder cannot be read.
    pub fn list_leftover(
        &self,
        is_live: impl Fn(&str) -> bool,
    ) -> Result<Vec<LeftoverWorkspace>, WorkspaceError> {
        let mut all = Vec::new();
        for name in names_in(&self.state.join("work"))?.into_iter().filter(|name| !is_live(name)) {
            let path = self.state.join("work").join(&name);
            all.push(LeftoverWorkspace {
                task: name,
                kind: WorkspaceKind::Own,
                path,
                work: Work::Files,
            });
        }
        let mut tasks: Vec<String> = names_in(&self.state.join("worktrees"))?
            .into_iter()
            .map(|name| name.strip_suffix(".json").unwrap_or(&name).to_owned())
            .filter(|task| check_task(task).is_ok() && !is_live(task))
            .collect();
        tasks.sort();
        tasks.dedup();
        for task in tasks {
            let (path, work) = (self.tree(&task), self.work_in(&task));
            all.push(LeftoverWorkspace { task, kind: WorkspaceKind::Worktree, path, work });
        }
        Ok(all)
    }

    fn own(&self, task: &str, attempt: u32) -> Result<Workspace, WorkspaceError> {
        make_folders(&self.state)?;
        // Through `safe_join`, so that a link that an agent put there leads nowhere else.
        let path = safe_join(&self.state, format!("work/{task}/{attempt}"))?;
        if let Some(parent) = path.parent() {
            make_folders(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            // A start that was repeated finds the folder of the first try.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut entries =
                    path.read_dir().map_err(|e| io_error("read the folder", &path, e))?;
                if entries.next().is_some() {
                    return Err(WorkspaceError::NotFresh { path });
                }
            }
            Err(error) => return Err(io_error("make the folder", &path, error)),
        }
        Ok(Workspace { path, kind: WorkspaceKind::Own, branch: None, base: None, resumed: false })
    }

    fn tree(&self, task: &str) -> PathBuf {
        self.state.join("worktrees").join(task)
    }

    fn record_path(&self, task: &str) -> PathBuf {
        self.state.join("worktrees").join(format!("{task}.json"))
    }

    fn record(&self, task: &str) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.record_path(task)).ok()?).ok()
    }

    fn worktree(&self, task: &str) -> Result<Workspace, WorkspaceError> {
        let repository = Repository::of(&self.project)?;
        let folder = self.state.join("worktrees");
        make_folders(&folder)?;
        let tree = safe_join(&folder, task)?;
        let record = self.record(task);
        let (record, resumed) = match record {
            Some(record) if is_worktree_of(&tree, &repository) => (record, true),
            Some(record) => (self.add(&repository, task, &tree, Some(record))?, true),
            None => (self.add(&repository, task, &tree, None)?, false),
        };
        let path = match repository.prefix.as_os_str().is_empty() {
            true => tree,
            false => safe_join(&tree, &repository.prefix)?,
        };
        make_folders(&path)?;
        let path = path.canonicalize().map_err(|e| io_error("find the folder", &path, e))?;
        let (branch, base) = (Some(record.branch), Some(record.base));
        Ok(Workspace { path, kind: WorkspaceKind::Worktree, branch, base, resumed })
    }

    /// Adds the worktree: anew, or on the branch that is left of an earlier one.
    fn add(
        &self,
        repository: &Repository,
        task: &str,
        tree: &Path,
        before: Option<Record>,
    ) -> Result<Record, WorkspaceError> {
        if before.is_none() && tree.symlink_metadata().is_ok() {
            // Without its record it was never complete, so nobody has worked in it.
            remove_folder(tree)?;
        }
        let branch = format!("segue/{task}");
        let exists = repository.has_branch(&branch);
        let base = match before {
            Some(before) => before.base,
            None if exists => git_text(&repository.top, ["merge-base", &branch, &repository.head])
                .unwrap_or_else(|_| repository.head.clone()),
            None => repository.head.clone(),
        };
        // Twice --force: the folder may be registered still, from a worktree that was deleted by
        // hand or an add that was killed, which leaves it locked as well.
        let mut args: Vec<&OsStr> =
            ["worktree", "add", "--no-checkout", "--force", "--force"].map(OsStr::new).to_vec();
        if exists {
            args.extend([tree.as_os_str(), branch.as_ref()]);
        } else {
            args.extend([
                "--no-track".as_ref(),
                "-b".as_ref(),
                branch.as_ref(),
                tree.as_os_str(),
                repository.head.as_ref(),
            ]);
        }
        let lock = repository.lock()?;
        git(&repository.top, args)?;
        drop(lock);
        // What may take long comes after the lock: the files.
        git(tree, ["reset", "--hard", "--no-recurse-submodules", "--quiet"])?;
        let record = Record { branch, base };
        write_whole(&self.record_path(task), &serde_json::to_vec(&record).unwrap_or_default())?;
        Ok(record)
    }

    /// What the worktree of a task holds that is nowhere else.
    fn work_in(&self, task: &str) -> Work {
        let tree = self.tree(task);
        if !tree.exists() {
            return Work::Missing;
        }
        if self.record(task).is_none() {
            return Work::None;
        }
        let look = || look_for_work(&tree, task, &Repository::of(&self.project)?);
        look().unwrap_or_else(|error| Work::Unknown { why: error.to_string() })
    }

    fn remove_worktree(&self, task: &str, removal: Removal) -> Result<Removed, WorkspaceError> {
        let tree = self.tree(task);
        let work = self.work_in(task);
        match (&work, removal) {
            (Work::None | Work::Missing, _) | (_, Removal::Discard) => {}
            (_, Removal::KeepWork) => return Ok(Removed::Kept(work)),
        }
        let kept_branch = match Repository::of(&self.project) {
            Ok(repository) => {
                let _lock = repository.lock()?;
                let rescued = match is_worktree_of(&tree, &repository) {
                    true => rescue_detached(&tree, task)?,
                    false => None,
                };
                let args = ["worktree", "remove", "--force", "--force"].map(OsStr::new);
                let forget = || git(&repository.top, args.into_iter().chain([tree.as_os_str()]));
                let forgotten = forget();
                remove_folder(&tree)?;
                // Git refuses what is no worktree of its own any more, until that folder is gone.
                if forgotten.is_err() {
                    let _ = forget();
                }
                rescued.or(delete_branch_without_work(&repository, task)?)
            }
            Err(_) => {
                remove_folder(&tree)?;
                None
            }
        };
        let record = self.record_path(task);
        match std::fs::remove_file(&record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove the file", &record, error))
            }
            _ => Ok(Removed::Gone { kept_branch }),
        }
    }
}

fn check_task(task: &str) -> Result<(), WorkspaceError> {
    let plain =
        task.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if plain && !task.is_empty() && task.len() <= TASK_BYTES_MAX && !task.starts_with('-') {
        Ok(())
    } else {
        Err(WorkspaceError::BadTask { task: task.to_owned() })
    }
}

/// Whether the folder is the top of a worktree of this repository: not of another that a program
/// made in its place, and not merely somewhere inside the project.
fn is_worktree_of(tree: &Path, repository: &Repository) -> bool {
    let resolve = |folder: &Path, what: &str| git_path(folder, what)?.canonicalize().ok();
    let same_repository = resolve(tree, "--git-common-dir")
        .is_some_and(|common| Some(common) == resolve(&repository.top, "--git-common-dir"));
    same_repository
        && resolve(tree, "--show-toplevel")
            .is_some_and(|top| tree.canonicalize().is_ok_and(|tree| tree == top))
}

fn look_for_work(tree: &Path, task: &str, repository: &Repository) -> Result<Work, WorkspaceError> {
    if !is_worktree_of(tree, repository) {
        let why = "it is no worktree of the project any more; if the project was moved, `git worktree repair` mends it";
        return Ok(Work::Unknown { why: why.to_owned() });
    }
    let changes = git(
        tree,
        ["status", "--porcelain=v1", "-z", "--untracked-files=normal", "--ignore-submodules=none"],
    )?;
    // A renamed file has its old name as one more entry, which has no status before it.
    let files =
        changes.split(|byte| *byte == 0).filter(|entry| entry.get(2) == Some(&b' ')).count();
    if !changes.is_empty() {
        return Ok(Work::Uncommitted { files: files.max(1) });
    }
    let commits = commits_only_here(tree, task, &["HEAD"])?;
    Ok(if commits > 0 { Work::Unmerged { commits } } else { Work::None })
}

/// Counts the commits of `from` and of the task's branch that no other branch, tag or remote branch has.
fn commits_only_here(folder: &Path, task: &str, from: &[&str]) -> Result<u64, WorkspaceError> {
    let branch = format!("segue/{task}");
    let own = format!("refs/heads/{branch}");
    let exclude = format!("--exclude={branch}");
    let mut args = vec!["rev-list", "--count"];
    args.extend(from);
    if git(folder, ["rev-parse", "--verify", "--quiet", &own]).is_ok() {
        args.push(&own);
    }
    args.extend(["--not", &exclude, "--branches", "--tags", "--remotes", "--"]);
    let count = git_text(folder, args)?;
    count.trim().parse().map_err(|_| WorkspaceError::Git {
        folder: folder.to_owned(),
        text: format!("no number: {count}"),
    })
}

/// Puts a branch on commits that only a detached HEAD holds, since they would be lost with it.
fn rescue_detached(tree: &Path, task: &str) -> Result<Option<String>, WorkspaceError> {
    let alone = git_text(
        tree,
        ["rev-list", "--count", "HEAD", "--not", "--branches", "--tags", "--remotes", "--"],
    )?;
    if alone.trim() == "0" {
        return Ok(None);
    }
    let head = git_text(tree, ["rev-parse", "--short=12", "HEAD"])?;
    let branch = format!("segue-kept/{task}-{}", head.trim());
    git(tree, ["branch", "--no-track", "--force", &branch, "HEAD"])?;
    Ok(Some(branch))
}

/// Deletes the branch of a task unless it has commits of its own; then returns it.
fn delete_branch_without_work(
    repository: &Repository,
    task: &str,
) -> Result<Option<String>, WorkspaceError> {
    let branch = format!("segue/{task}");
    if !repository.has_branch(&branch) {
        return Ok(None);
    }
    if commits_only_here(&repository.top, task, &[])? > 0 {
        return Ok(Some(branch));
    }
    // Git refuses if somebody has checked it out; then it is in use, and stays.
    Ok(git(&repository.top, ["branch", "--quiet", "-D", &branch]).is_err().then_some(branch))
}
