//! `segue doctor`: what is missing or broken, and how to mend it.

use crate::agents::Team;
use crate::api::views::{AuditView, HealthView};
use crate::client::Client;
use crate::cluster::Settings;
use crate::cluster::doctor::{Finding, examine};
use crate::context::{Context, block_on};
use crate::failure::{Exit, Outcome};
use crate::project::{Project, STATE_FOLDER};
use crate::screen::style::Paint;
use crate::screen::text::{bytes, count, line};
use segue_agent::claude::Severity;
use segue_agent::place::records_folder;
use segue_agent::process::Launcher;
use segue_agent::workspace::{Work, Workspaces};
use segue_core::agent::AgentKind;
use segue_core::task::WorkspaceKind;
use serde::Serialize;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Below this much free space there is a warning, and below the second one nothing goes.
const SPACE_LOW: u64 = 1 << 30;
const SPACE_NONE: u64 = 64 << 20;
/// What a program has to say its version.
const VERSION_WAIT: Duration = Duration::from_secs(10);

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Check {
    Check { check, verdict: Verdict::Ok, found: found.into(), remedy: None }
}

fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { check, verdict: Verdict::Warn, found: found.into(), remedy: Some(remedy.into()) }
}

fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { verdict: Verdict::Fail, ..warn(check, found, remedy) }
}

/// `segue doctor`
///
/// # Errors
/// When whoever reads it has gone.
pub fn doctor(cx: &Context) -> Outcome {
    let mut checks = machine();
    match Project::find(cx.start()) {
        None => checks.push(warn(
            "project",
            format!("there is none in {} or above it", cx.start().display()),
            "run `segue init` in the project's folder",
        )),
        Some(dir) if cx.cluster().is_some() => team(&dir, &mut checks),
        Some(dir) => project(&dir, &mut checks),
    }
    if let Some(settings) = cx.cluster() {
        checks.extend(servers(settings)?);
    }
    let of = |verdict: Verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (warnings, failures) = (of(Verdict::Warn), of(Verdict::Fail));
    if cx.json {
        cx.print_json(&json!({ "checks": checks, "warnings": warnings, "failures": failures }))?;
    } else {
        for check in &checks {
            cx.print(shown(check, cx.out))?;
        }
        cx.print("")?;
        cx.print(match (failures, warnings) {
            (0, 0) => cx.out.green("all is well"),
            (0, _) => cx.out.yellow(count(warnings, "warning")),
            _ => cx.out.red(format!(
                "{}, {}",
                count(failures, "failure"),
                count(warnings, "warning")
            )),
        })?;
    }
    Ok(if failures > 0 { Exit::Failed } else { Exit::Done })
}

fn shown(check: &Check, paint: Paint) -> String {
    let mark = match check.verdict {
        Verdict::Ok => paint.green("ok  "),
        Verdict::Warn => paint.yellow("warn"),
        Verdict::Fail => paint.red("fail"),
    };
    let mut text = format!("{mark}  {:<12}  {}", check.check, line(&check.found));
    if let Some(remedy) = &check.remedy {
        text.push_str(&format!("\n{:20}{} {}", "", paint.cyan("->"), line(remedy)));
    }
    text
}

/// The servers of a cluster.
fn servers(settings: &Settings) -> Outcome<Vec<Check>> {
    let findings = block_on(async { Ok(examine(settings).await) })?;
    let check = |finding| match finding {
        Finding::Fine(name, found) => ok(name, found),
        Finding::Odd(name, found, remedy) => warn(name, found, remedy),
        Finding::Broken(name, found, remedy) => fail(name, found, remedy),
    };
    Ok(findings.into_iter().map(check).collect())
}

/// What does not depend on a project.
fn machine() -> Vec<Check> {
    let mut checks = vec![ok("segue", env!("CARGO_PKG_VERSION"))];
    checks.push(match versions(&["git"]).remove(0) {
        Some(version) => ok("git", version),
        None => warn("git", "it is not on the path", "install git: `workspace: worktree` needs it"),
    });
    checks.push(if cfg!(target_os = "linux") {
        ok("processes", "orphans of an agent's program are adopted and ended (subreaper)")
    } else {
        warn(
            "processes",
            "this system has no subreaper: a program that detaches itself can escape its end",
            "run Segue on Linux where that matters",
        )
    });
    checks.push(if Launcher::this_binary().has_cgroup() {
        ok("cgroup", "each attempt gets one of its own")
    } else {
        // Their absence takes nothing away that is promised.
        ok("cgroup", "none can be made here; the supervisor alone ends process trees")
    });
    checks
}

fn project(dir: &Path, checks: &mut Vec<Check>) {
    let state = dir.join(STATE_FOLDER);
    if !state.is_dir() {
        checks.push(warn(
            "project",
            format!("{} has a segue.toml and no {STATE_FOLDER}", dir.display()),
            "`segue init` or the first run makes it",
        ));
        return team(dir, checks);
    }
    let project = match Project::open_or_make(dir) {
        Ok(project) => project,
        Err(error) => {
            checks.push(fail("project", format!("{error:#}"), "see above"));
            return;
        }
    };
    checks.push(ok("project", format!("{} ({})", project.dir.display(), project.id)));
    checks.push(writable(&project.state));
    checks.push(space(&project.state));
    node(&project, checks);
    team(&project.dir, checks);
    leftovers(&project, checks);
}

fn writable(state: &Path) -> Check {
    let probe = state.join(format!("doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"?").and_then(|()| std::fs::remove_file(&probe));
    let mode = std::fs::metadata(state).map(|found| found.permissions().mode() & 0o777);
    match (written, mode) {
        (Err(error), _) => fail(
            "folder",
            format!("{} cannot be written: {error}", state.display()),
            "check its owner and mode, and whether the disk is full",
        ),
        (Ok(()), Ok(mode)) if mode & 0o077 != 0 => warn(
            "folder",
            format!("others can look into {} (mode {mode:o})", state.display()),
            format!("chmod 700 {}", state.display()),
        ),
        (Ok(()), _) => ok("folder", format!("{} can be written", state.display())),
    }
}

fn space(state: &Path) -> Check {
    let found = match nix::sys::statvfs::statvfs(state) {
        Ok(found) => found,
        Err(error) => {
            return warn("disk", format!("its room is not known: {error}"), "look with `df`");
        }
    };
    // Types differ between systems.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let free = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
    let text = format!("{} are free", bytes(free));
    match free {
        0..SPACE_NONE => fail("disk", text, "make room: a full disk stops the node"),
        SPACE_NONE..SPACE_LOW => warn("disk", text, "make room, or `segue prune --older-than 30d`"),
        _ => ok("disk", text),
    }
}

/// The node that runs, or the database that waits for one.
fn node(project: &Project, checks: &mut Vec<Check>) {
    let lock = match project.try_lock() {
        Ok(lock) => lock,
        Err(error) => {
            checks.push(fail("node", format!("{error:#}"), "check owner and mode of the folder"));
            return;
        }
    };
    if lock.is_some() {
        checks.push(ok("node", "none runs; `segue run` and `segue up` start one"));
        if project.socket().exists() {
            checks.push(warn(
                "socket",
                format!("{} was left behind by a node that died", project.socket().display()),
                "nothing to do: the next node replaces it",
            ));
        }
        drop(lock);
        checks.push(database(project));
        return;
    }
    let health: Outcome<HealthView> = block_on(async {
        let client = Client::of(project, None).await?;
        client.get("/v1/health").await
    });
    match health {
        Err(failure) => checks.push(fail(
            "node",
            format!("one holds the lock and does not answer: {failure}"),
            format!(
                "look at the process that {} names; end it if it hangs",
                project.state.join("node.lock").display()
            ),
        )),
        Ok(health) if health.version != env!("CARGO_PKG_VERSION") => checks.push(warn(
            "node",
            format!("process {} is of version {}", health.pid, health.version),
            "end it and start `segue up` again",
        )),
        Ok(health) if health.status != "ok" => checks.push(fail(
            "node",
            format!("process {} takes no work: {}", health.pid, health.status),
            "mend the cause, end it, and start `segue up` again",
        )),
        Ok(health) => checks.push(ok(
            "node",
            format!("process {} runs with {}", health.pid, count(health.agents, "agent")),
        )),
    }
    checks.push(database(project));
}

/// Reads all of the database, by the node that has it open or by itself.
fn database(project: &Project) -> Check {
    let audit: Outcome<AuditView> = block_on(async {
        let client = Client::of(project, None).await?;
        let audit = client.get("/v1/audit").await;
        client.close(Duration::ZERO).await;
        audit
    });
    const REMEDY: &str = "end the node and restore a backup with `segue restore`";
    match audit {
        Ok(audit) => match audit.findings.as_slice() {
            [] => ok("database", "it is whole"),
            [only] => fail("database", only, REMEDY),
            [first, more @ ..] => {
                fail("database", format!("{first}; and {} more", more.len()), REMEDY)
            }
        },
        Err(failure) => fail("database", failure.message, REMEDY),
    }
}

fn team(dir: &Path, checks: &mut Vec<Check>) {
    let team = match Team::load(dir, None) {
        Ok(team) => team,
        Err(error) => {
            checks.push(fail(
                "agents",
                format!("{error:#}"),
                "mend the file; docs/segue-toml.md describes it",
            ));
            return;
        }
    };
    match team.len() {
        0 => checks.push(warn(
            "agents",
            "there are none",
            "define some in segue.toml (`segue init` writes an example) or in .claude/agents",
        )),
        number => checks.push(ok("agents", count(number, "agent"))),
    }
    for (name, program) in team.programs() {
        let program = program.replace("{project}", &dir.to_string_lossy());
        if program.contains('{') || found_on_path(&program) {
            continue;
        }
        checks.push(fail(
            "program",
            format!("agent `{name}` runs `{program}`, which is not there"),
            "install it, or give its full path in `command`",
        ));
    }
    tools(&team, checks);
    for notice in team.notices.iter().filter(|notice| notice.severity != Severity::Note) {
        let line = notice.line.map(|line| format!(":{line}")).unwrap_or_default();
        let found = format!("{}{line}: {}", notice.path.display(), notice.message);
        checks.push(warn("agent file", found, notice.remedy.clone()));
    }
}

/// Coding CLIs: missing ones matter only where an agent is one.
fn tools(team: &Team, checks: &mut Vec<Check>) {
    const KINDS: [(AgentKind, &str); 4] = [
        (AgentKind::Claude, "claude"),
        (AgentKind::Codex, "codex"),
        (AgentKind::Gemini, "gemini"),
        (AgentKind::Opencode, "opencode"),
    ];
    let found = versions(&KINDS.map(|(_, program)| program));
    for ((kind, program), version) in KINDS.into_iter().zip(found) {
        let needed = team.count_of(kind);
        match (version, needed) {
            (Some(version), _) => checks.push(ok(program, version)),
            (None, 0) => {}
            (None, needed) => checks.push(warn(
                program,
                format!(
                    "it is not on the path, and {} of this kind",
                    if needed == 1 {
                        "an agent is".to_owned()
                    } else {
                        format!("{needed} agents are")
                    }
                ),
                format!("install {program}, or take these agents out"),
            )),
        }
    }
}

/// What dead nodes and ended tasks left lying.
fn leftovers(project: &Project, checks: &mut Vec<Check>) {
    let records = std::fs::read_dir(records_folder(&project.state)).into_iter().flatten().flatten();
    let attempts = records
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
        .count();
    let idle = matches!(project.try_lock(), Ok(Some(_)));
    if attempts > 0 && idle {
        checks.push(warn(
            "processes",
            format!("a node died while {} ran", count(attempts, "attempt")),
            "the next node ends what is left of them, and runs the tasks again",
        ));
    }
    // Which tasks are over is only known to the store; without a node nothing is live.
    let Ok(left) = Workspaces::new(&project.dir, &project.state).list_leftover(|_| !idle) else {
        return;
    };
    let trees: Vec<&PathBuf> = left
        .iter()
        .filter(|left| left.kind == WorkspaceKind::Worktree && left.work != Work::None)
        .map(|left| &left.path)
        .collect();
    if let Some(first) = trees.first() {
        checks.push(warn(
            "worktrees",
            format!(
                "{} with work that is nowhere else, such as {}",
                count(trees.len(), "worktree"),
                first.display()
            ),
            "merge what is worth it, then `git worktree remove` it",
        ));
    }
}

/// Whether a program can be started by this name.
fn found_on_path(program: &str) -> bool {
    let is_program = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return is_program(Path::new(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)))
}

/// The first line of what each program says to `--version`; nothing where it is not there. All are asked at once.
fn versions(programs: &[&str]) -> Vec<Option<String>> {
    let asked: Vec<Option<Child>> = programs
        .iter()
        .map(|program| {
            let mut command = Command::new(program);
            command
                .arg("--version")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            command.spawn().ok()
        })
        .collect();
    let until = Instant::now() + VERSION_WAIT;
    asked.into_iter().map(|child| child.map(|child| answer(child, until))).collect()
}

fn answer(mut child: Child, until: Instant) -> String {
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return "it is there, and does not say its version".to_owned();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = child.wait_with_output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it is there").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_shows_its_remedy_under_it() {
        let check = warn("git", "it is not\nthere", "install it");
        let text = shown(&check, Paint::new(false));
        assert_eq!(text, format!("warn  git           it is not there\n{:20}-> install it", ""));
    }

    #[test]
    fn programs_are_found_as_the_system_finds_them() {
        assert!(found_on_path("sh"));
        assert!(found_on_path("/bin/sh"));
        assert!(!found_on_path("no-such-program-here"));
        assert!(!found_on_path("/"));
        assert_eq!(versions(&["no-such-program-here"]), [None]);
    }
}
