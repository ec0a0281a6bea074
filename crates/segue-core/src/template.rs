//! Rendering of task inputs and conditions from immutable outputs.
//!
//! A template is text with Jinja expressions, rendered by minijinja with strict undefined: a name
//! that is not there is an error, never an empty text. A string that is exactly one `{{ expression }}`
//! keeps the type of its value, so that a list stays a list; any other string becomes text, in which
//! lists and maps stand as JSON. Keys are not templates.
//!
//! # What a template can read
//!
//! | name | is |
//! |---|---|
//! | `input.NAME` | the input of the run |
//! | `tasks.NAME.output`, `.state`, `.error` | what a task ended with; `tasks['my-task']` for a name with a hyphen |
//! | `item`, `index` | the element of `for_each` and its position, from 0 |
//! | `run.id` | the run |
//! | `state.KEY`, `state['KEY']` | what stands under a key of shared state when the template is rendered |
//!
//! # Limits
//!
//! Templates come from users, so they are bounded, and every bound is an error with a place:
//!
//! - an expression has at most [`MAX_EXPRESSION_BYTES`], [`MAX_OPERATORS`] operators and
//!   [`MAX_NESTING`] levels of brackets; a template has at most [`MAX_TEMPLATE_BYTES`]. This is
//!   checked on tokens, before anything recurses, so that no input overflows the stack;
//! - a rendered text has at most [`MAX_TEXT_BYTES`], and so has the result of every filter that can
//!   make text grow; a rendered value has at most [`MAX_VALUE_BYTES`];
//! - `*` multiplies numbers only (both operands are checked while it runs), so `'x' * 100000000` is an
//!   error; `~` and `+` are refused when what they could join exceeds [`MAX_JOIN_BYTES`];
//! - the engine takes at most [`MAX_STEPS`] steps, and filters go through at most [`MAX_WORK`] items
//!   and bytes.
//!
//! What is not bounded is time as such: comparing two large values is one step. The worst that these
//! limits leave is seconds of work and about 100 MB of memory.
//!
//! `{% if %}` and `{% for %}` may be used in text; `set`, `macro`, `include` and the like may not,
//! because a variable that is assigned can double a text with every line.

mod check;
mod data;
mod engine;
mod lex;
mod prepare;
mod reference;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value as Dynamic};
use minijinja::{Error, ErrorKind};
use serde_json::Value;

pub use reference::{Reference, Root};

pub use engine::{FILTERS, FUNCTIONS, Filter, TESTS};

use prepare::{Prepared, prepare};

use crate::workflow::suggest::quote;

/// Most bytes of one expression.
pub const MAX_EXPRESSION_BYTES: usize = 4 * 1024;
/// Most bytes of one template, its text included.
pub const MAX_TEMPLATE_BYTES: usize = 256 * 1024;
/// Most operators in one expression; `.`, `|`, brackets and `not` count.
pub const MAX_OPERATORS: usize = 256;
/// Deepest nesting of brackets in an expression, and of statements in a template.
pub const MAX_NESTING: usize = 32;
/// Most bytes of one rendered text and of what a filter returns.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Most bytes, as JSON, of a rendered value with everything in it.
pub const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes that the `~` and `+` of one expression could join.
pub const MAX_JOIN_BYTES: usize = 64 * 1024 * 1024;
/// Most steps of the engine for one template.
pub const MAX_STEPS: u64 = 500_000;
/// Most items and bytes that the filters of one template go through.
pub const MAX_WORK: usize = 32 * 1024 * 1024;
/// Deepest nesting of data, on its way in and on its way out.
pub const MAX_DATA_DEPTH: usize = 128;
/// Most mistakes that are reported of one template.
pub const MAX_PROBLEMS: usize = 20;
/// Most items that [`eval_list`] returns.
pub const MAX_FOR_EACH_ITEMS: usize = 10_000;

/// A template that cannot be rendered, or an expression that cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// The template or expression it is wrong in.
    pub template: Arc<str>,
    /// Where in `template`, in bytes, when it is known.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where the template stands in the value that was rendered, as in `files[0].name`; else empty.
    pub path: String,
    /// What is wrong is that the name at `span` is unknown.
    pub(crate) is_unknown_name: bool,
}

impl TemplateError {
    /// The line in the template, from 1, when it is known.
    pub fn line(&self) -> Option<usize> {
        let before = self.template.get(..self.span.as_ref()?.start)?;
        Some(before.matches('\n').count() + 1)
    }

    fn describe(&self) -> String {
        let mut out = self.message.clone();
        let part = self.span.clone().and_then(|span| self.template.get(span));
        match part {
            Some(part) if !part.is_empty() && part.len() < self.template.len() => {
                out.push_str(&format!(", at {} in {}", quote(part), quote(&self.template)));
            }
            _ => out.push_str(&format!(", in {}", quote(&self.template))),
        }
        if !self.path.is_empty() {
            out.push_str(&format!(" ({})", self.path));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("; {hint}"));
        }
        out
    }
}

/// A problem before it is joined with the template it is in.
#[derive(Clone, Debug)]
struct Problem {
    message: String,
    span: Range<usize>,
    hint: Option<String>,
    is_unknown_name: bool,
}

impl Problem {
    fn new(message: impl Into<String>, span: Range<usize>) -> Problem {
        Problem { message: message.into(), span, hint: None, is_unknown_name: false }
    }

    fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    fn within(self, template: &Arc<str>) -> TemplateError {
        TemplateError {
            message: self.message,
            template: template.clone(),
            span: Some(self.span),
            hint: self.hint,
            path: String::new(),
            is_unknown_name: self.is_unknown_name,
        }
    }
}

/// How a task ended, as templates see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndState {
    /// It brought an output.
    Completed,
    /// It failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its `when` was false, or what it needs failed with `on_failure: skip`.
    Skipped,
}

impl EndState {
    /// The word that `tasks.NAME.state` gives.
    pub fn as_str(self) -> &'static str {
        match self {
            EndState::Completed => "completed",
            EndState::Failed => "failed",
            EndState::Cancelled => "cancelled",
            EndState::Skipped => "skipped",
        }
    }
}

impl fmt::Display for EndState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task that ended, as templates see it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// `tasks.NAME.state`.
    pub state: EndState,
    /// `tasks.NAME.output`; null unless it completed.
    pub output: Value,
    /// `tasks.NAME.error`; null when there is none.
    pub error: Option<Value>,
}

/// What templates can read. Cheap to clone; the data is shared.
#[derive(Clone, Debug)]
pub struct Context {
    root: Arc<Names>,
}

#[derive(Clone, Debug)]
struct Names {
    input: Dynamic,
    tasks: Dynamic,
    item: Option<Dynamic>,
    index: Option<Dynamic>,
    run: Option<Dynamic>,
    state: Dynamic,
}

impl Names {
    fn get(&self, name: &str) -> Option<Dynamic> {
        match name {
            "input" => Some(self.input.clone()),
            "tasks" => Some(self.tasks.clone()),
            "item" => self.item.clone(),
            "index" => self.index.clone(),
            "run" => self.run.clone(),
            "state" => Some(self.state.clone()),
            _ => None,
        }
    }
}

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &Dynamic) -> Option<Dynamic> {
        self.get(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Dynamic> {
        self.get(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(check::ROOTS)
    }
}

impl Context {
    /// What a task of a run can read: the run's input, and the tasks it waited for.
    pub fn new(input: &Value, tasks: &BTreeMap<String, TaskView>) -> Context {
        let entries = tasks.iter().map(|(name, task)| {
            let error = task.error.as_ref().map_or(Dynamic::from(()), data::from_json);
            let fields = vec![
                (Arc::from("state"), Dynamic::from(task.state.as_str())),
                (Arc::from("output"), data::from_json(&task.output)),
                (Arc::from("error"), error),
            ];
            (Arc::from(name.as_str()), Dynamic::from_object(data::JsonMap::new(fields)))
        });
        Context {
            root: Arc::new(Names {
                input: data::from_json(input),
                tasks: Dynamic::from_object(data::JsonMap::new(entries.collect())),
                item: None,
                index: None,
                run: None,
                state: Dynamic::from_object(data::JsonMap::new(Vec::new())),
            }),
        }
    }

    /// The same with the element of a `for_each` and its position, from 0.
    #[must_use]
    pub fn with_item(&self, item: &Value, index: usize) -> Context {
        let mut names = Names::clone(&self.root);
        names.item = Some(data::from_json(item));
        names.index = Some(Dynamic::from(index as u64));
        Context { root: Arc::new(names) }
    }

    /// The same with the run's id.
    #[must_use]
    pub fn with_run(&self, id: &str) -> Context {
        let mut names = Names::clone(&self.root);
        let fields = vec![(Arc::from("id"), Dynamic::from(id))];
        names.run = Some(Dynamic::from_object(data::JsonMap::new(fields)));
        Context { root: Arc::new(names) }
    }

    /// The same with what stands under these keys of shared state.
    #[must_use]
    pub fn with_state(&self, values: &BTreeMap<String, Value>) -> Context {
        let mut names = Names::clone(&self.root);
        let entry =
            |(key, value): (&String, &Value)| (Arc::from(key.as_str()), data::from_json(value));
        let entries = values.iter().map(entry).collect();
        names.state = Dynamic::from_object(data::JsonMap::new(entries));
        Context { root: Arc::new(names) }
    }

    fn value(&self) -> Dynamic {
        Dynamic::from_dyn_object(self.root.clone())
    }
}

/// Whether a string has anything to render.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Checks a template without rendering it; returns what it reads.
///
/// # Errors
/// Everything that is wrong with it, in order.
pub fn check_text(text: &str) -> Result<Vec<Reference>, Vec<TemplateError>> {
    prepare(text, false).map(|prepared| prepared.analysis.references)
}

/// Checks an expression, as in `when` and `for_each`; returns what it reads.
///
/// # Errors
/// Everything that is wrong with it, in order.
pub fn check_expression(expression: &str) -> Result<Vec<Reference>, Vec<TemplateError>> {
    prepare(expression, true).map(|prepared| prepared.analysis.references)
}

/// What an expression reads: `tasks.NAME...`, `input.NAME...` and the like, in order.
///
/// # Errors
/// Everything that is wrong with the expression, in order.
pub fn references(expression: &str) -> Result<Vec<Reference>, Vec<TemplateError>> {
    check_expression(expression)
}

/// Checks every template in a JSON value; returns what they read.
///
/// # Errors
/// Everything that is wrong, in order, each with its path in the value.
pub fn check_value(value: &Value) -> Result<Vec<Reference>, Vec<TemplateError>> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    let outcome = walk(value, &mut Vec::new(), &mut |text, path| match check_text(text) {
        Ok(references) => found.extend(references),
        Err(wrong) => errors.extend(wrong.into_iter().map(|mut error| {
            error.path = path_text(path);
            error
        })),
    });
    if let Err(error) = outcome {
        errors.push(error);
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

fn walk(
    value: &Value,
    path: &mut Vec<String>,
    each: &mut impl FnMut(&str, &[String]),
) -> Result<(), TemplateError> {
    refuse_depth(path)?;
    match value {
        Value::String(text) if is_template(text) => each(text, path),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push(format!("[{at}]"));
                walk(item, path, each)?;
                path.pop();
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                path.push(key.clone());
                walk(item, path, each)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

fn refuse_depth(path: &[String]) -> Result<(), TemplateError> {
    if path.len() <= MAX_DATA_DEPTH {
        return Ok(());
    }
    let message = format!("the value is nested deeper than {MAX_DATA_DEPTH} levels");
    let mut error = Problem::new(message, 0..0).within(&Arc::from(""));
    error.path = path_text(&path[..4]);
    Err(error)
}

fn path_text(path: &[String]) -> String {
    let mut out = String::new();
    for key in path {
        if !key.starts_with('[') && !out.is_empty() {
            out.push('.');
        }
        out.push_str(key);
    }
    out
}

/// Renders every template in a JSON value; everything else stays as it is.
///
/// # Errors
/// The first template that cannot be rendered, with its path in the value.
pub fn render_value(template: &Value, ctx: &Context) -> Result<Value, TemplateError> {
    let mut budget = MAX_VALUE_BYTES;
    render_at(template, ctx, &mut Vec::new(), &mut budget)
}

fn render_at(
    template: &Value,
    ctx: &Context,
    path: &mut Vec<String>,
    budget: &mut usize,
) -> Result<Value, TemplateError> {
    refuse_depth(path)?;
    Ok(match template {
        Value::String(text) if is_template(text) => {
            render_string(text, ctx, budget).map_err(|mut error| {
                error.path = path_text(path);
                error
            })?
        }
        Value::Array(items) => {
            let mut out = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                path.push(format!("[{at}]"));
                out.push(render_at(item, ctx, path, budget)?);
                path.pop();
            }
            Value::Array(out)
        }
        Value::Object(map) => {
            let mut out = serde_json::Map::with_capacity(map.len());
            for (key, item) in map {
                path.push(key.clone());
                out.insert(key.clone(), render_at(item, ctx, path, budget)?);
                path.pop();
            }
            Value::Object(out)
        }
        other => other.clone(),
    })
}

fn first(mut errors: Vec<TemplateError>) -> TemplateError {
    errors.swap_remove(0)
}

fn render_string(text: &str, ctx: &Context, budget: &mut usize) -> Result<Value, TemplateError> {
    let prepared = prepare(text, false).map_err(first)?;
    if prepared.is_expression {
        return typed(&prepared, &prepared.eval(ctx)?, ctx, budget);
    }
    let rendered = prepared.render(ctx)?;
    *budget = budget.checked_sub(rendered.len()).ok_or_else(|| too_large(&prepared))?;
    Ok(Value::String(rendered))
}

fn too_large(prepared: &Prepared<'_>) -> TemplateError {
    let message = format!("with this the value is larger than {MAX_VALUE_BYTES} bytes");
    prepared.error(message, 0..prepared.source.len())
}

fn typed(
    prepared: &Prepared<'_>,
    value: &Dynamic,
    ctx: &Context,
    budget: &mut usize,
) -> Result<Value, TemplateError> {
    data::to_json(value, budget).map_err(|error| match error.kind() {
        ErrorKind::WriteFailure => too_large(prepared),
        _ => prepared.explain(&error, Some(ctx)),
    })
}

/// Renders one text template to text, also when it is a single expression.
///
/// # Errors
/// What is wrong with it, or what it reads that is not there.
pub fn render_text(text: &str, ctx: &Context) -> Result<String, TemplateError> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    let prepared = prepare(text, false).map_err(first)?;
    if !prepared.is_expression {
        return prepared.render(ctx);
    }
    let value = prepared.eval(ctx)?;
    data::to_text(&value, MAX_TEXT_BYTES).map_err(|error| prepared.explain(&error, Some(ctx)))
}

/// Evaluates an expression to the value it has.
///
/// # Errors
/// What is wrong with it, or what it reads that is not there.
pub fn eval(expression: &str, ctx: &Context) -> Result<Value, TemplateError> {
    let prepared = prepare(expression, true).map_err(first)?;
    let mut budget = MAX_VALUE_BYTES;
    typed(&prepared, &prepared.eval(ctx)?, ctx, &mut budget)
}

/// Evaluates a condition, as in `when`: null, `false`, 0 and what is empty are false.
///
/// A text is refused, because `"false"` and `"no"` would be true.
///
/// # Errors
/// What is wrong with it, what it reads that is not there, or that it gives a text.
pub fn eval_condition(expression: &str, ctx: &Context) -> Result<bool, TemplateError> {
    let prepared = prepare(expression, true).map_err(first)?;
    let value = prepared.eval(ctx)?;
    if value.is_undefined() {
        return Err(prepared.explain(&Error::from(ErrorKind::UndefinedError), Some(ctx)));
    }
    if let Some(text) = value.as_str() {
        let mut error = prepared.error(
            format!("a condition cannot be a text, and this is {}", quote(text)),
            0..expression.len(),
        );
        error.hint = Some("compare it: `x == 'yes'`, or `x | length > 0`".to_owned());
        return Err(error);
    }
    Ok(value.is_true())
}

/// Evaluates a list, as in `for_each`.
///
/// # Errors
/// What is wrong with it, what it reads that is not there, that it gives something else than a
/// list, or a list of more than [`MAX_FOR_EACH_ITEMS`].
pub fn eval_list(expression: &str, ctx: &Context) -> Result<Vec<Value>, TemplateError> {
    let prepared = prepare(expression, true).map_err(first)?;
    let value = prepared.eval(ctx)?;
    let mut budget = MAX_VALUE_BYTES;
    let whole = 0..expression.len();
    match typed(&prepared, &value, ctx, &mut budget)? {
        Value::Array(items) if items.len() > MAX_FOR_EACH_ITEMS => {
            let message = format!(
                "this list has {} items, at most {MAX_FOR_EACH_ITEMS} are allowed",
                items.len()
            );
            let mut error = prepared.error(message, whole);
            error.hint = Some("put several into one task: `list | batch(50)`".to_owned());
            Err(error)
        }
        Value::Array(items) => Ok(items),
        other => {
            let kind = engine::kind_name(&value);
            let mut error =
                prepared.error(format!("a list is expected here, this is {kind}"), whole);
            error.hint = match other {
                Value::Object(_) => Some("for the pairs of a map write `x | items`".to_owned()),
                Value::String(_) => Some("for the lines of a text write `x | lines`".to_owned()),
                _ => None,
            };
            Err(error)
        }
    }
}
