//! YAML events composed into a tree that knows where everything stands.
//!
//! The tree is an arena built without recursion. An alias refers to the node of its anchor instead of
//! copying it; each node knows how large and how deep it is with its aliases followed, so that an
//! alias bomb is refused when it is composed, before anything walks it.

use rustc_hash::FxHashMap;
use serde_json::Number;
use serde_saphyr::granit_parser::{
    self, ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Tag,
};

use super::diagnostic::{Diagnostics, Severity};
use super::source::{Source, Span};
use super::suggest::{did_you_mean, quote};
use super::{MAX_DEPTH, MAX_EXPANDED_BYTES};

/// What a value weighs besides its text.
const NODE_WEIGHT: usize = 32;

/// Index of a node in its tree.
pub(super) type NodeId = usize;

/// A value of the file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) kind: Kind,
    /// About how many bytes it has with aliases followed.
    weight: usize,
    /// How many levels of lists and maps it has with aliases followed.
    height: usize,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text {
        value: String,
        style: Style,
    },
    List(Vec<NodeId>),
    Map(Vec<Entry>),
    /// Something about which a diagnostic was pushed already.
    Broken,
}

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    /// `|`: lines are kept.
    Literal,
    /// `>`: lines are joined.
    Folded,
}

/// A key of a map with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: NodeId,
}

/// A file, composed.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Option<NodeId>,
    /// The whole file was read. When not, what is missing in the tree may stand in the rest.
    pub(super) is_complete: bool,
}

/// A list or map that is not finished.
struct Frame {
    start: usize,
    anchor: usize,
    weight: usize,
    height: usize,
    content: Content,
}

enum Content {
    List(Vec<NodeId>),
    Map(MapContent),
}

#[derive(Default)]
struct MapContent {
    entries: Vec<Entry>,
    seen: FxHashMap<String, Span>,
    /// The key whose value comes next; its text is missing when it is not a plain key.
    key: Option<(Option<String>, Span)>,
    merges: Vec<(NodeId, Span)>,
}

/// What an anchor stands for.
enum Anchor {
    Open,
    Done(NodeId),
}

struct Composer<'s, 'd> {
    source: &'s Source<'s>,
    diagnostics: &'d mut Diagnostics,
    tree: Tree,
    frames: Vec<Frame>,
    anchors: FxHashMap<usize, Anchor>,
    anchor_names: Vec<String>,
    documents: usize,
}

/// Composes the one document of a file; pushes a diagnostic for whatever is wrong with its YAML.
pub(super) fn compose(source: &Source<'_>, diagnostics: &mut Diagnostics) -> Tree {
    let mut composer = Composer {
        source,
        diagnostics,
        tree: Tree { is_complete: true, ..Tree::default() },
        frames: Vec::new(),
        anchors: FxHashMap::default(),
        anchor_names: Vec::new(),
        documents: 0,
    };
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    for next in Parser::new_from_str_with_options(source.text, options) {
        let goes_on = match next {
            Ok((event, span)) => composer.event(event, to_span(span)),
            Err(error) => {
                composer.scan_error(&error);
                false
            }
        };
        if !goes_on {
            break;
        }
    }
    // After an error, what is open is closed with what it has.
    while !composer.frames.is_empty() {
        composer.finish(source.text.len());
    }
    composer.tree
}

fn to_span(span: granit_parser::Span) -> Span {
    let range = span.byte_range().unwrap_or(0..0);
    Span::new(range.start, range.end)
}

fn offset_of(marker: &Marker) -> usize {
    marker.byte_offset().unwrap_or(0)
}

impl Composer<'_, '_> {
    fn error(&mut self, span: Span, message: String, hint: Option<String>) {
        self.diagnostics.push_at(self.source, Severity::Error, span, message, hint);
    }

    /// Takes one event; false when the rest of the file is not to be read.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.error(
                        span,
                        "a second document begins here".to_owned(),
                        Some(
                            "a file holds one workflow; put the second into a file of its own"
                                .to_owned(),
                        ),
                    );
                    return false;
                }
            }
            Event::Scalar(value, style, anchor, tag) => {
                let kind = self.scalar(&value, style, tag.as_deref(), span);
                let weight = NODE_WEIGHT + value.len();
                let id = self.add(Node { span, kind, weight, height: 0 });
                if anchor != 0 {
                    self.anchors.insert(anchor, Anchor::Done(id));
                }
                self.place(id, span);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span);
                self.open(span, anchor, Content::List(Vec::new()));
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span);
                self.open(span, anchor, Content::Map(MapContent::default()));
            }
            Event::SequenceEnd | Event::MappingEnd => self.finish(span.end),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::UnresolvedAlias(name) => {
                let hint = did_you_mean(&name, self.anchor_names.iter().map(String::as_str));
                let hint = hint.unwrap_or_else(|| {
                    format!("put `&{name}` before the value it stands for, further up; or quote it")
                });
                self.error(span, format!("there is no anchor {}", quote(&name)), Some(hint));
                let id = self.broken(span);
                self.place(id, span);
            }
            Event::Anchor(_, name) => self.anchor_names.push(name.into_owned()),
            _ => {}
        }
        true
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.tree.nodes.push(node);
        self.tree.nodes.len() - 1
    }

    fn broken(&mut self, span: Span) -> NodeId {
        self.add(Node { span, kind: Kind::Broken, weight: NODE_WEIGHT, height: 0 })
    }

    fn open(&mut self, span: Span, anchor: usize, content: Content) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor::Open);
        }
        self.frames.push(Frame {
            start: span.start,
            anchor,
            weight: NODE_WEIGHT,
            height: 1,
            content,
        });
    }

    /// Closes the innermost list or map.
    fn finish(&mut self, end: usize) {
        let Some(mut frame) = self.frames.pop() else {
            return;
        };
        let kind = match frame.content {
            Content::List(items) => Kind::List(items),
            Content::Map(mut map) => {
                for (value, span) in std::mem::take(&mut map.merges) {
                    frame.weight = frame.weight.saturating_add(self.merge(&mut map, value, span));
                }
                Kind::Map(map.entries)
            }
        };
        let span = Span::new(frame.start, end);
        let id = self.add(Node { span, kind, weight: frame.weight, height: frame.height });
        if frame.anchor != 0 {
            self.anchors.insert(frame.anchor, Anchor::Done(id));
        }
        self.place(id, span);
    }

    fn alias(&mut self, anchor: usize, span: Span) {
        let id = match self.anchors.get(&anchor) {
            Some(Anchor::Done(id)) => *id,
            _ => {
                self.error(
                    span,
                    format!(
                        "{} stands inside the value it stands for",
                        quote(self.source.slice(span))
                    ),
                    Some("a value cannot hold itself".to_owned()),
                );
                let id = self.broken(span);
                return self.place(id, span);
            }
        };
        let above = self.frames.iter().fold(0_usize, |sum, frame| sum.saturating_add(frame.weight));
        let node = &self.tree.nodes[id];
        let is_too_large = above.saturating_add(node.weight) > MAX_EXPANDED_BYTES;
        let is_too_deep = self.frames.len() + node.height > MAX_DEPTH;
        if is_too_large || is_too_deep {
            let what = if is_too_large { "large" } else { "deep" };
            self.error(
                span,
                format!("with its aliases followed this file is too {what}"),
                Some("write fewer aliases of aliases".to_owned()),
            );
            let id = self.broken(span);
            return self.place(id, span);
        }
        self.place(id, span);
    }

    /// Puts a finished node where it belongs: into the list, behind the key, or as the key itself.
    fn place(&mut self, id: NodeId, span: Span) {
        let (weight, height) = (self.tree.nodes[id].weight, self.tree.nodes[id].height);
        let Some(frame) = self.frames.last_mut() else {
            self.tree.root = Some(id);
            return;
        };
        frame.weight = frame.weight.saturating_add(weight);
        frame.height = frame.height.max(height + 1);
        match &mut frame.content {
            Content::List(items) => items.push(id),
            Content::Map(map) => match map.key.take() {
                Some((Some(key), key_span)) => self.insert(key, key_span, id),
                Some((None, _)) => {}
                None => {
                    let key = self.key_text(id, span);
                    if let Some(Frame { content: Content::Map(map), .. }) = self.frames.last_mut() {
                        map.key = Some((key, span));
                    }
                }
            },
        }
    }

    /// The text of a key as it is written, so that `1` and `true` are names like any other.
    fn key_text(&mut self, id: NodeId, span: Span) -> Option<String> {
        let node = &self.tree.nodes[id];
        let text = match &node.kind {
            Kind::Text { value, .. } => value.clone(),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => self.source.slice(node.span).to_owned(),
            Kind::List(_) | Kind::Map(_) => {
                self.error(
                    span,
                    "a list or a map cannot be a key".to_owned(),
                    Some("quote it if it starts with `{` or `[`: \"{{ input.name }}\"".to_owned()),
                );
                return None;
            }
            Kind::Broken => return None,
        };
        if text.is_empty() {
            self.error(span, "a key is missing before `:`".to_owned(), None);
            return None;
        }
        Some(text)
    }

    fn insert(&mut self, key: String, key_span: Span, value: NodeId) {
        let Some(Frame { content: Content::Map(map), .. }) = self.frames.last_mut() else {
            return;
        };
        if key == "<<" {
            map.merges.push((value, key_span));
            return;
        }
        if let Some(first) = map.seen.get(&key) {
            if self.diagnostics.is_full(Severity::Error) {
                return self.diagnostics.omit(Severity::Error);
            }
            let line = self.source.line_index(first.start) + 1;
            return self.error(
                key_span,
                format!("duplicate key {}", quote(&key)),
                Some(format!("it stands in line {line} already; remove one of them")),
            );
        }
        map.seen.insert(key.clone(), key_span);
        map.entries.push(Entry { key, key_span, value });
    }

    /// `<<: *defaults`: takes over the keys that the map does not have. Returns the weight added.
    fn merge(&mut self, map: &mut MapContent, value: NodeId, span: Span) -> usize {
        let sources = match &self.tree.nodes[value].kind {
            Kind::List(items) => items.clone(),
            Kind::Broken => return 0,
            _ => vec![value],
        };
        let mut weight = 0_usize;
        for id in sources {
            let Kind::Map(entries) = &self.tree.nodes[id].kind else {
                self.error(
                    span,
                    "`<<` takes over the keys of a map, but this is not one".to_owned(),
                    Some("write an alias of a map: `<<: *defaults`".to_owned()),
                );
                continue;
            };
            for entry in entries.clone() {
                if !map.seen.contains_key(&entry.key) {
                    weight = weight.saturating_add(self.tree.nodes[entry.value].weight);
                    map.seen.insert(entry.key.clone(), entry.key_span);
                    map.entries.push(entry);
                }
            }
        }
        weight
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, expected: &str, span: Span) {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema_tag(expected)
        {
            self.tag_error(tag, span);
        }
    }

    fn tag_error(&mut self, tag: &Tag, span: Span) {
        self.error(
            span,
            format!("the tag {} has no meaning here", quote(&tag.original())),
            Some("remove it, or quote the value if it is meant as text".to_owned()),
        );
    }

    fn scalar(&mut self, value: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Kind {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
            _ => Style::Quoted,
        };
        let text = |value: &str| Kind::Text { value: value.to_owned(), style };
        let Some(tag) = tag else {
            if style != Style::Plain {
                return text(value);
            }
            // The parser gives `~` for a value that is not there.
            return match plain(value) {
                Some(Kind::Broken) => {
                    let message = format!("{} is not a number that JSON knows", quote(value));
                    self.error(span, message, Some("quote it if it is meant as text".to_owned()));
                    Kind::Broken
                }
                Some(kind) => kind,
                None => text(value),
            };
        };
        let suffix = tag.core_suffix().map(|suffix| suffix.to_string());
        if suffix.as_deref() == Some("str") || tag.original() == "!" {
            return text(value);
        }
        let kind = plain(value);
        let fits = match (suffix.as_deref(), &kind) {
            (Some("null"), Some(Kind::Null)) | (Some("bool"), Some(Kind::Bool(_))) => true,
            (Some("int"), Some(Kind::Number(number))) => !number.is_f64(),
            (Some("float"), Some(Kind::Number(_))) => true,
            _ => false,
        };
        match kind {
            Some(kind) if fits => kind,
            _ => {
                self.tag_error(tag, span);
                Kind::Broken
            }
        }
    }

    fn scan_error(&mut self, error: &ScanError) {
        self.tree.is_complete = false;
        let at = offset_of(error.marker());
        let (message, hint) = explain(error, self.source.text.get(at..).unwrap_or_default());
        self.error(Span::new(at, at + 1), message, hint);
    }
}

/// A plain scalar by the core schema of YAML 1.2; `None` when it is text, broken when JSON has no
/// such number.
fn plain(value: &str) -> Option<Kind> {
    match value {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Kind::Null),
        "true" | "True" | "TRUE" => return Some(Kind::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Kind::Bool(false)),
        _ => {}
    }
    let unsigned = value.strip_prefix(['-', '+']).unwrap_or(value);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(value, ".nan" | ".NaN" | ".NAN") {
        return Some(Kind::Broken);
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        let digits = value.strip_prefix(prefix).unwrap_or_default();
        if !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)) {
            let number = u64::from_str_radix(digits, radix).ok().map(Number::from);
            return Some(number.map_or(Kind::Broken, Kind::Number));
        }
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !unsigned.chars().all(is_number) || !unsigned.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if unsigned.chars().all(|c| c.is_ascii_digit()) {
        let text = value.strip_prefix('+').unwrap_or(value);
        let number = text
            .parse::<i64>()
            .map(Number::from)
            .or_else(|_| text.parse::<u64>().map(Number::from));
        return Some(number.map_or(Kind::Broken, Kind::Number));
    }
    let float = value.parse::<f64>().ok()?;
    Some(Number::from_f64(float).map_or(Kind::Broken, Kind::Number))
}

/// What an error of the YAML parser means for the one who wrote the file.
fn explain(error: &ScanError, rest: &str) -> (String, Option<String>) {
    let hint = match error.kind() {
        ErrorKind::RecursionLimitExceeded => {
            return (format!("lists and maps are nested deeper than {MAX_DEPTH} levels"), None);
        }
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => Some("indent with spaces instead of tabs"),
        ErrorKind::UnclosedQuotedScalar => Some("close the quote"),
        ErrorKind::InvalidQuotedScalarIndent => {
            Some("close the quote that was opened further up, or indent the lines it goes on with")
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence => Some("close the bracket"),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            Some("quote a text that holds `: `, and indent keys of one map alike")
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey => {
            Some("indent keys of one map alike, and end each with `:`")
        }
        ErrorKind::UnexpectedCharacter { .. } => {
            Some("quote a text that starts with such a character")
        }
        ErrorKind::UnknownQuotedScalarEscape => {
            Some("double a backslash in \"...\", or use '...', in which it means nothing")
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator
            if rest.starts_with('}') || rest.starts_with(']') || rest.starts_with("{{") =>
        {
            Some("quote a template that starts a value: \"{{ input.name }}\"")
        }
        _ => None,
    };
    let info = error.kind().to_string();
    (format!("this is not YAML: {info}"), hint.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> String {
        match plain(text) {
            None => "text".to_owned(),
            Some(Kind::Number(number)) => number.to_string(),
            Some(kind) => format!("{kind:?}"),
        }
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let cases = [
            ("~", "Null"),
            ("TRUE", "Bool(true)"),
            ("yes", "text"),
            ("12", "12"),
            ("+12", "12"),
            ("-0", "0"),
            ("0o17", "15"),
            ("0xff", "255"),
            ("0x", "text"),
            ("1.5", "1.5"),
            ("1e3", "1000.0"),
            (".5", "0.5"),
            (".", "text"),
            ("...", "text"),
            ("-", "text"),
            ("1.2.3", "text"),
            ("1e", "text"),
            ("1-2", "text"),
            ("1h30m", "text"),
            ("-.inf", "Broken"),
            (".nan", "Broken"),
            ("99999999999999999999", "Broken"),
            ("18446744073709551615", "18446744073709551615"),
            ("1e999", "Broken"),
        ];
        for (text, expected) in cases {
            assert_eq!(kind_of(text), expected, "{text}");
        }
    }

    fn composed(text: &str) -> (Tree, Diagnostics) {
        let mut diagnostics = Diagnostics::default();
        let tree = compose(&Source::new(text), &mut diagnostics);
        (tree, diagnostics)
    }

    #[test]
    fn merges_add_only_what_is_missing() {
        let (tree, diagnostics) =
            composed("x: &d {a: 1, b: 2}\ny: {<<: *d, b: 3}\nz: {<<: [*d, {c: 4}]}\nw: {<<: 5}\n");
        let keys = |at: usize| -> Vec<String> {
            let Some(root) = tree.root else {
                return Vec::new();
            };
            let Kind::Map(entries) = &tree.nodes[root].kind else {
                return Vec::new();
            };
            let Kind::Map(inner) = &tree.nodes[entries[at].value].kind else {
                return Vec::new();
            };
            inner.iter().map(|entry| entry.key.clone()).collect()
        };
        assert_eq!(keys(1), ["b", "a"]);
        assert_eq!(keys(2), ["a", "b", "c"]);
        assert_eq!(diagnostics.len(), 1);
    }

    #[test]
    fn alias_bombs_are_refused_without_following_them() {
        let mut wide = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        let mut deep = String::from("a0: &a0 [x]\n");
        for level in 1..2_000 {
            let last = format!("*a{}", level - 1);
            wide.push_str(&format!("a{level}: &a{level} [{}]\n", vec![last.clone(); 10].join(",")));
            deep.push_str(&format!("a{level}: &a{level} [{last}]\n"));
        }
        for (text, word) in [(wide, "large"), (deep, "deep")] {
            let (_, diagnostics) = composed(&text);
            assert!(diagnostics.has_errors());
            assert!(diagnostics.to_string().contains(word), "{word}");
        }
    }
}
