//! Front matter to a mapping: strict YAML first, then Claude Code's lenient second try.

use serde_json::{Map, Value};

use super::dialect::{self, Document, YamlError};
use super::front::is_js_space;

/// The mapping of a front matter.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Keys in the order of the file; of a key that stands twice, the last value.
    pub map: Map<String, Value>,
    /// Lines of the front matter (from 0) whose value had to be put in quotes, with their key.
    /// Empty if the YAML was right as it stands.
    pub requoted: Vec<(usize, String)>,
    /// Why the YAML was not right as it stands.
    pub strict_error: Option<YamlError>,
    /// The front matter is YAML, but a text or a list instead of `key: value` pairs.
    pub not_a_mapping: bool,
    /// The first line (from 0) that is indented with tabs, which YAML does not allow.
    pub tab_line: Option<usize>,
}

/// Parses the text between the two `---`.
///
/// # Errors
/// The error of the strict parse, if the lenient second try fails as well.
pub(super) fn parse(yaml: &str) -> Result<Parsed, YamlError> {
    let error = match dialect::read(yaml) {
        Ok(document) => return Ok(parsed(document, Vec::new(), None)),
        Err(error) => error,
    };
    let (text, requoted) = requote(yaml);
    if requoted.is_empty() {
        return Err(error);
    }
    match dialect::read(&text) {
        Ok(document) => Ok(parsed(document, requoted, Some(error))),
        Err(_) => Err(error),
    }
}

fn parsed(
    document: Document,
    requoted: Vec<(usize, String)>,
    strict_error: Option<YamlError>,
) -> Parsed {
    let (map, not_a_mapping) = match document.value {
        Value::Object(map) => (map, false),
        Value::Null => (Map::new(), false),
        _ => (Map::new(), true),
    };
    Parsed { map, requoted, strict_error, not_a_mapping, tab_line: document.tab_line }
}

/// Puts quotes around each value that may have upset the parser: of each line
/// `^([a-zA-Z_-]+):\s+(.+)$` whose value is not in quotes, is no well-formed `[list]`, and
/// holds one of `{}[]*&#!|>%@` or a backtick, or a colon followed by a space.
///
/// The pattern is JavaScript's, where `.` does not match a carriage return: in a file with
/// CRLF line ends nothing is requoted. That is so in Claude Code, too.
fn requote(yaml: &str) -> (String, Vec<(usize, String)>) {
    let mut text = String::with_capacity(yaml.len() + 16);
    let mut requoted = Vec::new();
    for (number, line) in yaml.split('\n').enumerate() {
        if number > 0 {
            text.push('\n');
        }
        match key_value(line) {
            Some((key, value)) if needs_quotes(value) => {
                text.push_str(key);
                text.push_str(": \"");
                text.push_str(&value.replace('\\', "\\\\").replace('"', "\\\""));
                text.push('"');
                requoted.push((number, key.to_owned()));
            }
            _ => text.push_str(line),
        }
    }
    (text, requoted)
}

fn key_value(line: &str) -> Option<(&str, &str)> {
    let (key, rest) = line.split_once(':')?;
    let key_ok = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'-');
    let value = rest.trim_start_matches(is_js_space);
    let has_space = value.len() < rest.len();
    let one_line = !value.contains(['\r', '\u{2028}', '\u{2029}']);
    (key_ok && has_space && one_line && !value.is_empty()).then_some((key, value))
}

fn needs_quotes(value: &str) -> bool {
    let quoted = |mark: char| value.starts_with(mark) && value.ends_with(mark);
    if quoted('"') || quoted('\'') {
        return false;
    }
    if value.starts_with('[') && value.ends_with(']') && dialect::read(value).is_ok() {
        return false;
    }
    value.contains(['{', '}', '[', ']', '*', '&', '#', '!', '|', '>', '%', '@', '`'])
        || value.contains(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(yaml: &str, key: &str) -> Option<String> {
        let parsed = parse(yaml).ok()?;
        parsed.map.get(key)?.as_str().map(str::to_owned)
    }

    #[test]
    fn strict_yaml_is_left_alone() {
        let parsed = parse("name: a\ntools: [Read, Write]\n").expect("yaml");
        assert!(parsed.requoted.is_empty() && parsed.strict_error.is_none());
        assert_eq!(parsed.map["tools"], serde_json::json!(["Read", "Write"]));
    }

    #[test]
    fn values_that_upset_yaml_are_requoted() {
        for value in [
            "Use when: x",
            "*bold* x",
            "**BOLD**",
            "%x y",
            "@x",
            "`x`",
            "{x",
            "[x",
            "> x",
            "| x",
            "[a] b",
            "[a, *b]",
            "'tis: bad",
            "a\\b: \"q\"",
            "foo: ",
        ] {
            let yaml = format!("name: n\ndescription: {value}\n");
            assert_eq!(text_of(&yaml, "description").as_deref(), Some(value), "{value}");
            let parsed = parse(&yaml).expect("lenient");
            assert_eq!(parsed.requoted, [(1, "description".to_owned())], "{value}");
            assert!(parsed.strict_error.is_some(), "{value}");
        }
    }

    #[test]
    fn requoting_takes_in_lines_that_were_right() {
        let parsed =
            parse("x: a: b\ntools: [Read, Write]\nd: foo # bar\nm: {a}\n").expect("lenient");
        assert_eq!(parsed.map["tools"], serde_json::json!(["Read", "Write"]));
        assert_eq!(parsed.map["d"], "foo # bar");
        assert_eq!(parsed.map["m"], "{a}");
    }

    #[test]
    fn what_requoting_does_not_save() {
        for yaml in [
            "description: \"foo\" bar\n",
            "description: 'it's'\n",
            "description: \"foo\n",
            "key1: a: b\n",
            "my key: a: b\n",
            "m:\n  k: a: b\n",
            "description: a: b\r\nname: x\r\n",
            "description: ? x\n",
            "description: - x\n",
            "tools: *\ndescription: |\n  text\n",
            "description: \"a\" and: \"b\"\n",
        ] {
            assert!(parse(yaml).is_err(), "{yaml:?}");
        }
    }

    #[test]
    fn empty_and_text_front_matter() {
        assert!(parse("").expect("empty").map.is_empty());
        assert!(parse("# only a comment\n").expect("comment").map.is_empty());
        assert!(parse("just text\n").expect("text").not_a_mapping);
        assert!(parse("- a\n- b\n").expect("list").not_a_mapping);
    }
}
