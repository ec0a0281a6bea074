//! Traces: which trace a run belongs to, and the span of each attempt, as W3C Trace Context (level 2) writes them.
//!
//! Nothing of it is drawn by chance or kept twice. A run belongs to the trace that its submit named, else to one of its own, whose id is that of
//! its root; the span of an attempt is the second half of the attempt's id.

use crate::ids::{AttemptId, TaskId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The flag that says that somebody recorded the span.
const SAMPLED: u8 = 0x01;
/// The flag that says that the id of the trace was made by chance.
const RANDOM: u8 = 0x02;
/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Longest text that is looked at: later versions may append to what there is.
const LENGTH_MAX: usize = 512;

/// A `traceparent`: a trace, a span in it, and flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl Traceparent {
    /// The span of an attempt at a task of the run with this root; `given` is what its submit named.
    pub fn of_attempt(root: TaskId, given: Option<Traceparent>, attempt: AttemptId) -> Traceparent {
        // The last 62 bits of a UUID of version 7 are drawn by chance, behind two that make it greater than zero.
        let span = attempt.0.as_u64_pair().1;
        match given {
            Some(given) => Traceparent { span, ..given },
            // Whatever happens in it is recorded: in the log of the run.
            None => Traceparent { trace: root.0.as_u128(), span, flags: SAMPLED | RANDOM },
        }
    }

    /// The id of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Traceparent {
    type Err = String;

    fn from_str(text: &str) -> Result<Traceparent, String> {
        read(text).ok_or_else(|| {
            let shown: String =
                text.chars().take(80).map(|it| if it.is_control() { '?' } else { it }).collect();
            format!(
                "`{shown}` is no traceparent: one is 00-TRACE-SPAN-FLAGS in lower-case hexadecimal digits, 32, 16 and 2 of them, and neither TRACE nor SPAN is zero"
            )
        })
    }
}

/// Reads version 00, and of later ones what they have in common with it.
fn read(text: &str) -> Option<Traceparent> {
    if !text.is_ascii() || !(LENGTH..=LENGTH_MAX).contains(&text.len()) {
        return None;
    }
    let (head, rest) = text.split_at(LENGTH);
    let fields: Vec<&str> = head.split('-').collect();
    let [version, trace, span, flags] = fields[..] else { return None };
    let lengths = [version.len(), trace.len(), span.len(), flags.len()];
    let hex = |field: &&str| {
        field.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let ends = match version {
        "ff" => false,
        "00" => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    if lengths != [2, 32, 16, 2] || !fields.iter().all(hex) || !ends {
        return None;
    }
    let read = Traceparent {
        trace: u128::from_str_radix(trace, 16).ok()?,
        span: u64::from_str_radix(span, 16).ok()?,
        // Flags that mean nothing yet are not handed on.
        flags: u8::from_str_radix(flags, 16).ok()? & (SAMPLED | RANDOM),
    };
    (read.trace != 0 && read.span != 0).then_some(read)
}

impl Serialize for Traceparent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Traceparent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Traceparent, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads what a letter carries: who cannot read it begins a trace of their own, as the standard has it.
///
/// # Errors
/// Where it is no text.
pub fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Traceparent>, D::Error> {
    let text = Option::<std::borrow::Cow<'_, str>>::deserialize(from)?;
    Ok(text.as_deref().and_then(read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_what_the_standard_says() {
        assert_eq!(GIVEN.parse::<Traceparent>().unwrap().to_string(), GIVEN);
        let unsampled = GIVEN.replace("-01", "-00");
        assert_eq!(unsampled.parse::<Traceparent>().unwrap().to_string(), unsampled);
        // Later versions may say more, which nobody understands yet.
        for later in [format!("cc-{}", &GIVEN[3..]), format!("01-{}-what-else", &GIVEN[3..])] {
            assert_eq!(later.parse::<Traceparent>().unwrap().to_string(), GIVEN, "{later}");
        }
        let flags = format!("{}ff", &GIVEN[..53]);
        assert_eq!(
            flags.parse::<Traceparent>().unwrap().to_string(),
            format!("{}03", &GIVEN[..53])
        );
        let wrong = [
            String::new(),
            GIVEN.to_ascii_uppercase(),
            format!("{GIVEN}-more"),
            format!("{GIVEN} "),
            format!(" {GIVEN}"),
            format!("ff-{}", &GIVEN[3..]),
            format!("01-{}x", &GIVEN[3..]),
            GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GIVEN.replace("4bf92f", "4bf92g"),
            GIVEN.replace("4bf92f", "+bf92f"),
            GIVEN.replace('-', "_"),
            GIVEN[..54].to_owned(),
            "é".repeat(30),
            format!("01-{}-{}", &GIVEN[3..], "x".repeat(1_000)),
        ];
        for text in wrong {
            let error = text.parse::<Traceparent>().unwrap_err();
            assert!(error.contains("is no traceparent") && error.len() < 400, "{text}: {error}");
        }
        assert!(!"\u{1b}[31m".parse::<Traceparent>().unwrap_err().contains('\u{1b}'));
    }

    #[test]
    fn each_attempt_has_a_span_of_its_own_in_the_trace_of_its_run() {
        let root = TaskId(Uuid::from_u128(0x0193_9a3e_7c11_7d02_8f00_9a6b_1c2d_3e4f));
        let one = AttemptId(Uuid::from_u128(0x0193_9a3e_7c12_7d02_8f11_9a6b_1c2d_3e4f));
        let two = AttemptId(Uuid::from_u128(0x0193_9a3e_7c12_7d02_8f22_9a6b_1c2d_3e4f));
        let own = Traceparent::of_attempt(root, None, one);
        assert_eq!(own.to_string(), "00-01939a3e7c117d028f009a6b1c2d3e4f-8f119a6b1c2d3e4f-03");
        assert_eq!(own, Traceparent::of_attempt(root, None, one), "nothing of it is chance");
        assert_ne!(own, Traceparent::of_attempt(root, None, two));
        let given: Traceparent = GIVEN.replace("-01", "-00").parse().unwrap();
        let of = Traceparent::of_attempt(root, Some(given), one);
        assert_eq!(of.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-8f119a6b1c2d3e4f-00");
        assert_eq!(of.trace_id(), given.trace_id());
        assert_eq!(of.to_string().parse(), Ok(of));
    }

    #[test]
    fn a_letter_with_a_wrong_one_is_read_without_it() {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(default, deserialize_with = "lenient")]
            traceparent: Option<Traceparent>,
        }
        let read = |value: &str| {
            let text = format!("{{\"traceparent\":{value}}}");
            serde_json::from_str::<Holder>(&text).unwrap().traceparent
        };
        assert_eq!(read(&format!("\"{GIVEN}\"")), Some(GIVEN.parse().unwrap()));
        for wrong in ["\"\"", "null", "\"00-1-2-3\"", "\"00-\\u0000\""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(serde_json::from_str::<Holder>("{}").unwrap().traceparent, None);
    }
}
