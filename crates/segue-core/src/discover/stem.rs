//! Text to words, and words to stems.
//!
//! The rules are light on purpose: they only have to bring the forms of one word together
//! (review, reviews, reviewer, reviewing, reviewed), not to find its true stem, and they run
//! on names of programs and formats as well.

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// As written, in lower case.
    pub written: String,
    /// What it is found by: its stem first, then the stem of the whole compound that it begins.
    pub terms: Vec<String>,
}

/// Words that say nothing about an agent.
const STOP: &[&str] = &[
    "a",
    "about",
    "after",
    "agent",
    "agents",
    "all",
    "also",
    "am",
    "an",
    "and",
    "any",
    "are",
    "as",
    "at",
    "be",
    "been",
    "before",
    "being",
    "but",
    "by",
    "can",
    "could",
    "did",
    "do",
    "does",
    "doing",
    "each",
    "etc",
    "for",
    "from",
    "had",
    "has",
    "have",
    "he",
    "help",
    "her",
    "him",
    "his",
    "how",
    "i",
    "if",
    "in",
    "into",
    "is",
    "it",
    "its",
    "just",
    "me",
    "more",
    "most",
    "must",
    "my",
    "need",
    "needs",
    "no",
    "not",
    "of",
    "on",
    "only",
    "or",
    "other",
    "our",
    "out",
    "over",
    "own",
    "please",
    "proactively",
    "she",
    "should",
    "so",
    "some",
    "someone",
    "such",
    "than",
    "that",
    "the",
    "their",
    "them",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "through",
    "to",
    "too",
    "up",
    "us",
    "use",
    "used",
    "uses",
    "using",
    "very",
    "via",
    "want",
    "was",
    "we",
    "were",
    "what",
    "when",
    "whenever",
    "where",
    "which",
    "while",
    "who",
    "will",
    "with",
    "within",
    "would",
    "you",
    "your",
];

/// Short forms that are as common as the words they stand for.
const SHORT: &[(&str, &str)] = &[
    ("a11y", "accessibility"),
    ("app", "application"),
    ("apps", "application"),
    ("auth", "authentication"),
    ("config", "configuration"),
    ("configs", "configuration"),
    ("db", "database"),
    ("dbs", "database"),
    ("dev", "developer"),
    ("doc", "document"),
    ("docs", "document"),
    ("golang", "go"),
    ("i18n", "internationalization"),
    ("infra", "infrastructure"),
    ("js", "javascript"),
    ("k8s", "kubernetes"),
    ("l10n", "localization"),
    ("perf", "performance"),
    ("postgres", "postgresql"),
    ("psql", "postgresql"),
    ("py", "python"),
    ("repo", "repository"),
    ("repos", "repository"),
    ("spec", "specification"),
    ("specs", "specification"),
    ("ts", "typescript"),
    ("vuln", "vulnerability"),
];

/// Words that the rules would take for forms of another word: production is no product.
const KEEP: &[&str] = &[
    "customer",
    "engine",
    "general",
    "generic",
    "number",
    "partner",
    "production",
    "universal",
    "university",
];

/// Beginnings of words that stand for all words with that beginning. Analysis, analyst and
/// analytics are brought together by no rule about endings; accessibility is not about access;
/// an engineer is not about engines.
const FAMILIES: &[&str] = &["accessib", "analy", "engineer"];

/// An ending that is cut off, and how many letters must stay.
type Rule = (&'static str, usize);

/// Tried from the top; the first that fits is applied, until none does.
const RULES: &[Rule] = &[
    ("isation", 4),
    ("ization", 4),
    ("ability", 4),
    ("ibility", 4),
    ("ating", 4),
    ("ation", 4),
    ("ative", 4),
    ("ators", 4),
    ("ising", 4),
    ("izing", 4),
    ("ated", 4),
    ("atic", 4),
    ("ator", 4),
    ("able", 4),
    ("ible", 4),
    ("ance", 5),
    ("ence", 5),
    ("ised", 4),
    ("iser", 4),
    ("ized", 4),
    ("izer", 4),
    ("ment", 4),
    ("ural", 6),
    ("ant", 5),
    ("ate", 4),
    ("ent", 5),
    ("ing", 3),
    ("ise", 4),
    ("ist", 5),
    ("ity", 4),
    ("ize", 4),
    ("sion", 4),
    ("tion", 4),
    ("ure", 7),
    ("ed", 3),
    ("er", 3),
    ("ic", 5),
    ("ly", 4),
    ("or", 4),
    ("e", 3),
    ("y", 5),
];

/// The words of a text that say something, with their stems. Letters and digits make a word,
/// and so do the signs in `c++`, `c#` and `f#`; `camelCase` is two words. A compound with
/// hyphens is found by its parts and as one word: `full-stack` by "full", "stack" and "fullstack".
pub(super) fn words(text: &str) -> impl Iterator<Item = Word> {
    let pieces = pieces(text);
    let joined = compounds(&pieces);
    let mut words = Vec::with_capacity(pieces.len());
    for (piece, joined) in pieces.into_iter().zip(joined) {
        let stops = STOP.binary_search(&piece.text.as_str()).is_ok();
        let mut terms = Vec::new();
        if !stops {
            terms.push(stem(&piece.text));
        }
        terms.extend(joined.map(|joined| stem_joined(&joined)));
        if !terms.is_empty() {
            words.push(Word { written: piece.text, terms });
        }
    }
    words.into_iter()
}

struct Piece {
    text: String,
    /// Whether only a hyphen stands between it and the piece before it.
    hyphen: bool,
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut open = false;
    let mut before = ' ';
    let mut gap = String::new();
    for c in text.chars() {
        let sign = match c {
            '+' => before == '+' || matches!(before, 'c' | 'C') && last_is_single(&pieces, open),
            '#' => matches!(before, 'c' | 'C' | 'f' | 'F') && last_is_single(&pieces, open),
            _ => false,
        };
        if c.is_alphanumeric() || (open && sign) {
            let hump = c.is_uppercase() && before.is_lowercase();
            if !open || hump {
                pieces.push(Piece {
                    text: String::new(),
                    hyphen: !hump && matches!(gap.as_str(), "-" | "_"),
                });
                open = true;
            }
            if let Some(piece) = pieces.last_mut() {
                piece.text.extend(c.to_lowercase());
            }
            gap.clear();
        } else {
            open = false;
            gap.push(c);
        }
        before = c;
    }
    pieces
}

fn last_is_single(pieces: &[Piece], open: bool) -> bool {
    open && pieces.last().is_some_and(|piece| piece.text.trim_end_matches('+').chars().count() == 1)
}

/// For the first piece of each compound with hyphens: the whole of it in one word.
fn compounds(pieces: &[Piece]) -> Vec<Option<String>> {
    let mut joined: Vec<Option<String>> = vec![None; pieces.len()];
    let mut first = 0;
    for (at, piece) in pieces.iter().enumerate() {
        if !piece.hyphen {
            first = at;
            continue;
        }
        let start = pieces.get(first).map(|piece| piece.text.clone()).unwrap_or_default();
        if let Some(slot) = joined.get_mut(first) {
            slot.get_or_insert(start).push_str(&piece.text);
        }
    }
    joined
}

/// Brings the forms of a word together. Takes and gives lower case.
pub(super) fn stem(word: &str) -> String {
    let long =
        SHORT.binary_search_by_key(&word, |(short, _)| short).ok().and_then(|at| SHORT.get(at));
    let word = long.map_or(word, |(_, long)| long);
    match FAMILIES.iter().find(|family| word.starts_with(**family)) {
        Some(family) => (*family).to_owned(),
        None => ending_cut(word),
    }
}

/// The stem of several words that were written, or may be written, as one.
pub(super) fn stem_joined(words: &str) -> String {
    ending_cut(words)
}

/// Applies the rules for endings; leaves alone whatever is short or has anything but the
/// letters a to z in it.
fn ending_cut(word: &str) -> String {
    if word.len() <= 3 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return word.to_owned();
    }
    let mut stem = british(&singular(word));
    while !KEEP.contains(&stem.as_str()) {
        match shorter(&stem) {
            Some(next) => stem = next,
            None => return undoubled(stem),
        }
    }
    stem
}

fn singular(word: &str) -> String {
    if let Some(start) = word.strip_suffix("ies").filter(|start| start.len() >= 2) {
        return format!("{start}y");
    }
    for ending in ["sses", "xes", "ches", "shes", "zes"] {
        if word.len() > ending.len() + 1 && word.ends_with(ending) {
            return word.strip_suffix("es").unwrap_or(word).to_owned();
        }
    }
    let plural = word.ends_with('s')
        && !word.ends_with("ss")
        && !word.ends_with("us")
        && !word.ends_with("is");
    let one = if plural { word.strip_suffix('s').unwrap_or(word) } else { word };
    one.to_owned()
}

/// Behaviour and behavior, colour and color.
fn british(word: &str) -> String {
    match word.strip_suffix("our") {
        Some(start) if start.len() >= 3 => format!("{start}or"),
        _ => word.to_owned(),
    }
}

fn shorter(word: &str) -> Option<String> {
    let (ending, start) = RULES
        .iter()
        .filter_map(|(ending, left)| Some((*ending, word.strip_suffix(ending)?, *left)))
        .find(|(ending, start, left)| start.len() >= *left && fits(ending, start))
        .map(|(ending, start, _)| (ending, start))?;
    Some(match ending {
        // Version and version stay apart from verse; compression meets compress.
        "sion" => format!("{start}s"),
        "tion" => format!("{start}t"),
        "ing" | "ed" | "er" | "or" => undoubled(start.to_owned()),
        _ => start.to_owned(),
    })
}

fn fits(ending: &str, start: &str) -> bool {
    let has_vowel = start.contains(['a', 'e', 'i', 'o', 'u', 'y']);
    match ending {
        "ing" => has_vowel,
        "ed" => has_vowel && !start.ends_with('e'),
        "er" => has_vowel && !start.ends_with('e'),
        "e" => !start.ends_with('e'),
        _ => true,
    }
}

/// Debugg(ing) and debug, install(er) and install: one letter of a double consonant goes.
fn undoubled(mut word: String) -> String {
    let mut last = word.chars().rev();
    if let (Some(a), Some(b)) = (last.next(), last.next())
        && a == b
        && !matches!(a, 'a' | 'e' | 'i' | 'o' | 'u' | 's')
        && word.len() > 3
    {
        word.pop();
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_word_meet() {
        let mut apart = Vec::new();
        for family in [
            "review reviews reviewer reviewers reviewing reviewed",
            "test tests testing tester tested",
            "query queries querying",
            "optimise optimize optimiser optimizer optimising optimizing optimised optimization optimisation",
            "deploy deploys deployment deployments deploying deployed",
            "manage manager management managing",
            "develop developer development developing dev",
            "accessible accessibility a11y",
            "secure security",
            "document documents documentation docs doc documenting",
            "analyze analyse analysis analyst analytics analyzer",
            "write writer writing writes",
            "build builder building builds",
            "engineer engineering engineers",
            "migrate migration migrations migrating",
            "architect architecture architectural architects",
            "debug debugger debugging",
            "plan planner planning plans",
            "code coding coder codes",
            "automate automation automated automating automatic",
            "orchestrate orchestrator orchestration",
            "perform performance perf",
            "strategy strategies strategic strategist",
            "integrate integration integrations",
            "configure configuration config",
            "complex complexity",
            "scalable scalability",
            "behaviour behavior behaviours",
            "compress compression",
            "install installer installing",
            "model modelling modeling models",
            "cache caching caches",
            "route router routing routes",
            "kubernetes k8s",
            "refactor refactoring refactored",
            "monitor monitoring monitors",
            "implement implementation implementing",
            "audit auditor audits auditing",
            "consult consultant consulting",
            "box boxes boxing",
        ] {
            let stems: Vec<String> = family.split(' ').map(stem).collect();
            if stems.windows(2).any(|pair| pair[0] != pair[1]) {
                apart.push(format!("{family}: {stems:?}"));
            }
        }
        assert!(apart.is_empty(), "{apart:#?}");
    }

    #[test]
    fn different_words_stay_apart() {
        for pair in [
            "product production",
            "custom customer",
            "general generate",
            "engine engineer",
            "story store",
            "rust trust",
            "string strip",
            "spring sprint",
            "java javascript",
            "test text",
            "service server",
            "content container",
            "secure secret",
            "access accessible",
            "port portal",
            "version verse",
            "need net",
            "feed fed",
            "deed de",
        ] {
            let (a, b) = pair.split_once(' ').expect("pair");
            assert_ne!(stem(a), stem(b), "{pair}");
        }
    }

    #[test]
    fn names_of_things_are_left_alone() {
        for word in
            ["c++", "c#", "aws", "css", "k9s", "go", "r", "straße", "日本語", "3d", "ios", "gcc"]
        {
            assert_eq!(stem(word), word);
        }
    }

    fn terms(text: &str) -> Vec<Vec<String>> {
        words(text).map(|word| word.terms).collect()
    }

    #[test]
    fn texts_fall_into_words() {
        assert_eq!(terms("Review the Rust code, please!"), [["review"], ["rust"], ["cod"]]);
        assert_eq!(terms("codeReviewer"), [["cod"], ["review"]]);
        assert_eq!(terms("C++/C# and F#, not C-"), [["c++"], ["c#"], ["f#"], ["c"]]);
        assert_eq!(terms("a+b #x 1+1 f+"), [["b"], ["x"], ["1"], ["1"], ["f"]]);
        assert_eq!(
            terms("full-stack dev"),
            [
                vec!["ful".to_owned(), "fullstack".to_owned()],
                vec!["stack".to_owned()],
                vec!["develop".to_owned()]
            ]
        );
        assert_eq!(
            terms("front_end - back"),
            [
                vec!["front".to_owned(), "frontend".to_owned()],
                vec!["end".to_owned()],
                vec!["back".to_owned()]
            ]
        );
        assert_eq!(terms("the of and"), Vec::<Vec<String>>::new());
        assert_eq!(terms(""), Vec::<Vec<String>>::new());
    }

    #[test]
    fn tables_are_in_order() {
        assert!(STOP.is_sorted() && SHORT.is_sorted());
        let longest_first = RULES.iter().enumerate().all(|(at, (ending, _))| {
            RULES.iter().take(at).all(|(before, _)| !ending.ends_with(before))
        });
        assert!(longest_first, "a rule stands behind a shorter one that hides it");
    }
}
