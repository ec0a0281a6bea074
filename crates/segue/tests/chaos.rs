//! The short chaos run: a real node, killed at every named point of the trip and at random; and the check of what it left.
//!
//! `segue chaos` waits for what it does itself: nothing here waits by the clock.

#![cfg(all(feature = "failpoints", target_os = "linux"))]

mod common;

use common::tampering::{change_lines, copy_of, tamperings};
use segue_core::failpoint::POINTS;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

const TAMPERING: &str = include_str!("data/chaos-tamper.sql");
/// What the check reads.
const READ: [&str; 5] =
    ["submitted.txt", "journal.txt", "lives.txt", "blobs.txt", ".segue/segue.db"];

fn segue(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_segue")).arg("chaos").args(args).output().expect("runs")
}

/// The last line of standard output.
fn object(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("{output:?}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What an earlier run left in this folder, counted again.
fn recount(dir: &Path) -> (bool, Value) {
    let output = segue(&["--check", dir.to_str().expect("text"), "--json"]);
    (output.status.success(), object(&output))
}

#[test]
fn chaos_loses_nothing_completes_nothing_twice_and_the_check_would_notice() {
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path().join("run");
    let dir_text = dir.to_str().expect("text");
    let args = ["--tasks", "120", "--kills", "14", "--seed", "4", "--dir", dir_text, "--json"];
    let output = segue(&args);
    let object = object(&output);
    assert!(output.status.success(), "{object:#}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        (&object["tasks"], &object["completed"], &object["kills"]),
        (&120.into(), &120.into(), &14.into())
    );
    for name in ["lost", "completed_twice", "rerun_after_completed", "orphans", "event_gaps"] {
        assert_eq!(object[name], 0, "{name}");
    }
    assert_eq!(object["deployment"], "embedded");
    assert!(object["recovery_s_max"].as_f64().expect("a number") <= 2.0);
    let points = object["kills_by_point"].as_object().expect("an object");
    for point in POINTS {
        assert!(points.contains_key(point), "never killed at {point}: {points:?}");
    }
    let database = Path::new(object["database"].as_str().expect("a path"));
    assert_eq!(database, dir.canonicalize().expect("there").join(".segue/segue.db"));
    the_check_notices(&dir);
}

/// Does everything to copies of the run that could have gone wrong in it, and sees whether the check says so.
fn the_check_notices(dir: &Path) {
    assert!(recount(dir).0, "counted again it holds as well");
    let lives = std::fs::read_to_string(dir.join("lives.txt")).expect("read");
    let started: u64 = lives
        .lines()
        .nth(6)
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .expect("the start of a life");
    let mut names = BTreeSet::new();
    for (name, statement) in tamperings(TAMPERING).1 {
        names.insert(name);
        let copy = copy_of(dir, &READ);
        if name == "recovery_s_max" {
            let life = format!("7 {started} {} random\n", started + 60_000);
            std::fs::write(copy.path().join("lives.txt"), life).expect("written");
        }
        let statement = statement.replace(":started", &started.to_string());
        let database = copy.path().join(".segue/segue.db");
        let conn = rusqlite::Connection::open(database).expect("opened");
        conn.execute_batch(&statement).unwrap_or_else(|error| panic!("{error}: {statement}"));
        assert!(conn.changes() > 0, "nothing was changed by {statement}");
        drop(conn);
        must_notice(copy.path(), name);
    }
    assert!(names.len() > 15, "{names:?}");
    let lines = |change: &dyn Fn(&mut Vec<String>)| {
        let copy = copy_of(dir, &READ);
        change_lines(&copy.path().join("journal.txt"), change);
        copy
    };
    let again = lines(&|lines| lines.push(lines[0].clone()));
    must_notice(again.path(), "attempt_ran_twice");
    must_notice(again.path(), "rerun_after_completed");
    let never_worked = lines(&|lines| lines.retain(|line| !line.ends_with(" end")));
    must_notice(never_worked.path(), "completed_without_work");
    must_notice(lines(&|lines| lines.reverse()).path(), "ran_too_soon");
    let unknown = "00000000-0000-0000-0000-000000000000 00000000-0000-0000-0000-000000000000 start";
    must_notice(lines(&|lines| lines.push(unknown.to_owned())).path(), "ran_unassigned");
}

fn must_notice(dir: &Path, name: &str) {
    let (holds, found) = recount(dir);
    assert!(!holds && found[name] != 0, "{name} was not noticed: {found:#}");
}

#[test]
fn chaos_refuses_a_folder_that_is_in_use() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("mine"), "").expect("written");
    let output =
        segue(&["--tasks", "1", "--kills", "0", "--dir", folder.path().to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not empty"), "{output:?}");
}
