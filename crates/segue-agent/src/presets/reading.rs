//! What a vendor's reader found, and how that becomes the outcome of a run.

use serde_json::Value;

use super::Preset;
use super::classify::{self, RetryHint};
use super::json::{self, Field};
use super::objects::Seen;
use super::output::{Denial, Exit, Failure, FailureClass, Output, Parsed, Success};
use super::usage::Usage;

const NOTES_MAX: usize = 32;
const NOTE_BYTES_MAX: usize = 512;
const DENIALS_MAX: usize = 256;
const DENIAL_INPUT_BYTES_MAX: usize = 2 * 1024;
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// An answer longer than this is not tried as JSON: nobody structures that much by hand.
const STRUCTURED_BYTES_MAX: usize = 16 << 20;

/// A vendor's output, read but not yet judged.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What the CLI itself says about the end of the run.
    pub verdict: Option<Result<Success, Trouble>>,
    /// The last trouble that the CLI reported without saying that it ended the run. It explains the
    /// end of a run that has no verdict.
    pub hint: Option<Trouble>,
    /// When to try again, said apart from the trouble itself.
    pub retry: RetryHint,
    pub usage: Usage,
    pub session_id: Option<String>,
    pub turns: Option<u32>,
    pub denials: Vec<Denial>,
    pub notes: Vec<String>,
    /// What standard output held.
    pub seen: Seen,
}

/// A failure in the words of the CLI, sorted as far as its fields say.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    /// `None`: the message has to tell.
    pub class: Option<FailureClass>,
    pub status: Option<u16>,
    pub message: String,
}

impl Trouble {
    pub(super) fn of(class: FailureClass, message: impl Into<String>) -> Self {
        Trouble { class: Some(class), status: None, message: message.into() }
    }

    /// A message of a provider, which may be the JSON body of its answer:
    /// `{"error":{"message":"..","code":400,"status":".."}}`.
    pub(super) fn of_message(message: String) -> Self {
        let inner = json::pick(&message, ["error", "message"]).map(|[error, plain]| {
            let [text, code] = json::pick_in(error, ["message", "code"]);
            (json::text(text).or(json::text(plain)), http_status(code))
        });
        let sorted = classify::of_text(&message);
        let status =
            inner.as_ref().and_then(|(_, code)| *code).or(sorted.and_then(|sorted| sorted.status));
        let class = sorted.map(|sorted| sorted.class).or(status.map(classify::of_status));
        let message = match inner {
            // The code and the kind of error say more to a person than the sentence alone.
            Some((Some(text), Some(code))) => format!("{text} (status {code})"),
            Some((Some(text), None)) => text,
            _ => message,
        };
        Trouble { class, status, message }
    }
}

/// A field that holds an HTTP status.
pub(super) fn http_status(field: Field<'_>) -> Option<u16> {
    json::count(field)
        .and_then(|code| u16::try_from(code).ok())
        .filter(|code| (400..600).contains(code))
}

impl Reading {
    pub(super) fn note(&mut self, note: impl AsRef<str>) {
        if self.notes.len() < NOTES_MAX {
            let note = bounded(note.as_ref(), NOTE_BYTES_MAX);
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    pub(super) fn deny(&mut self, tool: String, call_id: Option<String>, input: Option<&str>) {
        if self.denials.len() < DENIALS_MAX {
            self.denials.push(Denial {
                tool,
                call_id,
                input: input.map(|input| bounded(input, DENIAL_INPUT_BYTES_MAX)),
            });
        }
    }

    /// Takes the first session id that is named.
    pub(super) fn session(&mut self, id: Field<'_>) {
        if self.session_id.is_none() {
            self.session_id = json::text(id).filter(|id| !id.is_empty());
        }
    }

    /// Judges the run: by the CLI's own verdict, else by what it complained of, else by how the
    /// process ended.
    pub(super) fn conclude(mut self, preset: Preset, output: &Output<'_>) -> Parsed {
        self.note_oddities();
        let result = match self.verdict.take() {
            Some(Ok(success)) => {
                if success.text.trim().is_empty() && success.structured.is_none() {
                    self.note("The answer is empty.");
                }
                if let Some(how) = abnormal_end(output.exit) {
                    self.note(format!("{preset} gave its result and was then {how}."));
                }
                Ok(success)
            }
            Some(Err(trouble)) => Err(self.failure(preset, trouble)),
            None => {
                let trouble = self.unexplained(preset, output);
                Err(self.failure(preset, trouble))
            }
        };
        Parsed {
            result,
            usage: self.usage,
            session_id: self.session_id,
            turns: self.turns,
            denials: self.denials,
            notes: self.notes,
        }
    }

    fn note_oddities(&mut self) {
        let Seen { cut_off, bad_utf8, .. } = self.seen;
        if cut_off {
            self.note("The output is cut off in the middle of a JSON object.");
        }
        if bad_utf8 {
            self.note("Bytes in the output that are not UTF-8 were replaced.");
        }
    }

    fn failure(&self, preset: Preset, mut trouble: Trouble) -> Failure {
        if trouble.message.trim().is_empty() {
            trouble.message = format!("{preset} failed and gave no message");
        }
        let sorted = classify::of_text(&trouble.message);
        let class =
            trouble.class.or(sorted.map(|sorted| sorted.class)).unwrap_or(FailureClass::Transient);
        let said = classify::retry_hint(&trouble.message);
        let waits = matches!(class, FailureClass::RateLimited | FailureClass::Transient);
        Failure {
            class,
            message: bounded(&trouble.message, MESSAGE_BYTES_MAX),
            status: trouble.status.or(sorted.and_then(|sorted| sorted.status)),
            retry_after_ms: said.after_ms.or(self.retry.after_ms).filter(|_| waits),
            retry_at_unix_s: said.at_unix_s.or(self.retry.at_unix_s).filter(|_| waits),
        }
    }

    /// The trouble of a run whose output holds no verdict.
    fn unexplained(&mut self, preset: Preset, output: &Output<'_>) -> Trouble {
        let complaint = last_words(output.stderr);
        if let Some(signal) = output.exit.ended_by() {
            return self.ended_by(signal, preset, &complaint);
        }
        if let Some(hint) = self.hint.take() {
            return hint;
        }
        match output.exit.code {
            Some(0) | None => Trouble::of(
                FailureClass::InvalidOutput,
                self.nothing_to_read(preset, output, &complaint),
            ),
            Some(code @ (126 | 127)) => Trouble::of(
                FailureClass::Permanent,
                format!(
                    "{preset} could not be run (exit code {code}): {complaint} Check that the \
                     program is installed and executable."
                ),
            ),
            // clap answers 2 to a command line it does not accept.
            Some(2) if preset == Preset::Codex => Trouble::of(
                FailureClass::Permanent,
                format!("codex refused its command line: {complaint}"),
            ),
            Some(code) => Trouble {
                class: classify::of_text(&complaint).map(|sorted| sorted.class),
                status: None,
                message: format!("{preset} failed with exit code {code}: {complaint}"),
            },
        }
    }

    fn ended_by(&mut self, signal: i32, preset: Preset, complaint: &str) -> Trouble {
        const CRASHES: [i32; 6] = [4, 6, 7, 8, 11, 31];
        let name = signal_name(signal);
        // A run that was in known trouble when it was ended failed of that trouble.
        let known = self
            .hint
            .take()
            .filter(|hint| hint.class.is_some() || classify::of_text(&hint.message).is_some());
        if let Some(hint) = known {
            self.note(format!("{preset} was ended by {name} while in trouble."));
            return hint;
        }
        if CRASHES.contains(&signal) {
            return Trouble::of(
                FailureClass::Transient,
                format!("{preset} crashed with {name}: {complaint}"),
            );
        }
        Trouble::of(
            FailureClass::Timeout,
            format!("{preset} was ended by {name} before it gave a result. {complaint}"),
        )
    }

    fn nothing_to_read(&self, preset: Preset, output: &Output<'_>, complaint: &str) -> String {
        let what = match (output.stdout.len(), self.seen.objects) {
            (0, _) => "printed nothing".to_owned(),
            (bytes, 0) => format!(
                "printed no JSON object, only {} other lines ({bytes} bytes)",
                self.seen.noise_lines
            ),
            (_, objects) => format!("printed {objects} JSON objects, none of them a result"),
        };
        let cut = if self.seen.cut_off { ", and the end is cut off" } else { "" };
        format!("{preset} ended without an error but {what}{cut}. {complaint}")
    }
}

/// How a process ended, if not with code 0.
fn abnormal_end(exit: Exit) -> Option<String> {
    match (exit.ended_by(), exit.code) {
        (Some(signal), _) => Some(format!("ended by {}", signal_name(signal))),
        (None, Some(code)) if code != 0 => Some(format!("ended with exit code {code}")),
        _ => None,
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL (by its supervisor, or because memory ran out)",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// The end of standard error as one bounded text, without colours and blank lines.
pub(super) fn last_words(stderr: &[u8]) -> String {
    const TAIL_BYTES: usize = 8 * 1024;
    let tail = &stderr[stderr.len().saturating_sub(TAIL_BYTES)..];
    let text = String::from_utf8_lossy(tail);
    let mut words = String::new();
    for line in text.lines() {
        let line = plain(line);
        let line = line.trim();
        // Codex prints this harmless warning at every start in a container.
        if line.is_empty() || line.starts_with("WARNING: proceeding, even though") {
            continue;
        }
        if !words.is_empty() {
            words.push('\n');
        }
        words.push_str(line);
    }
    if words.len() > MESSAGE_BYTES_MAX / 2 {
        let from = words.ceil_char_boundary(words.len() - MESSAGE_BYTES_MAX / 2);
        words = format!("… {}", &words[from..]);
    }
    if words.is_empty() {
        words.push_str("(nothing on standard error)");
    }
    words
}

/// Without terminal escape sequences and control characters.
pub(super) fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.peek() == Some(&'[') {
                chars.next();
                // A control sequence ends with its first character from @ to ~.
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
        } else if !c.is_control() || c == '\t' {
            out.push(c);
        }
    }
    out
}

/// At most about `max` bytes of a text, cut between characters.
pub(super) fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

/// A success; an answer that is JSON as a whole is taken as structured where nothing else is.
pub(super) fn success(text: String, structured: Option<Value>) -> Success {
    let structured = structured.or_else(|| structured_in(&text));
    Success { text, structured }
}

fn structured_in(text: &str) -> Option<Value> {
    let text = text.trim();
    let inside = text
        .strip_prefix("```json")
        .or_else(|| text.strip_prefix("```"))
        .and_then(|rest| rest.strip_suffix("```"))
        .unwrap_or(text)
        .trim();
    if inside.len() > STRUCTURED_BYTES_MAX || !inside.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(inside).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_json_is_structured() {
        let structured = |text: &str| success(text.to_owned(), None).structured;
        assert_eq!(structured(" {\"a\":1}\n"), Some(serde_json::json!({"a":1})));
        assert_eq!(structured("```json\n[1]\n```"), Some(serde_json::json!([1])));
        assert_eq!(structured("42"), None);
        assert_eq!(structured("See {\"a\":1}"), None);
        assert_eq!(structured(&"[".repeat(10_000)), None);
    }

    #[test]
    fn last_words_are_plain_and_bounded() {
        assert_eq!(last_words(b"\x1b[31mError:\x1b[0m x\n\n"), "Error: x");
        let long = last_words("é".repeat(100_000).as_bytes());
        assert!(long.len() <= MESSAGE_BYTES_MAX && long.starts_with('…'));
        assert_eq!(last_words(b" \n"), "(nothing on standard error)");
    }

    #[test]
    fn a_message_that_is_a_json_body_is_opened() {
        let trouble = Trouble::of_message(
            r#"{"error":{"message":"mock","type":"invalid_request_error","code":400}}"#.to_owned(),
        );
        assert_eq!(trouble.message, "mock (status 400)");
        assert_eq!(trouble.status, Some(400));
        assert_eq!(trouble.class, Some(FailureClass::Permanent));
    }

    #[test]
    fn exit_codes_that_stand_for_signals() {
        assert_eq!(Exit::code(143).ended_by(), Some(15));
        assert_eq!(Exit::code(144).ended_by(), None, "gemini: status 400 modulo 256");
        assert_eq!(Exit::signal(9).ended_by(), Some(9));
        assert_eq!(Exit::code(i32::MIN).ended_by(), None);
    }
}
