//! A Rust lexer just deep enough for the house rules: it tells code from comments and strings.

/// A comment or the content of a string, with the line on which it starts (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub line: usize,
    pub text: String,
}

/// A source text, split up.
#[derive(Debug, Default)]
pub struct Lexed {
    /// The text with comments, characters, lifetimes and contents of strings replaced by blanks;
    /// as long as the text and with the same lines. A raw identifier `r#fn` reads `__fn`.
    pub code: String,
    /// Comments with their marks (`//`, `///`, `/*`), one a line comment or block comment.
    pub comments: Vec<Piece>,
    /// Contents of string literals of every kind, with escapes as written.
    pub strings: Vec<Piece>,
}

/// Splits a source text up. Never fails: an unfinished comment or string reaches to the end.
pub fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        line: 1,
        code: Vec::with_capacity(text.len()),
        comments: Vec::new(),
        strings: Vec::new(),
    };
    lexer.run();
    let code = String::from_utf8_lossy(&lexer.code).into_owned();
    Lexed { code, comments: lexer.comments, strings: lexer.strings }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: usize,
    code: Vec<u8>,
    comments: Vec<Piece>,
    strings: Vec<Piece>,
}

/// Whether a byte can stand in an identifier or a number; every byte beyond ASCII can.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'/' if self.peek(1) == b'/' => self.line_comment(),
                b'/' if self.peek(1) == b'*' => self.block_comment(),
                b'"' => self.string(self.at),
                b'\'' => self.quote(),
                _ if is_word(byte) => self.word(),
                _ => self.keep(1),
            }
        }
    }

    /// The byte `ahead` of the current one, 0 beyond the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn keep(&mut self, count: usize) {
        for _ in 0..count {
            let byte = self.peek(0);
            self.line += usize::from(byte == b'\n');
            self.code.push(byte);
            self.at += 1;
        }
    }

    /// Replaces the text up to `end` by blanks, line ends kept.
    fn blank_to(&mut self, end: usize) {
        while self.at < end.min(self.bytes.len()) {
            let newline = self.bytes[self.at] == b'\n';
            self.line += usize::from(newline);
            self.code.push(if newline { b'\n' } else { b' ' });
            self.at += 1;
        }
    }

    fn line_comment(&mut self) {
        let end =
            self.text[self.at..].find('\n').map_or(self.bytes.len(), |length| self.at + length);
        self.comment(end);
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        let mut end = self.at;
        while end < self.bytes.len() {
            let two = &self.bytes[end..self.bytes.len().min(end + 2)];
            match two {
                b"/*" => depth += 1,
                b"*/" => depth -= 1,
                _ => {
                    end += 1;
                    continue;
                }
            }
            end += 2;
            if depth == 0 {
                break;
            }
        }
        self.comment(end);
    }

    fn comment(&mut self, end: usize) {
        let text = self.text[self.at..end].trim_end().to_owned();
        self.comments.push(Piece { line: self.line, text });
        self.blank_to(end);
    }

    /// A string with escapes whose opening quote is at `open`; what stands before it is its prefix.
    fn string(&mut self, open: usize) {
        let mut end = open + 1;
        while end < self.bytes.len() && self.bytes[end] != b'"' {
            end += if self.bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.content(open, end, 0);
    }

    /// A raw string whose opening quote is at `open`, with `hashes` before and after.
    fn raw_string(&mut self, open: usize, hashes: usize) {
        let closing = format!("\"{}", "#".repeat(hashes));
        let length = self.text[open + 1..].find(&closing);
        let end = length.map_or(self.bytes.len(), |length| open + 1 + length);
        self.content(open, end, hashes);
    }

    /// Notes the content between the quotes at `open` and `end`; the quotes stay in the code.
    fn content(&mut self, open: usize, end: usize, hashes: usize) {
        let end = end.min(self.bytes.len());
        let text = self.text.get(open + 1..end).unwrap_or_default().to_owned();
        self.strings.push(Piece { line: self.line, text });
        self.blank_to(open);
        self.keep(1);
        self.blank_to(end);
        if self.at < self.bytes.len() {
            self.keep(1);
        }
        self.blank_to(self.at + hashes);
    }

    /// An identifier, a number, or the prefix of a literal.
    fn word(&mut self) {
        let length = self.bytes[self.at..].iter().take_while(|byte| is_word(**byte)).count();
        let word = &self.text[self.at..self.at + length];
        let open = self.at + length;
        let next = self.peek(length);
        let raw = ["r", "br", "cr"].contains(&word);
        if next == b'"' && ["b", "c"].contains(&word) {
            return self.string(open);
        }
        if raw && (next == b'"' || next == b'#') {
            let hashes = self.bytes[open..].iter().take_while(|byte| **byte == b'#').count();
            if self.peek(length + hashes) == b'"' {
                return self.raw_string(open + hashes, hashes);
            }
            if word == "r" && hashes == 1 && is_word(self.peek(2)) {
                self.code.extend_from_slice(b"__");
                self.at += 2;
                return;
            }
        }
        if next == b'\'' && word == "b" {
            self.blank_to(open);
            return self.quote();
        }
        self.keep(length);
    }

    /// A character literal or a lifetime: both become blanks.
    fn quote(&mut self) {
        let rest = &self.text[self.at + 1..];
        let mut chars = rest.chars();
        let first = chars.next().unwrap_or(' ');
        let end = if first == '\\' {
            // The escaped character may itself be a quote, so the search starts behind it.
            let escaped = chars.next().map_or(0, char::len_utf8);
            let behind = rest.get(1 + escaped..).unwrap_or_default();
            self.at + 2 + escaped + behind.find('\'').map_or(behind.len(), |length| length + 1)
        } else if chars.next() == Some('\'') {
            self.at + 2 + first.len_utf8()
        } else {
            let name = rest.bytes().take_while(|byte| is_word(*byte)).count();
            self.at + 1 + name
        };
        self.blank_to(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: &[Piece]) -> Vec<(usize, &str)> {
        pieces.iter().map(|piece| (piece.line, piece.text.as_str())).collect()
    }

    /// The code without its blanks, to compare what is left of it.
    fn left(text: &str) -> String {
        let lexed = lex(text);
        assert_eq!(lexed.code.len(), text.len(), "{text}");
        assert_eq!(lexed.code.matches('\n').count(), text.matches('\n').count(), "{text}");
        lexed.code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_are_taken_out_and_nest() {
        let text = "a // x { }\n/* b /* c } */ d\n*/ e /// f\n//! g";
        let lexed = lex(text);
        assert_eq!(
            texts(&lexed.comments),
            [(1, "// x { }"), (2, "/* b /* c } */ d\n*/"), (3, "/// f"), (4, "//! g")]
        );
        assert_eq!(left(text), "a e");
    }

    #[test]
    fn strings_of_every_kind_lose_their_content() {
        let text = "f(\"a { \\\" }\", b\"{\", c\"{\", r\"\\\", r#\"\" {\"#, br##\"\"# {\"##);\n\"two\nlines\" x";
        let lexed = lex(text);
        let contents: Vec<&str> = lexed.strings.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(contents, ["a { \\\" }", "{", "{", "\\", "\" {", "\"# {", "two\nlines"]);
        assert_eq!(lexed.strings[6].line, 2);
        assert!(!lexed.code.contains('{'));
        assert!(left(text).ends_with("x"), "{}", left(text));
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        assert_eq!(left("m('{', '\\'', '\\\\', '\\u{7d}', b'}', 'ü', '\"')"), "m( , , , , , , )");
        assert_eq!(
            left("fn f<'a>(x: &'static str, y: &'a u8) { 'out: loop { break 'out } }")
                .matches('{')
                .count(),
            2
        );
        assert_eq!(left("impl<'a> X<'a> for Y<'_> {}"), "impl< > X< > for Y< > {}");
    }

    #[test]
    fn a_raw_identifier_is_no_keyword_and_no_string() {
        assert_eq!(left("r#fn + br + r#type"), "__fn + br + __type");
    }

    #[test]
    fn unfinished_literals_reach_to_the_end() {
        for text in ["x \"abc", "x r#\"abc\"", "x /* abc", "x '\\", "x '", "x \"abc\\", "x b'"] {
            assert_eq!(left(text).chars().next(), Some('x'), "{text}");
        }
    }
}
