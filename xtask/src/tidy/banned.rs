//! What may not stand in code at all, in tests, or outside one module.

use super::rules::{Finding, Rule};
use super::rust::Rust;
use super::tree::{File, Tree};

/// Macros that stand for unfinished work or for a debugging session.
const MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// The one place for unsafe code: the operating system's process calls.
const UNSAFE_HOME: &str = "crates/segue-agent/src/process/";

/// Functions that let a test wait for time instead of for what it is about.
const SLEEPS: [&str; 3] = ["sleep", "sleep_ms", "sleep_until"];

/// All bans on words.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in tree.rust() {
        for at in 0..rust.len() {
            if let Some((rule, what)) = ban(file, rust, at) {
                findings.push(Finding::new(&file.path, rust.line(at), rule, what));
            }
        }
    }
}

fn ban(file: &File, rust: &Rust, at: usize) -> Option<(Rule, String)> {
    let word = rust.text(at);
    let next = rust.text(at + 1);
    if MACROS.contains(&word) && next == "!" {
        return Some((Rule::Banned, format!("`{word}!` in code: finish it, or leave it out")));
    }
    if is_ignored_test(rust, at) {
        let what = "an ignored test proves nothing: let it run, or make it a command of its own";
        return Some((Rule::Banned, what.to_owned()));
    }
    if SLEEPS.contains(&word) && rust.is_test(rust.line(at)) {
        let called = next == "(" && rust.text(at.wrapping_sub(1)) != "fn";
        let named_by_path = at > 0 && rust.text(at - 1) == "::";
        if called || named_by_path {
            let what =
                format!("`{word}` in a test: wait for the condition, a signal or a pipe instead");
            return Some((Rule::Sleep, what));
        }
    }
    if word == "unsafe" && !file.path.starts_with(UNSAFE_HOME) {
        return Some((
            Rule::Unsafe,
            format!("unsafe code belongs in {UNSAFE_HOME}, behind a safe function"),
        ));
    }
    None
}

/// `#[ignore]`, `#[ignore = ".."]` and `#[cfg_attr(.., ignore)]`.
fn is_ignored_test(rust: &Rust, at: usize) -> bool {
    if rust.text(at) != "ignore" || at == 0 {
        return false;
    }
    let direct = at >= 2 && rust.reads(at - 2, &["#", "["]);
    let line = rust.line(at);
    let conditional = rust.reads(at - 1, &[",", "ignore"])
        && (0..at)
            .rev()
            .take_while(|at| rust.line(*at) == line)
            .any(|at| rust.text(at) == "cfg_attr");
    direct || conditional
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        findings.iter().map(|finding| (finding.line, finding.rule.name())).collect()
    }

    #[test]
    fn banned_macros_are_found_in_code_and_not_in_words() {
        let text = "fn f() {\n    todo!();\n    std::unimplemented!(\"x\");\n    dbg !(1);\n    let todo = \"todo!()\"; // dbg!\n}\n";
        assert_eq!(rules("src/a.rs", text), [(2, "banned"), (3, "banned"), (4, "banned")]);
    }

    #[test]
    fn ignored_tests_are_found_in_each_form() {
        let text = "#[ignore]\n#[ignore = \"slow\"]\n#[cfg_attr(miri, ignore)]\nfn ignore(ignore: u8) { f(a, ignore) }\n";
        assert_eq!(rules("tests/a.rs", text), [(1, "banned"), (2, "banned"), (3, "banned")]);
    }

    #[test]
    fn sleep_is_banned_in_tests_only() {
        let text = "fn f() { std::thread::sleep(d); }\n#[cfg(test)]\nmod tests {\n    fn t() {\n        thread::sleep(d);\n        sleep(d).await;\n        run(tokio::time::sleep);\n        let sleep = \"sleep 10\";\n    }\n}\n";
        assert_eq!(rules("src/a.rs", text), [(5, "sleep"), (6, "sleep"), (7, "sleep")]);
        assert_eq!(
            rules("tests/a.rs", "fn f() { clock.sleep(d); }\nfn sleep() {}\n"),
            [(1, "sleep")]
        );
    }

    #[test]
    fn unsafe_code_has_one_home() {
        let text = "#![deny(unsafe_op_in_unsafe_fn)]\nfn f() { unsafe { g() } } // unsafe\n";
        assert_eq!(rules("crates/segue/src/a.rs", text), [(2, "unsafe")]);
        assert_eq!(rules("crates/segue-agent/src/process/tree.rs", text), []);
    }
}
