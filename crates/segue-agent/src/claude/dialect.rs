//! YAML as Claude Code 2.1.330 reads it (it is Bun's parser), on top of `serde-saphyr`.
//!
//! Found by comparing both on thousands of made-up front matters. What remains different is
//! YAML that nobody writes: plain text that begins with a comma, tags such as `!!int x`, merge
//! keys without a mapping, lists at the margin after a mapping, a space and then a tab.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Options;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

/// What a text holds.
#[derive(Debug)]
pub(super) struct Document {
    /// Its value.
    pub value: Value,
    /// The first line (from 0) that is indented with tabs, if there are such lines.
    pub tab_line: Option<usize>,
}

/// Why a text is no YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    /// Line of the text, from 0.
    pub line: usize,
    /// What the parser said, on one line.
    pub message: String,
}

/// Reads one document.
///
/// # Errors
/// If it is no YAML, not even as Claude Code sees it, or goes beyond a budget.
pub(super) fn read(yaml: &str) -> Result<Document, YamlError> {
    if !yaml.contains(forbidden) || yaml.contains(hidden) {
        return read_clean(yaml);
    }
    // Characters that YAML forbids, yet Claude Code takes, go out of the way (to a plane for
    // private use) until the text is parsed.
    let text: String = yaml.chars().map(|c| moved(c, forbidden, 1)).collect();
    let mut document = read_clean(&text)?;
    document.value = bring_back(document.value);
    Ok(document)
}

fn read_clean(text: &str) -> Result<Document, YamlError> {
    let error = match parse(text, options()) {
        Ok(value) => {
            return Ok(Document { value, tab_line: None });
        }
        Err(error) => error,
    };
    let mut relaxed = options();
    relaxed.strict_indentation = false;
    if let Some(indented) = indent_closers(text)
        && parse(&indented, options()).is_ok()
        && let Ok(value) = parse(text, relaxed)
    {
        return Ok(Document { value, tab_line: None });
    }
    if let Some((tab_line, spaced)) = tabs_to_spaces(text)
        && let Ok(value) = parse(&spaced, options())
    {
        return Ok(Document { value, tab_line: Some(tab_line) });
    }
    Err(error)
}

/// YAML 1.2: `yes`, `on`, `1_000` and `12:30` are text. Of a key that stands twice the last value
/// counts. Lists in brackets must be indented deeper than their key. The budgets bound what
/// hostile text can cost.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 100_000,
            max_nodes: 50_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_depth: 64,
            max_documents: 1,
            simple_key_max_lookahead: super::FILE_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000 },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        strict_booleans: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_indentation: true,
        with_snippet: false,
        emit_comments: false,
    }
}

fn parse(yaml: &str, options: Options) -> Result<Value, YamlError> {
    serde_saphyr::from_str_with_options::<Node>(yaml, options).map(|node| node.0).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        let message = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        // The place is told apart from the message, counted from the top of the file.
        let end = message.rfind(" at line ").unwrap_or(message.len());
        YamlError {
            line: usize::try_from(line.saturating_sub(1)).unwrap_or(0),
            message: message.get(..end).unwrap_or_default().to_owned(),
        }
    })
}

/// A closing bracket at the start of a line may stand as far left as its key. The parser knows
/// only "everything in brackets may" or "nothing may": what is wanted holds if nothing else
/// stands too far left, which shows once such brackets are moved to the right.
fn indent_closers(text: &str) -> Option<String> {
    let closes = |line: &str| {
        let line = line.trim();
        line.starts_with([']', '}']) && line.chars().all(|c| matches!(c, ']' | '}' | ',' | ' '))
    };
    let moved = |line: &str| {
        if closes(line) { format!("  {line}") } else { line.to_owned() }
    };
    text.lines().any(closes).then(|| text.split('\n').map(moved).collect::<Vec<_>>().join("\n"))
}

/// Tabs that indent, as spaces, and the first line that has one. `None` without such a line,
/// and if one stands in a block of text or in brackets, where tabs are an error in Claude Code
/// as well.
fn tabs_to_spaces(text: &str) -> Option<(usize, String)> {
    let first = text.lines().position(|line| line.starts_with('\t'))?;
    let mut block: Option<usize> = None;
    let mut before = "";
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if line.starts_with('\t') {
            if block.is_some() || before.trim_end().ends_with([',', '[', '{']) {
                return None;
            }
        } else if block.is_none_or(|margin| indent <= margin) {
            block = opens_block(line).then_some(indent);
        }
        before = line;
    }
    let spaced = |line: &str| {
        let rest = line.trim_start_matches('\t');
        format!("{}{rest}", "  ".repeat(line.len() - rest.len()))
    };
    Some((first, text.split('\n').map(spaced).collect::<Vec<_>>().join("\n")))
}

/// Whether a line ends with `|` or `>`, which opens a block of text.
fn opens_block(line: &str) -> bool {
    let last = line.split_whitespace().last().unwrap_or_default();
    last.strip_prefix(['|', '>'])
        .is_some_and(|rest| rest.chars().all(|c| matches!(c, '0'..='9' | '+' | '-')))
}

/// Where a character goes that is out of the way: this much further up.
const PRIVATE: i64 = 0xF_0000;

fn moved(c: char, which: fn(char) -> bool, direction: i64) -> char {
    let to =
        u32::try_from(i64::from(u32::from(c)) + direction * PRIVATE).ok().and_then(char::from_u32);
    if which(c) { to.unwrap_or(c) } else { c }
}

fn bring_back(value: Value) -> Value {
    let text = |text: String| text.chars().map(|c| moved(c, hidden, -1)).collect::<String>();
    match value {
        Value::String(hidden) => text(hidden).into(),
        Value::Array(items) => items.into_iter().map(bring_back).collect(),
        Value::Object(map) => {
            map.into_iter().map(|(key, value)| (text(key), bring_back(value))).collect()
        }
        other => other,
    }
}

fn forbidden(c: char) -> bool {
    matches!(c, '\u{1}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}'
        | '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{feff}')
}

fn hidden(c: char) -> bool {
    forbidden(moved(c, |c| u32::from(c) > 0xF_0000, -1)) && u32::from(c) > 0xF_0000
}

/// Any YAML value as JSON. Unlike [`Value`] itself it takes keys that are no text: they become
/// the text of their JSON.
struct Node(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(Node(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Node(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Map::new();
        while let Some((Node(key), Node(value))) = entries.next_entry()? {
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            map.insert(key, value);
        }
        Ok(Node(map.into()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(yaml: &str) -> Option<Value> {
        read(yaml).ok().map(|document| document.value)
    }

    #[test]
    fn scalars_are_those_of_yaml_1_2() {
        for text in
            ["yes", "on", "No", "1_000", "12:30", "1,000", "2024-01-01", "!!str 123", "&a x"]
        {
            let value = value(&format!("d: {text}\n")).expect(text);
            assert!(value["d"].is_string(), "{text}");
        }
        for other in [
            "123", "1e5", "0x1F", ".5", "+1", "0o7", "007", "true", "~", "null", "NULL", ".inf",
            "1.", "[a]",
        ] {
            let value = value(&format!("d: {other}\n")).expect(other);
            assert!(!value["d"].is_string(), "{other}");
        }
    }

    #[test]
    fn last_of_a_double_key_counts() {
        assert_eq!(
            value("d: one\nm: {a: 1, a: 2}\nd: two\n"),
            Some(json!({"d": "two", "m": {"a": 2}}))
        );
    }

    #[test]
    fn keys_that_are_no_text_become_it() {
        assert_eq!(
            value("1: a\ntrue: b\n? [k]\n: c\n{j}: d\n"),
            Some(json!({"1": "a", "true": "b", "[\"k\"]": "c", "{\"j\":null}": "d"}))
        );
    }

    #[test]
    fn closing_brackets_may_stand_at_the_margin_but_entries_may_not() {
        assert_eq!(
            value("m: [\n  a,\n  b\n]\nn: |\n  {\n  }\n"),
            Some(json!({"m": ["a", "b"], "n": "{\n}\n"}))
        );
        assert_eq!(value("m: [a,\nb]\n"), None);
        assert_eq!(value("m: {a: b,\nc: d}\n"), None);
    }

    #[test]
    fn tabs_may_indent_lists_and_mappings_but_not_text() {
        let document = read("d: x\ntools:\n\t- Read\n  - Write\n").expect("tabs");
        assert_eq!(document.value["tools"], json!(["Read", "Write"]));
        assert_eq!(document.tab_line, Some(2));
        assert_eq!(value("m:\n\ta:\n\t\tb: 1\n"), Some(json!({"m": {"a": {"b": 1}}})));
        assert_eq!(
            value("x: |\n  foo\ny: z\ntools:\n\t- Read\n").map(|value| value["y"].clone()),
            Some(json!("z"))
        );
        for yaml in ["d: x\n\ty: z\n", "x: |\n\tfoo\n", "x: >-\n  foo\n\tbar\n", "x: [a,\n\tb]\n"] {
            assert_eq!(value(yaml), None, "{yaml:?}");
        }
        assert_eq!(read("x:\ty # tab between\n").expect("tab").tab_line, None);
    }

    #[test]
    fn characters_that_yaml_forbids_are_kept() {
        assert_eq!(
            value("d: a\u{feff}b\u{7}c\u{7f}\n"),
            Some(json!({"d": "a\u{feff}b\u{7}c\u{7f}"}))
        );
        assert_eq!(value("d: \u{f0007}\n"), Some(json!({"d": "\u{f0007}"})));
        assert_eq!(value("d: a\0b\n"), None);
    }

    #[test]
    fn errors_say_where() {
        let error = read("a: b\nc: [d\n").expect_err("unclosed");
        assert!(error.line >= 1 && !error.message.contains(" line "), "{error:?}");
    }

    #[test]
    fn hostile_yaml_is_refused_quickly() {
        assert_eq!(value(&"[".repeat(500_000)), None);
        assert_eq!(value(&"- ".repeat(500_000)), None);
        let mut bomb = "a0: &a0 [x, x]\n".to_owned();
        for level in 1..60 {
            bomb += &format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1);
        }
        assert_eq!(value(&bomb), None);
    }
}
