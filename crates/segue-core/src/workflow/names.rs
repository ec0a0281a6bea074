//! Templates of a file: their mistakes at their place in the file, and the names they read.

use std::ops::Range;

use rustc_hash::FxHashSet;

use super::diagnostic::Severity;
use super::graph::{Edge, Via};
use super::node::{Kind, Node, NodeId, Style};
use super::read::{Reader, Scope};
use super::source::{Source, Span};
use super::suggest::{did_you_mean, quote};
use crate::template::{self, Reference, Root, TemplateError};

/// What a task has behind `tasks.NAME.`.
const TASK_FIELDS: &[&str] = &["output", "state", "error"];

/// A text of the file, with where it stands.
struct Place<'t> {
    id: NodeId,
    text: &'t str,
    /// Where it begins, in bytes, when it stands in the file as it is.
    start: Option<usize>,
    /// Else, for a `|` block: its lines, of which each is a line of the file, moved right.
    lines: Option<Source<'t>>,
    /// How many lines of the block are blank before its first, where its span begins.
    blank: usize,
}

impl Reader<'_> {
    /// Checks a template or expression; adds the tasks it reads to `edges`.
    pub(super) fn template(&mut self, id: NodeId, text: &str, scope: Scope, edges: &mut Vec<Edge>) {
        if !scope.is_expression && !template::is_template(text) {
            return;
        }
        let checked = if scope.is_expression {
            template::check_expression(text)
        } else {
            template::check_text(text)
        };
        let place = &self.place(id, text);
        match checked {
            Ok(references) => {
                // What is read twice is checked once.
                let mut seen = FxHashSet::default();
                for reference in &references {
                    let head = &reference.path[..reference.path.len().min(2)];
                    if seen.insert((reference.root, head, reference.computed)) {
                        self.reference(place, scope, reference, edges);
                    }
                }
            }
            Err(errors) => {
                for error in errors {
                    self.template_error(place, error);
                }
            }
        }
    }

    fn place<'t>(&self, id: NodeId, text: &'t str) -> Place<'t> {
        let Node { span, kind, .. } = &self.tree.nodes[id];
        let found = self.source.slice(*span).find(text).filter(|_| !text.is_empty());
        let is_block = matches!(kind, Kind::Text { style: Style::Literal, .. });
        Place {
            id,
            text,
            start: found.map(|at| span.start + at),
            lines: (found.is_none() && is_block).then(|| Source::new(text)),
            blank: text.lines().take_while(|line| line.trim().is_empty()).count(),
        }
    }

    fn template_error(&mut self, place: &Place<'_>, error: TemplateError) {
        let text = place.text;
        if self.diagnostics.is_full(Severity::Error) {
            return self.error(self.span(place.id), error.message, None);
        }
        let range = error.span.clone().unwrap_or(0..text.len());
        let word = text.get(range.clone()).unwrap_or_default();
        let mut hint = error.hint;
        if error.is_unknown_name {
            let hyphened = hyphened_word(text, &range);
            if self.is_task(word) {
                hint = Some(format!("write `tasks.{word}`"));
            } else if self.is_task(hyphened) {
                hint = Some(format!(
                    "write `tasks['{hyphened}']`: in `tasks.{hyphened}` the hyphen is a minus"
                ));
            } else if self.inputs.contains(word) {
                hint = Some(format!("write `input.{word}`"));
            }
        }
        let span = self.locate(place, range);
        self.error(span, error.message, hint);
    }

    /// Checks one name that a template reads.
    fn reference(
        &mut self,
        place: &Place<'_>,
        scope: Scope,
        reference: &Reference,
        edges: &mut Vec<Edge>,
    ) {
        let at = self.locate(place, reference.name_span());
        match reference.root {
            Root::Tasks => self.task_reference(place, scope, reference, edges),
            Root::Input => {
                let Some(name) = reference.input() else {
                    return;
                };
                let is_unknown = !self.inputs.contains(name) && self.inputs_are_known;
                if is_unknown && self.diagnostics.is_full(Severity::Error) {
                    self.diagnostics.omit(Severity::Error);
                } else if is_unknown {
                    let known: Vec<&str> = self.inputs.iter().copied().collect();
                    let hint = did_you_mean(name, known.into_iter())
                        .unwrap_or_else(|| "declare it under `input:`".to_owned());
                    let message = format!("the workflow has no input {}", quote(name));
                    self.error(at, message, Some(hint));
                }
            }
            Root::Item | Root::Index if !scope.has_item => {
                let word = if reference.root == Root::Item { "item" } else { "index" };
                let hint = match scope.via {
                    Via::ForEach => "the list is there before its items".to_owned(),
                    Via::Output => "the run as a whole has no items".to_owned(),
                    _ => "add `for_each`, or read `tasks` or `input`".to_owned(),
                };
                self.error(at, format!("there is no `{word}` here"), Some(hint));
            }
            Root::Run => {
                let known = reference.path.first().is_none_or(|field| field == "id");
                if !known {
                    let hint = "it has `id`".to_owned();
                    self.error(
                        at,
                        format!("`run` has no {}", quote(&reference.path[0])),
                        Some(hint),
                    );
                }
            }
            // Whatever its key: whether it is there is known when it is rendered.
            Root::Item | Root::Index | Root::State => {}
        }
    }

    fn task_reference(
        &mut self,
        place: &Place<'_>,
        scope: Scope,
        reference: &Reference,
        edges: &mut Vec<Edge>,
    ) {
        let at = self.locate(place, reference.name_span());
        let Some(name) = reference.task() else {
            let hint = "name the task: `tasks.scan.output`, or `tasks['my-scan'].output`";
            let message = if reference.computed {
                "the name of the task must be written out"
            } else {
                "`tasks` alone cannot be read"
            };
            return self.error(at, message, Some(hint.to_owned()));
        };
        edges.push(Edge { to: name.to_owned(), span: at, via: scope.via });
        let (Some(field), Some(range)) = (reference.path.get(1), reference.spans.get(1)) else {
            if !reference.computed {
                let hint = format!(
                    "it has {}; write for example `.output` behind it",
                    TASK_FIELDS.join(", ")
                );
                self.warn(at, format!("task {} is read as a whole", quote(name)), Some(hint));
            }
            return;
        };
        if !TASK_FIELDS.contains(&field.as_str()) {
            let hint = did_you_mean(field, TASK_FIELDS.iter().copied()).unwrap_or_else(|| {
                format!("it has {}; what it brings is below `output`", TASK_FIELDS.join(", "))
            });
            let span = self.locate(place, range.clone());
            self.error(span, format!("a task has no {}", quote(field)), Some(hint));
        }
    }

    /// Where a part of a text stands in the file: exactly, when the text stands there as it is.
    fn locate(&self, place: &Place<'_>, range: Range<usize>) -> Span {
        let node = &self.tree.nodes[place.id];
        let raw = self.source.slice(node.span);
        let at = |start: usize| Span::new(start, start + range.len());
        if let Some(start) = place.start {
            return at(start + range.start);
        }
        if let Some(start) = self.locate_in_block(place, range.start) {
            return at(start);
        }
        // A folded or escaped text: the same words stand somewhere in it.
        let word = place.text.get(range.clone()).unwrap_or_default();
        match raw.find(word).filter(|_| !word.is_empty()) {
            Some(found) => at(node.span.start + found),
            None => node.span,
        }
    }

    fn locate_in_block(&self, place: &Place<'_>, offset: usize) -> Option<usize> {
        let lines = place.lines.as_ref()?;
        let line = lines.line_index(offset);
        let line_start = lines.line_start(line)?;
        let first = self.source.line_index(self.span(place.id).start);
        let index = first + line.checked_sub(place.blank)?;
        let column = self.source.line(index)?.find(lines.line(line)?)?;
        Some(self.source.line_start(index)? + column + offset - line_start)
    }

    /// Checks the tasks that the workflow's output reads.
    pub(super) fn known_tasks_only(&mut self, edges: &[Edge]) {
        for edge in edges {
            if !self.is_task(&edge.to) {
                self.unknown_task(edge);
            }
        }
    }

    pub(super) fn unknown_task(&mut self, edge: &Edge) {
        // In a file that was not read to its end the task may stand in the rest.
        if !self.tree.is_complete {
            return;
        }
        let message = format!("there is no task {}", quote(&edge.to));
        if self.diagnostics.is_full(Severity::Error) {
            return self.error(edge.span, message, None);
        }
        let hint = did_you_mean(&edge.to, self.task_names.iter().copied()).unwrap_or_else(|| {
            let mut names: Vec<_> =
                self.task_names.iter().take(10).map(|name| quote(name)).collect();
            if self.task_names.len() > 10 {
                names.push("...".to_owned());
            }
            format!("the tasks are {}", names.join(", "))
        });
        self.error(edge.span, message, Some(hint));
    }
}

/// The word around a range with its hyphens: `my-task` for `task` in `tasks.my-task.output`.
fn hyphened_word<'t>(text: &'t str, range: &Range<usize>) -> &'t str {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (Some(before), Some(after)) = (text.get(..range.start), text.get(range.end..)) else {
        return "";
    };
    let start = before.trim_end_matches(belongs).len();
    let end = text.len() - after.trim_start_matches(belongs).len();
    &text[start..end]
}
