//! `segue run`: the main job, by the real binary with real agents.

mod common;

use common::{Place, came, is_alive};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

const THREE: &str = "
name: steps
input:
  word: string
tasks:
  one: {agent: echo, input: {said: \"{{ input.word }}\"}}
  two: {capability: repeat, input: {again: \"{{ tasks.one.output.said }}\"}}
  three: {agent: echo, needs: [two], input: {n: 3}}
";

#[test]
fn a_workflow_of_three_steps_runs_in_order_and_prints_its_output() {
    let place = Place::new();
    place.write("three.yaml", THREE);
    let came = place.ok(&["run", "three.yaml", "--input", "word=hello there"]);
    assert_eq!(came.json(), json!({"three": {"n": 3}}));
    let order: Vec<usize> = ["one  ", "two  ", "three  "]
        .map(|name| came.err.find(name).unwrap_or_else(|| panic!("{name}: {came:#?}")))
        .to_vec();
    assert!(order.is_sorted(), "{came:#?}");
    assert!(came.err.contains("✓ steps completed in "), "{came:#?}");
    assert!(came.err.contains("3 tasks, 3 attempts"), "{came:#?}");
    assert!(!came.err.contains('\u{1b}'), "{came:#?}");
    // What each task was given and brought is kept.
    let tasks = place.ok(&["tasks", "--json"]).json();
    let of = |name: &str| {
        let tasks = tasks["tasks"].as_array().unwrap();
        let id = tasks.iter().find(|task| task["name"] == name && task["parent"] != Value::Null);
        place.show(id.unwrap()["id"].as_str().unwrap())
    };
    assert_eq!(of("two")["input"]["value"], json!({"again": "hello there"}));
    assert_eq!(of("two")["task"]["taken_by"], "echo");
    assert_eq!(of("one")["output"]["value"], json!({"said": "hello there"}));
}

#[test]
fn as_json_a_run_is_one_event_a_line_without_gaps_and_the_last_one_has_the_output() {
    let place = Place::new();
    place.write("three.yaml", THREE);
    let came = place.ok(&["run", "three.yaml", "--input", "word=x", "--json"]);
    assert_eq!(came.err, "");
    let mut events: Vec<Value> =
        came.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.pop().unwrap();
    assert_eq!((&last["event"], &last["state"]), (&json!("run_ended"), &json!("completed")));
    assert_eq!(last["output"], json!({"three": {"n": 3}}));
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event["run"] == last["run"]));
    let end = events.last().unwrap();
    assert_eq!((&end["event"], &end["task"]), (&json!("completed"), &last["run"]));
}

#[test]
fn quiet_says_nothing_and_a_failure_says_why_and_what_to_do() {
    let place = Place::new();
    place.write("ok.yaml", "tasks: {a: {agent: echo}}");
    let came = place.ok(&["run", "ok.yaml", "--quiet"]);
    assert_eq!((came.out.as_str(), came.err.as_str()), ("", ""));
    place.write("bad.yaml", "tasks: {a: {agent: broken}, b: {agent: echo, needs: [a]}}");
    let came = place.segue(&["run", "bad.yaml"]).with(1);
    assert_eq!(came.out, "");
    for part in ["settings: no such file", "✗ bad failed", "error: ", "hint: `segue show "] {
        assert!(came.err.contains(part), "{part}: {came:#?}");
    }
    let tasks = place.ok(&["tasks", "--state", "failed", "--json"]).json();
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 3);
}

#[test]
fn a_flaky_agent_is_tried_again() {
    let place = Place::new();
    place.write("f.yaml", "tasks: {a: {agent: flaky, retry: {attempts: 2, base: 1ms, cap: 1ms}}}");
    let came = place.ok(&["run", "f.yaml"]);
    assert_eq!(came.json(), json!({"a": {"fine": true}}));
    assert!(came.err.contains("attempt 1 failed: exit code 1: not yet; again in"), "{came:#?}");
    assert!(came.err.contains("given to flaky (attempt 2)"), "{came:#?}");
    assert!(came.err.contains("1 task, 2 attempts, 1 of them failed or lost"), "{came:#?}");
}

#[test]
fn a_wrong_file_is_shown_with_line_column_and_caret_before_anything_is_made() {
    let place = Place::new();
    place.write("w.yaml", "tasks:\n  one: {agnet: echo}\n  two: {agent: echo, needs: [on]}\n");
    let came = place.segue(&["run", "w.yaml"]).with(2);
    for part in
        ["--> w.yaml:2:9", "^^^^^", "did you mean `agent`?", "--> w.yaml:3:30", "errors in w.yaml"]
    {
        assert!(came.err.contains(part), "{part}: {came:#?}");
    }
    assert!(!place.dir.join(".segue").exists());
    let came = place.segue(&["run", "nowhere.yaml"]).with(2);
    assert!(came.err.contains("nowhere.yaml cannot be read"), "{came:#?}");
    std::fs::write(place.dir.join("bytes.yaml"), b"tasks: \xff\xfe\0").unwrap();
    place.segue(&["run", "bytes.yaml"]).with(2);
}

#[test]
fn wrong_input_is_refused_by_name() {
    let place = Place::new();
    place.write("three.yaml", THREE);
    let came = place.segue(&["run", "three.yaml", "--input", "wrod=1"]).with(2);
    assert!(came.err.contains("input `word` is missing"), "{came:#?}");
    assert!(came.err.contains("did you mean `word`?"), "{came:#?}");
    let came = place.segue(&["run", "three.yaml", "--input", "@none.json"]).with(2);
    assert!(came.err.contains("none.json cannot be read"), "{came:#?}");
    place.write("input.json", r#"{"word": "from a file"}"#);
    let came = place.ok(&["run", "three.yaml", "--input", "@input.json"]);
    assert_eq!(came.json(), json!({"three": {"n": 3}}));
    let mut piped = place.command(&["run", "three.yaml", "--input", "-"]);
    piped.stdin(std::fs::File::open(place.dir.join("input.json")).unwrap());
    assert_eq!(common::came(&mut piped).with(0).json(), json!({"three": {"n": 3}}));
}

#[test]
fn nobody_to_take_a_task_is_refused_with_a_suggestion_unless_that_is_wanted() {
    let place = Place::new();
    place.write("x.yaml", "tasks: {a: {agent: ecko}, b: {capability: repaet}}");
    let came = place.segue(&["run", "x.yaml"]).with(2);
    for part in [
        "there is no agent `ecko`",
        "did you mean `echo`?",
        "no agent has the capability `repaet`",
        "--allow-missing",
    ] {
        assert!(came.err.contains(part), "{part}: {came:#?}");
    }
    assert_eq!(place.ok(&["tasks", "--json"]).json()["tasks"], json!([]));
    let came = place.segue(&["run", "x.yaml", "--allow-missing", "--timeout", "20ms"]).with(1);
    assert!(came.err.contains("warning: there is no agent `ecko`"), "{came:#?}");
    assert!(came.err.contains("did not end within 20 ms"), "{came:#?}");
}

#[test]
fn a_goal_is_planned_by_an_agent_that_delegates() {
    let place = Place::with(
        r#"
[[agent]]
name = "orchestrator"
command = ["{segue}", "agent", "planner"]
result = "outcome"
delegates = true

[[agent]]
name = "digger"
command = ["sh", "-c", "printf '{\"facts\":\"so and so\"}'"]
[[agent.capability]]
name = "dig"
output_schema = '{"required":["facts"],"properties":{"facts":{"type":"string"}}}'

[[agent]]
name = "author"
command = ["sh", "-c", "printf '{\"text\":\"it is %s\"}' \"$(cat \"$SEGUE_IN/facts\")\""]
[[agent.capability]]
name = "write a text"
input_schema = '{"required":["facts"],"properties":{"facts":{"type":"string"}}}'
output_schema = '{"required":["text"],"properties":{"text":{"type":"string"}}}'
"#,
    );
    let came = place.ok(&["run", "--goal", "a text about it", "--input", "produces=[\"text\"]"]);
    assert_eq!(came.json(), json!({"text": "it is so and so"}));
    assert!(came.err.contains("resumed with the results"), "{came:#?}");
    let came = place.segue(&["run", "--goal", "x", "--agent", "orchestra"]).with(2);
    assert!(came.err.contains("did you mean `orchestrator`?"), "{came:#?}");
    let came = place.segue(&["run", "--goal", " "]).with(2);
    assert!(came.err.contains("the goal is empty"), "{came:#?}");
}

#[test]
fn ctrl_c_cancels_the_run_and_leaves_no_process() {
    let place = Place::new();
    place.gates();
    place.write("g.yaml", "tasks: {a: {agent: gate}, b: {agent: echo, needs: [a]}}");
    let mut run = place.start(&["run", "g.yaml"]);
    place.arrival();
    let tasks = place.ok(&["tasks", "--json"]).json();
    let gate =
        tasks["tasks"].as_array().unwrap().iter().find(|task| task["agent"] == "gate").unwrap();
    let id = gate["id"].as_str().unwrap().to_owned();
    run.signal(Signal::SIGINT);
    run.err_line("cancelling the run");
    let came = run.end().with(130);
    // The one that was still to come is cancelled as well, and that is told.
    assert!(came.err.contains("b                     cancelled: `g`"), "{came:#?}");
    assert!(came.err.contains("2 tasks, 1 attempt, 2 cancelled"), "{came:#?}");
    let shown = place.show(&id);
    assert_eq!(shown["task"]["state"], "cancelled");
    if let Some(pid) = shown["attempts"][0]["process"]["pid"].as_u64() {
        assert!(!is_alive(pid), "{shown:#}");
    }
    assert!(place.events(&id).contains(&"processes_ended".to_owned()));
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let place = Place::with(
        r#"
[[agent]]
name = "deaf"
grace = "1h"
command = ["sh", "-c", "trap '' TERM; exec 3> \"$SEGUE_PROJECT_DIR/arrivals\"; echo $$ >&3; while :; do read x < \"$SEGUE_PROJECT_DIR/gate\"; done"]
"#,
    );
    place.gates();
    place.write("g.yaml", "tasks: {a: {agent: deaf}}");
    let mut run = place.start(&["run", "g.yaml"]);
    let mut arrivals = BufReader::new(File::open(place.dir.join("arrivals")).unwrap());
    let mut pid = String::new();
    arrivals.read_line(&mut pid).unwrap();
    run.signal(Signal::SIGINT);
    run.err_line("– g cancelled");
    run.signal(Signal::SIGINT);
    run.end().with(130);
    // Its supervisor sees the node go and ends it: then nobody holds the pipe any more.
    let mut rest = String::new();
    assert_eq!(arrivals.read_to_string(&mut rest).unwrap(), 0, "{pid}");
}

#[test]
fn a_run_that_somebody_else_cancels_ends_with_3() {
    let place = Place::new();
    place.gates();
    place.write("g.yaml", "tasks: {a: {agent: gate}}");
    let run = place.start(&["run", "g.yaml"]);
    place.arrival();
    // The node of `run` lets other commands in.
    let tasks = place.ok(&["tasks", "--json"]).json();
    let root =
        tasks["tasks"].as_array().unwrap().iter().find(|task| task["parent"].is_null()).unwrap();
    place.ok(&["cancel", root["id"].as_str().unwrap(), "--reason", "wrong branch"]);
    let came = run.end().with(3);
    assert!(came.err.contains("wrong branch"), "{came:#?}");
}

#[test]
fn a_run_goes_on_when_nobody_reads_its_events() {
    let place = Place::new();
    place.gates();
    place.write("g.yaml", "tasks: {a: {agent: gate}, b: {agent: echo, needs: [a]}}");
    let mut child =
        place.command(&["run", "g.yaml", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    place.arrival();
    drop(child.stdout.take());
    place.let_go();
    assert!(child.wait().unwrap().success());
    let tasks = place.ok(&["tasks", "--state", "completed", "--json"]).json();
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 3);
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let place = Place::new();
    place.ok(&["init"]);
    place.submit(&["--agent", "echo"]);
    for args in [
        &["tasks"][..],
        &["agents", "--json"],
        &["schema", "workflow"],
        &["completions", "zsh"],
        &["doctor"],
    ] {
        let (read, write) = nix::unistd::pipe().unwrap();
        drop(read);
        let mut command = place.command(args);
        let came = came_to(command.stdout(Stdio::from(write)).stderr(Stdio::piped()));
        assert_eq!(came, (141, String::new()), "{args:?}");
    }
}

fn came_to(command: &mut std::process::Command) -> (i32, String) {
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), err)
}

#[test]
fn a_project_can_be_named_and_need_not_be_one_yet() {
    let place = Place::new();
    place.write(
        "team/segue.toml",
        "[[agent]]\nname = \"t\"\ncommand = [\"sh\", \"-c\", \"echo '{}'\"]\n",
    );
    place.write("t.yaml", "tasks: {a: {agent: t}}");
    let other = place.beside("other");
    std::fs::create_dir(&other).unwrap();
    let args = ["run", "t.yaml", "--team", "team", "--project", "../other"];
    place.ok(&args);
    assert!(other.join(".segue").is_dir());
    assert!(!place.dir.join(".segue").exists());
    let came = place.segue(&["run", "t.yaml", "--team", "nowhere"]).with(2);
    assert!(came.err.contains("the team's folder nowhere cannot be entered"), "{came:#?}");
    let came = came_in(&place, &place.beside("home"), &["tasks"]);
    assert_eq!(came.code, 2, "{came:#?}");
    assert!(came.err.contains("there is no Segue project"), "{came:#?}");
}

fn came_in(place: &Place, dir: &std::path::Path, args: &[&str]) -> common::Came {
    came(&mut place.command_in(dir, args))
}
