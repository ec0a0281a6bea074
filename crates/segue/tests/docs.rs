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

/// A command of a page: what it writes, and its exit code. Lines with `! ` are of standard error.
#[derive(Debug, Default)]
struct Shown {
    command: String,
    out: Vec<String>,
    err: Vec<String>,
    code: i32,
}

/// The commands of the blocks marked `console`, in order.
fn shown(text: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => {
                if let Some(command) = line.strip_prefix("$ ") {
                    found.push(Shown { command: command.to_owned(), ..Shown::default() });
                    continue;
                }
                let last = found.last_mut().expect("a command comes first");
                match (line.strip_prefix("! "), line.strip_prefix("= ")) {
                    (Some(line), _) => last.err.push(line.to_owned()),
                    (_, Some(code)) => last.code = code.parse().expect("an exit code"),
                    _ => last.out.push(line.to_owned()),
                }
            }
        }
    }
    found
}

#[test]
fn what_the_page_on_shared_state_shows_is_what_comes() {
    let place = Place::new();
    let commands = shown(&document("state.md"));
    assert!(commands.len() > 20, "{commands:#?}");
    for shown in commands {
        let words = shell_words(&shown.command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ("segue", args) = (words[0], &words[1..]) else { panic!("{shown:#?}") };
        let came = place.segue(args);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let found = (lines(&came.out), lines(&came.err), came.code);
        let of = |lines: &[String]| lines.to_vec();
        assert_eq!(found, (of(&shown.out), of(&shown.err), shown.code), "{}", shown.command);
    }
}

/// The words of a command line in which only single quotes are used.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (place, part) in line.split('\'').enumerate() {
        if place % 2 == 1 {
            words.last_mut().expect("there is one").push_str(part);
            continue;
        }
        let mut pieces = part.split(' ');
        words.last_mut().expect("there is one").push_str(pieces.next().unwrap_or_default());
        words.extend(pieces.map(str::to_owned));
    }
    words.retain(|word| !word.is_empty());
    words
}
