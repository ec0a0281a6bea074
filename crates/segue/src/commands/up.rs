//! `segue up`: a node that stays.

use crate::args::UpArgs;
use crate::backups;
use crate::client::{Client, Here};
use crate::cluster::duties;
use crate::context::{Context, block_on};
use crate::ending;
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::{CONFIG_FILE, Project};
use crate::roster::Roster;
use crate::screen::live::say;
use crate::screen::text::{count, duration};
use crate::signals::Signals;
use segue_agent::claude::Watcher;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// How often the folders of `segue.toml` are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// `segue up`
///
/// # Errors
/// When another node runs, or this one cannot start.
pub fn up(cx: &Context, args: &UpArgs) -> Outcome {
    let project = cx.project_or_new()?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let mut insisting = signals.clone();
        tokio::select! {
            result = stay(cx, args, &project, &mut signals) => result,
            exit = insisting.second() => Err(Failure::silent(exit)),
        }
    })
}

async fn stay(cx: &Context, args: &UpArgs, project: &Project, signals: &mut Signals) -> Outcome {
    let team = args.team.as_deref();
    let client = tokio::select! {
        client = Client::up(project, team) => client?,
        exit = signals.first() => return Err(Failure::silent(exit)),
    };
    if let Some(here) = client.in_process() {
        announce(cx, here, project)?;
        tokio::select! {
            () = reload_for_ever(cx, here, project, team) => {}
            () = keep_up(project, here) => {}
            _ = signals.first() => {}
            () = drained(here) => say("this node was drained"),
            () = store_fails(here) => {
                client.close(Duration::ZERO).await;
                return Err(Failure::node("the store takes no more writes; the node ends")
                    .hint("`segue doctor` looks for the cause"));
            }
        }
        if let Some(engine) = &here.api.engine {
            engine.stop_assigning();
        }
        let running = here.node.as_ref().map_or(0, |node| node.host.running());
        if !cx.json {
            let patience = duration(args.patience);
            say(&match running {
                0 => "ending".to_owned(),
                _ => format!(
                    "ending: {} {patience} to end, once more ends at once",
                    if running == 1 {
                        "1 attempt has".to_owned()
                    } else {
                        format!("{running} attempts have")
                    }
                ),
            });
        }
    }
    let patience = Duration::from_millis(args.patience);
    ending::bounded(patience, client.close(patience)).await?;
    Ok(Exit::Done)
}

/// Says where the node listens. The first line of standard output: whoever started it can wait for that.
fn announce(cx: &Context, here: &Here, project: &Project) -> Outcome<()> {
    let roster = here.api.roster();
    let socket = project.socket();
    if cx.json {
        return cx.print(
            json!({
                "event": "listening",
                "socket": socket.display().to_string(),
                "pid": std::process::id(),
                "project": project.id.to_string(),
                "agents": roster.members.len(),
            })
            .to_string(),
        );
    }
    for notice in &roster.notices {
        say(&format!("{} {notice}", cx.err.yellow("warning:")));
    }
    let agents = count(roster.members.len(), "agent");
    cx.print(format!(
        "listening on {} with {agents} (process {})",
        socket.display(),
        std::process::id()
    ))
}

/// Ends when the node cannot work any more: its store has failed for good, or a part of the engine ended by a defect.
async fn store_fails(here: &Here) {
    match &here.api.engine {
        Some(engine) => say(&format!("the node: {}", engine.failed().await)),
        None => std::future::pending().await,
    }
}

/// What has to be done again and again beside the work. Never ends.
async fn keep_up(project: &Project, here: &Here) {
    let backend = &here.api.backend;
    match (&project.cluster, &here.api.engine) {
        (Some(settings), Some(engine)) => {
            duties::keep(settings, project, backend, engine);
            duties::tidy_up(project, backend.store.as_ref()).await;
        }
        _ => backups::keep_schedule(project, backend).await,
    }
}

/// Ends when somebody drained this node.
async fn drained(here: &Here) {
    match &here.node {
        Some(node) => node.told_to_leave().await,
        None => std::future::pending().await,
    }
}

/// Takes over whatever changes in `segue.toml` and `.claude/agents`.
async fn reload_for_ever(cx: &Context, here: &Here, project: &Project, team: Option<&Path>) {
    let (changed, mut changes) = mpsc::unbounded_channel();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let watcher = Watcher::start(&project.dir, home.as_deref(), move |_| {
        let _ = changed.send(());
    });
    let _watcher = match watcher {
        Ok((watcher, _)) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "changes of .claude/agents will not be noticed");
            None
        }
    };
    let mut files = vec![project.dir.join(CONFIG_FILE)];
    files.extend(team.map(|team| team.join(CONFIG_FILE)));
    let mut stamps = stamps(&files);
    loop {
        let is_claude = tokio::select! {
            Some(()) = changes.recv() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let now = self::stamps(&files);
        if is_claude || now != stamps {
            stamps = now;
            if let Err(failure) = reload(cx, here, project, team).await {
                say(&format!(
                    "{} the agents stay as they were: {failure}",
                    cx.err.yellow("warning:")
                ));
            }
        }
    }
}

/// When these files were changed last, and how long they are.
fn stamps(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    files.iter().map(stamp).collect()
}

async fn reload(cx: &Context, here: &Here, project: &Project, team: Option<&Path>) -> Outcome<()> {
    let (roster, hosted) = Roster::of_node(project, team)?;
    let Some(node) = &here.node else { return Ok(()) };
    node.set_agents(hosted).await.code(Exit::Node)?;
    let names = |roster: &Roster| -> Vec<String> {
        roster.members.iter().map(|member| member.spec.name.to_string()).collect()
    };
    let before = names(&here.api.roster());
    let after = names(&roster);
    *here.api.roster.write() = Arc::new(roster);
    let come: Vec<&str> =
        after.iter().filter(|name| !before.contains(name)).map(String::as_str).collect();
    let gone: Vec<&str> =
        before.iter().filter(|name| !after.contains(name)).map(String::as_str).collect();
    let mut parts = vec![count(after.len(), "agent")];
    if !come.is_empty() {
        parts.push(format!("new: {}", come.join(", ")));
    }
    if !gone.is_empty() {
        parts.push(format!("gone: {}", gone.join(", ")));
    }
    let text = format!("agents reloaded: {}", parts.join("; "));
    if cx.json {
        cx.print(
            json!({"event": "reloaded", "agents": after.len(), "new": come, "gone": gone})
                .to_string(),
        )
    } else {
        cx.print(text)
    }
}
