//! Exceptions: `// tidy: allow(RULE) reason` on the line before, or `allow-file` near a file's start.
//!
//! In files of other kinds the comment starts with `#`, `--` or `<!--`. Comments and attributes may stand
//! between the exception and its line. An exception without a reason, or without a finding that
//! it covers, is a finding itself, so that none outlives its cause.

use super::rules::{Finding, Rule};
use super::tree::{File, Tree};

/// The last line on which `allow-file` may stand.
pub const FILE_LINE_MAX: usize = 40;

#[derive(Debug)]
struct Allow {
    line: usize,
    rule: Rule,
    /// The line of code that it covers; `None` for the whole file.
    target: Option<usize>,
    used: bool,
}

impl Allow {
    fn covers(&self, finding: &Finding) -> bool {
        let in_place = match self.target {
            None => true,
            Some(target) => finding.line == self.line + 1 || finding.line == target,
        };
        self.rule == finding.rule && in_place
    }
}

/// Takes out the findings that an exception covers, and adds the exceptions that are wrong.
pub fn apply(tree: &Tree, findings: Vec<Finding>) -> Vec<Finding> {
    let mut left = Vec::new();
    let mut by_file: Vec<(&File, Vec<Allow>)> = Vec::new();
    for file in tree.files.iter().filter(|file| file.text.contains("tidy: allow")) {
        by_file.push((file, allows(file, &mut left)));
    }
    for finding in findings {
        let of_file = by_file.iter_mut().find(|(file, _)| file.path == finding.path);
        let cover =
            of_file.and_then(|(_, allows)| allows.iter_mut().find(|allow| allow.covers(&finding)));
        match cover {
            Some(allow) => allow.used = true,
            None => left.push(finding),
        }
    }
    for (file, allows) in by_file {
        for allow in allows.iter().filter(|allow| !allow.used) {
            let name = allow.rule.name();
            let what = format!("nothing here breaks the rule {name}: take the exception out");
            left.push(Finding::new(&file.path, allow.line, Rule::Allow, what));
        }
    }
    left
}

/// The exceptions of a file; those that cannot be understood become findings.
fn allows(file: &File, findings: &mut Vec<Finding>) -> Vec<Allow> {
    let mut allows = Vec::new();
    for (line, text) in comments(file) {
        let Some(rest) = text.strip_prefix("tidy: allow") else {
            continue;
        };
        match parse(rest) {
            Ok((rule, false)) => {
                allows.push(Allow { line, rule, target: Some(target(file, line)), used: false });
            }
            Ok((rule, true)) if line <= FILE_LINE_MAX => {
                allows.push(Allow { line, rule, target: None, used: false });
            }
            Ok((_, true)) => {
                let what = format!(
                    "allow-file stands among the first {FILE_LINE_MAX} lines: move it there"
                );
                findings.push(Finding::new(&file.path, line, Rule::Allow, what));
            }
            Err(what) => findings.push(Finding::new(&file.path, line, Rule::Allow, what)),
        }
    }
    allows
}

/// What follows `tidy: allow`: the rule, and whether the whole file is meant.
fn parse(rest: &str) -> Result<(Rule, bool), String> {
    const FORM: &str = "write `tidy: allow(RULE) reason` or `tidy: allow-file(RULE) reason`";
    let (whole_file, rest) = match rest.strip_prefix("-file") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let inner = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let Some((name, reason)) = inner else {
        return Err(FORM.to_owned());
    };
    let Some(rule) = Rule::named(name) else {
        return Err(format!("there is no rule `{name}`; `cargo xtask tidy --rules` lists them"));
    };
    let reason = reason.trim().trim_end_matches("-->").trim_end_matches("*/").trim();
    // One word is a label, not a reason.
    if reason.split_whitespace().count() < 2 {
        return Err(format!("the exception from {name} needs its reason behind the bracket"));
    }
    Ok((rule, whole_file))
}

/// Plain comments of a file with their lines, without their marks.
fn comments(file: &File) -> Vec<(usize, &str)> {
    if let Some(rust) = &file.rust {
        let plain = rust.comments.iter().filter_map(|comment| {
            let text = comment.text.strip_prefix("//")?;
            // Documentation may show how an exception is written without making one.
            (!text.starts_with(['/', '!'])).then(|| (comment.line, text.trim()))
        });
        return plain.collect();
    }
    let marks: &[&str] =
        if file.name().ends_with(".md") { &["<!--"] } else { &["#", "--", "//", "<!--"] };
    file.lines()
        .filter_map(|(line, text)| {
            let text = text.trim();
            let mark = marks.iter().find(|mark| text.starts_with(**mark))?;
            Some((line, text[mark.len()..].trim()))
        })
        .collect()
}

/// The line that an exception on `line` covers: that line if it holds code, else the next that does.
fn target(file: &File, line: usize) -> usize {
    let Some(rust) = &file.rust else {
        return line + 1;
    };
    let last = file.text.lines().count();
    (line..=last).find(|line| !rust.is_beside_code(*line)).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(path: &str, text: &str, findings: &[(usize, Rule)]) -> Vec<String> {
        let tree = Tree::of(&[(path, text)]);
        let findings =
            findings.iter().map(|(line, rule)| Finding::new(path, *line, *rule, "x")).collect();
        let mut left: Vec<String> = apply(&tree, findings)
            .iter()
            .map(|f| format!("{}:{}", f.line, f.rule.name()))
            .collect();
        left.sort();
        left
    }

    #[test]
    fn an_exception_covers_its_line_over_comments_and_attributes() {
        let text = "// tidy: allow(fn-lines) one table, read as a whole\n/// Docs.\n#[inline]\nfn f() {}\nfn g() {}\n";
        assert!(left("a.rs", text, &[(4, Rule::FnLines)]).is_empty());
        assert_eq!(left("a.rs", text, &[(4, Rule::FnLines), (5, Rule::FnLines)]), ["5:fn-lines"]);
        assert_eq!(left("a.rs", text, &[(4, Rule::Sql)]), ["1:allow", "4:sql"]);
    }

    #[test]
    fn a_file_exception_covers_the_file_and_stands_at_its_start() {
        let text = "//! Docs.\n// tidy: allow-file(sql) recounts what the store says\nfn f() {}\n";
        assert!(left("a.rs", text, &[(3, Rule::Sql), (0, Rule::Sql)]).is_empty());
        let late = format!("{}{text}", "\n".repeat(FILE_LINE_MAX));
        assert_eq!(left("a.rs", &late, &[(50, Rule::Sql)]), ["42:allow", "50:sql"]);
    }

    #[test]
    fn an_exception_without_reason_rule_or_use_is_a_finding() {
        for bad in [
            "tidy: allow(sql)",
            "tidy: allow(sql) because",
            "tidy: allow(nope) a good reason",
            "tidy: allow sql",
        ] {
            let text = format!("// {bad}\nfn f() {{}}\n");
            assert_eq!(left("a.rs", &text, &[(2, Rule::Sql)]), ["1:allow", "2:sql"], "{bad}");
        }
        assert_eq!(
            left("a.rs", "// tidy: allow(sql) not needed here\nfn f() {}\n", &[]),
            ["1:allow"]
        );
    }

    #[test]
    fn other_files_have_their_own_comments_and_documentation_makes_no_exception() {
        assert!(
            left("a.toml", "# tidy: allow(arrows) only for now\nx = 1\n", &[(2, Rule::Arrows)])
                .is_empty()
        );
        assert!(
            left(
                "a.md",
                "<!-- tidy: allow(links) made by the build -->\n[x](y)\n",
                &[(2, Rule::Links)]
            )
            .is_empty()
        );
        assert_eq!(
            left("a.md", "# tidy: allow(links) a heading only\n[x](y)\n", &[(2, Rule::Links)]),
            ["2:links"]
        );
        assert_eq!(
            left("a.rs", "/// tidy: allow(sql) as an example\nfn f() {}\n", &[(2, Rule::Sql)]),
            ["2:sql"]
        );
    }
}
