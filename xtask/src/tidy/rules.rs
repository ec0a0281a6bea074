//! The rules by name, and what a check reports.

use std::fmt;

/// One house rule. Its name stands in messages and in `tidy: allow(NAME)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Long functions.
    FnLines,
    /// Long files.
    FileLines,
    /// Macros and attributes that stand for unfinished work.
    Banned,
    /// Sleeping tests.
    Sleep,
    /// Unsafe code.
    Unsafe,
    /// Input, output, clock and chance in the core.
    PureCore,
    /// Catch-all match arms in `decide`.
    CatchAll,
    /// SQL outside the store.
    Sql,
    /// Dependencies between the crates.
    Arrows,
    /// Code in a `mod.rs`.
    ModRs,
    /// Names of package registries.
    Registry,
    /// Paths of one machine.
    MachinePath,
    /// Work left behind in a comment.
    Marker,
    /// Decisions that the map does not list.
    Decisions,
    /// The README's first commands and its test command.
    Readme,
    /// Links of Markdown files.
    Links,
    /// The lock file.
    Lockfile,
    /// The lints table of a crate.
    Lints,
    /// Exceptions without a reason or without a use.
    Allow,
}

impl Rule {
    /// Every rule, in the order of the list that `cargo xtask tidy --rules` prints.
    pub const ALL: [Rule; 19] = [
        Rule::FnLines,
        Rule::FileLines,
        Rule::Banned,
        Rule::Sleep,
        Rule::Unsafe,
        Rule::PureCore,
        Rule::CatchAll,
        Rule::Sql,
        Rule::Arrows,
        Rule::ModRs,
        Rule::Registry,
        Rule::MachinePath,
        Rule::Marker,
        Rule::Decisions,
        Rule::Readme,
        Rule::Links,
        Rule::Lockfile,
        Rule::Lints,
        Rule::Allow,
    ];

    /// The name by which messages and exceptions call the rule.
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// The rule in one sentence.
    pub fn sentence(self) -> &'static str {
        self.words().1
    }

    /// The rule with this name.
    pub fn named(name: &str) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.name() == name)
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Rule::FnLines => ("fn-lines", "a function has at most 70 lines; test code is free"),
            Rule::FileLines => {
                ("file-lines", "a file has at most 600 lines, test modules not counted")
            }
            Rule::Banned => {
                ("banned", "no unfinished-work macros, no debug macro, no ignored test")
            }
            Rule::Sleep => ("sleep", "no test sleeps"),
            Rule::Unsafe => ("unsafe", "unsafe code only in crates/segue-agent/src/process/"),
            Rule::PureCore => {
                ("pure-core", "segue-core has no runtime, clock, chance, input or output")
            }
            Rule::CatchAll => ("catch-all", "no catch-all arm in crates/segue-core/src/decide/"),
            Rule::Sql => ("sql", "no SQL outside crates/segue-store"),
            Rule::Arrows => ("arrows", "crates depend on each other as ARCHITECTURE.md says"),
            Rule::ModRs => ("mod-rs", "a mod.rs only documents, declares and re-exports"),
            Rule::Registry => ("registry", "no file names or configures a package registry"),
            Rule::MachinePath => ("machine-path", "no file names a path of one machine"),
            Rule::Marker => ("marker", "no comment marks work as left to do"),
            Rule::Decisions => ("decisions", "ARCHITECTURE.md lists every file of docs/decisions"),
            Rule::Readme => {
                ("readme", "the README starts with two commands and names the test command")
            }
            Rule::Links => ("links", "links of Markdown files to files of the repository resolve"),
            Rule::Lockfile => ("lockfile", "Cargo.lock is there and names one registry"),
            Rule::Lints => ("lints", "every crate takes the workspace's lints"),
            Rule::Allow => ("allow", "an exception names its rule, has a reason and is needed"),
        }
    }
}

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the workspace's root.
    pub path: String,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong, and the remedy.
    pub what: String,
}

impl Finding {
    /// A finding; `line` 0 means the file as a whole.
    pub fn new(path: &str, line: usize, rule: Rule, what: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, rule, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line.max(1), self.rule.name(), self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_by_its_name_and_no_name_is_used_twice() {
        for rule in Rule::ALL {
            assert_eq!(Rule::named(rule.name()), Some(rule));
        }
        assert_eq!(Rule::named("no-such-rule"), None);
    }

    #[test]
    fn a_finding_reads_as_place_rule_and_remedy() {
        let finding = Finding::new("a.rs", 7, Rule::Sql, "move it");
        assert_eq!(finding.to_string(), "a.rs:7: sql: move it");
        assert_eq!(Finding::new("a.rs", 0, Rule::Sql, "x").to_string(), "a.rs:1: sql: x");
    }
}
