//! The single values of a front matter. What Claude Code ignores becomes `None`, with a warning.

use serde_json::{Map, Value};

use super::front::js_trim;
use super::model::Effort;
use super::notices::{Notices, kind, shown};

const EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];
const MODEL_ALIASES: &[&str] =
    &["inherit", "default", "best", "sonnet", "opus", "haiku", "fable", "opusplan"];
/// Claude Code refuses a larger `maxTurns` (it is the largest integer that JavaScript holds).
const TURNS_MAX: u64 = 9_007_199_254_740_991;

/// `model`, as written but trimmed. Names that Claude Code does not know are passed on by it, too.
pub(super) fn model(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<String> {
    let value = map.get("model").filter(|value| !value.is_null())?;
    let remedy = format!("write one of {}, or a full model id", MODEL_ALIASES.join(", "));
    let Some(text) = value.as_str().map(js_trim).filter(|text| !text.is_empty()) else {
        notices.warn(
            "model",
            format!("`model` must be text, not {}, and is ignored", kind(value)),
            remedy,
        );
        return None;
    };
    let lower = text.to_ascii_lowercase();
    let alias = lower.strip_suffix("[1m]").unwrap_or(&lower);
    if MODEL_ALIASES.contains(&alias) {
        return Some(if alias == "inherit" { lower } else { text.to_owned() });
    }
    let plausible = (lower.contains("claude") || lower.starts_with("arn:"))
        && !text.contains(char::is_whitespace);
    if !plausible {
        notices.warn(
            "model",
            format!("`{text}` does not look like a model that Claude Code knows"),
            remedy,
        );
    }
    Some(text.to_owned())
}

/// A value out of a few; any other is ignored, with a notice.
pub(super) fn choice(
    map: &Map<String, Value>,
    key: &str,
    choices: &[&str],
    notices: &mut Notices<'_>,
) -> Option<String> {
    let value = map.get(key).filter(|value| !value.is_null())?;
    match value.as_str() {
        Some(text) if choices.contains(&text) => Some(text.to_owned()),
        _ => {
            let message = format!("`{key}` is {}, which is ignored", shown(value));
            notices.warn(key, message, format!("write one of {}", choices.join(", ")));
            None
        }
    }
}

/// `background`: true or false, also in quotes.
pub(super) fn background(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<bool> {
    let value = map.get("background").filter(|value| !value.is_null())?;
    match (value.as_bool(), value.as_str()) {
        (Some(flag), _) => Some(flag),
        (_, Some("true")) => Some(true),
        (_, Some("false")) => Some(false),
        _ => {
            let message = format!("`background` is {}, which is ignored", shown(value));
            notices.warn("background", message, "write true or false");
            None
        }
    }
}

/// `maxTurns`: a whole number from 1 up, also at the head of a text.
pub(super) fn max_turns(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<u64> {
    let value = map.get("maxTurns").filter(|value| !value.is_null())?;
    let whole = |number: f64| {
        (number.fract() == 0.0 && number >= 1.0 && number <= TURNS_MAX as f64)
            .then_some(number as u64)
    };
    let turns = match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => leading_integer(text).and_then(|number| u64::try_from(number).ok()),
        _ => None,
    };
    let turns = turns.filter(|turns| (1..=TURNS_MAX).contains(turns));
    if turns.is_none() {
        let message = format!("`maxTurns` is {}, which is ignored", shown(value));
        notices.warn("maxTurns", message, "write a whole number from 1 up");
    }
    turns
}

/// `effort`: a level in any case, or the whole part of a number.
pub(super) fn effort(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<Effort> {
    let value = map.get("effort").filter(|value| !value.is_null())?;
    let effort = match value {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|number| number as i64))
            .map(Effort::Number),
        Value::String(text) => EFFORTS
            .iter()
            .find(|level| level.eq_ignore_ascii_case(text))
            .map(|level| Effort::Level(level))
            .or_else(|| leading_integer(text).map(Effort::Number)),
        _ => None,
    };
    if effort.is_none() {
        let message = format!("`effort` is {}, which is ignored", shown(value));
        notices.warn(
            "effort",
            message,
            format!("write one of {}, or a whole number", EFFORTS.join(", ")),
        );
    }
    effort
}

/// What JavaScript's `parseInt` makes of a text: the whole number it begins with.
fn leading_integer(text: &str) -> Option<i64> {
    let text = js_trim(text);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let number: i64 = digits.get(..end)?.parse().ok()?;
    Some(sign * number)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// Reads one key, and tells how many warnings that gave.
    fn read<T>(
        key: &str,
        value: &Value,
        read: impl Fn(&Map<String, Value>, &mut Notices<'_>) -> T,
    ) -> (T, usize) {
        let mut notices = Notices { path: Path::new("a.md"), yaml: "", line: 1, list: Vec::new() };
        let map = Map::from_iter([(key.to_owned(), value.clone())]);
        let found = read(&map, &mut notices);
        (found, notices.list.len())
    }

    #[test]
    fn turns() {
        for (value, turns) in
            [(json!(5), 5), (json!("7"), 7), (json!("7x"), 7), (json!(1e2), 100), (json!(" 3"), 3)]
        {
            assert_eq!(read("maxTurns", &value, max_turns), (Some(turns), 0), "{value}");
        }
        for value in [
            json!(0),
            json!(-3),
            json!(2.5),
            json!("x7"),
            json!("lots"),
            json!(true),
            json!([5]),
            json!(1e30),
        ] {
            assert_eq!(read("maxTurns", &value, max_turns), (None, 1), "{value}");
        }
        assert_eq!(read("maxTurns", &json!(null), max_turns), (None, 0));
    }

    #[test]
    fn efforts() {
        assert_eq!(read("effort", &json!("HIGH"), effort), (Some(Effort::Level("high")), 0));
        for (value, number) in
            [(json!(3), 3), (json!("3"), 3), (json!(2.5), 2), (json!(-1), -1), (json!("-1"), -1)]
        {
            assert_eq!(
                read("effort", &value, effort),
                (Some(Effort::Number(number)), 0),
                "{value}"
            );
        }
        for value in [json!("vast"), json!(["high"]), json!(true), json!("")] {
            assert_eq!(read("effort", &value, effort), (None, 1), "{value}");
        }
    }

    #[test]
    fn models() {
        for text in [
            "sonnet",
            "Opus",
            "inherit",
            "opus[1m]",
            "claude-sonnet-5-5",
            "us.anthropic.claude-x-v1:0",
            "arn:aws:bedrock:x",
        ] {
            assert_eq!(read("model", &json!(text), model), (Some(text.to_owned()), 0), "{text}");
        }
        assert_eq!(read("model", &json!("  Sonnet "), model), (Some("Sonnet".to_owned()), 0));
        assert_eq!(read("model", &json!("Inherit"), model), (Some("inherit".to_owned()), 0));
        assert_eq!(read("model", &json!("Claude Sonnet 4.5 (copilot)"), model).1, 1);
        assert_eq!(read("model", &json!("gpt-9"), model), (Some("gpt-9".to_owned()), 1));
        for value in [json!(5), json!(""), json!(["opus"])] {
            assert_eq!(read("model", &value, model), (None, 1), "{value}");
        }
    }

    #[test]
    fn flags_and_choices() {
        for (value, flag) in [
            (json!(true), true),
            (json!(false), false),
            (json!("true"), true),
            (json!("false"), false),
        ] {
            assert_eq!(read("background", &value, background), (Some(flag), 0), "{value}");
        }
        for value in [json!("yes"), json!("TRUE"), json!(1)] {
            assert_eq!(read("background", &value, background), (None, 1), "{value}");
        }
        let memory = |map: &Map<String, Value>, notices: &mut Notices<'_>| {
            choice(map, "memory", &["user", "local"], notices)
        };
        assert_eq!(read("memory", &json!("user"), memory), (Some("user".to_owned()), 0));
        assert_eq!(read("memory", &json!("USER"), memory), (None, 1));
        assert_eq!(read("memory", &json!(null), memory), (None, 0));
        assert_eq!(read("memory", &json!("x".repeat(500)), memory), (None, 1));
    }
}
