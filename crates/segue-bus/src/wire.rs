//! The wire format: how letters stand in a message of a broker. `docs/wire.md` explains it, `docs/wire.schema.json` is its schema.
//!
//! A message is one JSON object with its version and one or more letters; each letter names its project. What comes in is believed nothing:
//! it may be huge, no JSON, of another version, for somebody else. One letter that is wrong does not touch the others of its message.

use segue_core::letter::{Address, Letter, LetterBody, Notice, WIRE_VERSION};
use segue_core::outcome::Outcome;
use segue_core::payload::{DATABASE_MAX, Payload};
use segue_core::worker::SAID_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

/// Nested arrays and objects of a message, at most.
pub const DEPTH_MAX: usize = 128;
/// Letters of a message, at most, whoever sent it.
pub const LETTERS_MAX: usize = 10_000;
/// Bytes of the name of an agent, of a sender, or of a project, at most.
pub const NAME_MAX: usize = 256;
/// Bytes of a reason or of the message of an error, at most.
pub const TEXT_MAX: usize = 64 * 1024;
/// Processes that an outcome names, at most.
pub const ENDED_MAX: usize = 10_000;
/// Bytes that are kept of what is no letter.
pub const EXCERPT_MAX: usize = 4 * 1024;

const OPENING: &[u8] = b"{\"version\":1,\"letters\":[";
const AGAIN: &[u8] = b"{\"version\":1,\"again\":true,\"letters\":[";
const CLOSING: &[u8] = b"]}";

/// Bytes of a message beside its letters, at most.
pub(crate) const FRAME_MAX: usize = 64;

/// The JSON of one letter, as it stands in a message of this project.
pub fn letter_text(project: &str, letter: &Letter) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(b"{\"project\":");
    serde_json::to_writer(&mut text, project)?;
    let start = text.len();
    serde_json::to_writer(&mut text, letter)?;
    // The brace of the letter becomes the comma after its project.
    text[start] = b',';
    Ok(text)
}

/// A message of these letters, each as [`letter_text`] writes it. `again` says that they may have been handed over before.
pub fn message<'a>(letters: impl Iterator<Item = &'a [u8]> + Clone, again: bool) -> Vec<u8> {
    let bytes = letters.clone().map(|letter| letter.len() + 1).sum::<usize>();
    let mut text = Vec::with_capacity(bytes + FRAME_MAX);
    text.extend_from_slice(if again { AGAIN } else { OPENING });
    for (i, letter) in letters.enumerate() {
        if i > 0 {
            text.push(b',');
        }
        text.extend_from_slice(letter);
    }
    text.extend_from_slice(CLOSING);
    text
}

/// What could not be read as a letter, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Why.
    pub reason: String,
    /// The beginning of it.
    pub excerpt: String,
}

impl Unreadable {
    fn of(reason: impl Into<String>, text: &[u8]) -> Unreadable {
        let end = text.len().min(EXCERPT_MAX);
        let excerpt = String::from_utf8_lossy(&text[..end]).into_owned();
        Unreadable { reason: reason.into(), excerpt }
    }
}

/// A letter of a message, where it stands in its text, or why it is none.
#[derive(Debug)]
pub struct Found {
    /// The letter.
    pub letter: Result<Letter, Unreadable>,
    /// Where its JSON stands in the message.
    pub at: Range<usize>,
}

/// A message that was read.
#[derive(Debug)]
pub struct Message {
    /// Its letters, in their order.
    pub letters: Vec<Found>,
    /// Whether they may have been handed over before.
    pub again: bool,
    /// Why they are dead, where they are.
    pub dead: Option<String>,
    /// What was no letter, among the dead ones.
    pub excerpt: Option<String>,
}

/// What a reader expects of letters.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// The project.
    pub project: &'a str,
    /// Whom they are for; nothing where that does not matter.
    pub to: Option<&'a Address>,
    /// Bytes of a message, at most.
    pub bytes_max: usize,
    /// Whether the broker says that an engine sent them. Nothing where it was not asked.
    pub from_engine: Option<bool>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    version: u16,
    #[serde(default)]
    again: bool,
    #[serde(default)]
    dead: Option<String>,
    #[serde(default)]
    excerpt: Option<String>,
    #[serde(borrow, default)]
    letters: Vec<&'a RawValue>,
}

/// Reads a message.
///
/// # Errors
/// When it is no message at all.
pub fn read(data: &[u8], expected: &Expected<'_>) -> Result<Message, Unreadable> {
    let bad = |reason: String| Unreadable::of(reason, data);
    if data.len() > expected.bytes_max {
        let max = expected.bytes_max;
        return Err(bad(format!(
            "{} bytes are too many for a message (at most {max})",
            data.len()
        )));
    }
    let text = std::str::from_utf8(data).map_err(|error| bad(format!("not UTF-8: {error}")))?;
    if depth(data) > DEPTH_MAX {
        return Err(bad(format!("nested too deeply (at most {DEPTH_MAX})")));
    }
    let envelope: Envelope<'_> =
        serde_json::from_str(text).map_err(|error| bad(format!("not a message: {error}")))?;
    if envelope.version != WIRE_VERSION {
        return Err(bad(unknown_version(envelope.version)));
    }
    if envelope.letters.len() > LETTERS_MAX {
        let count = envelope.letters.len();
        return Err(bad(format!(
            "{count} letters are too many for a message (at most {LETTERS_MAX})"
        )));
    }
    if envelope.letters.is_empty() && envelope.excerpt.is_none() {
        return Err(bad("a message without letters".into()));
    }
    let start = text.as_ptr() as usize;
    let found = |raw: &&RawValue| {
        let raw = raw.get();
        // The slice was borrowed from the text, so the difference is where it stands.
        let at = raw.as_ptr() as usize - start;
        let letter = letter(raw, expected);
        let letter = letter.map_err(|reason| Unreadable::of(reason, raw.as_bytes()));
        Found { letter, at: at..at + raw.len() }
    };
    let letters = envelope.letters.iter().map(found).collect();
    let Envelope { again, dead, excerpt, .. } = envelope;
    Ok(Message { letters, again, dead, excerpt })
}

fn unknown_version(version: u16) -> String {
    format!("wire version {version} is unknown; this end speaks {WIRE_VERSION}")
}

/// Reads one letter and checks what the bus can check.
fn letter(raw: &str, expected: &Expected<'_>) -> Result<Letter, String> {
    #[derive(Deserialize)]
    struct Stamp<'a> {
        version: u16,
        #[serde(borrow)]
        project: Cow<'a, str>,
    }
    let stamp: Stamp<'_> =
        serde_json::from_str(raw).map_err(|error| format!("not a letter: {error}"))?;
    if stamp.version != WIRE_VERSION {
        return Err(unknown_version(stamp.version));
    }
    if stamp.project != expected.project {
        return Err(format!("it belongs to another project, `{}`", cut(&stamp.project)));
    }
    let letter: Letter =
        serde_json::from_str(raw).map_err(|error| format!("not a letter: {error}"))?;
    if let Some(to) = expected.to
        && letter.to != *to
    {
        return Err(format!("it is for {}, and was found with {to}", letter.to));
    }
    check_names(&letter)?;
    check_sender(&letter, expected)?;
    check_sizes(&letter)?;
    Ok(letter)
}

/// Work, and the word to end it, come from an engine alone.
fn check_sender(letter: &Letter, expected: &Expected<'_>) -> Result<(), String> {
    let engines = match &letter.body {
        LetterBody::TaskRequest(_) | LetterBody::Event(Notice::Cancel { .. }) => true,
        LetterBody::TaskResponse(_)
        | LetterBody::Event(_)
        | LetterBody::Query { .. }
        | LetterBody::Host(_) => *letter.from == *"segue",
    };
    if engines && expected.from_engine == Some(false) {
        return Err("forged sender: only the engine's own user may send this".into());
    }
    Ok(())
}

fn check_names(letter: &Letter) -> Result<(), String> {
    let name_of = |address: &Address| match address {
        Address::Agent(name) => Some(name.clone()),
        Address::Host(_) | Address::Engine | Address::Reply(_) | Address::All => None,
    };
    let names = [
        Some(letter.from.clone()),
        name_of(&letter.to),
        letter.reply_to.as_ref().and_then(name_of),
    ];
    match names.into_iter().flatten().find(|name| name.len() > NAME_MAX) {
        Some(name) => Err(format!("a name of {} bytes (at most {NAME_MAX})", name.len())),
        None => Ok(()),
    }
}

/// What would go into a row has to fit there: larger bodies travel by their hash.
fn check_sizes(letter: &Letter) -> Result<(), String> {
    let body = |what: &str, payload: &Payload| match payload {
        Payload::Here(_) if payload.size() > DATABASE_MAX as u64 => Err(format!(
            "the {what} of {} bytes is too large for a letter (at most {DATABASE_MAX}); it has to be handed in before",
            payload.size()
        )),
        Payload::Here(_) | Payload::Stored { .. } => Ok(()),
    };
    let text = |what: &str, bytes: usize| match bytes > TEXT_MAX {
        true => Err(format!("the {what} of {bytes} bytes is too long (at most {TEXT_MAX})")),
        false => Ok(()),
    };
    let processes = |count: usize| match count > ENDED_MAX {
        true => Err(format!("{count} processes are too many (at most {ENDED_MAX})")),
        false => Ok(()),
    };
    match &letter.body {
        LetterBody::TaskResponse(response) => {
            processes(response.ended.len())?;
            response.state.put.iter().try_for_each(|put| body("value", &put.value))?;
            match &response.outcome {
                Outcome::Complete { output } => body("output", output),
                Outcome::Fail { error, .. } => text("error", error.message.len()),
                Outcome::Delegate { tasks, continuation, .. } => {
                    tasks.iter().try_for_each(|task| body("input", &task.input))?;
                    continuation.iter().try_for_each(|kept| body("continuation", kept))
                }
                Outcome::Cancelled => Ok(()),
            }
        }
        LetterBody::Event(Notice::Progress { note, .. }) => body("note", note),
        LetterBody::Event(Notice::Cancel { reason, .. }) => text("reason", reason.len()),
        LetterBody::Event(Notice::Reaped { ended, .. }) => processes(ended.len()),
        LetterBody::Host(sealed) if sealed.said.len() > SAID_MAX => {
            Err(format!("what a worker says has {} bytes (at most {SAID_MAX})", sealed.said.len()))
        }
        LetterBody::Event(Notice::Started { .. })
        | LetterBody::TaskRequest(_)
        | LetterBody::Query { .. }
        | LetterBody::Host(_) => Ok(()),
    }
}

/// The beginning of a text from outside, to be shown.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// How deeply arrays and objects are nested, brackets in strings apart. Looked at before anything is read, without a stack.
fn depth(data: &[u8]) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in data {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// A dead letter, as it travels to the others: the reason, and the letter or the beginning of what was none.
pub(crate) fn dead_message(reason: &str, dead: Dead<'_>) -> Vec<u8> {
    let mut text = b"{\"version\":1,\"dead\":".to_vec();
    let reason: String = reason.chars().take(TEXT_MAX / 4).collect();
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(&mut text, &reason);
    match dead {
        Dead::Letter(letter) => {
            text.extend_from_slice(b",\"letters\":[");
            text.extend_from_slice(letter);
            text.extend_from_slice(CLOSING);
        }
        Dead::Excerpt(excerpt) => {
            text.extend_from_slice(b",\"excerpt\":");
            let _ = serde_json::to_writer(&mut text, excerpt);
            text.push(b'}');
        }
    }
    text
}

/// What is dead.
pub(crate) enum Dead<'a> {
    /// A letter, as it came.
    Letter(&'a [u8]),
    /// The beginning of what was none.
    Excerpt(&'a str),
}

/// The letter without what is too large for the broker: who waits for it has to hear something, and the letter itself cannot travel.
/// An outcome becomes a failure, work loses its input and goes to the dead letters, and so does everything else.
pub(crate) fn shrunk(letter: &Letter, bytes: usize, max: usize) -> (Letter, Option<String>) {
    let reason = format!("a letter of {bytes} bytes is too large for the bus (at most {max})");
    let mut small = letter.clone();
    match &mut small.body {
        LetterBody::TaskResponse(response) => {
            use segue_core::task::{ErrorClass, TaskError};
            response.outcome = Outcome::Fail {
                error: TaskError::new(ErrorClass::InvalidOutput, format!("its outcome: {reason}")),
                retry_after_ms: None,
            };
            response.ended.truncate(100);
            return (small, None);
        }
        LetterBody::TaskRequest(request) => {
            request.input = Payload::null();
            request.resume = None;
            request.team = Vec::new();
        }
        LetterBody::Event(Notice::Progress { note, .. }) => *note = Payload::null(),
        LetterBody::Event(Notice::Reaped { ended, .. }) => {
            ended.truncate(100);
            return (small, None);
        }
        LetterBody::Event(Notice::Cancel { reason, .. }) => {
            *reason = cut(reason);
            return (small, None);
        }
        LetterBody::Event(Notice::Started { .. }) => {}
        LetterBody::Query { payload } => *payload = Payload::null(),
        LetterBody::Host(sealed) => sealed.said.clear(),
    }
    (small, Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        assert_eq!(depth(br#"{"a":[1,{"b":"[[[\"[["}]}"#), 3);
        assert_eq!(depth(b"]]]]["), 1);
    }
}
