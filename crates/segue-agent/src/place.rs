//! The folders and files of one attempt.

use crate::command::failed;
use crate::process::Started;
use crate::runner::{Job, Ran};
use crate::workspace::{WorkspaceError, Workspaces};
use segue_core::task::{ErrorClass, TaskError, WorkspaceKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};

/// Files of the folder `SEGUE_OUT` that become properties of an output.
const OUT_FILES_MAX: usize = 1_000;

/// Where things are, for every attempt of a host.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The project's own folder.
    pub project: PathBuf,
    /// The project's id.
    pub project_id: String,
    /// Segue's folder in it, `.segue`.
    pub state: PathBuf,
    /// The running binary, for `{segue}` in commands.
    pub segue: PathBuf,
}

/// What is written while an attempt runs, so that the next life of the node finds its processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunningRecord {
    /// The task.
    pub task: String,
    /// The attempt.
    pub attempt: String,
    /// Its processes.
    pub started: Started,
}

/// The folder of the records of attempts that run.
pub fn records_folder(state: &Path) -> PathBuf {
    state.join("run")
}

/// The folder of the scratch folders of attempts that run, each named by its attempt.
pub fn scratch_folder(state: &Path) -> PathBuf {
    state.join("scratch")
}

/// The folders and files of one attempt.
pub(crate) struct Place {
    pub(crate) cwd: PathBuf,
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) outcome: PathBuf,
    pub(crate) log: PathBuf,
    record: PathBuf,
    pub(crate) last_words: PathBuf,
    pub(crate) scratch: PathBuf,
}

/// Why an attempt has no folder to work in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("its folder could not be made: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

impl PlaceError {
    /// The failure of the attempt.
    pub(crate) fn into_ran(self) -> Ran {
        let class = match &self {
            PlaceError::Workspace(
                WorkspaceError::NotGit { .. }
                | WorkspaceError::NoCommit { .. }
                | WorkspaceError::GitMissing,
            ) => ErrorClass::Permanent,
            PlaceError::Io(_) | PlaceError::Workspace(_) => ErrorClass::Transient,
        };
        failed(class, self.to_string())
    }
}

/// What a place is made from.
struct Wanted {
    folders: Folders,
    workspace: WorkspaceKind,
    task: String,
    run: String,
    attempt: String,
    number: u32,
    input: Value,
}

impl Place {
    /// Makes the folders of an attempt, apart from the threads that everything else runs on: git may take its time.
    pub(crate) async fn make(
        folders: &Folders,
        workspace: WorkspaceKind,
        job: &Job,
        input: &Value,
    ) -> Result<Place, PlaceError> {
        let wanted = Wanted {
            folders: folders.clone(),
            workspace: job.workspace.unwrap_or(workspace),
            task: job.task.to_string(),
            run: job.run.to_string(),
            attempt: job.attempt.clone(),
            number: job.number,
            input: input.clone(),
        };
        tokio::task::spawn_blocking(move || {
            let made = Place::make_now(&wanted);
            if made.is_err() {
                let scratch = scratch_folder(&wanted.folders.state).join(&wanted.attempt);
                let _ = std::fs::remove_dir_all(scratch);
            }
            made
        })
        .await
        .map_err(|error| PlaceError::Io(io::Error::other(error)))?
    }

    fn make_now(wanted: &Wanted) -> Result<Place, PlaceError> {
        let state = &wanted.folders.state;
        // Ids are UUIDs: no part of these paths comes from outside.
        let scratch = scratch_folder(state).join(&wanted.attempt);
        let records = records_folder(state);
        std::fs::create_dir_all(&records)?;
        std::fs::create_dir_all(&scratch)?;
        let workspaces = Workspaces::new(&wanted.folders.project, state);
        let cwd = workspaces.prepare(wanted.workspace, &wanted.task, wanted.number)?.path;
        let place = Place {
            cwd,
            input: scratch.join("in"),
            output: scratch.join("out"),
            outcome: scratch.join("outcome.json"),
            log: state
                .join("logs")
                .join(&wanted.run)
                .join(format!("{}-{}.log", wanted.task, wanted.number)),
            record: records.join(format!("{}.json", wanted.attempt)),
            last_words: records.join(format!("{}.last", wanted.attempt)),
            scratch,
        };
        std::fs::create_dir_all(&place.output)?;
        std::fs::create_dir_all(&place.input)?;
        std::fs::File::create(&place.last_words)?;
        if let Value::Object(fields) = &wanted.input {
            place.write_input(fields)?;
        }
        Ok(place)
    }

    /// The variables that tell a program where things are.
    pub(crate) fn variables(&self, folders: &Folders, job: &Job) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut variables = vec![
            ("SEGUE_PROJECT_DIR".to_owned(), text(&folders.project)),
            ("SEGUE_TASK_ID".to_owned(), job.task.to_string()),
            ("SEGUE_ATTEMPT".to_owned(), job.attempt.clone()),
            ("SEGUE_IN".to_owned(), text(&self.input)),
            ("SEGUE_OUT".to_owned(), text(&self.output)),
            ("SEGUE_OUTCOME".to_owned(), text(&self.outcome)),
        ];
        let span = job.traceparent.map(|span| ("TRACEPARENT".to_owned(), span.to_string()));
        variables.extend(span);
        variables
    }

    fn write_input(&self, fields: &Map<String, Value>) -> io::Result<()> {
        for (name, value) in fields {
            // A property whose name is no plain file name is in the JSON only.
            if !is_plain_name(name) {
                continue;
            }
            let path = self.input.join(name);
            match value {
                Value::String(text) => std::fs::write(path, text)?,
                other => std::fs::write(path, other.to_string())?,
            }
        }
        Ok(())
    }

    /// Writes down which processes the attempt has. Where that fails the attempt goes on: its supervisor ends them all the same.
    pub(crate) fn record(&self, job: &Job, started: &Started) {
        let record = RunningRecord {
            task: job.task.to_string(),
            attempt: job.attempt.clone(),
            started: started.clone(),
        };
        let written = serde_json::to_vec(&record)
            .map_err(io::Error::other)
            .and_then(|bytes| std::fs::write(&self.record, bytes));
        if let Err(error) = written {
            tracing::warn!(%error, path = %self.record.display(), "could not note the processes of an attempt");
        }
    }

    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_file(&self.record);
        let _ = std::fs::remove_file(&self.last_words);
        let _ = std::fs::remove_dir_all(&self.scratch);
        // An own folder in which nothing was left is of no use to anybody, and neither is the empty one around it.
        if std::fs::remove_dir(&self.cwd).is_ok()
            && let Some(of_task) = self.cwd.parent()
        {
            let _ = std::fs::remove_dir(of_task);
        }
    }

    pub(crate) fn read_outcome(&self, bytes_max: usize) -> Result<Option<Vec<u8>>, TaskError> {
        read_bounded(&self.outcome, "the file SEGUE_OUTCOME", bytes_max)
    }

    pub(crate) fn read_files(&self, bytes_max: usize) -> Result<Map<String, Value>, TaskError> {
        let broken = |error: io::Error| {
            TaskError::new(
                ErrorClass::Transient,
                format!("the folder SEGUE_OUT could not be read: {error}"),
            )
        };
        // A link in its place could point anywhere.
        if !std::fs::symlink_metadata(&self.output).is_ok_and(|found| found.is_dir()) {
            let message = "SEGUE_OUT is no folder any more: it writes its files into that folder, and lets it stay";
            return Err(TaskError::new(ErrorClass::InvalidOutput, message));
        }
        let mut output = Map::new();
        let mut left = bytes_max;
        let mut names: Vec<_> = std::fs::read_dir(&self.output)
            .map_err(broken)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(broken)?;
        names.sort_by_key(|entry| entry.file_name());
        if names.len() > OUT_FILES_MAX {
            let message = format!(
                "it left {} files in SEGUE_OUT, more than {OUT_FILES_MAX}: each is a property of its output; put lists into one file",
                names.len()
            );
            return Err(TaskError::new(ErrorClass::InvalidOutput, message));
        }
        for entry in names {
            let name = entry.file_name().into_string().map_err(|name| {
                let message = format!(
                    "the name of the file `{}` in SEGUE_OUT is not UTF-8, so it cannot name a property",
                    name.to_string_lossy()
                );
                TaskError::new(ErrorClass::InvalidOutput, message)
            })?;
            // A link could point anywhere: only plain files are read.
            if !entry.file_type().map_err(broken)?.is_file() {
                let message = format!(
                    "`{name}` in SEGUE_OUT is no plain file: each file there is a property of its output, no folders, links or pipes"
                );
                return Err(TaskError::new(ErrorClass::InvalidOutput, message));
            }
            let what = format!("the file `{name}` in SEGUE_OUT");
            let bytes = read_bounded(&entry.path(), &what, left)?.unwrap_or_default();
            left -= bytes.len();
            let text = utf8_of(&bytes, &what)?;
            output.insert(name, Value::String(text.to_owned()));
        }
        Ok(output)
    }
}

/// Reads a file that a program may have written, `what` to people.
pub(crate) fn read_bounded(
    path: &Path,
    what: &str,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, TaskError> {
    use std::io::Read;
    let broken = |error: io::Error| {
        TaskError::new(ErrorClass::Transient, format!("{what} could not be read: {error}"))
    };
    // Never through a link: the program chooses what stands there.
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken(error)),
        Ok(found) if !found.is_file() => {
            let message = format!("{what} is no plain file, and only such a one is read");
            return Err(TaskError::new(ErrorClass::InvalidOutput, message));
        }
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(broken)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() > bytes_max {
        let message = format!(
            "{what} is larger than the {bytes_max} bytes that are left for its output; write less, or raise `output_max`"
        );
        return Err(TaskError::new(ErrorClass::Permanent, message));
    }
    Ok(Some(bytes))
}

/// Whether a name can be that of a file in a folder, and nowhere else.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0'])
}

pub(crate) fn json_of(bytes: &[u8], what: &str) -> Result<Value, TaskError> {
    serde_json::from_slice(bytes).map_err(|error| {
        TaskError::new(
            ErrorClass::InvalidOutput,
            format!("{what} is no JSON: {error}; it begins {}", quote(bytes)),
        )
    })
}

pub(crate) fn utf8_of<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, TaskError> {
    std::str::from_utf8(bytes).map_err(|error| {
        TaskError::new(ErrorClass::InvalidOutput, format!("{what} is not UTF-8: {error}"))
    })
}

pub(crate) fn quote(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(80)];
    format!("{:?}", String::from_utf8_lossy(head))
}
