//! Finding the JSON objects in what a program printed.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json;

/// How often a line that begins with noise is searched for an object behind the noise.
const TRIES_BEHIND_NOISE: usize = 4;

/// Where an object may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// At the beginning of a line only. Event streams are read like this, so that an object that an
    /// agent merely quotes inside a line of prose is not taken for one that the CLI said.
    LineStart,
    /// Anywhere in a line, for outputs in which nothing was found at a line's beginning: a log
    /// message without a line end may stand before the object.
    Anywhere,
}

/// What was seen besides the objects.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many objects were handed out.
    pub objects: u64,
    /// How many non-blank lines held none.
    pub noise_lines: u64,
    /// The last line looks like an object, but its end is missing.
    pub cut_off: bool,
    /// Bytes that are not UTF-8 were replaced by U+FFFD.
    pub bad_utf8: bool,
}

/// Calls `each` with the text of every JSON object in `bytes`, in order: one or several on a line,
/// the elements of an array on a line, and objects and arrays printed over many lines (whose first
/// line is a lone `{` or `[` and whose last a lone `}` or `]`, neither indented, as
/// `JSON.stringify` prints them).
///
/// Every byte is looked at a bounded number of times, whatever the input, and no text is copied but
/// that of lines that are not UTF-8.
pub(super) fn each_object(bytes: &[u8], search: Search, mut each: impl FnMut(&str)) -> Seen {
    let mut seen = Seen::default();
    let mut open: Option<Block> = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let next = at + line.len() + 1;
        match (line.trim_ascii_end(), &open) {
            (b"{", _) => open = Some(Block { start: at, close: b"}" }),
            (b"[", _) => open = Some(Block { start: at, close: b"]" }),
            (text, Some(block)) if text == block.close => {
                let whole = &bytes[block.start..at + text.len()];
                if one_text(whole, Search::LineStart, &mut seen, &mut each) == 0 {
                    seen.noise_lines += 1;
                }
                open = None;
            }
            // Inside a printed block every line is indented; one that is not ends the block.
            (text, Some(_)) if text.first().is_none_or(u8::is_ascii_whitespace) => {}
            (text, _) => {
                open = None;
                let found = one_text(text, search, &mut seen, &mut each);
                if found == 0 && !text.trim_ascii().is_empty() {
                    seen.noise_lines += 1;
                }
            }
        }
        at = next;
    }
    seen.cut_off |= open.is_some();
    seen
}

/// [`each_object`] at the beginnings of lines and, if `each` recognised none of what stood there,
/// once more anywhere in them.
pub(super) fn scan(bytes: &[u8], mut each: impl FnMut(&str) -> bool) -> Seen {
    let mut recognised = false;
    let mut visit = |object: &str| recognised |= each(object);
    let seen = each_object(bytes, Search::LineStart, &mut visit);
    if recognised {
        return seen;
    }
    each_object(bytes, Search::Anywhere, |object| {
        each(object);
    })
}

struct Block {
    start: usize,
    close: &'static [u8],
}

/// Hands out the objects of one line or block; answers how many there were.
fn one_text(bytes: &[u8], search: Search, seen: &mut Seen, each: &mut impl FnMut(&str)) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, Cow::Owned(_)) {
        seen.bad_utf8 = true;
    }
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
    let before = seen.objects;
    seen.cut_off = false;
    if text.starts_with(['{', '[']) {
        values(text, seen, each);
    }
    // What stands inside an object that cannot be read is not at the top, hence is left alone.
    let unread = seen.objects == before && !seen.cut_off && !text.starts_with('{');
    if search == Search::Anywhere && unread {
        behind_noise(text, seen, each);
    }
    seen.objects - before
}

/// Reads value after value from the beginning of `text`; false when there is not even one.
fn values(text: &str, seen: &mut Seen, each: &mut impl FnMut(&str)) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let mut any = false;
    loop {
        match reader.next() {
            Some(Ok(raw)) if raw.get().starts_with('{') => {
                any = true;
                seen.objects += 1;
                each(raw.get());
            }
            Some(Ok(raw)) if raw.get().starts_with('[') => {
                any = true;
                json::each_element(Some(raw), |element| {
                    if element.get().starts_with('{') {
                        seen.objects += 1;
                        each(element.get());
                    }
                });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                seen.cut_off = error.is_eof();
                return any;
            }
            None => return any,
        }
    }
}

fn behind_noise(text: &str, seen: &mut Seen, each: &mut impl FnMut(&str)) {
    let mut at = 0;
    for _ in 0..TRIES_BEHIND_NOISE {
        match text[at..].find("{\"") {
            Some(found) if values(&text[at + found..], seen, each) => return,
            // An unfinished object is the end of the line: what stands in it is not at its top.
            Some(_) if seen.cut_off => return,
            Some(found) => at += found + 1,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], search: Search) -> (Vec<String>, Seen) {
        let mut objects = Vec::new();
        let seen = each_object(bytes, search, |object| objects.push(object.to_owned()));
        (objects, seen)
    }

    fn at_line_start(bytes: &[u8]) -> Vec<String> {
        found(bytes, Search::LineStart).0
    }

    #[test]
    fn lines_with_noise_between_them() {
        let (objects, seen) =
            found(b"log\n{\"a\":1}\r\n\n  {\"b\":2}\n[WARN] {\"c\":3}\n", Search::LineStart);
        assert_eq!(objects, ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(seen.noise_lines, 2);
        assert!(!seen.cut_off && !seen.bad_utf8);
    }

    #[test]
    fn a_byte_order_mark_and_nul_bytes_before_an_object() {
        assert_eq!(at_line_start(b"\xef\xbb\xbf{\"a\":1}"), ["{\"a\":1}"]);
        assert_eq!(at_line_start(b"\0\0\0{\"a\":1}\n\0"), ["{\"a\":1}"]);
    }

    #[test]
    fn two_objects_on_a_line_and_noise_behind_them() {
        let objects = at_line_start(b"{\"a\":1}{\"b\":2} trailing {\"c\":3}");
        assert_eq!(objects, ["{\"a\":1}", "{\"b\":2}"]);
    }

    #[test]
    fn printed_over_many_lines_between_noise() {
        let text = b"Loaded\n{\n  \"a\": {\n    \"b\": 1\n  }\n}\nbye\n{\n{\"c\":3}\n";
        let (objects, seen) = found(text, Search::LineStart);
        assert_eq!(objects.len(), 2);
        assert!(objects[0].contains("\"b\": 1") && objects[1] == "{\"c\":3}");
        assert!(!seen.cut_off);
    }

    #[test]
    fn arrays_give_their_objects() {
        assert_eq!(at_line_start(b"[{\"a\":1},2,{\"b\":2}]"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(at_line_start(b"[\n  {\"a\":1},\n  {\"b\":2}\n]").len(), 2);
        assert!(at_line_start(b"[WARN] {\"a\":1}").is_empty());
    }

    #[test]
    fn a_cut_off_end_is_seen_and_its_inside_is_not_read() {
        for text in [&b"{\"a\":1}\n{\"type\":\"x\",\"in\":{\"b\":2},\"res"[..], b"{\n  \"a\": 1,\n"]
        {
            let (objects, seen) = found(text, Search::Anywhere);
            assert!(seen.cut_off, "{text:?}");
            assert!(!objects.iter().any(|object| object.contains("\"b\"")));
        }
        assert!(!found(b"{\"a\":\n{\"b\":1}\n", Search::LineStart).1.cut_off);
    }

    #[test]
    fn behind_noise_only_when_asked() {
        let text = b"creds {x} loaded.{\"a\":1}\n";
        assert!(at_line_start(text).is_empty());
        assert_eq!(found(text, Search::Anywhere).0, ["{\"a\":1}"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let (objects, seen) = found(b"{\"a\":\"\xff\xfe\"}\n{\"b\":1}", Search::LineStart);
        assert_eq!(objects.len(), 2);
        assert!(objects[0].contains('\u{fffd}') && seen.bad_utf8);
    }

    /// With work that grew with the square of the input, none of these would ever end.
    #[test]
    fn hostile_shapes_stay_linear() {
        const BYTES: usize = 1 << 20;
        for unit in
            ["{\n", "{\"a\":[\n", "{\"a\":[", "[", "[\n{\n", "}\n{", "{\"", "{\"a\":1}", "\n \n"]
        {
            let text = unit.repeat(BYTES / unit.len());
            for search in [Search::LineStart, Search::Anywhere] {
                let (objects, _) = found(text.as_bytes(), search);
                assert!(objects.len() <= BYTES / 2);
            }
        }
    }
}
