//! `segue init`: makes a folder a project, and never overwrites anything.

use crate::context::Context;
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::{CONFIG_FILE, Project, STATE_FOLDER};
use crate::roster::Roster;
use crate::screen::live::say;
use crate::screen::text::count;
use segue_core::agent::AgentKind;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The example workflow's file.
const WORKFLOW_FILE: &str = "workflow.yaml";
const EXAMPLE_CONFIG: &str = include_str!("../../templates/segue.toml");
const EXAMPLE_WORKFLOW: &str = include_str!("../../templates/workflow.yaml");

/// `segue init`
///
/// # Errors
/// When the folder cannot be written, or what is there already is wrong.
pub fn init(cx: &Context) -> Outcome {
    let dir = cx.start();
    let above = dir.parent().and_then(Project::find);
    let is_new = !dir.join(STATE_FOLDER).is_dir();
    let project = Project::open_or_make(dir).code(Exit::Node)?;
    let mut wrote = Vec::new();
    let mut kept = Vec::new();
    if is_new { &mut wrote } else { &mut kept }.push(STATE_FOLDER);
    let has_config = dir.join(CONFIG_FILE).exists();
    if has_config {
        // The example workflow is for the example's agents, which are not in the file that is there.
        kept.push(CONFIG_FILE);
        if dir.join(WORKFLOW_FILE).exists() {
            kept.push(WORKFLOW_FILE);
        }
    } else {
        for (name, text) in [(CONFIG_FILE, EXAMPLE_CONFIG), (WORKFLOW_FILE, EXAMPLE_WORKFLOW)] {
            if write_new(&dir.join(name), text)? { &mut wrote } else { &mut kept }.push(name);
        }
    }
    let (roster, _) = Roster::load(&project, None).code(Exit::Usage)?;
    if cx.json {
        let names: Vec<&str> =
            roster.members.iter().map(|member| member.spec.name.as_ref()).collect();
        cx.print_json(&json!({
            "project": project.id.to_string(), "dir": project.dir.display().to_string(),
            "wrote": wrote, "kept": kept, "agents": names, "notices": roster.notices,
        }))?;
        return Ok(Exit::Done);
    }
    report(cx, &project, &wrote, &kept, &roster)?;
    if let Some(above) = above {
        say(&format!(
            "{} {} is a project as well; commands in {} use the nearer one",
            cx.err.yellow("note:"),
            above.display(),
            project.dir.display()
        ));
    }
    Ok(Exit::Done)
}

/// Writes a file, unless one is there; says whether it did.
fn write_new(path: &Path, text: &str) -> Outcome<bool> {
    let refused =
        |error: std::io::Error| Failure::node(format!("cannot write {}: {error}", path.display()));
    match OpenOptions::new().create_new(true).write(true).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true).map_err(refused),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

fn report(
    cx: &Context,
    project: &Project,
    wrote: &[&str],
    kept: &[&str],
    roster: &Roster,
) -> Outcome<()> {
    let paint = cx.out;
    cx.print(format!("{} is a Segue project", paint.bold(project.dir.display().to_string())))?;
    for name in wrote {
        cx.print(format!("  {} {name}", paint.green("wrote")))?;
    }
    for name in kept {
        cx.print(format!("  {}  {name}", paint.dim("kept")))?;
    }
    let claude: Vec<&str> = roster
        .members
        .iter()
        .filter(|member| member.spec.kind == AgentKind::Claude)
        .map(|member| member.spec.name.as_ref())
        .collect();
    if !claude.is_empty() {
        let names = claude.iter().take(8).copied().collect::<Vec<_>>().join(", ");
        let more = if claude.len() > 8 { ", .." } else { "" };
        let found = count(claude.len(), "agent");
        cx.print(format!("  {} {found} of .claude/agents: {names}{more}", paint.green("found")))?;
    }
    for notice in &roster.notices {
        say(&format!("{} {notice}", cx.err.yellow("warning:")));
    }
    cx.print("")?;
    cx.print("Next:")?;
    cx.print("  segue agents                     who there is")?;
    if wrote.contains(&WORKFLOW_FILE) {
        cx.print("  segue run workflow.yaml          the example, live")?;
    }
    cx.print("  segue doctor                     what is missing, and how to mend it")
}
