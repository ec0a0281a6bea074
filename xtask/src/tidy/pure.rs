//! The core stays pure: time, ids and chance come in as arguments, and `decide` names every state.

use super::rules::{Finding, Rule};
use super::rust::Rust;
use super::tree::{File, Tree};

const CORE: &str = "crates/segue-core/src/";

/// Paths that lead out of the pure world, and what leads there.
const PATHS: [(&str, &str); 13] = [
    ("tokio", "a runtime"),
    ("std::fs", "input and output"),
    ("std::net", "input and output"),
    ("std::process", "other programs"),
    ("std::env", "the environment"),
    ("std::os", "the operating system"),
    ("std::io::stdin", "input and output"),
    ("std::io::stdout", "input and output"),
    ("std::io::stderr", "input and output"),
    ("rand", "chance"),
    ("getrandom", "chance"),
    ("fastrand", "chance"),
    ("rusqlite", "a database"),
];

/// Single words that read a clock or draw a random number, however they were imported.
const WORDS: [(&str, &str); 7] = [
    ("SystemTime", "a clock"),
    ("Instant", "a clock"),
    ("now_v1", "a clock"),
    ("now_v6", "a clock"),
    ("now_v7", "a clock and chance"),
    ("new_v4", "chance"),
    ("new_v7", "chance"),
];

fn sources(tree: &Tree) -> impl Iterator<Item = (&File, &Rust)> {
    tree.rust().filter(|(file, _)| file.path.starts_with(CORE))
}

/// Input, output, clock and chance in the core, outside its tests.
pub fn core(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in sources(tree) {
        let mut add = |line: usize, name: &str, leads_to: &str| {
            if !rust.is_test(line) {
                let what = format!(
                    "`{name}` is {leads_to}, and the core is pure: take its result as an argument"
                );
                findings.push(Finding::new(&file.path, line, Rule::PureCore, what));
            }
        };
        for named in rust.paths() {
            let found = PATHS.iter().find(|(path, _)| leads_into(&named.path, path));
            if let Some((path, leads_to)) = found {
                add(named.line, path, leads_to);
            }
        }
        for at in 0..rust.len() {
            if let Some((word, leads_to)) = WORDS.iter().find(|(word, _)| *word == rust.text(at)) {
                add(rust.line(at), word, leads_to);
            }
        }
    }
}

/// Whether `path` is `banned` or lies below it, segment by segment.
fn leads_into(path: &str, banned: &str) -> bool {
    path.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Catch-all arms in `decide`: a new state must be a compile error in every match, not a silent case.
pub fn catch_alls(tree: &Tree, findings: &mut Vec<Finding>) {
    let decide = sources(tree).filter(|(file, rust)| {
        let rest = &file.path[CORE.len()..];
        (rest.starts_with("decide/") || rest == "decide.rs") && !rust.all_test
    });
    for (file, rust) in decide {
        for at in 0..rust.len() {
            let line = rust.line(at);
            if rust.text(at) == "=>"
                && is_catch_all(rust, at)
                && !rust.is_test(line)
                && !is_total(rust, line)
            {
                let what = "a catch-all arm swallows states that do not exist yet: name them, \
                            or say why the match is total with `// total: ...` on the line";
                findings.push(Finding::new(&file.path, line, Rule::CatchAll, what));
            }
        }
    }
}

/// Whether the pattern before the `=>` at `at` is `_`, or a tuple of nothing but `_`.
fn is_catch_all(rust: &Rust, at: usize) -> bool {
    if at == 0 || rust.text(at - 1) == "_" {
        return at > 0;
    }
    let mut open = at - 1;
    if rust.text(open) != ")" {
        return false;
    }
    while open > 0 && ["_", ",", "(", ")"].contains(&rust.text(open - 1)) {
        open -= 1;
    }
    // The commas before the arm were walked over as well: the pattern starts at its bracket.
    while rust.text(open) != "(" && open < at {
        open += 1;
    }
    // `Some(_)` is a pattern of its own.
    let before = rust.text(open.wrapping_sub(1)).bytes().next().unwrap_or(b' ');
    open < at && !before.is_ascii_alphanumeric()
}

/// Whether a comment on the line, or alone on a line beside it, says why the match is total. The
/// formatter may have moved the comment to either neighbour.
fn is_total(rust: &Rust, line: usize) -> bool {
    rust.comments.iter().any(|comment| {
        let text = comment.text.trim_start_matches('/').trim_start();
        let says = text.strip_prefix("total:").is_some_and(|why| !why.trim().is_empty());
        let near = comment.line == line
            || (comment.line.abs_diff(line) == 1 && rust.is_beside_code(comment.line));
        says && near
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(check: fn(&Tree, &mut Vec<Finding>), path: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        let mut lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn the_core_touches_nothing_outside() {
        let text = "use std::{collections::HashMap, fs};\nuse std::time::{Duration, SystemTime};\nfn f() { std::process::exit(1) }\nfn g() -> Uuid { Uuid::now_v7() }\nuse tokio::sync::mpsc;\nfn h() { std::io::stdout(); }\n// std::fs, Instant\nfn i() -> &str { \"std::net\" }\nuse crate::operand::x;\nfn processing() { standard::fs(); }\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(places(core, "crates/segue-core/src/a.rs", text), [1, 2, 3, 4, 5, 6]);
        assert!(places(core, "crates/segue-core/tests/a.rs", text).is_empty());
        assert!(places(core, "crates/segue-store/src/a.rs", text).is_empty());
    }

    #[test]
    fn catch_all_arms_are_found_and_named_ones_are_not() {
        let text = "fn f(s: State) {
    match s {
        State::Ready => {}
        State::Blocked(_) => {}
        State::Running { attempt: _ } => {}
        (State::Ready, _) => {}
        _ => {}
        _ if late => {}
        (_, _) => {}
        ((_, _), _) => {}
        State::A | _ => {}
        Some(x) => { y(_) }
        _ => {} // total: the kinds are the caller's
        // total: a number has no names
        _ => {}
        _ => { // total: because
        }
        _ => {} // total:
    }
    let closure = |_| x;
}
#[cfg(test)]
mod tests { fn t() { match x { _ => {} } } }
";
        assert_eq!(
            places(catch_alls, "crates/segue-core/src/decide/finish.rs", text),
            [7, 9, 10, 11, 18]
        );
        assert!(places(catch_alls, "crates/segue-core/src/plan.rs", text).is_empty());
    }
}
