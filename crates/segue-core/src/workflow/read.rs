//! The tree of a file turned into a workflow.
//!
//! Every function here takes what it can, pushes a diagnostic for what it cannot, and goes on, so
//! that one reading finds every mistake.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use serde_json::{Map, Number, Value};

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::duration::{parse_duration_ms, seconds_to_ms};
use super::fields::{self, Field};
use super::graph::{self, Edge, Via};
use super::model::{Checked, Workflow};
use super::node::{self, Entry, Kind, NodeId, Tree};
use super::source::{Source, Span};
use super::suggest::{closest, did_you_mean, quote};
use super::{MAX_FILE_BYTES, MAX_NAME_CHARS};

/// Reads a workflow file and checks all of it.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file. Hostile input (not text, too large,
/// nested too deeply, alias bombs) gives an error like any other.
pub fn parse(file: &[u8]) -> Result<Checked, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let Some(text) = text_of(file, &mut diagnostics) else {
        return Err(diagnostics);
    };
    let source = Source::new(text);
    let tree = node::compose(&source, &mut diagnostics);
    let mut reader = Reader {
        source: &source,
        tree: &tree,
        diagnostics: &mut diagnostics,
        task_names: Vec::new(),
        task_set: FxHashSet::default(),
        inputs: FxHashSet::default(),
        inputs_are_known: true,
    };
    let workflow = reader.workflow();
    diagnostics.sort();
    match workflow {
        Some(workflow) if !diagnostics.has_errors() => {
            Ok(Checked { workflow, warnings: diagnostics })
        }
        _ => Err(diagnostics),
    }
}

/// The text of a file, unless it is too large or not text.
fn text_of<'a>(file: &'a [u8], diagnostics: &mut Diagnostics) -> Option<&'a str> {
    let mut whole = |message: String, hint: &str| {
        diagnostics.push(Diagnostic {
            severity: Severity::Error,
            message,
            line: 0,
            column: 0,
            length: 0,
            hint: Some(hint.to_owned()),
        });
    };
    if file.len() > MAX_FILE_BYTES {
        let message =
            format!("the file has {} bytes, at most {MAX_FILE_BYTES} are allowed", file.len());
        whole(message, "let a task read large data from a file of its own");
        return None;
    }
    if file.starts_with(&[0xff, 0xfe]) || file.starts_with(&[0xfe, 0xff]) {
        whole("the file is in UTF-16".to_owned(), "save it as UTF-8");
        return None;
    }
    let (valid, wrong) = match std::str::from_utf8(file) {
        Ok(text) => (text, text.find('\0').map(|at| (at, "a NUL byte stands here"))),
        Err(error) => {
            let at = error.valid_up_to();
            let valid = std::str::from_utf8(&file[..at]).unwrap_or_default();
            let nul = valid.find('\0').map(|at| (at, "a NUL byte stands here"));
            (valid, nul.or(Some((at, "the file is not UTF-8 from here on"))))
        }
    };
    let Some((at, message)) = wrong else {
        return Some(valid);
    };
    let source = Source::new(valid);
    let hint = "a workflow is a text file in UTF-8; is this the right file?".to_owned();
    diagnostics.push_at(
        &source,
        Severity::Error,
        Span::new(at, at),
        message.to_owned(),
        Some(hint),
    );
    None
}

/// The entries of a map whose keys are known, by name.
#[derive(Default)]
pub(super) struct Found<'a> {
    entries: BTreeMap<&'static str, &'a Entry>,
    /// Keys that an unknown key was probably meant for, so that they are not reported missing too.
    meant: FxHashSet<&'static str>,
}

impl<'a> Found<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Entry> {
        self.entries.get(name).copied()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub(super) fn is_meant(&self, name: &str) -> bool {
        self.meant.contains(name)
    }
}

/// Where a template stands.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub(super) via: Via,
    pub(super) is_expression: bool,
    pub(super) has_item: bool,
}

pub(super) struct Reader<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) tree: &'a Tree,
    pub(super) diagnostics: &'a mut Diagnostics,
    /// Names of all tasks, in the order of the file.
    pub(super) task_names: Vec<&'a str>,
    /// The same, to look up.
    pub(super) task_set: FxHashSet<&'a str>,
    /// Names of all inputs.
    pub(super) inputs: FxHashSet<&'a str>,
    /// No input stands where it was not read.
    pub(super) inputs_are_known: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        let message = message.into();
        self.diagnostics.push_at(self.source, Severity::Error, span, message, hint);
    }

    pub(super) fn warn(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        let message = message.into();
        self.diagnostics.push_at(self.source, Severity::Warning, span, message, hint);
    }

    pub(super) fn kind(&self, id: NodeId) -> &'a Kind {
        &self.tree.nodes[id].kind
    }

    pub(super) fn span(&self, id: NodeId) -> Span {
        self.tree.nodes[id].span
    }

    /// What a value is, in plain words.
    pub(super) fn describe(&self, id: NodeId) -> String {
        match self.kind(id) {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(_) => quote(self.source.slice(self.span(id))),
            Kind::Number(_) => format!("the number {}", self.source.slice(self.span(id))),
            Kind::Text { value, .. } => format!("the text {}", quote(value)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Broken => "broken".to_owned(),
        }
    }

    /// Says that a key has another kind of value than it takes.
    pub(super) fn wrong_kind(&mut self, entry: &Entry, wanted: &str, hint: Option<&str>) {
        let key = quote(&entry.key);
        match self.kind(entry.value) {
            Kind::Broken => {}
            // Where the file could not be read on, the value may stand in the rest.
            Kind::Null if !self.tree.is_complete => {}
            Kind::Null => {
                let hint =
                    hint.map_or_else(|| format!("give it {wanted}, or remove it"), str::to_owned);
                self.error(entry.key_span, format!("{key} has no value"), Some(hint));
            }
            _ => {
                let message =
                    format!("{key} must be {wanted}, but this is {}", self.describe(entry.value));
                self.error(self.span(entry.value), message, hint.map(str::to_owned));
            }
        }
    }

    pub(super) fn empty(&mut self, entry: &Entry, hint: &str) {
        let message = format!("{} is empty", quote(&entry.key));
        self.error(entry.key_span, message, Some(hint.to_owned()));
    }

    /// The entries of a map, checked against the keys that it may have.
    pub(super) fn fields(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
        known: &'static [Field],
        of: &str,
    ) -> Found<'a> {
        let mut found = Found::default();
        for entry in entries {
            match known.iter().find(|field| field.name == entry.key) {
                Some(field) => {
                    found.entries.insert(field.name, entry);
                }
                None => found.meant.extend(self.unknown_key(entry, known, of)),
            }
        }
        found
    }

    /// Reports a key that is not known; gives the key that was probably meant.
    fn unknown_key(
        &mut self,
        entry: &Entry,
        known: &'static [Field],
        of: &str,
    ) -> Option<&'static str> {
        let meant = match entry.key.as_str() {
            "depends_on" | "depends" | "dependsOn" | "after" => Some("needs"),
            "if" | "condition" => Some("when"),
            "foreach" | "forEach" | "with_items" | "loop" | "matrix" => Some("for_each"),
            "inputs" | "args" | "with" | "params" | "arguments" => Some("input"),
            "retries" => Some("retry"),
            "outputs" => Some("output"),
            "steps" | "jobs" | "nodes" => Some("tasks"),
            "concurrency" | "parallel" | "max_concurrency" => Some("max_parallel"),
            other => closest(other, known.iter().map(|field| field.name)),
        };
        let field = known.iter().find(|field| Some(field.name) == meant);
        let meant = field.map(|field| field.name);
        let hint = meant.map_or_else(
            || {
                let all: Vec<_> = known.iter().map(|field| field.name).collect();
                format!("known keys are: {}", all.join(", "))
            },
            |name| format!("did you mean `{name}`?"),
        );
        let message = format!("unknown key {} in {of}", quote(&entry.key));
        self.error(entry.key_span, message, Some(hint));
        meant
    }

    pub(super) fn text(&mut self, entry: &Entry) -> Option<&'a str> {
        match self.kind(entry.value) {
            Kind::Text { value, .. } => Some(value),
            Kind::Bool(_) | Kind::Number(_) => {
                self.wrong_kind(entry, "a text", Some("put it in quotes"));
                None
            }
            _ => {
                self.wrong_kind(entry, "a text", None);
                None
            }
        }
    }

    /// A text that names an agent or a capability.
    pub(super) fn target_name(&mut self, entry: &Entry) -> Option<String> {
        const NAME_CHARS_MAX: usize = 200;
        let text = self.text(entry)?;
        let key = quote(&entry.key);
        let wrong = if text.trim().is_empty() {
            Some(format!("{key} is empty"))
        } else if crate::template::is_template(text) {
            Some(format!("{key} is not a template: it is fixed before the run starts"))
        } else if text.chars().count() > NAME_CHARS_MAX || text.chars().any(char::is_control) {
            Some(format!("{} cannot be a name", quote(text)))
        } else {
            None
        };
        match wrong {
            Some(message) => {
                self.error(self.span(entry.value), message, None);
                None
            }
            None => Some(text.to_owned()),
        }
    }

    pub(super) fn duration(&mut self, entry: &Entry) -> Option<u64> {
        let read = match self.kind(entry.value) {
            Kind::Text { value, .. } => parse_duration_ms(value),
            Kind::Number(number) => {
                let written = self.source.slice(self.span(entry.value));
                seconds_to_ms(number.as_f64().unwrap_or(f64::NAN), written)
            }
            _ => {
                self.wrong_kind(
                    entry,
                    "a duration",
                    Some("write for example `90s`, `5m` or `1h30m`"),
                );
                return None;
            }
        };
        match read {
            Ok(ms) => Some(ms),
            Err(message) => {
                let (message, hint) = match message.split_once("; ") {
                    Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
                    None => (message, None),
                };
                self.error(self.span(entry.value), message, hint);
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn count(&mut self, entry: &Entry, max: u64) -> Option<u32> {
        let number = match self.kind(entry.value) {
            Kind::Number(number) => whole(number),
            _ => {
                self.wrong_kind(entry, "a whole number", None);
                return None;
            }
        };
        match number.filter(|number| (1..=max).contains(number)) {
            Some(number) => u32::try_from(number).ok(),
            None => {
                let message =
                    format!("{} must be a whole number from 1 to {max}", quote(&entry.key));
                self.error(self.span(entry.value), message, None);
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, entry: &Entry) -> Option<bool> {
        match self.kind(entry.value) {
            Kind::Bool(flag) => Some(*flag),
            _ => {
                self.wrong_kind(entry, "`true` or `false`", Some("write `true` or `false`"));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, entry: &Entry, words: &[(&str, T)]) -> Option<T> {
        let all =
            || words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let Kind::Text { value, .. } = self.kind(entry.value) else {
            self.wrong_kind(entry, &format!("one of {}", all()), None);
            return None;
        };
        if let Some((_, found)) = words.iter().find(|(word, _)| word == value) {
            return Some(*found);
        }
        let known = words.iter().map(|(word, _)| *word);
        let hint = did_you_mean(value, known).unwrap_or_else(|| format!("it is one of {}", all()));
        let message = format!("{} cannot be {}", quote(&entry.key), quote(value));
        self.error(self.span(entry.value), message, Some(hint));
        None
    }

    /// Whether a name can be used for a task or an input.
    pub(super) fn check_name(&mut self, entry: &Entry, what: &str) {
        let name = &entry.key;
        let first_is_right = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let rest_is_right = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !(first_is_right && rest_is_right) || name.len() > MAX_NAME_CHARS {
            let hint = format!(
                "a name starts with a letter, goes on with letters, digits, `_` and `-`, and has at \
                 most {MAX_NAME_CHARS} characters"
            );
            self.error(
                entry.key_span,
                format!("{} cannot be the name of {what}", quote(name)),
                Some(hint),
            );
        }
    }

    fn workflow(&mut self) -> Option<Workflow> {
        let entries = self.root()?;
        let known = entries.iter().filter(|entry| !entry.key.starts_with("x-"));
        let found = self.fields(known, fields::WORKFLOW, "a workflow");
        self.inputs_are_known = self.tree.is_complete && !found.is_meant("input");
        let input = found.get("input").map(|entry| self.inputs(entry)).unwrap_or_default();
        if !found.has("tasks") && !found.is_meant("tasks") && self.tree.is_complete {
            let hint = "add `tasks:` with at least one task";
            self.error(Span::default(), "the workflow has no `tasks`", Some(hint.to_owned()));
        }
        let raw = found.get("tasks").map(|entry| self.tasks(entry)).unwrap_or_default();
        let output = found.get("output").map(|entry| {
            let scope = Scope { via: Via::Output, is_expression: false, has_item: false };
            let mut edges = Vec::new();
            let value = self.value(entry.value, Some(scope), &mut edges);
            self.known_tasks_only(&edges);
            value
        });
        let name = found.get("name").and_then(|entry| self.text(entry)).map(str::to_owned);
        let description = found.get("description").and_then(|entry| self.text(entry));
        let timeout_ms = found.get("timeout").and_then(|entry| self.duration(entry));
        let max_parallel =
            found.get("max_parallel").and_then(|entry| self.count(entry, fields::MAX_PARALLEL));
        let tasks = graph::link(self, raw);
        Some(Workflow {
            name,
            description: description.map(str::to_owned),
            input,
            output,
            timeout_ms,
            max_parallel,
            tasks,
        })
    }

    fn root(&mut self) -> Option<&'a [Entry]> {
        let hint = Some("a workflow starts with `tasks:`".to_owned());
        let Some(root) = self.tree.root else {
            if self.tree.is_complete {
                self.error(Span::default(), "the file is empty", hint);
            }
            return None;
        };
        match self.kind(root) {
            Kind::Map(entries) => Some(entries),
            Kind::Broken => None,
            Kind::Null => {
                self.error(Span::default(), "the file is empty", hint);
                None
            }
            _ => {
                let message = format!("a workflow is a map, but this is {}", self.describe(root));
                self.error(self.span(root), message, hint);
                None
            }
        }
    }

    /// A value as JSON. With a scope, its texts are templates and are checked.
    pub(super) fn value(
        &mut self,
        id: NodeId,
        scope: Option<Scope>,
        edges: &mut Vec<Edge>,
    ) -> Value {
        match self.kind(id) {
            Kind::Null | Kind::Broken => Value::Null,
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text { value, .. } => {
                if let Some(scope) = scope {
                    self.template(id, value, scope, edges);
                }
                Value::String(value.clone())
            }
            Kind::List(items) => {
                Value::Array(items.iter().map(|item| self.value(*item, scope, edges)).collect())
            }
            Kind::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    if scope.is_some() && crate::template::is_template(&entry.key) {
                        let hint = "only values are rendered; a quoted value may hold a template";
                        self.warn(entry.key_span, "a key is not a template", Some(hint.to_owned()));
                    }
                    map.insert(entry.key.clone(), self.value(entry.value, scope, edges));
                }
                Value::Object(map)
            }
        }
    }
}

/// A number without a fraction that is not negative.
pub(super) fn whole(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
        (0.0..=1e15).contains(&float).then_some(float as u64)
    })
}
