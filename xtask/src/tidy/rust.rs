//! A Rust source file as tokens, with its test code, its functions and the paths it names.

use super::lex::{Piece, is_word, lex};

/// One token of code: a word, `::`, `=>`, `->`, or one other character.
#[derive(Debug, Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
    line: usize,
}

/// Lines from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: usize,
    pub last: usize,
}

impl Span {
    pub fn contains(self, line: usize) -> bool {
        (self.first..=self.last).contains(&line)
    }

    pub fn lines(self) -> usize {
        self.last + 1 - self.first
    }
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// From the line of `fn` to that of the closing brace.
    pub span: Span,
}

/// A path such as `std::fs::read`, imported or used.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedPath {
    pub path: String,
    pub line: usize,
}

/// A Rust source file, taken apart.
#[derive(Debug)]
pub struct Rust {
    code: String,
    tokens: Vec<Token>,
    pub comments: Vec<Piece>,
    pub strings: Vec<Piece>,
    /// Items under `#[cfg(test)]`, with their attribute.
    pub tests: Vec<Span>,
    /// Modules declared as `#[cfg(test)] mod name;`, which live in files of their own.
    pub test_modules: Vec<String>,
    /// Whether the file as a whole is test code.
    pub all_test: bool,
}

impl Rust {
    pub fn new(text: &str) -> Self {
        let lexed = lex(text);
        let tokens = tokens(&lexed.code);
        let mut rust = Rust {
            code: lexed.code,
            tokens,
            comments: lexed.comments,
            strings: lexed.strings,
            tests: Vec::new(),
            test_modules: Vec::new(),
            all_test: false,
        };
        rust.find_tests();
        rust
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The text of the token at `at`, empty beyond the end.
    pub fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &self.code[token.start..token.end])
    }

    /// The line of the token at `at`, or of the last one.
    pub fn line(&self, at: usize) -> usize {
        self.tokens.get(at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    /// Whether the tokens from `at` on read as `words`.
    pub fn reads(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.text(at + offset) == *word)
    }

    /// Whether the line belongs to test code.
    pub fn is_test(&self, line: usize) -> bool {
        self.all_test || self.tests.iter().any(|span| span.contains(line))
    }

    /// Whether the line holds nothing but comments, blanks or the start of an attribute.
    pub fn is_beside_code(&self, line: usize) -> bool {
        let first = self.tokens.partition_point(|token| token.line < line);
        match self.tokens.get(first) {
            Some(token) if token.line == line => self.text(first) == "#",
            _ => true,
        }
    }

    /// Every function with a body, nested ones and those in test code included.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in 0..self.len() {
            // `fn(` is the type of a function pointer.
            let named = self.text(at) == "fn" && !["(", ""].contains(&self.text(at + 1));
            let Some(open) = named.then(|| self.body(at)).flatten() else {
                continue;
            };
            let span = Span { first: self.line(at), last: self.line(self.closing(open)) };
            functions.push(Function { name: self.text(at + 1).to_owned(), span });
        }
        functions
    }

    /// The paths of two or more segments that the code names, imports written out in full.
    pub fn paths(&self) -> Vec<NamedPath> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.len() {
            if self.text(at) == "use" && self.text(at + 1) != "<" {
                at = self.import(at + 1, &mut Vec::new(), &mut paths);
            } else if self.is_name(at) && self.text(at + 1) == "::" {
                let start = at;
                let mut path = self.text(at).to_owned();
                while self.text(at + 1) == "::" && self.is_name(at + 2) {
                    at += 2;
                    path.push_str("::");
                    path.push_str(self.text(at));
                }
                paths.push(NamedPath { path, line: self.line(start) });
                at += 1;
            } else {
                at += 1;
            }
        }
        paths
    }

    /// The token that closes the brace at `open`, or the last token where none does.
    pub fn closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for at in open..self.len() {
            match self.text(at) {
                "{" => depth += 1,
                "}" if depth <= 1 => return at,
                "}" => depth -= 1,
                _ => {}
            }
        }
        self.len().saturating_sub(1)
    }

    /// The opening brace of the item that starts at `at`; `None` when it ends with a semicolon.
    fn body(&self, at: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in at..self.len() {
            match self.text(at) {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                "{" if depth == 0 => return Some(at),
                ";" if depth == 0 => return None,
                _ => {}
            }
        }
        None
    }

    fn is_name(&self, at: usize) -> bool {
        let first = self.text(at).bytes().next().unwrap_or(b' ');
        is_word(first) && !first.is_ascii_digit()
    }

    /// Reads one import tree from `at` on, collects its leaves, returns the token behind it.
    fn import(&self, mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<NamedPath>) -> usize {
        let depth = prefix.len();
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while !["}", ";", ""].contains(&self.text(at)) {
                        at = if self.text(at) == "," {
                            at + 1
                        } else {
                            self.import(at, prefix, paths)
                        };
                    }
                    at += usize::from(self.text(at) == "}");
                    break;
                }
                name if self.is_name(at) || name == "*" => {
                    prefix.push(name.to_owned());
                    at += 1;
                    if self.text(at) != "::" {
                        paths.push(NamedPath { path: prefix.join("::"), line: self.line(at - 1) });
                        at += if self.text(at) == "as" { 2 } else { 0 };
                        break;
                    }
                }
                // Not an import tree: a macro's pattern, for one. Step over it.
                _ => {
                    at += 1;
                    break;
                }
            }
        }
        prefix.truncate(depth);
        at
    }

    fn find_tests(&mut self) {
        let mut at = 0;
        while at < self.len() {
            let inner = self.reads(at, &["#", "!", "["]) && self.says_test(at + 3);
            let outer = self.reads(at, &["#", "["]) && self.says_test(at + 2);
            if inner {
                self.all_test = true;
            }
            if !outer {
                at += 1;
                continue;
            }
            let first = self.line(at);
            let mut item = at;
            while self.text(item) == "#" {
                item = self.attribute_end(item);
            }
            let name = (item..self.len().min(item + 6))
                .find(|at| self.text(*at) == "mod")
                .map(|at| at + 1);
            let end = match self.body(item) {
                Some(open) => self.closing(open),
                None => (item..self.len()).find(|at| self.text(*at) == ";").unwrap_or(self.len()),
            };
            if let Some(name) = name.filter(|name| self.text(name + 1) == ";") {
                self.test_modules.push(self.text(name).to_owned());
            }
            self.tests.push(Span { first, last: self.line(end) });
            at = end + 1;
        }
    }

    /// Whether the attribute's content from `at` on is `cfg(test)` or `cfg(all(test, ..))`.
    fn says_test(&self, at: usize) -> bool {
        self.reads(at, &["cfg", "(", "test", ")"])
            || self.reads(at, &["cfg", "(", "all", "(", "test"])
    }

    /// The token behind the attribute whose `#` is at `at`.
    fn attribute_end(&self, at: usize) -> usize {
        let mut depth = 0usize;
        for at in at..self.len() {
            match self.text(at) {
                "[" => depth += 1,
                "]" if depth <= 1 => return at + 1,
                "]" => depth -= 1,
                _ => {}
            }
        }
        self.len()
    }
}

fn tokens(code: &str) -> Vec<Token> {
    let bytes = code.as_bytes();
    let mut tokens = Vec::with_capacity(bytes.len() / 4);
    let mut line = 1;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_whitespace() {
            line += usize::from(byte == b'\n');
            at += 1;
            continue;
        }
        let length = if is_word(byte) {
            bytes[at..].iter().take_while(|byte| is_word(**byte)).count()
        } else {
            let pair = &bytes[at..bytes.len().min(at + 2)];
            if [b"::", b"=>", b"->"].iter().any(|known| pair == *known) { 2 } else { 1 }
        };
        tokens.push(Token { start: at, end: at + length, line });
        at += length;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str) -> Vec<(String, usize, usize)> {
        let functions = Rust::new(text).functions();
        functions.into_iter().map(|f| (f.name, f.span.first, f.span.last)).collect()
    }

    #[test]
    fn functions_are_measured_whatever_stands_in_and_around_them() {
        let text = r##"
/// fn in_a_comment() {
#[inline]
pub async fn outer<F: Fn(u8) -> u8>(f: F, g: fn(u8) -> u8, x: [u8; { 2 }]) -> u8
where
    F: Send,
{
    let braces = "}}}" ; let raw = r#" } "# ; let c = '}';
    let closure = |x| { f(x) };
    fn inner() {
        println!("{braces}");
    }
    impl Trait for X {
        fn method(&self) {}
    }
    2
}
trait T {
    fn declared(&self, x: [u8; 3]);
    fn given(&self) {
    }
}
macro_rules! make {
    ($name:ident) => {
        fn $name() {
        }
    };
}
"##;
        let expected = [
            ("outer", 4, 17),
            ("inner", 10, 12),
            ("method", 14, 14),
            ("given", 20, 21),
            ("$", 25, 26),
        ];
        let expected: Vec<_> =
            expected.map(|(name, first, last)| (name.to_owned(), first, last)).into();
        assert_eq!(spans(text), expected);
    }

    #[test]
    fn test_items_and_test_modules_are_found() {
        let text = "
fn a() {}
#[cfg(test)]
#[path = \"x.rs\"]
pub(crate) mod helpers;
#[cfg(all(test, unix))]
mod tests {
    fn b() {
    }
}
#[cfg(test)]
use a::{b, c};
#[cfg(not(test))]
fn c() {}
#[cfg(feature = \"test\")]
fn d() {}
";
        let rust = Rust::new(text);
        assert_eq!(rust.test_modules, ["helpers"]);
        assert!(!rust.all_test);
        let lines: Vec<usize> = (1..=16).filter(|line| rust.is_test(*line)).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert!(Rust::new("#![cfg(test)]\nfn a() {}").all_test);
    }

    #[test]
    fn imports_are_written_out_in_full() {
        let text = "use std::{fs, io::{self, Read as R}, time::*};\npub use ::a::b;\nfn f() -> impl T + use<'a> { std::net::X::new::<u8>() }";
        let rust = Rust::new(text);
        let paths: Vec<(String, usize)> =
            rust.paths().into_iter().map(|p| (p.path, p.line)).collect();
        let expected = [
            ("std::fs", 1),
            ("std::io::self", 1),
            ("std::io::Read", 1),
            ("std::time::*", 1),
            ("a::b", 2),
            ("std::net::X::new", 3),
        ];
        assert_eq!(paths, expected.map(|(path, line)| (path.to_owned(), line)));
    }

    #[test]
    fn broken_sources_end_the_scan_and_nothing_else() {
        for text in [
            "use",
            "use {",
            "fn",
            "fn x",
            "fn x(",
            "fn x() {",
            "#[cfg(test)]",
            "#[cfg(test",
            "use a::{b::",
            "}",
        ] {
            let rust = Rust::new(text);
            rust.functions();
            rust.paths();
        }
    }

    #[test]
    fn comments_and_attributes_stand_beside_code() {
        let rust = Rust::new("// a\n#[x]\nfn f() {} // b\n\n");
        let beside: Vec<usize> = (1..=5).filter(|line| rust.is_beside_code(*line)).collect();
        assert_eq!(beside, [1, 2, 4, 5]);
    }
}
