//! The folders: which there are, what is in them, and which file wins.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::fields::{SHORTEN, parse, too_long};
use super::model::{AgentFile, Loaded, Notice, Scope, Severity};

/// The largest file that is read: 1 MiB, as in Claude Code.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most `.md` files of one tree that are read; the rest is left out, with a notice.
pub const TREE_FILES_MAX: usize = 10_000;
/// The most folders of one tree that are entered.
const TREE_FOLDERS_MAX: usize = 10_000;

/// A folder of agent files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The folder, which need not exist.
    pub dir: PathBuf,
    /// What its agents count as.
    pub scope: Scope,
    /// Set for a folder above a project that is in no repository: it counts only if it
    /// belongs to the present user or to root, since anybody may put one into, say, `/tmp`.
    pub must_be_ours: bool,
}

/// The folders that count for a project, the strongest first: `.claude/agents` of the project
/// and of each folder above it up to and with the repository root, then that of the user.
///
/// Without a repository the way up ends below the home folder, or at the top.
/// The home folder itself is always the user's, even if it is the project.
#[must_use]
pub fn roots(project_dir: &Path, home_dir: Option<&Path>) -> Vec<Root> {
    let project = absolute(project_dir);
    let home = home_dir.map(absolute);
    let agents = |dir: &Path| dir.join(".claude").join("agents");
    let up: Vec<&Path> =
        project.ancestors().take_while(|dir| Some(*dir) != home.as_deref()).collect();
    let top = up.iter().position(|dir| dir.join(".git").symlink_metadata().is_ok());
    let end = top.map_or(up.len(), |at| at + 1);
    let mut roots: Vec<Root> = up
        .iter()
        .take(end)
        .enumerate()
        .map(|(level, dir)| Root {
            dir: agents(dir),
            scope: Scope::Project,
            must_be_ours: top.is_none() && level > 0,
        })
        .collect();
    if let Some(home) = &home {
        roots.push(Root { dir: agents(home), scope: Scope::User, must_be_ours: false });
    }
    roots
}

/// The path with its links resolved, as far as it exists.
fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

/// Loads all agents of a project: its own folders over the user's, the nearest first.
///
/// # Errors
/// None: whatever cannot be read or used is a [`Notice`].
#[must_use]
pub fn load(project_dir: &Path, home_dir: Option<&Path>) -> Loaded {
    load_roots(&roots(project_dir, home_dir))
}

/// Loads the agents of several folders; of two that name the same agent, the earlier wins.
#[must_use]
pub fn load_roots(roots: &[Root]) -> Loaded {
    let mut agents: BTreeMap<String, AgentFile> = BTreeMap::new();
    let mut notices = Vec::new();
    for root in roots {
        if root.must_be_ours && !is_ours(&root.dir) {
            notices.push(notice(
                Severity::Skipped,
                &root.dir,
                "the folder belongs to another user, and the project is in no repository",
                "run `git init` in the project, or change the folder's owner if you trust it",
            ));
            continue;
        }
        let loaded = load_tree(&root.dir, root.scope);
        notices.extend(loaded.notices);
        for agent in loaded.agents {
            if let Some(nearer) = agents.get(&agent.name) {
                let message = format!("`{}` is hidden by {}", agent.name, nearer.path.display());
                notices.push(notice(
                    Severity::Note,
                    &agent.path,
                    message,
                    "rename one of them if both are wanted",
                ));
            } else {
                agents.insert(agent.name.clone(), agent);
            }
        }
    }
    finish(agents, notices)
}

/// Whether a folder is absent, or belongs to the present user or to root.
fn is_ours(dir: &Path) -> bool {
    let uid = nix::unistd::geteuid().as_raw();
    fs::metadata(dir).map_or(true, |meta| meta.uid() == uid || meta.uid() == 0)
}

/// Loads the agents of one folder and of all folders in it.
///
/// Links to files and to folders are followed, wherever they lead, but no folder is entered
/// twice. A folder that does not exist is an empty one. If two files name the same agent, the
/// one nearer to `dir` counts, then the one whose path comes first (in Claude Code it is
/// whichever the file system lists first).
#[must_use]
pub fn load_tree(dir: &Path, scope: Scope) -> Loaded {
    let found = walk(dir);
    let mut notices = found.notices;
    let mut agents: BTreeMap<String, AgentFile> = BTreeMap::new();
    for path in &found.files {
        let (agent, odd) = read(path, scope);
        notices.extend(odd);
        let Some(agent) = agent else { continue };
        if let Some(first) = agents.get(&agent.name) {
            let message =
                format!("`{}` is already the name of {}", agent.name, first.path.display());
            notices.push(notice(
                Severity::Skipped,
                path,
                message,
                "give one of the two another `name:`",
            ));
        } else {
            agents.insert(agent.name.clone(), agent);
        }
    }
    finish(agents, notices)
}

fn finish(agents: BTreeMap<String, AgentFile>, mut notices: Vec<Notice>) -> Loaded {
    notices.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Loaded { agents: agents.into_values().collect(), notices }
}

fn notice(
    severity: Severity,
    path: &Path,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Notice {
    Notice {
        severity,
        path: path.to_owned(),
        line: None,
        message: message.into(),
        remedy: remedy.into(),
    }
}

/// What a walk through a tree found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The `.md` files, nearest first, then by path.
    pub files: Vec<PathBuf>,
    /// The folders, with their links resolved.
    pub folders: HashSet<PathBuf>,
    /// Those of the files and folders that are links, also such as lead nowhere.
    pub links: Vec<PathBuf>,
    /// What could not be looked into.
    pub notices: Vec<Notice>,
}

/// Walks through a tree without reading its files.
pub(super) fn walk(dir: &Path) -> Found {
    let mut found = Found::default();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        if found.folders.len() >= TREE_FOLDERS_MAX || found.files.len() >= TREE_FILES_MAX {
            let message = format!(
                "more than {TREE_FILES_MAX} files or folders: the rest of the tree is left out"
            );
            found.notices.push(notice(
                Severity::Skipped,
                dir,
                message,
                "keep only agents in this folder",
            ));
            break;
        }
        if let Err(error) = list(&folder, &mut found, &mut open) {
            let missing_root = folder == dir && error.kind() == io::ErrorKind::NotFound;
            if !missing_root {
                let message = format!("the folder cannot be read: {error}");
                found.notices.push(notice(
                    Severity::Skipped,
                    &folder,
                    message,
                    "correct its permissions, or remove it",
                ));
            }
        }
    }
    found.files.sort_by(|a, b| (a.components().count(), a).cmp(&(b.components().count(), b)));
    found.files.truncate(TREE_FILES_MAX);
    found
}

/// Takes in one folder: its files are found, its folders remain open.
fn list(folder: &Path, found: &mut Found, open: &mut Vec<PathBuf>) -> io::Result<()> {
    if !found.folders.insert(fs::canonicalize(folder)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_folder = path.is_dir();
        let is_agent = path.extension().is_some_and(|extension| extension == "md");
        if (is_agent || is_folder) && path.is_symlink() {
            found.links.push(path.clone());
        }
        // A link that leads nowhere is left for `read` to complain about.
        if is_folder {
            open.push(path);
        } else if is_agent {
            found.files.push(path);
        }
    }
    Ok(())
}

/// Reads and parses one file.
fn read(path: &Path, scope: Scope) -> (Option<AgentFile>, Vec<Notice>) {
    match bytes(path) {
        Ok(bytes) => parse(path, &bytes, scope),
        Err((message, remedy)) => (None, vec![notice(Severity::Skipped, path, message, remedy)]),
    }
}

/// The bytes of a regular file, or why there are none and what to do.
fn bytes(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    let unreadable = |error: io::Error| {
        let dangling = error.kind() == io::ErrorKind::NotFound && path.is_symlink();
        if dangling {
            ("the link leads nowhere".to_owned(), "correct or remove the link")
        } else {
            (format!("the file cannot be read: {error}"), "correct its permissions, or remove it")
        }
    };
    let file = open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(("this is not a regular file".to_owned(), "remove it from the folder"));
    }
    if meta.len() > FILE_BYTES_MAX as u64 {
        return Err((too_long(meta.len()), SHORTEN));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Opens a file for reading without waiting: a pipe that nobody writes to must not hold us up.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}
