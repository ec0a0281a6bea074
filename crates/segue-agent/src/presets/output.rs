use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Preset;
use super::reading::Reading;
use super::usage::Usage;
use super::{claude, codex, gemini, opencode};

/// How a process ended. Exactly one of the two is set for a process that was waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Ended by itself with this code.
    pub fn code(code: i32) -> Self {
        Exit { code: Some(code), signal: None }
    }

    /// Ended by this signal.
    pub fn signal(signal: i32) -> Self {
        Exit { code: None, signal: Some(signal) }
    }

    /// The signal that ended it, also where a shell or the program itself reported that as an exit
    /// code of 128 + signal (143 is what `claude` answers to SIGTERM).
    pub(super) fn ended_by(self) -> Option<i32> {
        const SIGNALS_SEEN_AS_CODES: [i32; 8] = [1, 2, 3, 6, 9, 11, 13, 15];
        self.signal.or_else(|| {
            self.code
                .map(|code| code.saturating_sub(128))
                .filter(|signal| SIGNALS_SEEN_AS_CODES.contains(signal))
        })
    }
}

/// All that a finished process left behind.
///
/// The caller bounds the sizes; [`parse`] looks at each byte a bounded number of times and copies
/// only what it returns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Output<'a> {
    /// Standard output. Any bytes.
    pub stdout: &'a [u8],
    /// Standard error. Any bytes; its end is enough if it is long.
    pub stderr: &'a [u8],
    /// How the process ended.
    pub exit: Exit,
    /// What stands in the file that [`CommandLine::result_file`](super::CommandLine::result_file)
    /// names, if the command line had one and the file exists.
    pub result_file: Option<&'a [u8]>,
}

/// What the run of an agent CLI brought.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parsed {
    /// The answer, or why there is none.
    pub result: Result<Success, Failure>,
    /// What the run used, as far as the CLI said. Also set for failures: they cost as well.
    pub usage: Usage,
    /// The id with which the CLI can resume this conversation.
    pub session_id: Option<String>,
    /// Model turns, as the CLI counts them.
    pub turns: Option<u32>,
    /// What the agent wanted to do and was not allowed to. A run can succeed in spite of it, and a
    /// "done" with denials deserves a second look.
    pub denials: Vec<Denial>,
    /// Oddities worth keeping with the attempt, as sentences. At most 32.
    pub notes: Vec<String>,
}

/// The answer of a run that ended well.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Success {
    /// The final answer; what the agent said on the way to it is not in here.
    pub text: String,
    /// The answer as JSON: what the CLI itself marks as structured output or, where it has no such
    /// mark, an answer that is nothing but one JSON object or array (a Markdown code fence around
    /// it is forgiven). It has not been checked against any schema.
    pub structured: Option<Value>,
}

/// Why a run brought no answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// What the caller should do about it.
    pub class: FailureClass,
    /// What went wrong, in the CLI's words where there are any. At most about 4 KiB.
    pub message: String,
    /// The HTTP status of the model provider, if one is known.
    pub status: Option<u16>,
    /// How long to wait before another try, in milliseconds from the end of the run.
    pub retry_after_ms: Option<u64>,
    /// The moment, in seconds since 1970, from which another try makes sense.
    pub retry_at_unix_s: Option<u64>,
}

/// What the caller should do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Another try may succeed: the provider or the network had a bad moment.
    Transient,
    /// The same run will fail again: wrong key, wrong flag, wrong request, a limit of turns or money.
    Permanent,
    /// The account's rate or usage window is full. Everyone on that account has to wait.
    RateLimited,
    /// It was ended from outside (a time limit, a cancellation), and nothing says that it was in
    /// trouble before.
    Timeout,
    /// It ended, but its output holds no answer that can be read.
    InvalidOutput,
}

/// One thing that the agent was not allowed to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The tool, as the CLI names it.
    pub tool: String,
    /// The id of the tool call, where the CLI tells it.
    pub call_id: Option<String>,
    /// What the tool was to be called with: JSON or a command line, at most about 2 KiB.
    pub input: Option<String>,
}

/// Reads the output of a finished agent CLI.
///
/// Total: any bytes give a [`Parsed`]. The result line of the CLI decides, not the exit code: finished
/// work is not thrown away because the process was ended afterwards (a note says so).
pub fn parse(preset: Preset, output: &Output<'_>) -> Parsed {
    let reading: Reading = match preset {
        Preset::Claude => claude::read(output),
        Preset::Codex => codex::read(output),
        Preset::Gemini => gemini::read(output),
        Preset::Opencode => opencode::read(output),
    };
    reading.conclude(preset, output)
}
