//! What the documentation shows has to work.

mod common;

use common::Place;
use serde_json::json;
use std::path::{Path, PathBuf};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The blocks that follow `<!-- file: NAME -->`.
fn files(text: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(name) =
            line.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->"))
        else {
            continue;
        };
        assert!(lines.next().unwrap().starts_with("```"));
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push((name.into(), body.join("\n") + "\n"));
    }
    found
}

#[test]
fn the_agents_of_the_contract_do_what_the_page_says() {
    let place = Place::with("");
    for (name, text) in files(&document("command-agents.md")) {
        place.write(name.to_str().unwrap(), &text);
    }
    let came =
        place.ok(&["submit", "--agent", "counter", "--input", "text=one two three", "--wait"]);
    assert_eq!(came.json(), json!({"words": "3"}));
    let came = place.segue(&["submit", "--agent", "counter", "--input", "text=", "--wait"]).with(1);
    assert!(came.err.contains("the text is empty (permanent)"), "{came:#?}");
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("python3 is not here: the agent in Python was not run");
        return;
    }
    let text = "text=one two three\n\nfour five\n\n\n\nsix";
    let came = place.ok(&["submit", "--agent", "adder", "--input", text, "--wait"]);
    assert_eq!(came.json(), json!({"words": 6, "paragraphs": 3}));
}

#[test]
fn every_command_and_exit_code_is_in_the_manual() {
    let manual = document("cli.md");
    let place = Place::new();
    let help = place.ok(&["--help"]).out;
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(manual.contains(&format!("`{name}")), "`{name}` is not in docs/cli.md");
    }
    for code in ["| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |", "| 130, 143 |", "| 141 |"] {
        assert!(manual.contains(code), "{code}");
    }
}

#[test]
fn every_route_and_event_is_in_the_reference() {
    let reference = document("api.md");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let router = std::fs::read_to_string(source.join("router.rs")).unwrap();
    let routes: Vec<&str> =
        router.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(routes.len() > 10);
    for route in routes {
        assert!(reference.contains(route), "{route} is not in docs/api.md");
    }
    let schema = std::fs::read_to_string(source.join("event_view.rs")).unwrap();
    let events = schema.split("pub enum What {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let names: Vec<String> = events
        .lines()
        .filter(|line| line.starts_with("    ") && line.as_bytes()[4].is_ascii_uppercase())
        .map(|line| snake(line.trim().split([' ', ',', '{']).next().unwrap()))
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        assert!(reference.contains(&format!("`{name}`")), "event `{name}` is not in docs/api.md");
    }
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (place, character) in name.chars().enumerate() {
        if character.is_ascii_uppercase() && place > 0 {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}
