//! Collects what is odd about one file, with the line it is on.

use std::path::Path;

use serde_json::Value;

use super::model::{Notice, Severity};

/// Collects notices about one file.
pub(super) struct Notices<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its front matter, once there is one.
    pub yaml: &'a str,
    /// The line on which the front matter starts.
    pub line: usize,
    /// What is odd so far.
    pub list: Vec<Notice>,
}

impl Notices<'_> {
    /// A notice at a line.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        line: Option<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.list.push(Notice {
            severity,
            path: self.path.to_owned(),
            line,
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// A warning at the line of a key.
    pub(super) fn warn(
        &mut self,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let line = self.line_of(key);
        self.add(Severity::Warning, Some(line), message, remedy);
    }

    /// Why the file is not loaded, at the line of a key.
    pub(super) fn skip(
        &mut self,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let line = self.line_of(key);
        self.add(Severity::Skipped, Some(line), message, remedy);
    }

    /// The line of the last `key:` among the outermost keys; the first line if there is none
    /// to see (as in `{name: x}`).
    pub(super) fn line_of(&self, key: &str) -> usize {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let lines = || {
            self.yaml.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'))
        };
        let outermost =
            lines().filter(|(_, line)| !line.trim().is_empty()).map(|(_, line)| indent(line)).min();
        lines()
            .filter(|(_, line)| Some(indent(line)) == outermost && key_of(line) == Some(key))
            .last()
            .map_or(self.line.saturating_sub(1).max(1), |(number, _)| self.line + number)
    }
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(':')?;
    Some(key.trim().trim_matches(['"', '\'']))
}

/// What kind of value stands where text should.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "an empty text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// A value as it may stand in a message, cut short.
pub(super) fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}..`", text.get(..end).unwrap_or_default()),
        None => format!("`{text}`"),
    }
}
