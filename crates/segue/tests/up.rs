//! `segue up` and the commands that talk to it; crashes included.

mod common;

use common::{Place, is_alive};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_node_takes_work_from_other_commands_until_it_is_told_to_end() {
    let place = Place::new();
    let up = place.up(&[]);
    let agents = place.ok(&["agents"]).out;
    assert!(
        agents.contains("echo") && agents.contains("available") && agents.contains("100 %"),
        "{agents}"
    );
    let came =
        place.ok(&["submit", "--agent", "echo", "--input", "a=1", "--input", "b=x", "--wait"]);
    assert_eq!(came.json(), json!({"a": 1, "b": "x"}));
    let came =
        place.ok(&["submit", "--capability", "repeat", "--input", "c=[1]", "--wait", "--quiet"]);
    assert_eq!((came.out.as_str(), came.err.as_str()), ("", ""));
    let came = place.segue(&["submit", "--agent", "broken", "--wait"]).with(1);
    assert!(came.err.contains("settings: no such file"), "{came:#?}");
    let came = place.segue(&["submit", "--agent", "ecoh"]).with(2);
    assert!(came.err.contains("did you mean `echo`?"), "{came:#?}");
    place.write("two.yaml", "tasks: {a: {agent: echo}, b: {agent: echo, needs: [a]}}");
    place.ok(&["run", "two.yaml"]);
    assert!(place.ok(&["doctor"]).out.contains("runs with 4 agents"));
    let came = up.terminate();
    assert!(came.err.contains("ending"), "{came:#?}");
    assert!(!place.dir.join(".segue/node.sock").exists());
}

#[test]
fn a_task_waits_for_those_that_it_needs() {
    let place = Place::new();
    place.gates();
    let up = place.up(&[]);
    let first = place.submit(&["--agent", "gate", "--name", "first"]);
    place.arrival();
    let second = place.submit(&["--agent", "echo", "--needs", &first[24..], "--priority", "high"]);
    assert_eq!(place.state(&second), "blocked");
    assert!(["assigned", "running"].contains(&place.state(&first).as_str()));
    assert_eq!(place.show(&second)["task"]["priority"], 7);
    place.let_go();
    let came = place.ok(&["watch", &second]);
    assert_eq!(came.json(), json!({}));
    assert_eq!(place.state(&first), "completed");
    up.terminate();
}

#[test]
fn the_same_key_finds_the_same_task_and_another_body_is_a_conflict() {
    let place = Place::new();
    let up = place.up(&[]);
    let submit = |text: &str| {
        place.segue(&["submit", "--agent", "echo", "--idempotency-key", "k1", "--input", text])
    };
    let first = submit("n=1").with(0);
    let again = submit("n=1").with(0);
    assert_eq!(first.out, again.out);
    assert!(again.err.contains("was there already"), "{again:#?}");
    let other = submit("n=2").with(1);
    assert!(other.err.contains("idempotency key `k1`"), "{other:#?}");
    assert_eq!(place.ok(&["tasks", "--json"]).json()["tasks"].as_array().unwrap().len(), 1);
    up.terminate();
}

#[test]
fn tasks_are_cancelled_and_tried_again() {
    let place = Place::new();
    place.gates();
    let up = place.up(&[]);
    let id = place.submit(&["--agent", "gate"]);
    place.arrival();
    place.ok(&["cancel", &id]);
    place.segue(&["watch", &id, "--quiet"]).with(3);
    let came = place.ok(&["cancel", &id]);
    assert!(came.out.contains("had ended already"), "{came:#?}");
    place.ok(&["retry", &id]);
    place.arrival();
    let came = place.segue(&["retry", &id]).with(1);
    assert!(came.err.contains("retry is not possible"), "{came:#?}");
    place.let_go();
    assert_eq!(place.ok(&["watch", &id]).json(), json!({"passed": true}));
    let attempts = place.show(&id)["attempts"].clone();
    let ends: Vec<&str> = attempts
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["end"].as_str().unwrap())
        .collect();
    assert_eq!(ends, ["cancelled", "completed"]);
    up.terminate();
}

#[test]
fn a_drained_agent_gets_no_new_work_until_that_is_undone() {
    let place = Place::new();
    let up = place.up(&[]);
    place.ok(&["agents", "drain", "echo"]);
    let came = place.ok(&["agents", "drain", "echo"]);
    assert!(came.out.contains("already"), "{came:#?}");
    assert!(place.ok(&["agents"]).out.contains("maintenance"));
    let id = place.submit(&["--agent", "echo"]);
    // Another agent's whole life passes by without it.
    place.segue(&["submit", "--agent", "broken", "--wait"]).with(1);
    assert_eq!(place.state(&id), "ready");
    place.ok(&["agents", "drain", "echo", "--undo"]);
    place.ok(&["watch", &id]);
    let came = place.segue(&["agents", "drain", "ehco"]).with(2);
    assert!(came.err.contains("did you mean `echo`?"), "{came:#?}");
    up.terminate();
}

#[test]
fn logs_events_and_what_was_used_are_kept() {
    let place = Place::new();
    let up = place.up(&[]);
    let id = place.submit(&["--agent", "broken"]);
    place.segue(&["watch", &id]).with(1);
    assert_eq!(place.ok(&["logs", &id]).out, "stderr: settings: no such file\n");
    place.segue(&["logs", &id, "--attempt", "2"]).with(2);
    let events = place.events(&id);
    assert_eq!(events.first().map(String::as_str), Some("submitted"), "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("failed"), "{events:?}");
    let text = place.ok(&["events", &id]).out;
    assert!(text.contains("message=exit code 66: settings: no such file"), "{text}");
    let shown = place.ok(&["show", &id]).out;
    assert!(shown.contains("permanent") && shown.contains("broken"), "{shown}");
    // Without a node the same is read from the store.
    up.terminate();
    assert_eq!(place.events(&id), events);
    assert_eq!(place.ok(&["logs", &id]).out, "stderr: settings: no such file\n");
}

#[test]
fn followed_events_come_as_they_happen() {
    let place = Place::new();
    place.gates();
    let up = place.up(&[]);
    let mut follow = place.start(&["events", "--follow"]);
    follow.out_line("agent_registered");
    let id = place.submit(&["--agent", "gate"]);
    follow.out_line(&format!("{}  submitted", &id[28..]));
    place.arrival();
    place.let_go();
    follow.out_line(&format!("{}  completed", &id[28..]));
    follow.signal(Signal::SIGINT);
    follow.end().with(130);
    // A node that ends takes its streams with it.
    let follow = place.start(&["events", "--follow", "--json"]);
    up.terminate();
    follow.end().with(0);
}

#[test]
fn a_folder_has_one_node() {
    let place = Place::new();
    let up = place.up(&[]);
    let came = place.segue(&["up"]).with(4);
    assert!(came.err.contains("another node of this project runs already"), "{came:#?}");
    up.terminate();
}

#[test]
fn a_node_that_is_told_to_end_lets_what_runs_end() {
    let place = Place::new();
    place.gates();
    let mut up = place.up(&[]);
    let id = place.submit(&["--agent", "gate"]);
    let waits = place.submit(&["--agent", "gate"]);
    place.arrival();
    up.signal(Signal::SIGTERM);
    up.err_line("ending: 1 attempt has 1m00s to end");
    place.let_go();
    up.end().with(0);
    assert_eq!((place.state(&id).as_str(), place.state(&waits).as_str()), ("completed", "ready"));
}

#[test]
fn a_node_that_is_told_twice_ends_at_once_and_its_tasks_run_again() {
    let place = Place::new();
    place.gates();
    let mut up = place.up(&[]);
    let id = place.submit(&["--agent", "gate"]);
    place.arrival();
    up.signal(Signal::SIGINT);
    up.err_line("ending");
    up.signal(Signal::SIGINT);
    up.end().with(130);
    let up = place.up(&[]);
    place.arrival();
    place.let_go();
    place.ok(&["watch", &id]);
    assert_eq!(place.show(&id)["attempts"][0]["end"], "lost");
    up.terminate();
}

#[test]
fn after_kill_9_completed_tasks_are_not_run_again_and_running_ones_are() {
    let place = Place::with(
        r#"
[[agent]]
name = "counted"
command = ["sh", "-c", "echo x >> \"$SEGUE_PROJECT_DIR/ran\"; echo '{}'"]
[[agent]]
name = "gate"
command = ["sh", "-c", "echo $$ > \"$SEGUE_PROJECT_DIR/arrivals\"; cat \"$SEGUE_PROJECT_DIR/gate\" > /dev/null; echo '{\"passed\":true}'"]
"#,
    );
    place.gates();
    place.write(
        "f.yaml",
        "tasks: {a: {agent: counted}, b: {agent: gate, needs: [a]}, c: {agent: counted, needs: [b]}}",
    );
    let mut up = place.up(&[]);
    let run = place.ok(&["run", "f.yaml", "--detach"]).out.trim().to_owned();
    let pid = arrived(&place);
    up.signal(Signal::SIGKILL);
    assert_eq!(up.child.wait().unwrap().code(), None);
    // What it left behind is there.
    assert!(place.dir.join(".segue/node.sock").exists());
    let came = place.ok(&["doctor"]);
    assert!(came.out.contains("left behind by a node that died"), "{came:#?}");
    let up = place.up(&[]);
    assert_ne!(arrived(&place), pid);
    place.let_go();
    let came = place.ok(&["watch", &run]);
    assert!(!is_alive(pid), "the node's death did not end {pid}");
    assert_eq!(came.json(), json!({"c": {}}));
    assert_eq!(std::fs::read_to_string(place.dir.join("ran")).unwrap(), "x\nx\n");
    assert_eq!(place.events(&run).iter().filter(|name| *name == "completed").count(), 4);
    assert!(place.events(&run).contains(&"attempt_lost".to_owned()));
    up.terminate();
}

/// The process of the attempt that is at the gate.
fn arrived(place: &Place) -> u64 {
    std::fs::read_to_string(place.dir.join("arrivals")).unwrap().trim().parse().unwrap()
}

#[test]
fn whoever_waits_takes_the_place_of_a_node_that_was_started_by_another_command() {
    let place = Place::new();
    place.gates();
    place.write("g.yaml", "tasks: {a: {agent: gate}}");
    let mut first = place.start(&["run", "g.yaml"]);
    place.arrival();
    let tasks = place.ok(&["tasks", "--json"]).json();
    let root = tasks["tasks"].as_array().unwrap().iter().find(|task| task["parent"].is_null());
    let root = root.unwrap()["id"].as_str().unwrap().to_owned();
    let mut second = place.start(&["submit", "--agent", "echo", "--needs", &root, "--wait"]);
    second.err_line("run ");
    first.signal(Signal::SIGKILL);
    first.child.wait().unwrap();
    second.err_line("it goes on here");
    place.arrival();
    place.let_go();
    assert_eq!(second.end().with(0).json(), json!({}));
    assert_eq!(place.state(&root), "completed");
}

#[test]
fn work_that_is_submitted_while_no_node_runs_begins_with_the_next_one() {
    let place = Place::new();
    let came = place.ok(&["submit", "--agent", "echo", "--input", "n=5"]);
    assert!(came.err.contains("no node runs"), "{came:#?}");
    let id = came.out.trim();
    place.segue(&["watch", id]).with(4);
    let cancelled = place.submit(&["--agent", "echo"]);
    place.ok(&["cancel", &cancelled]);
    let up = place.up(&[]);
    assert_eq!(place.ok(&["watch", id]).json(), json!({"n": 5}));
    assert_eq!(place.state(&cancelled), "cancelled");
    up.terminate();
}

#[test]
fn agents_are_reloaded_when_their_files_change() {
    let place = Place::new();
    place.write(
        ".claude/agents/one.md",
        "---\nname: one\ndescription: The first one\n---\nDo it.\n",
    );
    let mut up = place.up(&[]);
    assert!(place.ok(&["agents"]).out.contains("one"));
    place.write(
        ".claude/agents/two.md",
        "---\nname: two\ndescription: The second one\n---\nDo it.\n",
    );
    let line = up.out_line("agents reloaded");
    assert!(line.contains("new: two"), "{line}");
    place.write(
        "segue.toml",
        "[[agent]]\nname = \"late\"\ncommand = [\"sh\", \"-c\", \"echo '{}'\"]\n",
    );
    let line = up.out_line("agents reloaded");
    assert!(line.contains("new: late") && line.contains("gone: echo, gate"), "{line}");
    place.ok(&["submit", "--agent", "late", "--wait"]);
    place.write("segue.toml", "[[agent]]\nname = 3\n");
    up.err_line("the agents stay as they were");
    place.ok(&["submit", "--agent", "late", "--wait"]);
    up.terminate();
}

#[test]
fn a_node_keeps_its_team_and_a_run_with_another_one_is_refused() {
    let place = Place::new();
    place.write(
        "team/segue.toml",
        "[[agent]]\nname = \"t\"\ncommand = [\"sh\", \"-c\", \"echo '{}'\"]\n",
    );
    place.write("t.yaml", "tasks: {a: {agent: t}}");
    let up = place.up(&["--team", "team"]);
    place.ok(&["run", "t.yaml", "--team", "team"]);
    place.write("other/segue.toml", "[[agent]]\nname = \"o\"\ncommand = [\"true\"]\n");
    let came = place.segue(&["run", "t.yaml", "--team", "other"]).with(1);
    assert!(came.err.contains("does not have the team"), "{came:#?}");
    up.terminate();
}

#[test]
fn a_copied_project_is_refused() {
    let place = Place::new();
    place.submit(&["--agent", "echo"]);
    let copy = place.beside("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(&place.dir).arg(&copy).status();
    assert!(copied.unwrap().success());
    let came = common::came(&mut place.command_in(&copy, &["tasks"])).with(4);
    assert!(came.err.contains("cop"), "{came:#?}");
    place.ok(&["tasks"]);
}

#[test]
fn a_project_deep_down_has_a_node_like_any_other() {
    let place = Place::new();
    let deep = place.dir.join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    std::fs::copy(place.dir.join("segue.toml"), deep.join("segue.toml")).unwrap();
    let deep = deep.display().to_string();
    let up = place.up(&["-C", &deep]);
    let came = place.ok(&["submit", "-C", &deep, "--agent", "echo", "--input", "a=1", "--wait"]);
    assert_eq!(came.json(), json!({"a": 1}));
    up.terminate();
}
