//! What needs no node: help, completions, schema, init, doctor; and the shape of what is printed.

mod common;

use common::{Place, plain};
use serde_json::{Value, json};

#[test]
fn every_command_explains_itself_with_examples() {
    let place = Place::new();
    let help = place.ok(&["--help"]).out;
    assert!(help.contains("Exit codes:") && help.contains("130"), "{help}");
    for command in [
        "init",
        "agents",
        "run",
        "submit",
        "tasks",
        "show",
        "events",
        "watch",
        "cancel",
        "retry",
        "logs",
        "up",
        "doctor",
        "completions",
        "schema",
        "state",
        "lock",
        "prune",
        "bench",
    ] {
        assert!(help.contains(&format!("  {command}")), "{command}: {help}");
        let own = place.ok(&[command, "--help"]).out;
        assert!(own.contains("Example") && own.contains(&format!("segue {command}")), "{own}");
    }
    let came = place.segue(&["taks"]).with(2);
    assert!(came.err.contains("a similar subcommand exists: 'tasks'"), "{came:#?}");
    assert!(place.ok(&["--version"]).out.starts_with("segue "));
}

#[test]
fn completions_and_schema_are_printed() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.ok(&["completions", shell]).out;
        assert!(script.contains("agents") && script.len() > 1_000, "{shell}");
    }
    let schema = place.ok(&["schema", "workflow"]).json();
    assert!(schema["$schema"].is_string() && schema["properties"]["tasks"].is_object());
}

#[test]
fn init_writes_an_example_that_runs_and_never_overwrites() {
    let place = Place::new();
    std::fs::remove_file(place.dir.join("segue.toml")).unwrap();
    place.write(".claude/agents/helper.md", "---\nname: helper\ndescription: Helps\n---\nHelp.\n");
    let came = place.ok(&["init"]);
    for part in
        ["wrote segue.toml", "wrote workflow.yaml", "found 1 agent of .claude/agents: helper"]
    {
        assert!(came.out.contains(part), "{part}: {came:#?}");
    }
    let came = place.ok(&["run", "workflow.yaml", "--input", "goal=What is large?"]);
    let answer = came.json()["answer"]["text"].as_str().unwrap().to_owned();
    assert!(answer.starts_with("What is large?\n\n"), "{answer}");
    let config = place.write("segue.toml", "# mine\n");
    let came = place.ok(&["init", "--json"]).json();
    assert_eq!(came["kept"], json!([".segue", "segue.toml", "workflow.yaml"]));
    assert_eq!(std::fs::read_to_string(config).unwrap(), "# mine\n");
}

#[test]
fn doctor_names_what_is_wrong_and_the_remedy() {
    let place = Place::new();
    place.ok(&["init"]);
    let came = place.ok(&["doctor", "--json"]).json();
    assert_eq!(came["failures"], 0, "{came:#}");
    place.write("segue.toml", "[[agent]]\nname = \"x\"\ncommand = [\"no-such-program\"]\n");
    place.write(
        ".claude/agents/odd.md",
        "---\nname: odd\ndescription: Odd\nmaxTurns: many\n---\nx\n",
    );
    let came = place.segue(&["doctor"]).with(1);
    for part in [
        "fail  program",
        "`no-such-program`, which is not there",
        "->",
        "warn  agent file",
        "odd.md:4",
    ] {
        assert!(came.out.contains(part), "{part}: {came:#?}");
    }
    place.write("segue.toml", "[[agent]]\nname = \"x\"\n");
    let came = place.segue(&["doctor"]).with(1);
    assert!(came.out.contains("agent `x` has no `command`"), "{came:#?}");
    // That is no reason not to show the tasks.
    place.ok(&["tasks"]);
    let came = place.segue(&["agents"]).with(2);
    assert!(came.err.contains("agent `x` has no `command`"), "{came:#?}");
    std::fs::write(
        place.dir.join(".segue/segue.db"),
        "this is no database, not at all. ".repeat(200),
    )
    .unwrap();
    let came = place.segue(&["doctor"]).with(1);
    assert!(came.out.contains("fail  database"), "{came:#?}");
    place.segue(&["tasks"]).with(4);
}

#[test]
fn prune_removes_what_ended_long_ago() {
    let place = Place::new();
    place.write("x.yaml", "tasks: {a: {agent: echo}}");
    place.ok(&["run", "x.yaml", "--quiet"]);
    let came = place.ok(&["prune", "--older-than", "30d"]);
    assert!(came.out.starts_with("removed 0 runs"), "{came:#?}");
    let came = place.ok(&["prune", "--older-than", "1ms", "--json"]).json();
    assert_eq!((&came["runs"], &came["tasks"]), (&json!(1), &json!(2)));
    assert_eq!(place.ok(&["tasks", "--json"]).json()["tasks"], json!([]));
    place.segue(&["prune", "--older-than", "soon"]).with(2);
}

#[test]
fn a_backup_is_restored_whole_here_and_elsewhere() {
    let place = Place::new();
    let up = place.up(&[]);
    let id = place.submit(&["--agent", "echo", "--input", "n=1"]);
    place.ok(&["watch", &id, "--quiet"]);
    let backup = place.beside("backup").display().to_string();
    let came = place.ok(&["backup", &backup]);
    assert!(came.out.starts_with("1 file in "), "{came:#?}");
    let came = place.segue(&["backup", &backup]).with(4);
    assert!(came.err.contains("is not empty"), "{came:#?}");
    let later = place.submit(&["--agent", "echo"]);
    place.segue(&["restore", &backup]).with(4);
    up.terminate();
    let came = place.ok(&["restore", &backup]);
    assert!(came.out.contains("what was there before is in"), "{came:#?}");
    assert_eq!(place.show(&id)["output"]["value"], json!({"n": 1}));
    place.segue(&["show", &later]).with(2);
    // In another folder it is the same project again.
    let other = place.beside("other");
    std::fs::create_dir(&other).unwrap();
    let other = other.display().to_string();
    place.ok(&["restore", &backup, "-C", &other]);
    place.ok(&["show", &id, "-C", &other]);
    place.ok(&["doctor", "-C", &other]);
    // A backup that is damaged changes nothing.
    std::fs::write(format!("{backup}/segue.db"), "damaged").unwrap();
    let came = place.segue(&["restore", &backup]).with(2);
    assert!(came.err.contains("not as it was when the backup was made"), "{came:#?}");
    place.ok(&["show", &id]);
    place.segue(&["restore", "nowhere"]).with(2);
}

#[test]
fn json_has_the_shape_that_the_documentation_promises() {
    let place = Place::new();
    place.write("x.yaml", "name: shape\ntasks: {a: {agent: broken}}");
    place.segue(&["run", "x.yaml", "--quiet"]).with(1);
    let tasks = place.ok(&["tasks", "--json"]).json();
    let of = |name: &str| {
        let all = tasks["tasks"].as_array().unwrap();
        all.iter().find(|task| task["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let mut detail = place.show(&of("a"));
    for attempt in detail["attempts"].as_array_mut().unwrap() {
        attempt["process"] = json!("PROCESS");
        attempt["usage"] = json!("USAGE");
    }
    insta::assert_snapshot!("show", plain(&format!("{detail:#}"), &place));
    let mut events: Vec<Value> = place
        .ok(&["events", &of("shape"), "--json"])
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // What ends at once is told of once, what takes longer also when it starts.
    events.retain(|event| event["event"] != "started" && event["event"] != "processes_ended");
    for event in &mut events {
        event["cursor"] = json!("CURSOR");
        event["seq"] = json!("SEQ");
    }
    let events: Vec<String> = events.iter().map(Value::to_string).collect();
    insta::assert_snapshot!("events", plain(&events.join("\n"), &place));
    insta::assert_snapshot!("agents", plain(&place.ok(&["agents", "--json"]).out, &place));
}

#[test]
fn colours_are_used_only_when_asked_for_or_on_a_terminal() {
    let place = Place::new();
    place.submit(&["--agent", "echo"]);
    assert!(!place.ok(&["tasks"]).out.contains('\u{1b}'));
    assert!(place.ok(&["tasks", "--color", "always"]).out.contains('\u{1b}'));
    let came = place.segue(&["show", "nothing", "--color", "always"]).with(2);
    assert!(came.err.contains("\u{1b}[1;31merror:"), "{came:#?}");
}
