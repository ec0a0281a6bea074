//! What a node and a supervisor say to each other: JSON lines over one Unix socket.
//!
//! Node to supervisor: one [`Spec`], the bytes of the standard input if there are any, then
//! [`Order`]s. The end of the stream means that the node is dead. Supervisor to node: [`Report`]s.
//! Both ends are the same binary, so the lines carry no version.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A string of the operating system: text where it is text, else its bytes.
///
/// Arguments, variables and paths need not be UTF-8, and JSON strings must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Text {
    Plain(String),
    Raw(Vec<u8>),
}

impl From<&OsStr> for Text {
    fn from(text: &OsStr) -> Self {
        match text.to_str() {
            Some(plain) => Self::Plain(plain.to_owned()),
            None => Self::Raw(text.as_bytes().to_vec()),
        }
    }
}

impl From<Text> for OsString {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(plain) => plain.into(),
            Text::Raw(bytes) => Self::from_vec(bytes),
        }
    }
}

/// What to start, and how: the first line a supervisor reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    pub program: Text,
    pub args: Vec<Text>,
    /// The whole environment of the program; nothing is added to it.
    pub env: Vec<(Text, Text)>,
    pub cwd: Text,
    pub stdin: Input,
    pub limits: Limits,
    /// How long leftovers of a program that ended by itself may take to end after SIGTERM.
    pub grace_ms: u64,
    /// A cgroup to make and to put the tree in.
    pub cgroup: Option<Text>,
    /// Where to leave the report of the end if the node dies first.
    pub last_words: Option<Text>,
}

/// Where the program's standard input comes from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Input {
    Null,
    File(Text),
    /// This many bytes follow the spec's line.
    Bytes(u64),
}

/// Limits of the operating system that the program and all its descendants inherit.
///
/// Each is set as soft and hard limit, and never raised above what the node itself has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest file a process may write, in bytes (`RLIMIT_FSIZE`).
    pub file_bytes_max: Option<u64>,
    /// Open files a process (`RLIMIT_NOFILE`).
    pub open_files_max: Option<u64>,
    /// Processes (`RLIMIT_NPROC`). The operating system counts all processes of the *user*, not
    /// of the tree, and does not hold root to it.
    pub processes_max: Option<u64>,
}

/// What a node asks of a running supervisor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    Cancel { grace_ms: u64 },
}

/// What a supervisor tells its node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    Started {
        pid: i32,
        start_time: u64,
    },
    FailedToStart(StartFailure),
    /// The main program ended; `asked` says that ending the tree had already begun.
    Exited {
        exit: Exit,
        asked: bool,
    },
    /// The last line: nothing of the tree is left, or only `survivors`.
    Ended(TreeEnd),
}

/// Why the program could not be started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StartFailure {
    pub step: StartStep,
    pub errno: Option<i32>,
    pub text: String,
}

/// The step of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StartStep {
    Stdin,
    Cwd,
    Exec,
}

/// How a program ended: by a code or by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, if it exited by itself.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether the program exited with code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "ended by signal {signal}"),
            (None, None) => write!(f, "ended, nobody saw how"),
        }
    }
}

/// A process that was ended, as evidence: process ids are used again, so the start time goes with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndedProcess {
    /// When it started, in clock ticks since the machine booted (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// Its process id.
    pub pid: i32,
    /// Its short name, at most 15 bytes.
    pub name: String,
    /// The signal that ended it where the supervisor was the one to reap it, else the last one sent to it.
    pub signal: i32,
}

/// The end of a tree, with its evidence.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct TreeEnd {
    pub ended: Vec<EndedProcess>,
    /// How many more ended than `ended` has room for.
    pub ended_more: u64,
    /// What still lived when the time for ending was over.
    pub survivors: Vec<EndedProcess>,
    pub usage: Usage,
}

impl TreeEnd {
    /// Writes the report where the next node looks for it, if that has not looked yet and removed the file. It may
    /// fail: the tree has ended all the same.
    pub(super) fn leave_in(&self, path: &Path) {
        if let (Ok(text), Ok(mut file)) =
            (serde_json::to_vec(self), std::fs::File::options().write(true).open(path))
        {
            let _ = file.write_all(&text);
        }
    }

    /// Takes a report that was left at `path`, if there is one, and removes it.
    pub(super) fn take_from(path: &Path) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        let _ = std::fs::remove_file(path);
        serde_json::from_slice(&text).ok()
    }
}

/// What the whole tree used, as far as the supervisor reaped it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user mode, microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, microseconds.
    pub system_us: u64,
    /// The largest resident set of any one process, bytes.
    pub rss_bytes_max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_wire_byte_for_byte() {
        for bytes in [&b"plain"[..], b"", b"\xff\xfe", "umlaut \u{e4}\n".as_bytes()] {
            let text = Text::from(OsStr::from_bytes(bytes));
            let line = serde_json::to_string(&text).expect("serializes");
            let back: Text = serde_json::from_str(&line).expect("parses");
            assert_eq!(OsString::from(back).as_bytes(), bytes);
        }
    }

    #[test]
    fn an_exit_says_how_it_ended() {
        let by_code = Exit { code: Some(3), signal: None };
        let by_signal = Exit { code: None, signal: Some(9) };
        assert_eq!(by_code.to_string(), "exit code 3");
        assert_eq!(by_signal.to_string(), "ended by signal 9");
        assert!(!by_code.success() && !by_signal.success());
        assert!(Exit { code: Some(0), signal: None }.success());
    }
}
