//! A template made ready for the engine, and what the engine's errors mean.

use std::ops::Range;
use std::sync::Arc;

use minijinja::value::Value as Dynamic;
use minijinja::{Error, ErrorKind};

use super::check;
use super::lex::{self, Lexed, PartKind};
use super::reference::{Analysis, GUARD, Reference, Root};
use super::{
    Context, MAX_EXPRESSION_BYTES, MAX_JOIN_BYTES, MAX_TEXT_BYTES, Problem, TemplateError,
};
use super::{data, engine};
use crate::workflow::suggest::{did_you_mean, quote};

/// A template that was cut, checked and prepared for the engine.
pub(super) struct Prepared<'s> {
    pub(super) source: &'s str,
    pub(super) analysis: Analysis,
    /// The guarded source: the whole template, or only the expression in it.
    code: String,
    /// Where `code` begins in `source`.
    code_start: usize,
    /// The template is exactly one expression, so that its value keeps its type.
    pub(super) is_expression: bool,
}

/// Cuts and checks a template or, with `expression`, an expression with or without `{{ }}` around it.
pub(super) fn prepare(source: &str, expression: bool) -> Result<Prepared<'_>, Vec<TemplateError>> {
    let mut problems = Vec::new();
    let prepared = cut(source, expression).map(|(lexed, inner)| {
        let analysis = check::check(source, &lexed, &mut problems);
        let (code, code_start) = match &inner {
            Some(range) => {
                let mut own = analysis.clone();
                own.guards.iter_mut().for_each(|at| *at -= range.start);
                (own.guarded(&source[range.clone()]), range.start)
            }
            None => (analysis.guarded(source), 0),
        };
        let is_expression = inner.is_some();
        Prepared { source, analysis, code, code_start, is_expression }
    });
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => return Err(vec![problem.within(&Arc::from(source))]),
    };
    if !problems.is_empty() {
        let template = Arc::from(source);
        return Err(problems.into_iter().map(|problem| problem.within(&template)).collect());
    }
    prepared.compiles().map_err(|error| vec![error])?;
    Ok(prepared)
}

/// The parts of a template, and the range of its expression when it is exactly one.
type Cut = (Lexed, Option<Range<usize>>);

fn cut(source: &str, expression: bool) -> Result<Cut, Problem> {
    if !expression {
        let lexed = lex::lex_template(source)?;
        let inner = match lexed.parts.as_slice() {
            [part] if part.kind == PartKind::Expression => Some(part.inner.clone()),
            _ => None,
        };
        return Ok((lexed, inner));
    }
    let start = source.len() - source.trim_start().len();
    let range = start..start.max(source.trim_end().len());
    if source[range.clone()].starts_with("{{") {
        let lexed = lex::lex_template(source)?;
        let is_text = |range: &Range<usize>| !source[range.clone()].trim().is_empty();
        let mut parts =
            lexed.parts.iter().filter(|part| part.kind != PartKind::Text || is_text(&part.outer));
        if let (Some(part), None) = (parts.next(), parts.next())
            && part.kind == PartKind::Expression
        {
            let inner = part.inner.clone();
            return Ok((lexed, Some(inner)));
        }
        return Err(Problem::new("one expression is expected here, not a text", range)
            .hint("write the expression alone, without `{{ }}`"));
    }
    if range.is_empty() {
        return Err(Problem::new("there is no expression here", 0..source.len()));
    }
    let lexed = lex::lex_expression(source, range.clone())?;
    Ok((lexed, Some(range)))
}

impl Prepared<'_> {
    fn compiles(&self) -> Result<(), TemplateError> {
        let env = engine::environment();
        let compiled = if self.is_expression {
            env.compile_expression(&self.code).map(drop)
        } else {
            env.template_from_str(&self.code).map(drop)
        };
        compiled.map_err(|error| self.explain(&error, None))
    }

    pub(super) fn eval(&self, ctx: &Context) -> Result<Dynamic, TemplateError> {
        self.refuse_large_joins(ctx)?;
        let env = engine::environment();
        env.compile_expression(&self.code)
            .and_then(|expression| expression.eval(ctx.value()))
            .map_err(|error| self.explain(&error, Some(ctx)))
    }

    pub(super) fn render(&self, ctx: &Context) -> Result<String, TemplateError> {
        self.refuse_large_joins(ctx)?;
        let mut out = data::Bounded { text: String::new(), limit: MAX_TEXT_BYTES };
        engine::environment()
            .template_from_str(&self.code)
            .and_then(|template| template.render_captured_to(ctx.value(), &mut out).map(drop))
            .map_err(|error| self.explain(&error, Some(ctx)))?;
        Ok(out.text)
    }

    pub(super) fn error(&self, message: impl Into<String>, span: Range<usize>) -> TemplateError {
        Problem::new(message, span).within(&Arc::from(self.source))
    }

    /// A joined text is at most as long as the values it is joined from. Nothing else can double
    /// it, since there are no assignments, so their sizes bound what `~` and `+` can make.
    fn refuse_large_joins(&self, ctx: &Context) -> Result<(), TemplateError> {
        let references = &self.analysis.references;
        for joins in &self.analysis.joins {
            let read = if joins.locals { 0..references.len() } else { joins.references.clone() };
            let mut largest = if joins.filters { MAX_TEXT_BYTES } else { MAX_EXPRESSION_BYTES };
            let mut culprit = 0..self.source.len();
            for reference in &references[read] {
                let weight = data::weight(&resolve(reference, ctx).value);
                if weight > largest {
                    (largest, culprit) = (weight, reference.span.clone());
                }
            }
            if largest.saturating_mul(joins.count + 1) > MAX_JOIN_BYTES {
                let message = format!("this could join more than {MAX_JOIN_BYTES} bytes");
                return Err(self.error(message, culprit));
            }
        }
        Ok(())
    }

    /// Says what the engine's error means for the one who wrote the template.
    pub(super) fn explain(&self, error: &Error, ctx: Option<&Context>) -> TemplateError {
        let span = error.range().map_or(0..self.source.len(), |range| {
            let at = |offset: usize| {
                let offset = match self.is_expression {
                    true => offset + self.code_start,
                    false => offset,
                };
                floor_char(self.source, self.analysis.original_offset(offset))
            };
            at(range.start)..at(range.end)
        });
        let reads_undefined = error.kind() == ErrorKind::UndefinedError
            || error.detail().is_some_and(|detail| detail.contains("undefined"));
        if let Some(ctx) = ctx.filter(|_| reads_undefined)
            && let Some(error) = self.missing(ctx, &span)
        {
            return error;
        }
        match error.kind() {
            ErrorKind::OutOfFuel => self.error("this template takes too many steps", span),
            ErrorKind::WriteFailure => {
                self.error(format!("the result is larger than {MAX_TEXT_BYTES} bytes"), span)
            }
            ErrorKind::UndefinedError => self.error("a value that this reads is not there", span),
            kind => {
                let detail = error.detail().map_or_else(|| kind.to_string(), str::to_owned);
                self.error(detail.replace(GUARD, ""), span)
            }
        }
    }

    /// Finds the reference that is not there: first among those at `span`, then anywhere.
    fn missing(&self, ctx: &Context, span: &Range<usize>) -> Option<TemplateError> {
        let near = |reference: &&Reference| {
            reference.span.start < span.end && span.start < reference.span.end
        };
        let references = &self.analysis.references;
        let ordered = references
            .iter()
            .filter(near)
            .chain(references.iter().filter(|reference| !near(reference)));
        for reference in ordered {
            let resolved = resolve(reference, ctx);
            let Some(key) = resolved.missing else {
                continue;
            };
            let (message, hint) = describe_missing(reference, key, &resolved.value);
            let at = reference.spans.get(key).unwrap_or(&reference.span);
            let mut error = self.error(message, at.clone());
            error.hint = hint;
            return Some(error);
        }
        None
    }
}

fn floor_char(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Where a reference leads.
struct Resolved {
    /// What was reached last.
    value: Dynamic,
    /// The key of the path that `value` does not have.
    missing: Option<usize>,
}

fn resolve(reference: &Reference, ctx: &Context) -> Resolved {
    let Some(mut value) = ctx.root.get(reference.root.as_str()) else {
        return Resolved { value: Dynamic::UNDEFINED, missing: Some(0) };
    };
    for (at, key) in reference.path.iter().enumerate() {
        let index = key.parse::<usize>().ok();
        let by_name = value.get_attr(key).unwrap_or_default();
        let next = match index {
            Some(index) if by_name.is_undefined() => {
                value.get_item_by_index(index).unwrap_or_default()
            }
            _ => by_name,
        };
        if next.is_undefined() {
            return Resolved { value, missing: Some(at) };
        }
        value = next;
    }
    Resolved { value, missing: None }
}

fn describe_missing(
    reference: &Reference,
    key: usize,
    parent: &Dynamic,
) -> (String, Option<String>) {
    let Some(name) = reference.path.get(key) else {
        let hint = match reference.root {
            Root::Item | Root::Index => Some("only a task with `for_each` has it".to_owned()),
            _ => None,
        };
        return ("this name is not there".to_owned(), hint);
    };
    let parent_name = dotted(reference.root, &reference.path[..key]);
    if reference.root == Root::Tasks && key == 0 {
        return (
            format!("there is no output of a task {} here", quote(name)),
            Some("add the task to `needs`".to_owned()),
        );
    }
    if reference.root == Root::State && key == 0 {
        return (
            format!("there is no key {} in the shared state", quote(name)),
            Some(
                "`segue state put` writes it; `| default(..)` says what is meant without it"
                    .to_owned(),
            ),
        );
    }
    if parent.is_none() {
        return (
            format!("{parent_name} is null, it has no {}", quote(name)),
            Some("test it first: `x is not none`, or the task's `state`".to_owned()),
        );
    }
    let Some(map) = parent.downcast_object_ref::<data::JsonMap>() else {
        let kind = engine::kind_name(parent);
        return (format!("{parent_name} is {kind}, it has no {}", quote(name)), None);
    };
    let hint = did_you_mean(name, map.keys()).or_else(|| {
        let mut keys: Vec<_> = map.keys().take(10).map(quote).collect();
        if map.keys().nth(10).is_some() {
            keys.push("...".to_owned());
        }
        (!keys.is_empty()).then(|| format!("it has {}", keys.join(", ")))
    });
    (format!("{parent_name} has no {}", quote(name)), hint)
}

fn dotted(root: Root, path: &[String]) -> String {
    let mut out = root.as_str().to_owned();
    for key in path {
        let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        out.push_str(&if plain { format!(".{key}") } else { format!("['{key}']") });
    }
    quote(&out)
}
