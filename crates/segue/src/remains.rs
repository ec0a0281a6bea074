//! What an earlier life of the node left: processes that may still run, records of them, and folders of attempts.

use crate::project::Project;
use segue_agent::command::evidence;
use segue_agent::place::{RunningRecord, records_folder, scratch_folder};
use segue_agent::process::{Launcher, Leftover, attempts_before_me, end_leftovers};
use segue_core::ids::{AttemptId, TaskId};
use segue_core::letter::EndedProcess;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a new node waits for what an earlier one left running to end, before it goes on all the same. Supervisors kill
/// it the moment their node dies, so this is long for anything but a process that hangs in the kernel, or a machine with far
/// more to do than it can; and it leaves as much again of the two seconds within which work has to go on.
const WAIT: Duration = Duration::from_secs(1);

/// What was ended of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Remains {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The processes that were ended.
    pub ended: Vec<EndedProcess>,
}

/// Ends what an earlier life of the node left running: its supervisors do it by themselves, so this waits for them, but not
/// long, and ends what survived them. No attempt of this life may have begun yet. The handle tells what was ended.
pub async fn end(project: &Project) -> JoinHandle<Vec<Remains>> {
    // All that is there now is of an earlier life. Later on it could be an attempt of this one.
    let found = Found::of(&project.state);
    // Nodes of a cluster may share a folder: what is marked with it may be another one's, and alive. Then the records alone tell.
    let dir = project.cluster.is_none().then(|| project.dir.to_string_lossy().into_owned());
    let (done, ended) = tokio::sync::oneshot::channel();
    let ending = tokio::task::spawn_blocking(move || {
        let remains = found.end(dir.as_deref());
        let _ = done.send(());
        remains
    });
    if tokio::time::timeout(WAIT, ended).await.is_err() {
        tracing::warn!("processes of the earlier node are still ending; work goes on beside them");
    }
    ending
}

/// What is found of an earlier life.
#[derive(Debug, Default)]
struct Found {
    folder: PathBuf,
    records: Vec<RunningRecord>,
    /// Files and folders that nobody needs once the processes have ended.
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Found {
    fn of(state: &Path) -> Found {
        let folder = records_folder(state);
        let files = entries(&folder);
        let is_record =
            |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "json");
        let records = files
            .iter()
            .filter(is_record)
            .filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
            .collect();
        Found { folder, records, files, folders: entries(&scratch_folder(state)) }
    }

    fn end(self, dir: Option<&str>) -> Vec<Remains> {
        let mut tasks: BTreeMap<String, String> = BTreeMap::new();
        let mut left: Vec<Leftover> = Vec::new();
        let last_words = |attempt: &str| Some(self.folder.join(format!("{attempt}.last")));
        for record in self.records {
            left.push(Leftover {
                last_words: last_words(&record.attempt),
                started: Some(record.started),
                attempt: Some(record.attempt.clone()),
            });
            tasks.insert(record.attempt, record.task);
        }
        // A node may die between the start of a program and the record of it.
        let marked = dir.map(|dir| attempts_before_me("SEGUE_PROJECT_DIR", dir, "SEGUE_TASK_ID"));
        for (attempt, task) in marked.unwrap_or_default() {
            if let (Some(task), false) = (task, tasks.contains_key(&attempt)) {
                left.push(Leftover {
                    last_words: last_words(&attempt),
                    started: None,
                    attempt: Some(attempt.clone()),
                });
                tasks.insert(attempt, task);
            }
        }
        let ended = match end_leftovers(&left) {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%error, "cannot make sure that nothing of the earlier node is left");
                Vec::new()
            }
        };
        Launcher::this_binary().end_stale_cgroups();
        for path in &self.files {
            let _ = std::fs::remove_file(path);
        }
        for path in &self.folders {
            let _ = std::fs::remove_dir_all(path);
        }
        let known = |(left, ended): (&Leftover, Vec<_>)| {
            let attempt = left.attempt.as_deref()?;
            Some(Remains {
                task: tasks.get(attempt)?.parse().ok()?,
                attempt: attempt.parse().ok()?,
                ended: ended.iter().map(evidence).collect(),
            })
        };
        left.iter().zip(ended).filter_map(known).collect()
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_and_folders_of_an_earlier_life_are_read_once_and_gone() {
        let folder = tempfile::tempdir().unwrap();
        let project = Project::open_or_make(folder.path()).unwrap();
        let (task, attempt) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        let records = records_folder(&project.state);
        let scratch = scratch_folder(&project.state).join(attempt.to_string());
        std::fs::create_dir_all(&records).unwrap();
        std::fs::create_dir_all(scratch.join("in")).unwrap();
        // Of an earlier boot, so that the numbers are nobody's; its supervisor left a word.
        let record = serde_json::json!({
            "task": task, "attempt": attempt,
            "started": { "pid": 1, "start_time": 1, "supervisor_pid": 1, "supervisor_start_time": 1, "boot_id": "x" },
        });
        std::fs::write(records.join(format!("{attempt}.json")), record.to_string()).unwrap();
        let words = serde_json::json!({
            "ended": [{ "start_time": 7, "pid": 9, "name": "sleep", "signal": 9 }],
            "ended_more": 0, "survivors": [], "usage": { "user_us": 0, "system_us": 0, "rss_bytes_max": 0 },
        });
        std::fs::write(records.join(format!("{attempt}.last")), words.to_string()).unwrap();
        std::fs::write(records.join("torn.json"), "{").unwrap();
        let ended = end(&project).await.await.unwrap();
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].task, ended[0].attempt), (TaskId(task), AttemptId(attempt)));
        assert_eq!((ended[0].ended[0].process.pid, ended[0].ended[0].signal), (9, Some(9)));
        assert!(entries(&records).is_empty() && !scratch.exists());
        assert_eq!(end(&project).await.await.unwrap(), []);
    }
}
