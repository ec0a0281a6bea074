//! Words that no file of the repository may hold: registries, paths of one machine, left-over work.

use super::rules::{Finding, Rule};
use super::tree::Tree;

/// Hosts of package registries, written in two halves so that this file does not name them.
const REGISTRIES: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("registry.npmjs", ".org"),
    concat!("registry.yarnpkg", ".com"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("sparse+", "http"),
];

/// Registries that a file names or sets up. The lock file's source lines have a check of their own,
/// and data of tests may be other people's words.
pub fn registries(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in tree.files.iter().filter(|file| !file.is_test_data()) {
        let is_lock = file.name() == "Cargo.lock";
        let is_cargo_config = file.path.starts_with(".cargo/");
        for (line, text) in file.lines() {
            let named = REGISTRIES.iter().find(|host| text.contains(**host));
            if named.is_some() && !(is_lock && text.starts_with("source = \"registry+https")) {
                let what = "the file names a package registry: say only the package, its client knows where";
                findings.push(Finding::new(&file.path, line, Rule::Registry, what));
            }
            if is_cargo_config
                && ["[source", "[registr"].iter().any(|table| text.trim().starts_with(table))
            {
                let what = "a registry is the user's own setting: take it out of the project's configuration";
                findings.push(Finding::new(&file.path, line, Rule::Registry, what));
            }
        }
    }
}

/// Folders that exist on one machine only, and whether a name must follow them.
const MACHINE_FOLDERS: [(&str, bool); 4] = [
    (concat!("/wo", "rk/"), false),
    (concat!("/ro", "ot/"), false),
    (concat!("/ho", "me/"), true),
    (concat!("/Us", "ers/"), true),
];

/// Absolute paths of one machine. Homes may stand in the data of tests, where output is quoted.
pub fn machine_paths(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        for (line, text) in file.lines() {
            let found = MACHINE_FOLDERS.iter().find(|(folder, needs_name)| {
                let is_free = *needs_name && file.is_test_data();
                !is_free && names_folder(text, folder, *needs_name)
            });
            if let Some((folder, _)) = found {
                let what = format!(
                    "a path below {folder} exists on one machine only: make it relative or an argument"
                );
                findings.push(Finding::new(&file.path, line, Rule::MachinePath, what));
            }
        }
    }
}

/// Whether the line holds `folder` as the start of an absolute path: not as the end of a longer one.
fn names_folder(line: &str, folder: &str, needs_name: bool) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let starts = match line[..at].chars().next_back() {
            Some(before) => !before.is_alphanumeric() && !"/.~_-}$*)>]".contains(before),
            None => true,
        };
        let name = line[at + folder.len()..].chars().next().unwrap_or(' ');
        starts && (!needs_name || name.is_alphanumeric() || name == '_')
    })
}

/// Words that mark work as left to do, in halves for the same reason.
const MARKERS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// Comments of Rust sources that leave work behind: a marker that opens a comment line, or one with
/// a colon or a name behind it. A sentence may speak about markers, as the repository's report does.
pub fn markers(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in tree.rust() {
        for comment in &rust.comments {
            for (offset, line) in comment.text.lines().enumerate() {
                if let Some(marker) = MARKERS.iter().find(|marker| marks(line, marker)) {
                    let what =
                        format!("a comment leaves work behind ({marker}): do it, or file an issue");
                    findings.push(Finding::new(
                        &file.path,
                        comment.line + offset,
                        Rule::Marker,
                        what,
                    ));
                }
            }
        }
    }
}

fn marks(line: &str, marker: &str) -> bool {
    let text = line.trim().trim_start_matches(['/', '!', '*', ' ']);
    let opens = text.strip_prefix(marker).is_some_and(|rest| {
        let next = rest.chars().next().unwrap_or(' ');
        !next.is_alphanumeric() && next != '/' && next != '_'
    });
    let called = line.match_indices(marker).any(|(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        let after = line[at + marker.len()..].chars().next().unwrap_or(' ');
        before != '`' && !before.is_alphanumeric() && (after == ':' || after == '(')
    });
    opens || called
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(check: fn(&Tree, &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let mut findings = Vec::new();
        check(&Tree::of(files), &mut findings);
        findings.into_iter().map(|finding| (finding.path, finding.line)).collect()
    }

    #[test]
    fn registries_are_named_nowhere_but_in_the_lock_file() {
        let host = REGISTRIES[0];
        let lock = format!("source = \"registry+https://github.com/rust-lang/{host}-index\"\n");
        let prose = format!("Fine.\nGet it from https://{host}/x.\n");
        let config = "[alias]\nx = \"y\"\n[source.default]\n";
        let found = places(
            registries,
            &[
                ("Cargo.lock", &lock),
                ("README.md", &prose),
                ("crates/segue-agent/tests/data/a.md", &prose),
                (".cargo/config.toml", config),
            ],
        );
        assert_eq!(found, [(".cargo/config.toml".to_owned(), 3), ("README.md".to_owned(), 2)]);
    }

    #[test]
    fn paths_of_one_machine_are_found_and_ends_of_other_paths_are_not() {
        let text = "a {w}main\n\"{h}ada/x\"\n./docs{w}x\n~{w}x\n$HOME{w}x\n{h}<name>/x\nPATH=/bin:{r}bin\n{dir}{w}\n";
        let text = text.replace("{w}", MACHINE_FOLDERS[0].0).replace("{r}", MACHINE_FOLDERS[1].0);
        let text = text.replace("{h}", MACHINE_FOLDERS[2].0);
        let lines: Vec<usize> =
            places(machine_paths, &[("a.sh", &text)]).iter().map(|(_, line)| *line).collect();
        assert_eq!(lines, [1, 2, 7]);
        let lines: Vec<usize> = places(machine_paths, &[("tests/data/a.json", &text)])
            .iter()
            .map(|(_, line)| *line)
            .collect();
        assert_eq!(lines, [1, 7]);
    }

    #[test]
    fn a_marker_that_leaves_work_is_told_from_a_word_about_markers() {
        let text = "// {t} later\n/// Counts {t} and {f} markers.\n/* x\n * {f}: y */\nlet a = \"{t}: x\"; // {t}(ada) z\n// `{t}:` opens one\n// {t}/{f} are counted\n";
        let text = text.replace("{t}", MARKERS[0]).replace("{f}", MARKERS[1]);
        let lines: Vec<usize> =
            places(markers, &[("src/a.rs", &text)]).iter().map(|(_, line)| *line).collect();
        assert_eq!(lines, [1, 4, 5]);
    }
}
