//! Runs every check and prints what they found.

use std::time::Instant;

use anyhow::Result;

use super::rules::{Finding, Rule};
use super::tree::Tree;
use super::{allow, banned, docs, manifest, pure, sizes, sql, text};
use crate::exec;

/// One check: it reads the tree and adds what it finds.
type Check = fn(&Tree, &mut Vec<Finding>);

const CHECKS: [Check; 13] = [
    sizes::functions,
    sizes::files,
    sizes::mod_files,
    banned::check,
    pure::core,
    pure::catch_alls,
    sql::check,
    manifest::check,
    text::registries,
    text::machine_paths,
    text::markers,
    docs::links,
    docs::readme_and_decisions,
];

/// Checks the repository; true when no rule is broken.
pub fn run() -> Result<bool> {
    let began = Instant::now();
    let tree = Tree::load(&exec::root()?)?;
    let findings = findings(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    let lines: usize = tree.rust().map(|(file, _)| file.text.lines().count()).sum();
    println!(
        "tidy: {} in {} files, {lines} lines of Rust, {:.2} s",
        if findings.is_empty() {
            "nothing to say".to_owned()
        } else {
            format!("{} findings", findings.len())
        },
        tree.files.len(),
        began.elapsed().as_secs_f64(),
    );
    Ok(findings.is_empty())
}

/// Prints every rule with its name, and how to make an exception.
pub fn list_rules() {
    for rule in Rule::ALL {
        println!("{:<13} {}", rule.name(), rule.sentence());
    }
    println!(
        "\nAn exception is a comment on the line before, `// tidy: allow(RULE) reason`, or for a whole file\n\
         `// tidy: allow-file(RULE) reason` among its first {} lines. The reason is required.",
        allow::FILE_LINE_MAX
    );
}

/// What the checks found, less the exceptions, by file and line.
fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in CHECKS {
        check(tree, &mut findings);
    }
    let mut findings = allow::apply(tree, findings);
    findings.sort();
    findings.dedup();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_by_file_and_line_and_exceptions_are_taken_out() {
        let tree = Tree::of(&[
            ("Cargo.lock", ""),
            ("crates/segue/src/b.rs", "fn b() {\n    dbg!(1);\n}\n"),
            (
                "crates/segue/src/a.rs",
                "fn a() {\n    // tidy: allow(banned) the test of the test\n    dbg!(1);\n    dbg!(2);\n}\n",
            ),
        ]);
        let places: Vec<String> = findings(&tree)
            .iter()
            .map(|finding| format!("{}:{}", finding.path, finding.line))
            .collect();
        assert_eq!(places, ["crates/segue/src/a.rs:4", "crates/segue/src/b.rs:2"]);
    }
}
