//! A project in a folder of its own, and the real binary run in it.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub mod tampering;

use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// The binary under test.
pub const SEGUE: &str = env!("CARGO_BIN_EXE_segue");

/// Agents that most tests need: `echo` gives back its input, `gate` says where it is and waits until it is let go,
/// `broken` fails for good, `flaky` fails once.
pub const AGENTS: &str = r#"
[[agent]]
name = "echo"
description = "Gives back what it is given"
max_concurrency = 4
command = ["sh", "-c", "sed 's/.*\"input\":\\(.*\\),\"resume\".*/\\1/'"]

[[agent.capability]]
name = "repeat"
description = "Say the same thing again"

[[agent]]
name = "gate"
description = "Waits at a gate"
command = ["sh", "-c", "echo arrived > \"$SEGUE_PROJECT_DIR/arrivals\"; cat \"$SEGUE_PROJECT_DIR/gate\" > /dev/null; echo '{\"passed\":true}'"]

[[agent]]
name = "broken"
description = "Fails for good"
command = ["sh", "-c", "echo 'settings: no such file' >&2; exit 66"]

[[agent]]
name = "flaky"
description = "Fails the first time"
command = ["sh", "-c", "test -e \"$SEGUE_PROJECT_DIR/tried\" || { touch \"$SEGUE_PROJECT_DIR/tried\"; echo 'not yet' >&2; exit 1; }; echo '{\"fine\":true}'"]
"#;

/// A project in a folder of its own.
pub struct Place {
    top: TempDir,
    /// The project's folder.
    pub dir: PathBuf,
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

impl Came {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The same, if the exit code is this one.
    #[track_caller]
    pub fn with(self, code: i32) -> Came {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

impl Place {
    /// A project with the usual agents.
    pub fn new() -> Place {
        Place::with(AGENTS)
    }

    /// A project with these agents.
    pub fn with(config: &str) -> Place {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("project");
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir(top.path().join("home")).unwrap();
        let place = Place { dir, top };
        place.write("segue.toml", config);
        place
    }

    /// A folder beside the project.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Makes the pipes at which `gate` waits.
    pub fn gates(&self) {
        for name in ["arrivals", "gate"] {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
            nix::unistd::mkfifo(&self.dir.join(name), mode).unwrap();
        }
    }

    /// Waits until an attempt is at the gate.
    pub fn arrival(&self) {
        let mut said = String::new();
        std::fs::File::open(self.dir.join("arrivals")).unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "arrived\n");
    }

    /// Lets the attempt that is at the gate go on.
    pub fn let_go(&self) {
        // Opening waits for the attempt, closing ends what it reads.
        drop(OpenOptions::new().write(true).open(self.dir.join("gate")).unwrap());
    }

    /// A command in the project's folder, with nothing of whoever runs the tests.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_in(&self.dir, args)
    }

    /// A command in a folder.
    pub fn command_in(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(SEGUE);
        command.args(args).current_dir(dir).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.top.path().join("home"));
        // Coverage writes where it is told, also from a scrubbed environment.
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", profile);
        }
        command
    }

    /// Runs a command to its end.
    pub fn segue(&self, args: &[&str]) -> Came {
        came(&mut self.command(args))
    }

    /// Runs a command that has to work.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Came {
        self.segue(args).with(0)
    }

    /// Starts a command.
    pub fn start(&self, args: &[&str]) -> Started {
        let mut command = self.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Started {
            out: BufReader::new(child.stdout.take().unwrap()),
            err: BufReader::new(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Starts a node and waits until it listens.
    pub fn up(&self, args: &[&str]) -> Started {
        let mut up = self.start(&[&["up"], args].concat());
        up.out_line("listening on");
        up
    }

    /// Submits a task and gives its id.
    #[track_caller]
    pub fn submit(&self, args: &[&str]) -> String {
        self.ok(&[&["submit"], args].concat()).out.trim().to_owned()
    }

    /// A task as `segue show --json` has it.
    #[track_caller]
    pub fn show(&self, id: &str) -> Value {
        self.ok(&["show", id, "--json"]).json()
    }

    /// The state of a task.
    #[track_caller]
    pub fn state(&self, id: &str) -> String {
        self.show(id)["task"]["state"].as_str().unwrap().to_owned()
    }

    /// The names of the events of a run or task.
    #[track_caller]
    pub fn events(&self, id: &str) -> Vec<String> {
        let text = self.ok(&["events", id, "--json"]).out;
        text.lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// One request over the node's socket: the status, and the body.
    pub fn http(&self, request: &str, body: &str) -> (u16, String) {
        self.http_with(request, "", body)
    }

    /// The same with further header lines, each with its line end.
    pub fn http_with(&self, request: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.dir.join(".segue/node.sock")).unwrap();
        let length = body.len();
        // A refused body is not read to its end: what is left of it cannot be written then.
        let _ = write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        // What follows the answer then is a reset instead of an end.
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{request}: {error}");
        }
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { unchunk(body) } else { body.to_owned() })
    }
}

fn unchunk(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        out.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
    out
}

/// Runs a command to its end.
pub fn came(command: &mut Command) -> Came {
    let output = command.output().unwrap();
    Came {
        code: code(output.status),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// A command that runs.
pub struct Started {
    /// The process.
    pub child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Started {
    /// Waits for a line of standard output that holds this text.
    #[track_caller]
    pub fn out_line(&mut self, part: &str) -> String {
        line_with(&mut self.out, part)
    }

    /// Waits for a line of standard error that holds this text.
    #[track_caller]
    pub fn err_line(&mut self, part: &str) -> String {
        line_with(&mut self.err, part)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Came {
        // Both are read to their ends before the wait, so that neither fills up.
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            self.err.read_to_string(&mut text).unwrap();
            text
        });
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        let err = err.join().unwrap();
        Came { code: code(self.child.wait().unwrap()), out, err }
    }

    /// Ends a node as a user would.
    #[track_caller]
    pub fn terminate(self) -> Came {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.end().with(0)
    }
}

#[track_caller]
fn line_with(from: &mut impl BufRead, part: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).unwrap() == 0 {
            panic!("it ended without a line with {part:?}; it said:\n{seen}");
        }
        if line.contains(part) {
            return line;
        }
        seen.push_str(&line);
    }
}

/// Whether a process is there; one that has ended and not been waited for is not.
pub fn is_alive(pid: u64) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Bytes of a text of this shape, whether a text has it, and what stands for it.
type Shape = (usize, fn(&str) -> bool, &'static str);

/// Replaces what differs from run to run: ids, times, durations, process ids, and the folder.
pub fn plain(text: &str, place: &Place) -> String {
    let text = text.replace(&place.dir.display().to_string(), "DIR");
    let mut out = String::new();
    let mut rest = text.as_str();
    'next: while let Some(first) = rest.chars().next() {
        let shapes: [Shape; 4] = [
            (55, is_traceparent, "TRACEPARENT"),
            (36, is_uuid, "ID"),
            (34, is_trace, "\"TRACE\""),
            (24, is_time, "TIME"),
        ];
        for (length, is_so, name) in shapes {
            if rest.get(..length).is_some_and(is_so) {
                out.push_str(name);
                rest = &rest[length..];
                continue 'next;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The whole of a JSON text, since hashes have as many digits and more.
fn is_trace(text: &str) -> bool {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).is_some_and(is_hex)
}

fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["00", trace, span, flags]
        if trace.len() == 32 && span.len() == 16 && flags.len() == 2 && is_hex(&[trace, span, flags].concat()))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_time(text: &str) -> bool {
    text.ends_with('Z') && text.get(4..5) == Some("-") && text.get(10..11) == Some("T")
}
