//! "Did you mean": the known name that is closest to what was written.

/// Names longer than this are not compared.
const NAME_MAX: usize = 64;
/// At most this many known names are compared.
const CANDIDATES_MAX: usize = 1_000;

/// The candidate that is at most a third of the name's length away, if there is one.
pub(crate) fn closest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().take(NAME_MAX + 1).collect();
    if wanted.is_empty() || wanted.len() > NAME_MAX {
        return None;
    }
    // A name of one or two letters is one change away from every other.
    let limit = wanted.len() / 3;
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.take(CANDIDATES_MAX) {
        let known: Vec<char> = candidate.chars().take(NAME_MAX + 1).collect();
        if known.len().abs_diff(wanted.len()) > limit {
            continue;
        }
        let distance = distance(&wanted, &known);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// ``did you mean `x`?``
pub fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    closest(name, candidates).map(|known| format!("did you mean {}?", quote(known)))
}

/// Damerau-Levenshtein distance (optimal string alignment), in which the case of letters does not count.
fn distance(a: &[char], b: &[char]) -> usize {
    let same = |x: char, y: char| x.eq_ignore_ascii_case(&y);
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &y) in b.iter().enumerate() {
            let change = last[j] + usize::from(!same(x, y));
            row[j + 1] = change.min(last[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && same(x, b[j - 1]) && same(a[i - 1], y);
            if swapped {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Puts user text between backticks: shortened, and without characters that could play tricks on a
/// terminal.
pub fn quote(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut out = String::from("`");
    for (at, character) in text.chars().enumerate() {
        if at == CHARS_MAX {
            out.push_str("...");
            break;
        }
        out.push(harmless(character));
    }
    out.push('`');
    out
}

/// A character that prints as itself and turns nothing round; others become U+FFFD.
pub(crate) fn harmless(character: char) -> char {
    let is_trick = character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match character {
        '\n' | '\t' | '\r' => ' ',
        _ if is_trick => '\u{fffd}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
        closest(name, known.iter().copied())
    }

    #[test]
    fn typing_errors_find_their_name() {
        assert_eq!(of("agnet", &["agent", "capability"]), Some("agent"));
        assert_eq!(of("Needs", &["need", "needs"]), Some("needs"));
        assert_eq!(of("on_failre", &["on_failure"]), Some("on_failure"));
    }

    #[test]
    fn unrelated_names_are_not_offered() {
        assert_eq!(of("x", &["y", "z"]), None);
        assert_eq!(of("colour", &["agent", "capability"]), None);
        assert_eq!(of("", &["a"]), None);
        assert_eq!(of(&"a".repeat(100), &["a"]), None);
    }

    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quote("a\u{1b}[31m\u{202e}b"), "`a\u{fffd}[31m\u{fffd}b`");
        assert_eq!(quote(&"x".repeat(100)).len(), 65);
    }
}
