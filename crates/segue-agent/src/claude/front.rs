//! Bytes to text, and text to front matter and body.
//!
//! Claude Code finds the front matter with the pattern `^---\s*\n([\s\S]*?)---\s*\n?`
//! (observed): it must start with the very first character (after one byte order mark), and
//! it ends at the first `---` anywhere, also in the middle of a line.

/// The text of a file, cut in two.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Front<'a> {
    /// What stands between the two `---`.
    pub yaml: &'a str,
    /// The line of the file on which `yaml` starts, from 1.
    pub line: usize,
    /// The line on which the closing `---` stands.
    pub end_line: usize,
    /// Whether the closing `---` shares its line with other text, which is hardly ever meant.
    pub cut_mid_line: bool,
    /// What follows, trimmed.
    pub body: &'a str,
}

/// Why a file has no front matter.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum NoFront {
    /// It does not look as if any was meant.
    Absent,
    /// There is a `---` line, but something stands before it.
    NotFirst {
        /// The line of that `---`.
        line: usize,
    },
    /// It begins, but never ends.
    Unclosed,
}

/// Whether JavaScript's `\s` matches. Not quite what Rust calls whitespace: U+FEFF is in it,
/// U+0085 is not.
pub(super) fn is_js_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

/// Text without the white space of [`is_js_space`] around it.
pub(super) fn js_trim(text: &str) -> &str {
    text.trim_matches(is_js_space)
}

/// Decodes a file: one UTF-8 byte order mark is dropped, and bytes that are not UTF-8 become
/// U+FFFD, as Node does it. Beside the text: the line of the first such byte.
pub(super) fn decode(bytes: &[u8]) -> (std::borrow::Cow<'_, str>, Option<usize>) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.into(), None),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            (String::from_utf8_lossy(bytes), Some(line))
        }
    }
}

/// Cuts `text` (decoded, without byte order mark) into front matter and body.
pub(super) fn split(text: &str) -> Result<Front<'_>, NoFront> {
    let Some(start) = opening(text) else {
        return Err(missing(text));
    };
    let (head, rest) = text.split_at(start);
    let Some(end) = rest.find("---") else {
        return Err(NoFront::Unclosed);
    };
    let (yaml, rest) = rest.split_at(end);
    let after = rest.strip_prefix("---").unwrap_or(rest);
    let line = 1 + newlines(head);
    let before_on_line = yaml.rsplit('\n').next().unwrap_or_default();
    let after_on_line = after.split('\n').next().unwrap_or_default();
    Ok(Front {
        yaml,
        line,
        end_line: line + newlines(yaml),
        cut_mid_line: !js_trim(before_on_line).is_empty() || !js_trim(after_on_line).is_empty(),
        body: js_trim(after),
    })
}

/// Where the front matter starts: after the last line break of the white space that follows
/// a leading `---`.
fn opening(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("---")?;
    let space = rest.len() - rest.trim_start_matches(is_js_space).len();
    let last_break = rest.get(..space)?.rfind('\n')?;
    Some("---".len() + last_break + 1)
}

/// Tells a file that is plain documentation from one whose front matter was meant but missed.
fn missing(text: &str) -> NoFront {
    let blank = text.len() - text.trim_start_matches(is_js_space).len();
    let (head, rest) = text.split_at(blank);
    if blank > 0 && rest.starts_with("---") {
        NoFront::NotFirst { line: 1 + newlines(head) }
    } else {
        NoFront::Absent
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_front_matter_and_body() {
        let front = split("---\nname: a\n---\n\nbody\n").expect("front matter");
        assert_eq!(front.yaml, "name: a\n");
        assert_eq!((front.line, front.end_line), (2, 3));
        assert_eq!(front.body, "body");
        assert!(!front.cut_mid_line);
    }

    #[test]
    fn closing_dashes_need_no_line_break() {
        let front = split("---\nname: a\n---").expect("front matter");
        assert_eq!(front.body, "");
    }

    #[test]
    fn the_first_dashes_anywhere_close_it() {
        let front = split("---\nd: x --- y\n---\nb").expect("front matter");
        assert_eq!(front.yaml, "d: x ");
        assert_eq!(front.body, "y\n---\nb");
        assert!(front.cut_mid_line);
        assert_eq!(front.end_line, 2);
        assert!(split("---\na: b\n----\n").expect("front matter").cut_mid_line);
        assert!(!split("---\na: b\n  ---  \nx").expect("front matter").cut_mid_line);
    }

    #[test]
    fn blanks_after_the_opening_belong_to_it() {
        let front = split("---  \n\n  name: a\n---\n").expect("front matter");
        assert_eq!(front.yaml, "  name: a\n");
        assert_eq!(front.line, 3);
        assert_eq!(split("---\r\nname: a\r\n---\r\n").expect("crlf").yaml, "name: a\r\n");
    }

    #[test]
    fn what_is_no_front_matter() {
        assert_eq!(split("# Title\n---\n"), Err(NoFront::Absent));
        assert_eq!(split("----\nname: a\n---\n"), Err(NoFront::Absent));
        assert_eq!(split("---yaml\nname: a\n---\n"), Err(NoFront::Absent));
        assert_eq!(split("\n\n---\na: b\n---\n"), Err(NoFront::NotFirst { line: 3 }));
        assert_eq!(split(" ---\na: b\n---\n"), Err(NoFront::NotFirst { line: 1 }));
        assert_eq!(split("---\nname: a\n"), Err(NoFront::Unclosed));
        assert_eq!(split("---\rname: a\r---\r"), Err(NoFront::Absent));
        assert_eq!(split(""), Err(NoFront::Absent));
    }

    #[test]
    fn decoding_drops_one_mark_and_points_at_bad_bytes() {
        assert_eq!(decode(b"\xef\xbb\xbf---"), ("---".into(), None));
        assert_eq!(decode(b"\xef\xbb\xbf\xef\xbb\xbfx").0, "\u{feff}x");
        let (text, line) = decode(b"a\nb\xff\nc");
        assert_eq!((text.as_ref(), line), ("a\nb\u{fffd}\nc", Some(2)));
    }
}
