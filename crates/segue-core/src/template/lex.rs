//! Cuts a template into text, expressions and statements, and those into tokens.
//!
//! It follows the lexical rules of the template engine (strings, comments, `{{ }}` and `{% %}` with
//! whitespace control), so that what the checks see is what the engine will see. Where the two could
//! disagree (`{% raw %}`, names outside ASCII) the construct is refused.

use std::ops::Range;

use super::{MAX_EXPRESSION_BYTES, MAX_NESTING, MAX_TEMPLATE_BYTES, Problem};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or keyword.
    Name,
    /// A quoted string.
    Text,
    /// A number.
    Number,
    /// An operator or bracket.
    Op,
}

/// One token; offsets are bytes in the template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn text<'s>(&self, source: &'s str) -> &'s str {
        &source[self.start..self.end]
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    pub(super) fn is_op(&self, source: &str, op: &str) -> bool {
        self.kind == Kind::Op && self.text(source) == op
    }

    pub(super) fn is_name(&self, source: &str, name: &str) -> bool {
        self.kind == Kind::Name && self.text(source) == name
    }
}

/// What a part of a template is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    Text,
    Comment,
    Expression,
    Statement,
}

/// One part of a template: where it stands and which tokens are in it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    /// The part with its delimiters.
    pub(super) outer: Range<usize>,
    /// What stands between the delimiters.
    pub(super) inner: Range<usize>,
    /// Indexes into [`Lexed::tokens`].
    pub(super) tokens: Range<usize>,
}

/// A template, cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Lexed {
    pub(super) tokens: Vec<Token>,
    pub(super) parts: Vec<Part>,
}

/// Cuts text that may contain `{{ }}`, `{% %}` and `{# #}`.
pub(super) fn lex_template(source: &str) -> Result<Lexed, Problem> {
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err(Problem::new(
            format!(
                "this template has {} bytes, at most {MAX_TEMPLATE_BYTES} are allowed",
                source.len()
            ),
            0..0,
        ));
    }
    let mut lexed = Lexed::default();
    let mut at = 0;
    while let Some((start, marker)) = next_marker(source, at) {
        if start > at {
            lexed.push(PartKind::Text, at..start, at..start, 0);
        }
        let first = lexed.tokens.len();
        let inner = start + 2 + control_len(source, start + 2);
        at = match marker {
            b'#' => {
                let Some(len) = source[start + 2..].find("#}") else {
                    return Err(Problem::new("this comment is not closed", start..start + 2)
                        .hint("close it with `#}`"));
                };
                let end = start + 2 + len;
                lexed.push(PartKind::Comment, start..end + 2, start + 2..end, first);
                end + 2
            }
            _ => {
                let (kind, close) = if marker == b'{' {
                    (PartKind::Expression, "}}")
                } else {
                    (PartKind::Statement, "%}")
                };
                let code = Code { source, open: start, close: Some(close) };
                let (end, outer_end) = code.lex(inner, &mut lexed.tokens)?;
                lexed.push(kind, start..outer_end, inner..end, first);
                outer_end
            }
        };
    }
    if at < source.len() {
        lexed.push(PartKind::Text, at..source.len(), at..source.len(), 0);
    }
    Ok(lexed)
}

/// Cuts an expression that stands alone, without `{{ }}`. `range` is where it stands in `source`.
pub(super) fn lex_expression(source: &str, range: Range<usize>) -> Result<Lexed, Problem> {
    let mut lexed = Lexed::default();
    let code = Code { source: &source[..range.end], open: range.start, close: None };
    code.lex(range.start, &mut lexed.tokens)?;
    lexed.push(PartKind::Expression, range.clone(), range, 0);
    Ok(lexed)
}

impl Lexed {
    fn push(&mut self, kind: PartKind, outer: Range<usize>, inner: Range<usize>, first: usize) {
        let tokens = match kind {
            PartKind::Text | PartKind::Comment => 0..0,
            PartKind::Expression | PartKind::Statement => first..self.tokens.len(),
        };
        self.parts.push(Part { kind, outer, inner, tokens });
    }
}

/// The next `{{`, `{%` or `{#` at or after `from`, with its second byte.
fn next_marker(source: &str, from: usize) -> Option<(usize, u8)> {
    let bytes = source.as_bytes();
    let mut at = from;
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        if let Some(marker @ (b'{' | b'%' | b'#')) = bytes.get(start + 1).copied() {
            return Some((start, marker));
        }
        at = start + 1;
    }
    None
}

/// One for a `-` or `+` that controls whitespace, else zero.
fn control_len(source: &str, at: usize) -> usize {
    usize::from(matches!(source.as_bytes().get(at), Some(b'-' | b'+')))
}

/// One stretch of code: an expression or a statement.
struct Code<'s> {
    source: &'s str,
    /// Where the part begins, for "not closed".
    open: usize,
    /// What ends it; `None` when the source ends it.
    close: Option<&'static str>,
}

impl Code<'_> {
    /// Pushes the tokens from `start` on; returns where the code ends and where the part ends.
    fn lex(&self, start: usize, tokens: &mut Vec<Token>) -> Result<(usize, usize), Problem> {
        let source = self.source;
        let bytes = source.as_bytes();
        let mut brackets: Vec<(u8, usize)> = Vec::new();
        let mut at = start;
        loop {
            while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            self.within_limit(start, at)?;
            let Some(&byte) = bytes.get(at) else {
                return self.end_of_source(at, &brackets);
            };
            if brackets.is_empty()
                && let Some(outer_end) = self.closes_at(at)
            {
                return Ok((at, outer_end));
            }
            let (kind, end) = match byte {
                b'\'' | b'"' => (Kind::Text, self.string_end(at)?),
                b'0'..=b'9' => (Kind::Number, self.number_end(at, tokens.last())),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => (Kind::Name, self.name_end(at)),
                _ => (Kind::Op, at + self.op_len(at, byte)?),
            };
            match byte {
                b'(' | b'[' | b'{' => {
                    if brackets.len() >= MAX_NESTING {
                        return Err(Problem::new(
                            format!("brackets are nested deeper than {MAX_NESTING} levels"),
                            at..at + 1,
                        ));
                    }
                    brackets.push((byte, at));
                }
                b')' | b']' | b'}' => close_bracket(&mut brackets, byte, at)?,
                _ => {}
            }
            tokens.push(Token { kind, start: at, end });
            at = end;
        }
    }

    fn within_limit(&self, start: usize, at: usize) -> Result<(), Problem> {
        if at.saturating_sub(start) <= MAX_EXPRESSION_BYTES {
            return Ok(());
        }
        Err(Problem::new(
            format!("this expression is longer than {MAX_EXPRESSION_BYTES} bytes"),
            self.open..self.open + 1,
        )
        .hint("compute it in a task of its own"))
    }

    fn end_of_source(
        &self,
        at: usize,
        brackets: &[(u8, usize)],
    ) -> Result<(usize, usize), Problem> {
        if let Some(&(open, place)) = brackets.last() {
            return Err(Problem::new(
                format!("`{}` is not closed", char::from(open)),
                place..place + 1,
            ));
        }
        match self.close {
            None => Ok((at, at)),
            Some(close) => {
                let open = &self.source[self.open..self.open + 2];
                Err(Problem::new(format!("`{open}` is not closed"), self.open..self.open + 2)
                    .hint(format!("close it with `{close}`")))
            }
        }
    }

    fn closes_at(&self, at: usize) -> Option<usize> {
        let close = self.close?;
        let after = at + control_len(self.source, at);
        let rest = self.source.get(after..)?;
        rest.starts_with(close).then(|| after + close.len())
    }

    fn string_end(&self, start: usize) -> Result<usize, Problem> {
        let bytes = self.source.as_bytes();
        let quote = bytes[start];
        let mut at = start + 1;
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'\\' => at += 2,
                _ if byte == quote => return Ok(at + 1),
                _ => at += 1,
            }
        }
        Err(Problem::new("this string is not closed", start..start + 1)
            .hint(format!("close it with {}", char::from(quote))))
    }

    fn name_end(&self, start: usize) -> usize {
        let rest = &self.source.as_bytes()[start..];
        let len = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
        start + len
    }

    /// Numbers after a dot are item indexes and have no fraction (`a.1.0` is `a[1][0]`).
    fn number_end(&self, start: usize, before: Option<&Token>) -> usize {
        let bytes = self.source.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(|b| b.is_ascii_digit() || *b == b'_') {
                at += 1;
            }
            at
        };
        let is_index =
            before.is_some_and(|token| token.end == start && token.text(self.source) == ".");
        if is_index {
            return digits(start);
        }
        if bytes[start] == b'0'
            && matches!(bytes.get(start + 1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B'))
        {
            return self.name_end(start);
        }
        let mut at = digits(start);
        if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
            at = digits(at + 1);
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(bytes.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            at = digits(at);
        }
        at
    }

    fn op_len(&self, at: usize, byte: u8) -> Result<usize, Problem> {
        let two = self.source.as_bytes().get(at..at + 2).unwrap_or_default();
        if matches!(two, b"//" | b"**" | b"==" | b"!=" | b">=" | b"<=") {
            return Ok(2);
        }
        if b"+-*/%.,:~|=<>()[]{}".contains(&byte) {
            return Ok(1);
        }
        let character = self.source[at..].chars().next().unwrap_or('?');
        let problem = Problem::new(
            format!("{} does not belong in an expression", quoted(character)),
            at..at + character.len_utf8(),
        );
        Err(match character {
            '&' => problem.hint("write `and`"),
            '!' => problem.hint("write `not`, or `!=` to compare"),
            '$' | '@' => problem.hint("names are written without a sigil: `input.goal`"),
            '\u{2018}'..='\u{201f}' => problem.hint("use the straight quotes ' or \""),
            _ => problem,
        })
    }
}

fn close_bracket(brackets: &mut Vec<(u8, usize)>, close: u8, at: usize) -> Result<(), Problem> {
    let wanted = match close {
        b')' => b'(',
        b']' => b'[',
        _ => b'{',
    };
    match brackets.pop() {
        Some((open, _)) if open == wanted => Ok(()),
        Some((open, _)) => Err(Problem::new(
            format!("`{}` does not close `{}`", char::from(close), char::from(open)),
            at..at + 1,
        )),
        None => Err(Problem::new(format!("`{}` closes nothing", char::from(close)), at..at + 1)),
    }
}

fn quoted(character: char) -> String {
    if character.is_control() {
        format!("the control character U+{:04X}", u32::from(character))
    } else {
        format!("`{character}`")
    }
}
