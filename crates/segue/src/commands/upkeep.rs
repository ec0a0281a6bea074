//! `segue prune`, `backup` and `restore`: what is no longer wanted goes, what is wanted is kept twice.

use super::tasks::change;
use crate::api::views::{BackupView, PrunedView};
use crate::args::{BackupArgs, PruneArgs, RestoreArgs};
use crate::context::Context;
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::Project;
use crate::screen::text::{bytes, count};
use segue_core::ports::StoreError;
use segue_store::sqlite;
use serde_json::json;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `segue prune`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn prune(cx: &Context, args: &PruneArgs) -> Outcome {
    let pruned: PrunedView = change(cx, "/v1/prune", &json!({ "older_than_ms": args.older_than }))?;
    if cx.json {
        cx.print_json(&pruned)?;
        return Ok(Exit::Done);
    }
    let number =
        |number: u64, word: &str| count(usize::try_from(number).unwrap_or(usize::MAX), word);
    let mut parts = vec![
        number(pruned.runs, "run"),
        number(pruned.tasks, "task"),
        number(pruned.events, "event"),
        number(pruned.payloads, "payload"),
    ];
    if pruned.bytes > 0 {
        parts.push(format!("{} of files", bytes(pruned.bytes)));
    }
    if pruned.keys > 0 {
        parts.push(number(pruned.keys, "key"));
    }
    if pruned.folders > 0 {
        parts.push(number(pruned.folders, "folder"));
    }
    cx.print(format!("removed {}", parts.join(", ")))?;
    Ok(Exit::Done)
}

/// `segue backup`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn backup(cx: &Context, args: &BackupArgs) -> Outcome {
    let dir = std::path::absolute(&args.dir)
        .map_err(|error| Failure::usage(format!("{} is no path: {error}", args.dir.display())))?;
    let Some(dir) = dir.to_str() else {
        return Err(Failure::usage(format!("{} is not UTF-8: name another folder", dir.display())));
    };
    let backup: BackupView = change(cx, "/v1/backup", &json!({ "dir": dir }))?;
    if cx.json {
        cx.print_json(&backup)?;
    } else {
        cx.print(format!(
            "{} in {}: {}",
            count(backup.files, "file"),
            backup.dir,
            bytes(backup.bytes)
        ))?;
    }
    Ok(Exit::Done)
}

/// What makes up the state of a project that a backup replaces.
const REPLACED: [&str; 4] = ["segue.db", "segue.db-wal", "segue.db-shm", "blobs"];

/// `segue restore`
///
/// # Errors
/// When the backup is damaged, a node runs, or the folder cannot be written. What was there before is there again then.
pub fn restore(cx: &Context, args: &RestoreArgs) -> Outcome {
    let refused = |error: StoreError| {
        let failure = Failure::usage(format!("{}: {error}", args.dir.display()));
        failure.hint("name a folder that `segue backup` wrote")
    };
    let manifest = sqlite::verify(&args.dir).map_err(refused)?;
    let mut project = cx.project_or_new()?;
    let _lock = project.lock().code(Exit::Node)?;
    let aside =
        project.state.join(format!("before-restore-{}", jiff::Timestamp::now().as_millisecond()));
    let moved = move_aside(&project.state, &aside)?;
    if let Err(error) = sqlite::restore(&args.dir, &project.state) {
        put_back(&project.state, &aside, &moved)?;
        return Err(Failure::node(format!("nothing was restored: {error}")));
    }
    project.adopt(manifest.project).code(Exit::Node)?;
    report(cx, args, &project, &manifest, (!moved.is_empty()).then_some(&aside))
}

fn report(
    cx: &Context,
    args: &RestoreArgs,
    project: &Project,
    manifest: &sqlite::Manifest,
    aside: Option<&PathBuf>,
) -> Outcome {
    let backup = BackupView::of(manifest, &args.dir);
    if cx.json {
        let aside = aside.map(|aside| aside.display().to_string());
        cx.print_json(&json!({
            "restored": backup,
            "project": project.dir.display().to_string(),
            "before": aside,
        }))?;
        return Ok(Exit::Done);
    }
    cx.print(format!("{} has the state of {} again", project.dir.display(), backup.made_at))?;
    if let Some(aside) = aside {
        cx.print(format!("what was there before is in {}", aside.display()))?;
    }
    Ok(Exit::Done)
}

/// Moves what will be replaced into a folder beside it; gives back what that was.
fn move_aside(state: &Path, aside: &Path) -> Outcome<Vec<&'static str>> {
    let refused =
        |error: std::io::Error| Failure::node(format!("cannot write {}: {error}", aside.display()));
    std::fs::create_dir(aside).map_err(refused)?;
    let mut moved = Vec::new();
    for name in REPLACED {
        match std::fs::rename(state.join(name), aside.join(name)) {
            Ok(()) => moved.push(name),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                put_back(state, aside, &moved)?;
                return Err(refused(error));
            }
        }
    }
    if moved.is_empty() {
        let _ = std::fs::remove_dir(aside);
    }
    Ok(moved)
}

fn put_back(state: &Path, aside: &Path, moved: &[&str]) -> Outcome<()> {
    for name in moved {
        let back = state.join(name);
        // A restore that broke off may have made the folder already.
        let _ = std::fs::remove_dir_all(&back);
        std::fs::rename(aside.join(name), &back).map_err(|error| {
            Failure::node(format!(
                "{} could not be moved back: {error}",
                aside.join(name).display()
            ))
            .hint(format!("move everything in {} back by hand", aside.display()))
        })?;
    }
    let _ = std::fs::remove_dir(aside);
    Ok(())
}
