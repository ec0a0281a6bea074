//! The text of a file and where its lines begin.

/// A stretch of the file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span { start, end: end.max(start) }
    }
}

/// A file's text with an index of its lines. `\n`, `\r\n` and a lone `\r` end a line, as in YAML.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Source<'a> {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for (at, byte) in bytes.iter().enumerate() {
            let ends = match byte {
                b'\n' => true,
                b'\r' => bytes.get(at + 1) != Some(&b'\n'),
                _ => false,
            };
            if ends {
                starts.push(at + 1);
            }
        }
        Source { text, starts }
    }

    /// Index of the line that holds a byte, from 0.
    pub(super) fn line_index(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset).saturating_sub(1)
    }

    /// Where a line begins, in bytes.
    pub(super) fn line_start(&self, index: usize) -> Option<usize> {
        self.starts.get(index).copied()
    }

    /// The text of a line, without its end.
    pub(super) fn line(&self, index: usize) -> Option<&'a str> {
        let start = self.line_start(index)?;
        let end = self.line_start(index + 1).unwrap_or(self.text.len());
        Some(self.text[start..end].trim_end_matches(['\n', '\r']))
    }

    /// Line and column, both from 1, and length in characters of the part on that line (at least 1).
    pub(super) fn place(&self, span: Span) -> (u32, u32, u32) {
        let start = self.floor(span.start);
        let index = self.line_index(start);
        let line_start = self.line_start(index).unwrap_or(0);
        let line_end = line_start + self.line(index).map_or(0, str::len);
        let end = self.floor(span.end.min(line_end)).max(start.min(line_end));
        let chars =
            |from: usize, to: usize| self.text.get(from..to).map_or(0, |text| text.chars().count());
        let column = chars(line_start, start) + 1;
        let length = chars(start.min(line_end), end).max(1);
        (to_u32(index + 1), to_u32(column), to_u32(length))
    }

    /// The text of a span; empty when the span does not lie on characters.
    pub(super) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    fn floor(&self, offset: usize) -> usize {
        let mut at = offset.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_every_kind_of_line_end() {
        let source = Source::new("é: 1\r\nb\rc: x\n");
        assert_eq!(source.place(Span::new(0, 2)), (1, 1, 1));
        assert_eq!(source.place(Span::new(4, 5)), (1, 4, 1));
        assert_eq!(source.place(Span::new(7, 8)), (2, 1, 1));
        assert_eq!(source.place(Span::new(9, 13)), (3, 1, 4));
        assert_eq!(source.line(2), Some("c: x"));
        assert_eq!(source.place(Span::new(100, 200)), (4, 1, 1));
    }

    #[test]
    fn a_span_over_lines_ends_with_its_first() {
        let source = Source::new("abc\ndef");
        assert_eq!(source.place(Span::new(1, 7)), (1, 2, 2));
        assert_eq!(source.place(Span::new(3, 4)), (1, 4, 1));
    }
}
