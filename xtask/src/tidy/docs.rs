//! The written word: links that resolve, decisions that are listed, a README that starts as it promises.

use super::rules::{Finding, Rule};
use super::tree::{File, Tree};

/// The command that runs every check, as the README and `.ci/run` spell it.
const TEST_COMMAND: &str = "cargo xtask ci";

/// Links of Markdown files to files that are not there.
pub fn links(tree: &Tree, findings: &mut Vec<Finding>) {
    let pages =
        tree.files.iter().filter(|file| file.name().ends_with(".md") && !file.is_test_data());
    for file in pages {
        for (line, target) in targets(&file.text) {
            let Some(path) = path_of(file, &target) else {
                continue;
            };
            let what = match path {
                Ok(path) if tree.has(&path) => continue,
                Ok(path) => format!(
                    "the link to {target} leads nowhere: there is no {path} in the repository"
                ),
                Err(()) => format!(
                    "the link to {target} leaves the repository: link to the place on the web"
                ),
            };
            findings.push(Finding::new(&file.path, line, Rule::Links, what));
        }
    }
}

/// The path that a link names from the root; `None` for the web, a mail address or a place on the page,
/// an error when it climbs out of the repository.
fn path_of(file: &File, target: &str) -> Option<Result<String, ()>> {
    let path = target.split(['#', '?']).next().unwrap_or_default();
    let has_scheme = path
        .split_once(':')
        .is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()));
    if path.is_empty() || has_scheme || path.starts_with("//") {
        return None;
    }
    let path = path.replace("%20", " ");
    let full = match path.strip_prefix('/') {
        Some(from_root) => from_root.to_owned(),
        None => format!("{}{path}", file.folder()),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Some(Err(()));
                }
            }
            _ => parts.push(part),
        }
    }
    Some(Ok(parts.join("/")))
}

/// The targets of inline links, images and link definitions, with their lines; code is left out.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for (line, text) in prose(text) {
        let definition = text.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]:"));
        if let Some((_, target)) = definition {
            targets.push((line, target.to_owned()));
        }
        for (at, _) in text.match_indices("](") {
            let rest = &text[at + 2..];
            let mut depth = 0i32;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth < 0
            });
            targets.push((line, rest[..end.unwrap_or(rest.len())].to_owned()));
        }
    }
    for (_, target) in &mut targets {
        *target = without_title(target);
    }
    targets
}

/// `<a b.md> "title"` and `a.md "title"` without their marks and titles.
fn without_title(target: &str) -> String {
    let target = target.trim();
    match target.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((inner, _)) => inner.to_owned(),
        None => target.split_whitespace().next().unwrap_or_default().to_owned(),
    }
}

/// The lines outside fenced blocks, without their inline code.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fence = None;
    let mut prose = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mark = fence_mark(line);
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
            (None, None) => {
                let outside = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
                prose.push((index + 1, outside));
            }
        }
    }
    prose
}

fn fence_mark(line: &str) -> Option<char> {
    let line = line.trim_start();
    ['`', '~'].into_iter().find(|mark| line.starts_with(&mark.to_string().repeat(3)))
}

/// The README's first block and test command, and the list of decisions in ARCHITECTURE.md. Each holds
/// from the day on which its file exists.
pub fn readme_and_decisions(tree: &Tree, findings: &mut Vec<Finding>) {
    if let Some(file) = tree.file("README.md") {
        readme(tree, file, findings);
    }
    let Some(map) = tree.file("ARCHITECTURE.md") else {
        return;
    };
    for path in &tree.paths {
        let Some(name) = path.strip_prefix("docs/decisions/").filter(|name| is_decision(name))
        else {
            continue;
        };
        if !map.text.contains(name) {
            let what = "ARCHITECTURE.md does not list this decision: link to it there";
            findings.push(Finding::new(path, 0, Rule::Decisions, what));
        }
    }
}

/// `NNN-title.md`.
fn is_decision(name: &str) -> bool {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    digits == 3 && name[3..].starts_with('-') && name.ends_with(".md")
}

fn readme(tree: &Tree, file: &File, findings: &mut Vec<Finding>) {
    let commands = first_commands(file);
    match &commands {
        Some((_, commands)) if commands.len() == 2 => {}
        Some((line, commands)) => {
            let what = format!(
                "the first code block has {} commands, and two are promised",
                commands.len()
            );
            findings.push(Finding::new(&file.path, *line, Rule::Readme, what));
        }
        None => {
            let what = "there is no code block: start with the two commands that build and run the main job";
            findings.push(Finding::new(&file.path, 0, Rule::Readme, what));
        }
    }
    for file in [Some(file), tree.file(".ci/run")].into_iter().flatten() {
        if !file.text.contains(TEST_COMMAND) {
            let what = format!(
                "`{TEST_COMMAND}` is not in it: README and .ci/run name the same test command"
            );
            findings.push(Finding::new(&file.path, 0, Rule::Readme, what));
        }
    }
}

/// The line and the commands of the first fenced block. A line that ends with a backslash goes on,
/// `&&` and `;` join two commands, comments are none.
fn first_commands(file: &File) -> Option<(usize, Vec<String>)> {
    let mut lines = file.lines().skip_while(|(_, line)| fence_mark(line).is_none());
    let (start, _) = lines.next()?;
    let block: Vec<&str> =
        lines.map(|(_, line)| line.trim()).take_while(|line| fence_mark(line).is_none()).collect();
    let joined = block.join("\n").replace("\\\n", " ");
    let commands = joined
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split("&&").flat_map(|part| part.split("; ")))
        .map(str::trim)
        .filter(|command| !command.is_empty())
        .map(str::to_owned)
        .collect();
    Some((start, commands))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: fn(&Tree, &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let mut findings = Vec::new();
        check(&Tree::of(files), &mut findings);
        findings.into_iter().map(|finding| (finding.path, finding.line)).collect()
    }

    #[test]
    fn links_lead_to_files_of_the_repository() {
        let page = "\
[a](other.md) ![b](../src/x.rs \"title\") [c](#here) [d](https://example.org/x) [e](/README.md#top)
[f](<a b.md>) [g](a%20b.md) [folder](../src/) [h](mailto:a@b) `[no](code.md)`
[bad](missing.md)
```
[no](fenced.md)
```
[out](../../x.md) [brackets](x(1).md)
[ref]: gone.md
[ok]: other.md
";
        let files = [
            ("docs/page.md", page),
            ("docs/other.md", ""),
            ("docs/a b.md", ""),
            ("docs/x(1).md", ""),
            ("src/x.rs", ""),
            ("README.md", ""),
            ("tests/data/agent.md", "[x](gone.md)"),
        ];
        let lines: Vec<usize> = found(links, &files).iter().map(|(_, line)| *line).collect();
        assert_eq!(lines, [3, 7, 8]);
    }

    #[test]
    fn every_decision_is_on_the_map() {
        let map = ("ARCHITECTURE.md", "see [one](docs/decisions/001-one.md)");
        let one = ("docs/decisions/001-one.md", "");
        let two = ("docs/decisions/002-two.md", "");
        let readme = ("docs/decisions/README.md", "");
        assert_eq!(found(readme_and_decisions, &[map, one, two, readme]), [(two.0.to_owned(), 0)]);
        assert!(found(readme_and_decisions, &[one, two]).is_empty());
    }

    #[test]
    fn the_readme_starts_with_two_commands_and_names_the_tests() {
        let good = "# Segue\n\n```sh\ncargo build --release \\\n  --bin segue\n# the job\n./segue run x\n```\n\n```\ncargo xtask ci\n```\n";
        assert!(found(readme_and_decisions, &[("README.md", good)]).is_empty());
        let joined = good.replace("./segue run x", "cd x && ./segue run x");
        assert_eq!(
            found(readme_and_decisions, &[("README.md", &joined)]),
            [("README.md".to_owned(), 3)]
        );
        let places =
            found(readme_and_decisions, &[("README.md", "no block"), (".ci/run", "cargo test")]);
        assert_eq!(places.len(), 3);
    }
}
