//! A git repository of known content, the team that reports on it, and the real binary.

#![allow(dead_code, reason = "each test file uses a part of this")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The binary under test.
pub const SEGUE: &str = env!("CARGO_BIN_EXE_segue");
/// What the README asks for.
pub const GOAL: &str = "a report on this repository";

/// The folder of the team.
pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/repo-report").canonicalize().unwrap()
}

/// What the team's programs are made of. Where one is missing the test says so and fails: a report that nobody made
/// proves nothing.
pub fn require_programs() {
    for program in ["git", "sh", "awk"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        assert!(
            found,
            "`{program}` is not on the PATH; install it: the team of repo-report needs it"
        );
    }
}

/// A git repository in a folder of its own, beside a home without settings.
pub struct Place {
    top: TempDir,
    /// The repository, which is the project.
    pub repo: PathBuf,
}

/// What a command came to.
#[derive(Debug)]
pub struct Came {
    /// Exit code; 128 and the signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Place {
    /// A repository with the history that the tests know.
    pub fn new() -> Place {
        Place::with(&history())
    }

    /// A repository with this history, as `git fast-import` reads it.
    pub fn with(history: &[u8]) -> Place {
        require_programs();
        let top = tempfile::tempdir().unwrap();
        let repo = top.path().join("a repository");
        std::fs::create_dir(&repo).unwrap();
        std::fs::create_dir(top.path().join("home")).unwrap();
        let place = Place { repo, top };
        place.git(&["init", "-q", "."], None);
        place.git(&["symbolic-ref", "HEAD", "refs/heads/main"], None);
        place.git(&["fast-import", "--quiet"], Some(history));
        place
    }

    /// Something beside the repository.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn plain(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).current_dir(self.top.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.beside("home"));
        // Coverage writes where it is told, also from a scrubbed environment.
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", profile);
        }
        command
    }

    /// Runs git in the repository.
    pub fn git(&self, args: &[&str], input: Option<&[u8]>) -> String {
        let mut command = self.plain("git");
        command.args(args).current_dir(&self.repo).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.unwrap_or_default()).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {err}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A `segue` command.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.plain(SEGUE);
        command.args(args);
        command
    }

    /// Runs a `segue` command to its end.
    pub fn segue(&self, args: &[&str]) -> Came {
        came(&mut self.command(args))
    }

    /// The arguments of the README's first command, with this team.
    pub fn report_args<'a>(&'a self, team: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["run", "--team", path(team), "--project", path(&self.repo)];
        args.extend(["--goal", GOAL, "--json"]);
        args.extend(more);
        args
    }

    /// Runs the README's first command with this team.
    pub fn report(&self, team: &Path) -> Ran {
        Ran::of(self.segue(&self.report_args(team, &[])))
    }

    /// The same with further arguments.
    pub fn report_with(&self, team: &Path, more: &[&str]) -> Ran {
        Ran::of(self.segue(&self.report_args(team, more)))
    }

    /// A file of the report.
    pub fn page(&self, name: &str) -> String {
        let path = self.repo.join("repo-report").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Everything in the folder of the report.
    pub fn pages(&self) -> BTreeMap<String, Vec<u8>> {
        std::fs::read_dir(self.repo.join("repo-report"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    /// A copy of the team whose `segue.toml` is changed.
    pub fn team(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let copy = self.beside(name);
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(example()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
        }
        let config = copy.join("segue.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, change(text)).unwrap();
        copy
    }
}

/// A path in a command line; those of the tests are UTF-8.
pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Replaces the only place where this text stands.
#[track_caller]
pub fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} in:\n{text}");
    text.replacen(from, to, 1)
}

/// Takes an agent with its capabilities out of a `segue.toml`.
#[track_caller]
pub fn without_agent(text: &str, name: &str) -> String {
    let parts: Vec<&str> = text.split("[[agent]]\n").collect();
    let is_it = |part: &&&str| part.starts_with(&format!("name = \"{name}\"\n"));
    assert_eq!(parts.iter().filter(is_it).count(), 1, "no agent {name} in:\n{text}");
    parts.iter().filter(|part| !is_it(part)).copied().collect::<Vec<_>>().join("[[agent]]\n")
}

/// Runs a command to its end.
pub fn came(command: &mut Command) -> Came {
    use std::os::unix::process::ExitStatusExt;
    let output = command.output().unwrap();
    let code = output.status.code();
    Came {
        code: code.unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A run that was followed with `--json`.
#[derive(Debug)]
pub struct Ran {
    /// The command.
    pub came: Came,
    /// Its events, without the last line.
    pub events: Vec<Value>,
    /// The last line.
    pub end: Value,
}

impl Ran {
    /// Reads what a run printed.
    #[track_caller]
    pub fn of(came: Came) -> Ran {
        let mut events: Vec<Value> = came
            .out
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect();
        let end = events.pop().unwrap_or_else(|| panic!("no output: {came:#?}"));
        assert_eq!(end["event"], "run_ended", "{came:#?}");
        Ran { came, events, end }
    }

    /// The same, if the run completed.
    #[track_caller]
    pub fn completed(self) -> Ran {
        assert_eq!(
            (self.came.code, &self.end["state"]),
            (0, &"completed".into()),
            "{:#?}",
            self.came
        );
        self
    }

    /// The tasks in the order in which they were submitted, by name; the root first.
    pub fn tasks(&self) -> Vec<(String, String)> {
        let submitted = self.events.iter().filter(|event| event["event"] == "submitted");
        submitted.map(|event| (text(&event["name"]), text(&event["task"]))).collect()
    }

    /// The names of the root's children, in the order in which they were submitted.
    pub fn children(&self) -> Vec<String> {
        self.tasks().into_iter().skip(1).map(|(name, _)| name).collect()
    }

    /// The events of the task with this name.
    #[track_caller]
    pub fn of_task(&self, name: &str) -> Vec<&Value> {
        let tasks = self.tasks();
        let id = &tasks
            .iter()
            .find(|(known, _)| known == name)
            .unwrap_or_else(|| panic!("{name}: {tasks:?}"))
            .1;
        self.events.iter().filter(|event| event["task"] == id.as_str()).collect()
    }

    /// From when to when its attempts held a slot, counted in events of the run: the log is one order of all that happened.
    #[track_caller]
    pub fn held(&self, name: &str) -> Vec<(u64, u64)> {
        let mut held = Vec::new();
        let mut from = None;
        for event in self.of_task(name) {
            let seq = event["seq"].as_u64().unwrap();
            match event["event"].as_str().unwrap() {
                "assigned" => from = Some(seq),
                "waiting" | "completed" | "failed" | "retrying" | "cancelled" => {
                    held.extend(from.take().map(|from| (from, seq)));
                }
                _ => {}
            }
        }
        assert_eq!(from, None, "{name} never ended: {:#?}", self.came);
        held
    }

    /// The children in groups of those that were handed out together.
    pub fn waves(&self) -> Vec<Vec<String>> {
        let mut waves = vec![Vec::new()];
        for event in self.events.iter().skip(1) {
            match event["event"].as_str().unwrap() {
                "submitted" => waves.last_mut().unwrap().push(text(&event["name"])),
                "waiting" => waves.push(Vec::new()),
                _ => {}
            }
        }
        waves.pop();
        waves
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A marker's word; written in one piece it would stand in the report on this repository itself.
pub const FIX_ME: &str = concat!("FIX", "ME");
/// The same.
pub const TO_DO: &str = concat!("TO", "DO");

/// A history for `git fast-import`: three people, four commits, odd names, fixed dates.
pub fn history() -> Vec<u8> {
    let mut stream = Stream::default();
    stream.commit("Ann <ann@example.org>", "start");
    stream.file("src/main.rs", &format!("fn main() {{\n    // {TO_DO}: greet\n}}\n"));
    stream.file("src/lib.rs", "pub fn one() {}\n");
    stream.file("README.md", "# Thing\n\nA thing.\n");
    stream.file("a folder/ü & <x>.py", &format!("print(1)  # {FIX_ME}(bob): why | 1\n"));
    stream.file(r#""tab\tand\nline \"q\".sh""#, "#!/bin/sh\necho\n");
    stream.file(r#""caf\351.txt""#, "not UTF-8\n");
    stream.file("vendor/lib/x.js", &format!("// {TO_DO}: not ours\n"));
    stream.file("-n", "x\n");
    stream.commit("Bob <bob@example.org>", "two");
    stream.file("src/lib.rs", "pub fn one() {}\npub fn two() {}\n");
    stream.commit("Ann <ann@example.org>", "three");
    stream.file("src/lib.rs", "pub fn one() {}\npub fn two() {}\npub fn three() {}\n");
    stream.commit("Zoë *&amp;* [x](http://y) <zoe@example.org>", "guide");
    stream.file("docs/guide.md", "# Guide\n\nSPDX-License-Identifier: MIT\n");
    stream.bytes
}

/// What `git fast-import` reads.
#[derive(Default)]
pub struct Stream {
    /// The bytes so far.
    pub bytes: Vec<u8>,
    days: u64,
}

impl Stream {
    /// The next commit, a day after the one before.
    pub fn commit(&mut self, who: &str, message: &str) {
        let at = 1_600_000_000 + self.days * 86_400;
        self.days += 1;
        let length = message.len();
        let mut text = String::new();
        for role in ["author", "committer"] {
            let _ = writeln!(text, "{role} {who} {at} +0000");
        }
        self.line("commit refs/heads/main");
        self.line(text.trim_end());
        self.line(&format!("data {length}\n{message}"));
    }

    /// A file of the commit; its name quoted as git does where it has to be.
    pub fn file(&mut self, name: &str, text: &str) {
        self.line(&format!("M 100644 inline {name}\ndata {}\n{text}", text.len()));
    }

    /// A line as it is.
    pub fn line(&mut self, line: &str) {
        self.bytes.extend(line.as_bytes());
        self.bytes.push(b'\n');
    }
}

/// Whether a text is well-formed XML of the plain kind that the charts are: elements, attributes, text and the five
/// entities. The error says where it is not.
pub fn well_formed(text: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text.trim_end();
    let mut roots = 0;
    while let Some(at) = rest.find('<') {
        let before = &rest[..at];
        entities(before)?;
        if open.is_empty() && !before.trim().is_empty() {
            return Err(format!("text outside the root: {before:?}"));
        }
        let end =
            rest[at..].find('>').ok_or_else(|| format!("`<` without `>`: {:?}", &rest[at..]))? + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes something else"));
            }
            continue;
        }
        let body = tag.strip_suffix('/').unwrap_or(tag);
        let name = body.split(' ').next().unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("no name of an element: {tag:?}"));
        }
        attributes(&body[name.len()..])?;
        roots += usize::from(open.is_empty());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    if !rest.is_empty() || !open.is_empty() || roots != 1 {
        return Err(format!("{roots} roots, {open:?} open, {rest:?} left"));
    }
    match text.chars().find(|c| c.is_control() && *c != '\n') {
        Some(c) => Err(format!("{c:?} is no character of XML")),
        None => Ok(()),
    }
}

fn entities(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('&') {
        let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        if !known.iter().any(|entity| text[at..].starts_with(entity)) {
            return Err(format!("a bare `&`: {:?}", &text[at..]));
        }
    }
    Ok(())
}

fn attributes(mut text: &str) -> Result<(), String> {
    let mut names = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(());
        }
        let wrong = || format!("no attribute: {text:?}");
        let (name, value) = text.split_once("=\"").ok_or_else(wrong)?;
        if name.is_empty() || name.contains([' ', '"', '<']) || names.contains(&name) {
            return Err(wrong());
        }
        names.push(name);
        let (value, after) = value.split_once('"').ok_or_else(wrong)?;
        entities(value)?;
        text = after;
    }
}
