//! What needs no node: help, completions, schema, init, doctor; and the shape of what is printed.

mod common;

use common::{AGENTS, Place, plain};
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
        "backup",
        "restore",
        "export",
        "import",
        "worker",
        "nodes",
        "cluster",
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
    let backups = place.beside("backups").display().to_string();
    let came = place.ok(&["backup", &backups]);
    assert!(came.out.starts_with("backup 1 at "), "{came:#?}");
    let later = place.submit(&["--agent", "echo"]);
    place.ok(&["watch", &later, "--quiet"]);
    let second = place.ok(&["backup", &backups, "--json"]).json();
    assert_eq!((&second["number"], &second["url"]), (&json!(2), &json!(backups)));
    place.segue(&["restore", &backups]).with(4);
    up.terminate();
    // Without a node it is the same.
    let third = place.ok(&["backup", &format!("file://{backups}"), "--json"]).json();
    assert_eq!(third["number"], 3);
    let came = place.ok(&["restore", &backups, "--at", "1"]);
    assert!(came.out.contains("what was there before is in"), "{came:#?}");
    assert_eq!(place.show(&id)["output"]["value"], json!({"n": 1}));
    place.segue(&["show", &later]).with(2);
    // In another folder it is the same project again, and the latest where nobody says which.
    let other = place.beside("other");
    std::fs::create_dir(&other).unwrap();
    let other = other.display().to_string();
    place.ok(&["restore", &backups, "-C", &other]);
    place.ok(&["show", &id, "-C", &other]);
    place.ok(&["show", &later, "-C", &other]);
    place.ok(&["doctor", "-C", &other]);
}

#[test]
fn backups_are_listed_checked_and_pruned() {
    let place = Place::new();
    let backups = place.beside("backups").display().to_string();
    let came = place.segue(&["backup", "list", &backups]).with(2);
    assert!(came.err.contains("there is no such folder"), "{came:#?}");
    assert!(!place.beside("backups").exists(), "whoever looks makes nothing");
    let came = place.segue(&["backup"]).with(2);
    assert!(came.err.contains("[backup] of segue.toml"), "{came:#?}");
    // `segue.toml` says where, beside itself.
    let config = format!("{AGENTS}\n[backup]\nto = \"../backups\"\nkeep = {{ last = 1 }}\n");
    place.write("segue.toml", &config);
    for _ in 0..2 {
        place.submit(&["--agent", "echo"]);
        place.ok(&["backup"]);
    }
    let listed = place.ok(&["backup", "list", "--json"]).json();
    let numbers = listed["backups"].as_array().unwrap().iter().map(|one| &one["number"]);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2]);
    let came = place.ok(&["backup", "verify", "--deep"]);
    assert!(came.out.starts_with("backup 2 is whole"), "{came:#?}");
    let pruned = place.ok(&["backup", "prune", "--json"]).json();
    assert_eq!((&pruned["kept"], &pruned["given_up"]), (&json!([2]), &json!([1])));
    let came = place.ok(&["backup", "list"]);
    assert!(came.out.contains("given up"), "{came:#?}");
    // What is damaged is named, and changes nothing.
    let objects = place.beside("backups/objects");
    let writers = std::fs::read_dir(objects).unwrap().map(|entry| entry.unwrap().path());
    for writer in writers {
        for object in std::fs::read_dir(writer).unwrap() {
            std::fs::write(object.unwrap().path(), "damaged").unwrap();
        }
    }
    let came = place.segue(&["backup", "verify"]).with(1);
    assert!(came.err.contains("cannot be restored"), "{came:#?}");
    let came = place.segue(&["restore", &backups]).with(2);
    assert!(came.err.contains("backup 2 and every other one"), "{came:#?}");
    assert_eq!(place.ok(&["tasks", "--json"]).json()["tasks"].as_array().unwrap().len(), 2);
    place.segue(&["restore", "nowhere"]).with(2);
    let came = place.segue(&["backup", "gs://bucket"]).with(2);
    assert!(came.err.contains("`gs://` is not known"), "{came:#?}");
}

#[test]
fn a_node_makes_the_backups_that_segue_toml_asks_for() {
    let config = format!("{AGENTS}\n[backup]\nto = \"../backups\"\nevery = \"1m\"\n");
    let place = Place::with(&config);
    let up = place.up(&[]);
    let first = place.beside("backups/manifests/0000000001.json");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !first.exists() {
        assert!(std::time::Instant::now() < until, "no backup was made");
        place.ok(&["tasks"]);
    }
    up.terminate();
    let listed = place.ok(&["backup", "list", "--json"]).json();
    assert_eq!(listed["backups"][0]["number"], 1, "{listed}");
}

#[test]
fn a_copy_of_the_earlier_form_is_restored() {
    let place = Place::new();
    let up = place.up(&[]);
    let id = place.submit(&["--agent", "echo", "--input", "n=1"]);
    place.ok(&["watch", &id, "--quiet"]);
    let copy = place.beside("copy").display().to_string();
    let wanted = json!({ "dir": copy }).to_string();
    assert_eq!(place.http("POST /v1/backup", &wanted).0, 200);
    let (status, body) = place.http("POST /v1/backup", &wanted);
    assert!(status == 503 && body.contains("is not empty"), "{body}");
    up.terminate();
    place.ok(&["backup", "verify", &copy]);
    let came = place.segue(&["backup", &copy]).with(2);
    assert!(came.err.contains("of the earlier form"), "{came:#?}");
    place.segue(&["restore", &copy, "--at", "1"]).with(2);
    place.ok(&["restore", &copy]);
    assert_eq!(place.show(&id)["output"]["value"], json!({"n": 1}));
    std::fs::write(format!("{copy}/segue.db"), "damaged").unwrap();
    let came = place.segue(&["restore", &copy]).with(2);
    assert!(came.err.contains("not as it was when the backup was made"), "{came:#?}");
    place.ok(&["show", &id]);
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
