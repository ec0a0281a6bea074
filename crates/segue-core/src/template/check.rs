//! What can be said about a template without running it: which tasks and inputs it names, whether
//! its filters exist, and whether it stays within the limits.
//!
//! The checks read tokens, not a tree. They are stricter than the engine, never laxer: what could
//! make the engine recurse deeply, multiply text or panic is refused here, before it is compiled.

use std::ops::Range;

use super::engine::{FILTERS, FUNCTIONS, TESTS};
use super::lex::{Kind, Lexed, Part, PartKind, Token};
use super::reference::{Analysis, Joins, Reference, Root};
use super::{MAX_NESTING, MAX_OPERATORS, MAX_PROBLEMS, Problem};
use crate::state::check_key;
use crate::workflow::suggest::{did_you_mean, quote};

/// Names a template can start from.
pub(super) const ROOTS: &[&str] = &["input", "tasks", "item", "index", "run", "state"];
const KEYWORDS: &[&str] = &[
    "and", "or", "not", "in", "is", "if", "else", "true", "True", "false", "False", "none", "None",
];
const CONSTANTS: &[&str] = &["true", "True", "false", "False", "none", "None"];
const STATEMENTS: &[&str] = &["if", "elif", "else", "endif", "for", "endfor"];

/// Checks a cut template; pushes every problem it finds.
pub(super) fn check(source: &str, lexed: &Lexed, problems: &mut Vec<Problem>) -> Analysis {
    let mut checker = Checker { source, problems, found: Analysis::default(), blocks: Vec::new() };
    for part in &lexed.parts {
        if checker.is_done() {
            break;
        }
        let tokens = &lexed.tokens[part.tokens.clone()];
        match part.kind {
            PartKind::Text | PartKind::Comment => {}
            PartKind::Expression if tokens.is_empty() => {
                checker.problem(Problem::new("there is no expression here", part.outer.clone()))
            }
            PartKind::Expression => checker.expression(tokens),
            PartKind::Statement => checker.statement(part, tokens),
        }
    }
    while let Some(block) = checker.blocks.pop().filter(|_| !checker.is_done()) {
        if block.tag != "elif" {
            checker.problem(
                Problem::new(format!("`{}` is not closed", block.tag), block.at)
                    .hint(format!("close it with `{{% end{} %}}`", block.tag)),
            );
        }
    }
    let mut found = checker.found;
    found.guards.sort_unstable();
    found.guards.dedup();
    found
}

/// A statement that is open: `if` or `for`, and `elif`, which nests inside its `if`.
struct Block<'s> {
    tag: &'static str,
    at: Range<usize>,
    locals: Vec<&'s str>,
}

struct Checker<'s, 'p> {
    source: &'s str,
    problems: &'p mut Vec<Problem>,
    found: Analysis,
    blocks: Vec<Block<'s>>,
}

impl<'s> Checker<'s, '_> {
    fn problem(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// Enough was found, or statements are nested too deeply to go on.
    fn is_done(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS || self.blocks.len() > MAX_NESTING
    }

    fn text(&self, token: &Token) -> &'s str {
        token.text(self.source)
    }

    fn op(&self, token: Option<&Token>, op: &str) -> bool {
        token.is_some_and(|token| token.is_op(self.source, op))
    }

    fn is_local(&self, name: &str) -> bool {
        let in_loop = self.blocks.iter().any(|block| block.tag == "for");
        (in_loop && name == "loop") || self.blocks.iter().any(|block| block.locals.contains(&name))
    }

    fn statement(&mut self, part: &Part, tokens: &[Token]) {
        let Some(first) = tokens.first() else {
            self.problem(Problem::new("there is no statement here", part.outer.clone()));
            return;
        };
        let rest = &tokens[1..];
        match self.text(first) {
            "if" => {
                self.open("if", first, Vec::new());
                self.condition(first, rest);
            }
            "elif" => {
                self.expect_open("if", first);
                self.open("elif", first, Vec::new());
                self.condition(first, rest);
            }
            "else" if self.blocks.is_empty() => {
                self.problem(Problem::new("`else` without `if` or `for`", first.span()));
            }
            "else" => self.nothing_after(first, rest),
            "endif" => {
                self.close("if", first);
                self.nothing_after(first, rest);
            }
            "for" => self.for_loop(first, rest),
            "endfor" => {
                self.close("for", first);
                self.nothing_after(first, rest);
            }
            other => {
                let hint = did_you_mean(other, STATEMENTS.iter().copied())
                    .unwrap_or_else(|| "only `if` and `for` can be used".to_owned());
                self.problem(
                    Problem::new(format!("unknown statement {}", quote(other)), first.span())
                        .hint(hint),
                );
            }
        }
    }

    fn open(&mut self, tag: &'static str, at: &Token, locals: Vec<&'s str>) {
        if self.blocks.len() >= MAX_NESTING {
            self.problem(Problem::new(
                format!("statements are nested deeper than {MAX_NESTING} levels"),
                at.span(),
            ));
        }
        self.blocks.push(Block { tag, at: at.span(), locals });
    }

    fn expect_open(&mut self, tag: &'static str, at: &Token) {
        let inside = self.blocks.iter().rev().find(|block| block.tag != "elif");
        if inside.is_none_or(|block| block.tag != tag) {
            let text = self.text(at);
            self.problem(Problem::new(format!("`{text}` without `{tag}`"), at.span()));
        }
    }

    fn close(&mut self, tag: &'static str, at: &Token) {
        self.expect_open(tag, at);
        while self.blocks.last().is_some_and(|block| block.tag == "elif") {
            self.blocks.pop();
        }
        self.blocks.pop();
    }

    fn nothing_after(&mut self, keyword: &Token, rest: &[Token]) {
        if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
            let text = self.text(keyword);
            self.problem(Problem::new(
                format!("`{text}` takes nothing behind it"),
                first.start..last.end,
            ));
        }
    }

    fn condition(&mut self, keyword: &Token, rest: &[Token]) {
        if rest.is_empty() {
            let text = self.text(keyword);
            self.problem(Problem::new(format!("`{text}` needs a condition"), keyword.span()));
        }
        self.expression(rest);
    }

    fn for_loop(&mut self, keyword: &Token, rest: &[Token]) {
        let Some(split) = rest.iter().position(|token| token.is_name(self.source, "in")) else {
            self.problem(
                Problem::new("`for` needs a list to go through", keyword.span())
                    .hint("write `{% for x in tasks.scan.output %}`"),
            );
            self.open("for", keyword, Vec::new());
            return;
        };
        let (targets, list) = (&rest[..split], &rest[split + 1..]);
        let mut locals = Vec::new();
        for token in targets {
            match token.kind {
                Kind::Name if ROOTS.contains(&self.text(token)) => self.problem(
                    Problem::new(
                        format!("`{}` cannot be the name of a loop variable", self.text(token)),
                        token.span(),
                    )
                    .hint("choose another name"),
                ),
                Kind::Name => locals.push(self.text(token)),
                Kind::Op if self.text(token) == "," => {}
                _ => self.problem(Problem::new(
                    "the name of a loop variable is expected here",
                    token.span(),
                )),
            }
        }
        if let Some(last) = list.last().filter(|token| token.is_name(self.source, "recursive")) {
            self.problem(Problem::new("recursive loops are not available", last.span()));
        }
        // A loop could otherwise double a text once per nesting level.
        let joins = |token: &&Token| self.op(Some(token), "~") || self.op(Some(token), "+");
        if let Some(join) = list.iter().find(joins) {
            self.problem(
                Problem::new("the list of a loop cannot be joined here", join.span())
                    .hint("write two loops, one after the other"),
            );
        }
        self.open("for", keyword, locals);
        self.expression(list);
    }

    /// Checks one expression and collects what it refers to.
    fn expression(&mut self, tokens: &[Token]) {
        let first_reference = self.found.references.len();
        let mut joins = Joins { count: 0, filters: false, locals: false, references: 0..0 };
        let mut operators = 0;
        for (at, token) in tokens.iter().enumerate() {
            let text = self.text(token);
            match token.kind {
                Kind::Op => {
                    operators += usize::from(!matches!(text, "," | ")" | "]" | "}" | ":"));
                    joins.count += usize::from(matches!(text, "~" | "+"));
                    joins.filters |= text == "|";
                    self.operator(tokens, at);
                }
                Kind::Name => {
                    operators += usize::from(matches!(
                        text,
                        "and" | "or" | "not" | "in" | "is" | "if" | "else"
                    ));
                    joins.locals |= self.name(tokens, at);
                }
                Kind::Text | Kind::Number => {}
            }
            if operators > MAX_OPERATORS {
                self.problem(
                    Problem::new(
                        format!("this expression has more than {MAX_OPERATORS} operators"),
                        token.span(),
                    )
                    .hint("compute it in a task of its own"),
                );
                return;
            }
        }
        if joins.count > 0 {
            joins.references = first_reference..self.found.references.len();
            self.found.joins.push(joins);
        }
    }

    fn operator(&mut self, tokens: &[Token], at: usize) {
        let token = &tokens[at];
        match self.text(token) {
            "*" if self.is_operand_end(at.checked_sub(1).map(|before| &tokens[before])) => {
                self.found.guards.push(tokens[at - 1].end);
                if let Some(end) = self.operand_end(tokens, at + 1) {
                    self.found.guards.push(end);
                }
            }
            "*" => self.problem(Problem::new("arguments cannot be unpacked here", token.span())),
            "**" if !self.is_operand_end(at.checked_sub(1).map(|before| &tokens[before])) => {
                self.problem(Problem::new("arguments cannot be unpacked here", token.span()));
            }
            "[" => self.refuse_step(tokens, at),
            _ => {}
        }
    }

    /// Something to the left of an operator: a name, a constant, or a closed bracket.
    fn is_operand_end(&self, token: Option<&Token>) -> bool {
        token.is_some_and(|token| match token.kind {
            Kind::Text | Kind::Number => true,
            Kind::Name => {
                let text = self.text(token);
                !KEYWORDS.contains(&text) || CONSTANTS.contains(&text)
            }
            Kind::Op => matches!(self.text(token), ")" | "]" | "}"),
        })
    }

    /// Where the operand that begins at `from` ends: before the next operator that binds no tighter
    /// than `*`. `.`, `|`, calls and subscripts belong to it.
    fn operand_end(&self, tokens: &[Token], from: usize) -> Option<usize> {
        let mut depth = 0_usize;
        let mut end = None;
        let mut before = "";
        for token in &tokens[from..] {
            let text = self.text(token);
            match token.kind {
                Kind::Op if matches!(text, "(" | "[" | "{") => depth += 1,
                Kind::Op if matches!(text, ")" | "]" | "}") => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => break,
                },
                Kind::Op if depth == 0 && text == "-" && end.is_none() => continue,
                Kind::Op if depth == 0 && !matches!(text, "." | "|") => break,
                Kind::Name
                    if depth == 0
                        && !matches!(before, "." | "|")
                        && KEYWORDS.contains(&text)
                        && !CONSTANTS.contains(&text) =>
                {
                    break;
                }
                _ => {}
            }
            end = Some(token.end);
            before = text;
        }
        end
    }

    /// `[a:b:c]` is refused: a step can panic inside the engine, and nobody needs one here.
    fn refuse_step(&mut self, tokens: &[Token], open: usize) {
        let mut depth = 0_usize;
        let mut colons = 0;
        for token in &tokens[open..] {
            if token.kind != Kind::Op {
                continue;
            }
            match self.text(token) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return;
                    }
                }
                ":" if depth == 1 => {
                    colons += 1;
                    if colons == 2 {
                        self.problem(
                            Problem::new("a slice takes no step", token.span())
                                .hint("write `[from:to]`; to turn a list round use `| reverse`"),
                        );
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    /// Checks a name by what it stands for; true when it is a loop variable.
    fn name(&mut self, tokens: &[Token], at: usize) -> bool {
        let token = &tokens[at];
        let text = self.text(token);
        let before = at.checked_sub(1).map(|index| &tokens[index]);
        let before_text = before.map_or("", |token| self.text(token));
        let after = tokens.get(at + 1);
        let is_call = self.op(after, "(");
        if self.op(before, ".") {
            if is_call {
                self.problem(
                    Problem::new(format!("{} cannot be called", quote(text)), token.span())
                        .hint(method_hint(text)),
                );
            }
            return false;
        }
        if self.op(before, "|") {
            self.known("filter", FILTERS.iter().map(|filter| filter.name), token);
            if self.op(after, ".") {
                self.problem(
                    Problem::new("a filter's result has no fields here", token.span())
                        .hint("put it in brackets: `(list | first).name`"),
                );
            }
            return false;
        }
        let is_test = before.is_some_and(|token| token.kind == Kind::Name)
            && (before_text == "is"
                || (before_text == "not" && at >= 2 && tokens[at - 2].is_name(self.source, "is")));
        if is_test && text != "not" {
            self.known("test", TESTS.iter().copied(), token);
            return false;
        }
        if KEYWORDS.contains(&text) {
            return false;
        }
        if is_call {
            self.known("function", FUNCTIONS.iter().copied(), token);
            return false;
        }
        if self.op(after, "=") {
            return false;
        }
        if self.is_local(text) {
            return true;
        }
        self.variable(tokens, at);
        false
    }

    fn known(
        &mut self,
        what: &str,
        names: impl Iterator<Item = &'static str> + Clone,
        token: &Token,
    ) {
        let text = self.text(token);
        if names.clone().any(|name| name == text) {
            return;
        }
        let hint = did_you_mean(text, names.clone()).unwrap_or_else(|| {
            let all: Vec<_> = names.collect();
            format!("known are: {}", all.join(", "))
        });
        self.problem(
            Problem::new(format!("unknown {what} {}", quote(text)), token.span()).hint(hint),
        );
    }

    fn variable(&mut self, tokens: &[Token], at: usize) {
        let token = &tokens[at];
        let root = match self.text(token) {
            "input" => Root::Input,
            "tasks" => Root::Tasks,
            "item" => Root::Item,
            "index" => Root::Index,
            "run" => Root::Run,
            "state" => Root::State,
            other => {
                let mut problem =
                    Problem::new(format!("unknown name {}", quote(other)), token.span());
                problem.is_unknown_name = true;
                let hint = did_you_mean(other, ROOTS.iter().copied()).unwrap_or_else(|| {
                    "an expression starts from `input`, `tasks`, `item`, `index`, `run` or `state`; \
                     text needs quotes"
                        .to_owned()
                });
                self.problem(problem.hint(hint));
                return;
            }
        };
        let reference = self.path(root, tokens, at);
        self.state_key(&reference);
        self.found.references.push(reference);
    }

    /// A key of shared state must be written out: what is read is fetched before anything is rendered.
    fn state_key(&mut self, reference: &Reference) {
        if reference.root != Root::State {
            return;
        }
        let hint = "name the key: `state.plan`, or `state['plan/api']`";
        let at = reference.name_span();
        match reference.state_key().map(check_key) {
            Some(Ok(())) => {}
            Some(Err(wrong)) => self.problem(Problem::new(wrong, at).hint(hint)),
            None if reference.computed => {
                let message = "the key of shared state must be written out";
                self.problem(Problem::new(message, at).hint(hint));
            }
            None => self.problem(Problem::new("`state` alone cannot be read", at).hint(hint)),
        }
    }

    /// Follows `.name`, `.0`, `['name']` and `[0]` as far as they are literal.
    fn path(&self, root: Root, tokens: &[Token], at: usize) -> Reference {
        let mut reference = Reference {
            root,
            path: Vec::new(),
            spans: Vec::new(),
            span: tokens[at].span(),
            computed: false,
        };
        let mut next = at + 1;
        loop {
            let key = tokens.get(next + 1);
            if self.op(tokens.get(next), ".") {
                let Some(key) = key.filter(|key| matches!(key.kind, Kind::Name | Kind::Number))
                else {
                    break;
                };
                reference.push(self.text(key).to_owned(), key.span(), key.end);
                next += 2;
            } else if self.op(tokens.get(next), "[") {
                let closed = tokens.get(next + 2).filter(|token| self.op(Some(token), "]"));
                match (key.and_then(|key| self.literal_key(key)), closed) {
                    (Some((name, span)), Some(close)) => {
                        reference.push(name, span, close.end);
                        next += 3;
                    }
                    _ => {
                        reference.computed = true;
                        break;
                    }
                }
            } else {
                break;
            }
        }
        reference
    }

    fn literal_key(&self, token: &Token) -> Option<(String, Range<usize>)> {
        let text = self.text(token);
        match token.kind {
            Kind::Number => Some((text.to_owned(), token.span())),
            Kind::Text if !text.contains('\\') => {
                Some((text[1..text.len() - 1].to_owned(), token.start + 1..token.end - 1))
            }
            _ => None,
        }
    }
}

/// What to write instead of a method that Python users expect.
fn method_hint(name: &str) -> String {
    let filter = match name {
        "strip" => "trim",
        "len" => "length",
        "splitlines" => "lines",
        "values" | "keys" => "items",
        "get" => "default",
        other if FILTERS.iter().any(|filter| filter.name == other) => other,
        _ => return "values have no methods; use a filter: `value | filter`".to_owned(),
    };
    format!("use the filter: `value | {filter}`")
}
