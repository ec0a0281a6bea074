//! What is wrong with a file, and how it is shown.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::MAX_DIAGNOSTICS;
use super::source::{Source, Span};
use super::suggest::harmless;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but is hardly meant so.
    Warning,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The line, from 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// The column in characters, from 1; 0 when it is about the file as a whole.
    pub column: u32,
    /// How many characters of that line it is about.
    pub length: u32,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Everything that is wrong with a file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    /// How many more errors there were.
    omitted_errors: usize,
    /// How many more warnings there were.
    omitted_warnings: usize,
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            if item.line > 0 {
                write!(f, "line {}, column {}: ", item.line, item.column)?;
            }
            f.write_str(&item.message)?;
        }
        let omitted = self.omitted_errors + self.omitted_warnings;
        if omitted > 0 {
            write!(f, "; and {omitted} more")?;
        }
        Ok(())
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl Diagnostics {
    /// The diagnostics, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// How many there are, those that were not kept included.
    pub fn len(&self) -> usize {
        self.items.len() + self.omitted_errors + self.omitted_warnings
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// At least one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.items.iter().filter(|item| item.severity == severity).count()
    }

    /// No more of this severity are kept, so that the work of finding a hint can be saved.
    pub(super) fn is_full(&self, severity: Severity) -> bool {
        self.items.len() >= MAX_DIAGNOSTICS && self.count(severity) >= MAX_DIAGNOSTICS
    }

    /// Counts one that is not kept.
    pub(super) fn omit(&mut self, severity: Severity) {
        match severity {
            Severity::Error => self.omitted_errors += 1,
            Severity::Warning => self.omitted_warnings += 1,
        }
    }

    pub(super) fn push(&mut self, mut diagnostic: Diagnostic) {
        if self.is_full(diagnostic.severity) {
            return self.omit(diagnostic.severity);
        }
        // Names from the file stand in them, and the file is not to be trusted.
        diagnostic.message = clean(&diagnostic.message);
        diagnostic.hint = diagnostic.hint.as_deref().map(clean);
        self.items.push(diagnostic);
    }

    pub(super) fn push_at(
        &mut self,
        source: &Source<'_>,
        severity: Severity,
        span: Span,
        message: String,
        hint: Option<String>,
    ) {
        if self.is_full(severity) {
            return self.omit(severity);
        }
        let (line, column, length) = source.place(span);
        self.push(Diagnostic { severity, message, line, column, length, hint });
    }

    pub(super) fn sort(&mut self) {
        self.items.sort_by_key(|item| (item.line, item.column));
    }

    /// Shows them as a compiler does: message, place, the line with a caret under the span, and hint.
    ///
    /// `source` is the file as it was read, in whatever encoding. Control characters and marks that
    /// turn the direction of text are replaced, tabs become four spaces, and long lines are cut to
    /// the part around the span. The last line counts them. Escape sequences are used only with
    /// `color`.
    pub fn render(&self, file: &str, source: impl AsRef<[u8]>, color: bool) -> String {
        let text = String::from_utf8_lossy(source.as_ref());
        let source = Source::new(&text);
        let file = clean(file);
        let paint = Paint { on: color };
        let mut out = String::new();
        for item in &self.items {
            render_one(&mut out, item, &file, &source, &paint);
            out.push('\n');
        }
        out.push_str(&self.summary(&file));
        out
    }

    fn summary(&self, file: &str) -> String {
        let plural = |count: usize, word: &str| {
            let s = if count == 1 { "" } else { "s" };
            format!("{count} {word}{s}")
        };
        let mut parts = Vec::new();
        let omitted =
            [(Severity::Error, self.omitted_errors), (Severity::Warning, self.omitted_warnings)];
        for (severity, omitted) in omitted {
            let count = self.count(severity) + omitted;
            if count > 0 {
                let shown = match omitted {
                    0 => String::new(),
                    _ => format!(" (the first {MAX_DIAGNOSTICS} are shown)"),
                };
                parts.push(plural(count, severity.word()) + &shown);
            }
        }
        if parts.is_empty() {
            return String::new();
        }
        format!("{} in {file}\n", parts.join(", "))
    }
}

fn clean(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// Escape sequences, or nothing.
struct Paint {
    on: bool,
}

impl Paint {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn severity(&self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Error => self.paint("1;31", text),
            Severity::Warning => self.paint("1;33", text),
        }
    }

    fn frame(&self, text: &str) -> String {
        self.paint("1;34", text)
    }
}

fn render_one(out: &mut String, item: &Diagnostic, file: &str, source: &Source<'_>, paint: &Paint) {
    let word = paint.severity(item.severity, item.severity.word());
    let message = paint.paint("1", &format!(": {}", item.message));
    let number = item.line.to_string();
    let pad = " ".repeat(number.len());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{word}{message}");
    let arrow = paint.frame("-->");
    if item.line == 0 {
        let _ = writeln!(out, "{pad}{arrow} {file}");
    } else {
        let _ = writeln!(out, "{pad}{arrow} {file}:{}:{}", item.line, item.column);
    }
    let line = (item.line as usize).checked_sub(1).and_then(|index| source.line(index));
    if let Some(line) = line {
        let (shown, before, width) = excerpt(line, item.column as usize, item.length as usize);
        let carets = paint.severity(item.severity, &"^".repeat(width));
        let bar = paint.frame("|");
        let _ = writeln!(out, "{pad} {bar}");
        let _ = writeln!(out, "{} {bar} {shown}", paint.frame(&number));
        let _ = writeln!(out, "{pad} {bar} {}{carets}", " ".repeat(before));
    }
    if let Some(hint) = &item.hint {
        let _ = writeln!(out, "{pad} {} {}", paint.frame("="), format_args!("help: {hint}"));
    }
}

/// The part of a line around a span, ready to print; how many cells stand before the span, and how
/// many cells the span takes.
fn excerpt(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    const CELLS_MAX: usize = 120;
    const BEFORE_MAX: usize = 60;
    let start = column.saturating_sub(1);
    let skipped =
        if line.chars().nth(CELLS_MAX).is_some() { start.saturating_sub(BEFORE_MAX) } else { 0 };
    let mut shown = String::new();
    let (mut before, mut width, mut cells) = (0, 0, 0);
    if skipped > 0 {
        shown.push_str("...");
        (before, cells) = (3, 3);
    }
    for (at, character) in line.chars().enumerate().skip(skipped) {
        if cells >= CELLS_MAX {
            shown.push_str("...");
            break;
        }
        let taken = if character == '\t' {
            shown.push_str("    ");
            4
        } else {
            let character = harmless(character);
            shown.push(character);
            cell_count(character)
        };
        cells += taken;
        if at < start {
            before += taken;
        } else if at < start + length {
            width += taken;
        }
    }
    (shown.trim_end().to_owned(), before, width.max(1))
}

/// How many cells of a terminal a character takes, roughly: none for marks that combine, two for
/// the wide scripts of East Asia and for pictures.
fn cell_count(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: u32, column: u32, length: u32) -> Diagnostics {
        let mut all = Diagnostics::default();
        all.push(Diagnostic {
            severity: Severity::Error,
            message: "wrong".to_owned(),
            line,
            column,
            length,
            hint: Some("do this".to_owned()),
        });
        all
    }

    #[test]
    fn a_caret_stands_under_the_span() {
        let shown = one(2, 3, 2).render("f.yaml", "a\nb cd\n", false);
        assert_eq!(
            shown,
            "error: wrong\n --> f.yaml:2:3\n  |\n2 | b cd\n  |   ^^\n  = help: do this\n\n1 error in f.yaml\n"
        );
    }

    #[test]
    fn tabs_wide_and_hostile_characters_keep_the_caret_in_place() {
        let shown = one(1, 5, 2).render("f", "\t語\u{1b}\u{301}xy\n", false);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[3], "1 |     語\u{fffd}\u{301}xy");
        assert_eq!(lines[4], "  |        ^^");
    }

    #[test]
    fn long_lines_are_cut_around_the_span() {
        let line = format!("{}HERE{}", "a".repeat(10_000), "b".repeat(10_000));
        let shown = one(1, 10_001, 4).render("f", &line, false);
        assert!(shown.lines().all(|line| line.len() < 140), "{shown}");
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[3].find("HERE"), lines[4].find("^^^^"));
    }

    #[test]
    fn colour_is_used_only_when_asked_for() {
        let all = one(1, 1, 1);
        assert!(!all.render("f", "a", false).contains('\u{1b}'));
        assert!(all.render("f", "a", true).contains("\u{1b}[1;31merror"));
        assert!(all.render("f", b"\xff\xfe".as_slice(), false).contains("f:1:1"));
    }

    #[test]
    fn no_more_than_the_limit_are_kept() {
        let mut all = Diagnostics::default();
        for line in 0..250 {
            all.push(one(line, 1, 1).items.remove(0));
        }
        assert_eq!((all.iter().count(), all.len()), (MAX_DIAGNOSTICS, 250));
        let shown = all.render("f", "", false);
        assert!(shown.ends_with("250 errors (the first 100 are shown) in f\n"), "{shown}");
    }
}
