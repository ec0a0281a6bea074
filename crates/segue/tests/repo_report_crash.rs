//! `kill -9` of `segue run` in the middle of the README's first command: nothing of the dead node is left, and what it
//! had begun is finished by the next one.

#![cfg(target_os = "linux")]

mod repo_report_support;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use repo_report_support::{Came, GOAL, Place, example, path, replace};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// In the place of `markers`: while there is a gate it stays before it, with a child that has left its session and takes
/// no SIGTERM. All of them hold the pipe `alive`, whose end says that the last of them has gone.
const GATE: &str = r#"#!/bin/sh
top=$(dirname "$SEGUE_PROJECT_DIR")
if [ -p "$top/gate" ]; then
    exec 9>"$top/alive"
    $(command -v setsid) sh -c 'trap "" TERM; cat "$1"' sh "$top/hold" &
    read line <"$top/gate"
fi
exec sh "$(dirname -- "$0")/markers.sh"
"#;

/// A repository, a team whose `markers` stays before a gate, and the gate.
fn gated() -> (Place, PathBuf) {
    let place = Place::new();
    let team = place.team("team", |text| {
        replace(&text, r#"["sh", "{team}/markers.sh"]"#, r#"["sh", "{team}/gate.sh"]"#)
    });
    std::fs::write(team.join("gate.sh"), GATE).unwrap();
    for name in ["gate", "alive", "hold"] {
        mkfifo(&place.beside(name), Mode::from_bits_truncate(0o600)).unwrap();
    }
    (place, team)
}

/// What is known of a run that was killed.
struct Killed {
    run: String,
    /// The attempt that was under way.
    attempt: String,
}

/// Runs the first command until `markers` is before its gate, and kills the node.
fn killed_at_the_gate(place: &Place, team: &Path) -> Killed {
    let mut command = place.command(&place.report_args(team, &[]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut names = BTreeMap::new();
    let mut attempts = BTreeMap::new();
    let mut seen = Vec::new();
    // `history`, beside it, is done; `markers` is at work.
    let killed = loop {
        let line = lines.next().expect("the run ended before `markers` was at its gate").unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        let task = event["task"].as_str().unwrap_or_default().to_owned();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str().unwrap() {
            "submitted" => {
                names.insert(task, text("name"));
                continue;
            }
            "assigned" => {
                attempts.insert(names[&task].clone(), text("attempt"));
            }
            what => seen.push(format!("{} {what}", names[&task])),
        }
        let is_so = |what: &str| seen.iter().any(|known| known == what);
        if is_so("markers started") && is_so("history completed") {
            break Killed { run: text("run"), attempt: attempts.remove("markers").unwrap() };
        }
    };
    // Opens once somebody before the gate has it open, too.
    let mut alive = File::open(place.beside("alive")).unwrap();
    assert!(!marked(&killed.attempt).is_empty(), "no process carries the mark of the attempt");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    // Nobody told them; that their node died is enough.
    assert_eq!(alive.read_to_end(&mut Vec::new()).unwrap(), 0);
    std::fs::remove_file(place.beside("gate")).unwrap();
    killed
}

/// The processes that carry the mark of an attempt in their environment.
fn marked(attempt: &str) -> Vec<String> {
    let mark = format!("SEGUE_ATTEMPT={attempt}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    });
    processes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A node that stays, once it listens.
fn up(place: &Place, team: &Path) -> Node {
    let args = ["up", "--team", path(team), "--project", path(&place.repo)];
    let mut child =
        place.command(&args).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let node = Node(child);
    assert!(line.starts_with("listening on"), "{line:?}");
    node
}

/// A node that stays, and ends with its test, however that ends.
struct Node(Child);

impl Node {
    fn end(mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ok(place: &Place, args: &[&str]) -> Came {
    let came = place.segue(&[args, &["--project", path(&place.repo)]].concat());
    assert_eq!(came.code, 0, "{args:?}: {came:#?}");
    came
}

/// How often each task of a run was given to an agent, by name.
fn tries(place: &Place, run: &str) -> BTreeMap<String, u64> {
    let tasks = ok(place, &["tasks", "--run", run, "--json"]).out;
    let tasks: Value = serde_json::from_str(&tasks).unwrap();
    let tasks = tasks["tasks"].as_array().unwrap();
    tasks
        .iter()
        .map(|task| (task["name"].as_str().unwrap().to_owned(), task["attempts"].as_u64().unwrap()))
        .collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn after_a_crash_the_next_node_finishes_the_run_and_nothing_is_left_of_the_dead_one() {
    let (place, team) = gated();
    let killed = killed_at_the_gate(&place, &team);
    assert!(!place.repo.join("repo-report").exists());

    let node = up(&place, &team);
    assert_eq!(marked(&killed.attempt), Vec::<String>::new());
    ok(&place, &["watch", &killed.run, "--quiet"]);
    let expected = [(GOAL, 4), ("history", 1), ("inventory", 1), ("markers", 2), ("reporter", 1)];
    let expected = expected.map(|(name, tries)| (name.to_owned(), tries));
    assert_eq!(
        tries(&place, &killed.run),
        BTreeMap::from(expected),
        "what was done is not done again"
    );

    // The log tells what became of the attempt, and which processes were ended.
    let log = ok(&place, &["events", &killed.run, "--json"]).out;
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| {
        events
            .iter()
            .find(|event| event["event"] == name)
            .unwrap_or_else(|| panic!("{name}: {log}"))
    };
    assert!(of("attempt_lost")["reason"].as_str().unwrap().contains("restarted"), "{log}");
    let evidence = of("processes_ended");
    assert_eq!(evidence["attempt"], killed.attempt.as_str());
    let names: Vec<&str> = evidence["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| process["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"sh"), "{names:?}");
    node.end();

    for folder in ["run", "scratch"] {
        assert_eq!(
            entries(&place.repo.join(".segue").join(folder)),
            Vec::<String>::new(),
            "{folder}"
        );
    }
    let rescued = place.pages();
    place.report(&example()).completed();
    assert_eq!(place.pages(), rescued, "the same as of a run that nobody killed");
}

#[test]
fn after_a_crash_the_same_command_works_and_the_earlier_run_is_not_forgotten() {
    let (place, team) = gated();
    let killed = killed_at_the_gate(&place, &team);

    let again = place.report(&team).completed();
    assert_eq!(again.children(), ["inventory", "history", "markers", "reporter"]);
    assert_ne!(again.end["run"], killed.run.as_str());
    let pages = place.pages();

    // It went on beside this one; what is left of it, if anything, goes on with the next node.
    let node = up(&place, &team);
    ok(&place, &["watch", &killed.run, "--quiet"]);
    assert_eq!(tries(&place, &killed.run)["inventory"], 1);
    node.end();
    assert_eq!(place.pages(), pages);
    assert_eq!(marked(&killed.attempt), Vec::<String>::new());
}
