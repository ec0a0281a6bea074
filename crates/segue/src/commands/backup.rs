//! `segue backup` and `restore`: what is wanted is kept twice, and put back.

use crate::api::views::{BackupView, ManifestView};
use crate::args::{BackupArgs, BackupCommand, BackupPlace, KeepArgs, RestoreArgs};
use crate::backend::Backend;
use crate::backups;
use crate::client::Client;
use crate::cluster::Settings;
use crate::config::Config;
use crate::context::{Context, block_on};
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::Project;
use crate::screen::live::{Live, say};
use crate::screen::table::Table;
use crate::screen::text::{bytes, count};
use parking_lot::Mutex;
use segue_core::ports::StoreError;
use segue_store::backup::{Backups, Imports, Keep, Manifest, Numbers, Progress, Stage, Verified};
use segue_store::objects::Options;
use segue_store::sqlite::{self, EmptyFolder};
use serde_json::json;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The manifest of a backup of the earlier form: a folder with a copy of the database.
const FOLDER_MANIFEST: &str = "manifest.json";

/// `segue backup`
///
/// # Errors
/// What the place, the store or the API refuses; no project, no node.
pub fn backup(cx: &Context, args: &BackupArgs) -> Outcome {
    match &args.command {
        None => make(cx, args.to.as_deref()),
        Some(BackupCommand::List(place)) => list(cx, place),
        Some(BackupCommand::Verify { place, at, deep }) => verify(cx, place, *at, *deep),
        Some(BackupCommand::Prune { place, keep }) => prune(cx, place, keep),
    }
}

/// Where the backups are: as the command says, else as `segue.toml` does.
struct Where {
    to: String,
    options: Options,
    keep: Keep,
    scratch: PathBuf,
}

impl Where {
    /// `segue.toml` counts where there is a project; a command that only looks needs none.
    fn find(cx: &Context, named: Option<&str>) -> Outcome<Where> {
        if let Some(settings) = cx.cluster() {
            return Where::of_cluster(cx, settings, named);
        }
        let dir = Project::find(cx.start());
        let config = match &dir {
            Some(dir) => Config::load(dir).code(Exit::Usage)?,
            None => Config::default(),
        };
        let keep = config.backup.as_ref().map(|backup| backup.keep).unwrap_or_default();
        let to = match (named, config.backup, &dir) {
            (Some(named), _, _) => backups::absolute(named, Path::new(""))?,
            (None, Some(backup), Some(dir)) => backups::absolute(&backup.to, dir)?,
            _ => {
                return Err(Failure::usage("it is not said where the backups are")
                    .hint("name the place, such as s3://bucket/prefix or a folder, or write `to = \"..\"` into [backup] of segue.toml"));
            }
        };
        // Where there is no project yet, nothing of the user's is near: the system's folder for such things is.
        let scratch = match dir {
            Some(dir) => dir.join(crate::project::STATE_FOLDER).join("scratch"),
            None => std::env::temp_dir(),
        };
        Ok(Where { to, options: config.objects, keep, scratch })
    }

    /// In a cluster its file counts, and `segue.toml` does not.
    fn of_cluster(cx: &Context, settings: &Settings, named: Option<&str>) -> Outcome<Where> {
        let backup = settings.backup.as_ref();
        let bodies = settings.objects.as_ref().map(|objects| objects.options.clone());
        let to = match (named, backup) {
            (Some(named), _) => backups::absolute(named, Path::new(""))?,
            (None, Some(backup)) => backup.plan.to.clone(),
            (None, None) => {
                return Err(Failure::usage("it is not said where the backups are").hint(
                    "name the place, such as s3://bucket/prefix or a folder, or write `to = \"..\"` into [backup] of cluster.toml",
                ));
            }
        };
        Ok(Where {
            to,
            options: backup.map(|backup| backup.options.clone()).or(bodies).unwrap_or_default(),
            keep: backup.map(|backup| backup.plan.keep).unwrap_or_default(),
            scratch: backups::scratch(&cx.project()?),
        })
    }

    fn is_folder_form(&self) -> bool {
        backups::folder(&self.to).is_some_and(|folder| folder.join(FOLDER_MANIFEST).is_file())
    }

    /// What is there already.
    fn existing(&self) -> Outcome<Backups> {
        backups::existing(&self.to, &self.options, &self.scratch)
            .map(show_progress)
            .map_err(|error| backups::failure(&error))
    }
}

/// Draws how far it is, on a terminal.
fn show_progress(backups: Backups) -> Backups {
    let Some(live) = Live::start() else { return backups };
    let live = Mutex::new(live);
    backups.watched(move |progress| live.lock().draw(&[line(progress)]))
}

fn line(progress: Progress) -> String {
    let Progress { stage, done, of, bytes: read } = progress;
    match stage {
        Stage::Reading => "reading the store".to_owned(),
        Stage::Writing => format!("written {done} of {of} objects, {}", bytes(read)),
        Stage::Checking => format!("checked {done} of {of} objects, {}", bytes(read)),
    }
}

fn make(cx: &Context, to: Option<&str>) -> Outcome {
    let place = Where::find(cx, to)?;
    if place.is_folder_form() {
        let message =
            format!("{} holds a backup of the earlier form, which has no numbers", place.to);
        return Err(Failure::usage(message).hint("name another folder; `segue restore` reads both"));
    }
    let project = cx.project()?;
    let options = place.options.clone().or_environment();
    let view: ManifestView = block_on(async {
        if project.cluster.is_some() {
            // Its tables can be read beside the nodes.
            let backend = Backend::open(&project).await.code(Exit::Node)?;
            return written(&place, &options, &backend).await;
        }
        let client = Client::of(&project, None).await?;
        let made = match client.in_process() {
            Some(here) => written(&place, &options, &here.api.backend).await,
            None => {
                let wanted = json!({ "to": place.to, "objects": options });
                client.post("/v1/backup", &wanted).await
            }
        };
        client.close(Duration::ZERO).await;
        made
    })?;
    if cx.json {
        cx.print_json(&view)?;
        return Ok(Exit::Done);
    }
    cx.print(format!(
        "backup {} at {}: {}, {} written ({} in all)",
        view.number,
        view.url,
        number(view.rows, "row"),
        bytes(view.written_bytes),
        bytes(view.bytes)
    ))?;
    Ok(Exit::Done)
}

/// Makes a backup in this process.
async fn written(place: &Where, options: &Options, backend: &Backend) -> Outcome<ManifestView> {
    let made = async {
        let backups = show_progress(backups::at(&place.to, options, &place.scratch)?);
        let manifest = backups.write(backend, None).await?;
        Ok(ManifestView::of(&manifest, backups.url()))
    };
    made.await.map_err(|error| backups::failure(&error))
}

fn number(number: u64, word: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), word)
}

fn list(cx: &Context, args: &BackupPlace) -> Outcome {
    let place = Where::find(cx, args.url.as_deref())?;
    let backups = place.existing()?;
    let listed =
        block_on(async { backups.list().await.map_err(|error| backups::failure(&error)) })?;
    if listed.is_empty() {
        let none = block_on(async { Ok(backups.at(None).await.err()) })?;
        return Err(
            none.map_or_else(|| Failure::silent(Exit::Failed), |error| backups::failure(&error))
        );
    }
    let (mut views, mut broken) = (Vec::new(), Vec::new());
    for (_, one) in &listed {
        match one {
            Ok(manifest) => views.push(ManifestView::of(manifest, backups.url())),
            Err(error) => broken.push(error.to_string()),
        }
    }
    if cx.json {
        cx.print_json(&json!({ "url": backups.url(), "backups": views, "damaged": broken }))?;
    } else {
        let mut table = Table::new(&["NUMBER", "MADE", "ROWS", "SIZE", "WRITTEN", "STATE"]);
        for view in &views {
            table.row(vec![
                view.number.to_string(),
                view.made_at.clone(),
                view.rows.to_string(),
                bytes(view.bytes),
                bytes(view.written_bytes),
                if view.given_up { "given up" } else { "kept" }.to_owned(),
            ]);
        }
        cx.print_lines(&table.lines(cx.out, cx.cells()))?;
        for what in &broken {
            say(&format!("{} {what}", cx.err.yellow("warning:")));
        }
    }
    Ok(if broken.is_empty() { Exit::Done } else { Exit::Failed })
}

fn verify(cx: &Context, args: &BackupPlace, at: Option<u64>, deep: bool) -> Outcome {
    let place = Where::find(cx, args.url.as_deref())?;
    if place.is_folder_form() {
        return verify_folder(cx, &place, at);
    }
    let backups = place.existing()?;
    let verified = block_on(async {
        backups.verify(at, deep).await.map_err(|error| backups::failure(&error))
    })?;
    drop(backups);
    let Verified { number: which, objects, bytes: read, rows, deep, findings } = verified;
    let exit = if findings.is_empty() { Exit::Done } else { Exit::Failed };
    if cx.json {
        cx.print_json(&json!({
            "number": which, "objects": objects, "bytes": read, "rows": rows, "deep": deep, "findings": findings,
        }))?;
        return Ok(exit);
    }
    if findings.is_empty() {
        let made = if deep { ", and a store made of it exports the same" } else { "" };
        cx.print(format!(
            "backup {which} is whole: {}, {}, {}{made}",
            number(objects, "object"),
            bytes(read),
            number(rows, "row")
        ))?;
        return Ok(exit);
    }
    Err(Failure::new(exit, findings.join("\n")).hint(
        "restore another number (`segue backup list`), and make a new backup now: what is missing is written anew once no later backup refers to it",
    ))
}

fn verify_folder(cx: &Context, place: &Where, at: Option<u64>) -> Outcome {
    no_numbers(at)?;
    let folder = backups::folder(&place.to).unwrap_or_default();
    let manifest = sqlite::verify(&folder)
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", folder.display())))?;
    let view = BackupView::of(&manifest, &folder);
    if cx.json {
        cx.print_json(&view)?;
    } else {
        cx.print(format!("the copy of {} is whole: {}", view.made_at, count(view.files, "file")))?;
    }
    Ok(Exit::Done)
}

fn no_numbers(at: Option<u64>) -> Outcome<()> {
    match at {
        None => Ok(()),
        Some(_) => {
            Err(Failure::usage("a backup of the earlier form has no numbers: leave out --at"))
        }
    }
}

fn prune(cx: &Context, args: &BackupPlace, keep: &KeepArgs) -> Outcome {
    let place = Where::find(cx, args.url.as_deref())?;
    let keep = keep.over(place.keep);
    if keep.is_empty() {
        return Err(Failure::usage("nothing is to be kept but the latest backup")
            .hint("say so with --keep-last 1"));
    }
    let backups = place.existing()?;
    let swept =
        block_on(async { backups.sweep(&keep).await.map_err(|error| backups::failure(&error)) })?;
    if cx.json {
        cx.print_json(&json!({
            "kept": swept.kept, "given_up": swept.given_up, "removed": swept.removed,
            "objects": swept.objects, "bytes": swept.bytes,
        }))?;
        return Ok(Exit::Done);
    }
    cx.print(format!(
        "kept {}; given up {}; removed {} and {} ({})",
        count(swept.kept.len(), "backup"),
        swept.given_up.len(),
        count(swept.removed.len(), "backup"),
        number(swept.objects, "object"),
        bytes(swept.bytes)
    ))?;
    if !swept.given_up.is_empty() {
        say(&cx.err.dim(
            "what was given up can be restored for a day, and goes with the next prune after that",
        ));
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
    let place = Where::find(cx, Some(&args.from))?;
    if place.is_folder_form() {
        no_numbers(args.at)?;
        if cx.cluster().is_some() {
            return Err(Failure::usage("a copy of a database file is restored on one machine only")
                .hint("restore it without --config, and move the project: `segue export`, then `segue import --config cluster.toml`"));
        }
        return restore_folder(cx, &place);
    }
    let backups = place.existing()?;
    // It is looked at before a folder becomes a project for it.
    let manifest =
        block_on(async { backups.at(args.at).await.map_err(|error| backups::failure(&error)) })?;
    let mut project = cx.project_or_new()?;
    if project.cluster.is_some() {
        return restore_cluster(cx, &project, &backups, &manifest);
    }
    let _lock = project.lock().code(Exit::Node)?;
    let options = sqlite::Options::new(&project.state, manifest.project, project.key);
    let aside = block_on(async {
        let file = backups.spell(&manifest, Numbers::Jump).await;
        let file = file.map_err(|error| backups::failure(&error))?;
        let (aside, moved) = move_aside(&project.state)?;
        let into = EmptyFolder(options);
        if let Err(error) = into.import_rows(Box::new(BufReader::new(file))).await {
            put_back(&project.state, &aside, &moved)?;
            return Err(Failure::node(format!("nothing was restored: {error}")));
        }
        Ok((!moved.is_empty()).then_some(aside))
    })?;
    project.adopt(manifest.project).code(Exit::Node)?;
    let view = ManifestView::of(&manifest, backups.url());
    drop(backups);
    let what = format!("backup {} of {}", view.number, view.made_at);
    report(cx, &project, &json!(view), &what, aside.as_deref())
}

/// Nothing of a cluster's is moved aside, since other machines may use it: what is restored goes where nothing is yet.
fn restore_cluster(
    cx: &Context,
    project: &Project,
    backups: &Backups,
    manifest: &Manifest,
) -> Outcome {
    if manifest.project != project.id {
        let theirs = manifest.project;
        let message =
            format!("the backup is of project {theirs}, and the cluster's is {}", project.id);
        return Err(Failure::usage(message)
            .hint(format!("write `id = \"{theirs}\"` into [project] of cluster.toml")));
    }
    let empty = Backend::empty(project, project.id).code(Exit::Node)?;
    block_on(async {
        let file = backups.spell(manifest, Numbers::Jump).await;
        let file = file.map_err(|error| backups::failure(&error))?;
        let restored = empty.import_rows(Box::new(BufReader::new(file))).await;
        restored.map_err(|error| {
            let failure = Failure::node(format!("nothing was restored: {error}"));
            if !matches!(error, StoreError::NotEmpty(_)) {
                return failure;
            }
            failure.hint("name an empty database in [postgres] of cluster.toml, and restore before the first node starts; the other one stays as it is")
        })
    })?;
    let view = ManifestView::of(manifest, backups.url());
    let what = format!("backup {} of {}", view.number, view.made_at);
    report(cx, project, &json!(view), &what, None)
}

fn restore_folder(cx: &Context, place: &Where) -> Outcome {
    let folder = backups::folder(&place.to).unwrap_or_default();
    let refused = |error: StoreError| {
        let failure = Failure::usage(format!("{}: {error}", folder.display()));
        failure.hint("name a folder that `segue backup` wrote")
    };
    let manifest = sqlite::verify(&folder).map_err(refused)?;
    let mut project = cx.project_or_new()?;
    let _lock = project.lock().code(Exit::Node)?;
    let (aside, moved) = move_aside(&project.state)?;
    if let Err(error) = sqlite::restore(&folder, &project.state) {
        put_back(&project.state, &aside, &moved)?;
        return Err(Failure::node(format!("nothing was restored: {error}")));
    }
    project.adopt(manifest.project).code(Exit::Node)?;
    let view = BackupView::of(&manifest, &folder);
    let aside = (!moved.is_empty()).then_some(aside.as_path());
    report(cx, &project, &json!(view), &format!("the copy of {}", view.made_at), aside)
}

fn report(
    cx: &Context,
    project: &Project,
    restored: &serde_json::Value,
    what: &str,
    aside: Option<&Path>,
) -> Outcome {
    if cx.json {
        let aside = aside.map(|aside| aside.display().to_string());
        cx.print_json(&json!({
            "restored": restored,
            "project": project.dir.display().to_string(),
            "before": aside,
        }))?;
        return Ok(Exit::Done);
    }
    cx.print(format!("{} has the state of {what} again", project.dir.display()))?;
    if let Some(aside) = aside {
        cx.print(format!("what was there before is in {}", aside.display()))?;
    }
    Ok(Exit::Done)
}

/// Moves what will be replaced into a folder beside it; gives back the folder, and what that was.
fn move_aside(state: &Path) -> Outcome<(PathBuf, Vec<&'static str>)> {
    let aside = state.join(format!("before-restore-{}", jiff::Timestamp::now().as_millisecond()));
    let refused =
        |error: std::io::Error| Failure::node(format!("cannot write {}: {error}", aside.display()));
    std::fs::create_dir(&aside).map_err(refused)?;
    let mut moved = Vec::new();
    for name in REPLACED {
        match std::fs::rename(state.join(name), aside.join(name)) {
            Ok(()) => moved.push(name),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                put_back(state, &aside, &moved)?;
                return Err(refused(error));
            }
        }
    }
    if moved.is_empty() {
        let _ = std::fs::remove_dir(&aside);
    }
    Ok((aside, moved))
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
