//! A project moves from SQLite to PostgreSQL and back over the command line, and a cluster's backup is restored where nothing is yet.

mod common;

use common::Place;
use segue_testkit::servers::Postgres;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const ID: &str = "01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The file of a cluster over this database. Nothing here needs its broker.
fn cluster(place: &Place, name: &str, database: &str) -> PathBuf {
    let file = place.beside(name);
    std::fs::write(place.beside("key"), "5e".repeat(32)).unwrap();
    let written = format!(
        "[project]\nid = \"{ID}\"\nkey = {{ file = \"key\" }}\n[postgres]\nurl = \"{database}\"\n\
         [rabbitmq]\nurls = [\"amqp://nobody:x@127.0.0.1:1/none\"]\n[objects]\nurl = \"bodies-of-{name}\"\n\
         [backup]\nto = \"backups\"\n"
    );
    let bodies = place.beside(&format!("bodies-of-{name}"));
    let written = written.replace(&format!("bodies-of-{name}"), text(&bodies));
    std::fs::write(&file, written).unwrap();
    file
}

/// The rows of an export: without its header and its sum, which tell of the moment.
fn rows(export: &Path) -> Vec<Value> {
    let export = std::fs::read_to_string(export).unwrap();
    let lines: Vec<&str> = export.lines().collect();
    let [_, rows @ .., _] = lines.as_slice() else { panic!("{export:?}") };
    rows.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A project with tasks of several kinds and outcomes, one with an output that stands outside the tables.
fn filled() -> (Place, Vec<String>) {
    let place = Place::new();
    place.write(
        "run.yaml",
        "name: three\ntasks:\n  a: {agent: echo}\n  b: {agent: broken, needs: [a]}\n",
    );
    place.write("large.json", &json!({ "text": "large ".repeat(40_000) }).to_string());
    place.segue(&["run", "run.yaml", "--quiet"]).with(1);
    let large =
        place.ok(&["submit", "--agent", "echo", "--input", "@large.json", "--wait", "--json"]);
    assert!(large.out.len() > 200_000);
    place.ok(&["state", "put", "plan/api", "{\"owner\": \"anna\"}"]);
    let listed = place.ok(&["tasks", "--json"]).json();
    let ids = listed["tasks"].as_array().unwrap().iter();
    let ids = ids.map(|task| task["id"].as_str().unwrap().to_owned()).collect();
    (place, ids)
}

#[test]
fn an_export_whose_reader_has_enough_ends_quietly() {
    let (place, _) = filled();
    let ends = |why: &str| {
        let mut command = place.command(&["export", "-"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "{why}: {line}");
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), &*said), (Some(141), ""), "{why}");
    };
    ends("out of the store");
    let up = place.up(&[]);
    ends("out of the node");
    up.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_moves_there_and_back_without_loss_on_postgres() {
    let postgres = Postgres::start().await;
    let (place, ids) = filled();
    let one = cluster(&place, "one.toml", &postgres.database().await);
    let one = text(&one);

    // With a node and without, into a file and to standard output: the same.
    let [first, second, third] =
        ["first.jsonl", "second.jsonl", "third.jsonl"].map(|name| place.beside(name));
    let up = place.up(&[]);
    place.ok(&["export", text(&first)]);
    let printed = place.ok(&["export", "-"]).out;
    assert!(printed.starts_with("{\"segue_export\":"), "{printed:.200}");
    up.terminate();
    let came = place.segue(&["export", text(&first)]).with(4);
    assert!(came.err.contains("is there already: name another file"), "{came:#?}");
    let came = place.segue(&["import", text(&first)]).with(4);
    assert!(came.err.contains("import into another folder"), "{came:#?}");
    let came = place.segue(&["import", text(&place.beside("one.toml"))]).with(2);
    assert!(came.err.contains("is no export of a project"), "{came:#?}");

    // To PostgreSQL.
    let came = place.ok(&["import", text(&first), "--config", one]);
    assert!(came.out.contains(&format!("into project {ID}")), "{came:#?}");
    let before: Vec<Value> = ids.iter().map(|id| place.show(id)).collect();
    for (id, before) in ids.iter().zip(&before) {
        let there = place.ok(&["show", id, "--json", "--config", one]).json();
        assert_eq!(&there, before);
        let whole = ["show", id, "--output"];
        let there = place.segue(&[&whole[..], &["--config", one]].concat());
        let here = place.segue(&whole);
        assert_eq!((there.code, there.out, there.err), (here.code, here.out, here.err));
    }
    let there = place.ok(&["state", "get", "plan/api", "--json", "--config", one]).json();
    assert_eq!(there["value"], json!({"owner": "anna"}));
    let came = place.segue(&["import", text(&first), "--config", one]).with(4);
    assert!(came.err.contains("another `id` in cluster.toml"), "{came:#?}");

    // And back, into another folder, as the project that it is.
    place.ok(&["export", text(&second), "--config", one]);
    let back = place.beside("back");
    std::fs::create_dir(&back).unwrap();
    place.ok(&["import", text(&second), "-C", text(&back)]);
    for (id, before) in ids.iter().zip(&before) {
        let there = place.ok(&["show", id, "--json", "-C", text(&back)]).json();
        assert_eq!(there["task"]["state"], before["task"]["state"]);
    }
    place.ok(&["export", text(&third), "-C", text(&back)]);
    assert_eq!(rows(&third), rows(&second));
    assert_eq!(rows(&second).len(), rows(&first).len());

    backup_and_restore(&place, &postgres, one, &ids).await;
}

/// What a cluster backed up goes into an empty database, and nowhere else.
async fn backup_and_restore(place: &Place, postgres: &Postgres, one: &str, ids: &[String]) {
    let made = place.ok(&["backup", "--json", "--config", one]).json();
    assert_eq!((&made["number"], &made["project"]), (&json!(1), &json!(ID)));
    let again = place.ok(&["backup", "--json", "--config", one]).json();
    assert_eq!(again["number"], 2);
    assert!(
        again["written_objects"].as_u64().unwrap() <= 2,
        "what is there is referred to: {again:#}"
    );
    let came = place.ok(&["backup", "verify", "--deep", "--config", one]);
    assert!(came.out.starts_with("backup 2 is whole"), "{came:#?}");
    let backups = place.beside("backups");
    let backups = text(&backups);
    let came = place.segue(&["restore", backups, "--config", one]).with(4);
    assert!(came.err.contains("name an empty database in [postgres]"), "{came:#?}");
    let two = cluster(place, "two.toml", &postgres.database().await);
    place.ok(&["restore", backups, "--at", "1", "--config", text(&two)]);
    for id in ids {
        let there = place.ok(&["show", id, "--json", "--config", text(&two)]).json();
        assert_eq!(there["task"]["state"], place.show(id)["task"]["state"]);
    }
    // Another project's is refused.
    let three = cluster(place, "three.toml", &postgres.database().await);
    let other = std::fs::read_to_string(&three)
        .unwrap()
        .replace(ID, "01939a3e-7c11-7d02-8f00-000000000000");
    std::fs::write(&three, other).unwrap();
    let came =
        place.segue(&["restore", backups, "--config", text(&three), "--node", "other"]).with(2);
    assert!(came.err.contains(&format!("write `id = \"{ID}\"`")), "{came:#?}");
}
