//! The manifests: arrows between crates, the lints table, the lock file.

use super::rules::{Finding, Rule};
use super::tree::{File, Tree};

/// Which crates of the workspace a crate may depend on. ARCHITECTURE.md draws the same arrows.
const ARROWS: [(&str, &[&str]); 8] = [
    (
        "segue",
        &["segue-core", "segue-store", "segue-bus", "segue-engine", "segue-agent", "segue-testkit"],
    ),
    ("segue-engine", &["segue-core"]),
    ("segue-store", &["segue-core"]),
    ("segue-bus", &["segue-core"]),
    ("segue-agent", &["segue-core", "segue-bus"]),
    ("segue-testkit", &["segue-core", "segue-engine"]),
    ("segue-core", &[]),
    ("xtask", &[]),
];

/// Crates whose tests may not reach into the workspace either: a crate that the core's tests used would
/// be built on a second, different core.
const NO_DEV_ARROWS: [&str; 2] = ["segue-core", "xtask"];

/// What the core may not even name in its manifest.
const IMPURE: [&str; 9] =
    ["tokio", "rand", "getrandom", "fastrand", "rusqlite", "nix", "libc", "axum", "hyper"];

/// The only source of dependencies, as the lock file spells it.
const LOCK_SOURCE: &str =
    concat!("source = \"registry+https://github.com/rust-lang/", "crates", ".io-index\"");

/// Every check of manifests and of the lock file.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let manifests = tree.files.iter().filter(|file| crate_name(&file.path).is_some());
    for file in manifests {
        let entries = entries(&file.text);
        arrows(file, &entries, findings);
        let has_lints = entries.iter().any(|entry| {
            let key = format!("{}.{}", entry.table, entry.key);
            key.trim_start_matches('.') == "lints.workspace" && entry.value == "true"
        });
        if !has_lints {
            let what = "the crate does not take the workspace's lints: add `[lints]` with `workspace = true`";
            findings.push(Finding::new(&file.path, 0, Rule::Lints, what));
        }
    }
    lockfile(tree, findings);
}

/// The name of the crate whose manifest this is, by its folder.
fn crate_name(path: &str) -> Option<&str> {
    let folder = path.strip_suffix("/Cargo.toml")?;
    match folder.strip_prefix("crates/") {
        Some(name) if !name.contains('/') => Some(name),
        None if folder == "xtask" => Some(folder),
        _ => None,
    }
}

fn arrows(file: &File, entries: &[Entry], findings: &mut Vec<Finding>) {
    let Some(name) = crate_name(&file.path) else {
        return;
    };
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        let what = format!(
            "`{name}` is no room of ARCHITECTURE.md: draw its arrows there and in xtask's tidy"
        );
        findings.push(Finding::new(&file.path, 0, Rule::Arrows, what));
        return;
    };
    for entry in entries {
        let Some((kind, dependency)) = entry.dependency() else {
            continue;
        };
        let for_tests = kind == "dev-dependencies";
        let is_ours = ARROWS.iter().any(|(known, _)| *known == dependency);
        let is_drawn =
            allowed.contains(&dependency) || (for_tests && !NO_DEV_ARROWS.contains(&name));
        if is_ours && !is_drawn {
            let whose = if for_tests {
                "even its tests may not"
            } else {
                "ARCHITECTURE.md draws no such arrow"
            };
            let what = format!(
                "{name} -> {dependency}: {whose}; move the code, or ask through a port of the core"
            );
            findings.push(Finding::new(&file.path, entry.line, Rule::Arrows, what));
        }
        if name == "segue-core" && !for_tests && IMPURE.contains(&dependency) {
            let what = format!(
                "`{dependency}` in the core, which is pure: the caller brings what it gives"
            );
            findings.push(Finding::new(&file.path, entry.line, Rule::PureCore, what));
        }
    }
}

fn lockfile(tree: &Tree, findings: &mut Vec<Finding>) {
    let Some(file) = tree.file("Cargo.lock") else {
        let what =
            "there is no Cargo.lock: commit it, so that every build takes the same dependencies";
        findings.push(Finding::new("Cargo.lock", 0, Rule::Lockfile, what));
        return;
    };
    for (line, text) in file.lines().filter(|(_, text)| text.starts_with("source = ")) {
        if text != LOCK_SOURCE {
            let what =
                "a dependency from elsewhere than the default registry: take a released version";
            findings.push(Finding::new(&file.path, line, Rule::Lockfile, what));
        }
    }
}

/// One `key = value` of a manifest, with the table it stands in.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    table: String,
    key: String,
    value: String,
    line: usize,
}

impl Entry {
    /// The kind of dependency table and the crate, if this line names a dependency: as `name = ..`,
    /// `name.workspace = true`, a table of its own, for one platform only, or under another name.
    fn dependency(&self) -> Option<(&str, &str)> {
        let at = self.table.find("dependencies")?;
        let start = self.table[..at].rfind('.').map_or(0, |dot| dot + 1);
        let (kind, own_table) = match self.table[start..].split_once('.') {
            Some((kind, name)) => (kind, Some(name)),
            None => (&self.table[start..], None),
        };
        if self.table.starts_with("workspace.") {
            return None;
        }
        let package = self.value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
        let renamed = if self.key == "package" { self.value.split('"').nth(1) } else { package };
        let name = own_table.or_else(|| self.key.split('.').next()).unwrap_or_default();
        Some((kind, renamed.unwrap_or(name.trim_matches('"'))))
    }
}

/// The entries of a manifest, line by line: enough TOML for what manifests say on one line. Lines inside
/// a value of several lines have no `=` outside quotes and braces that matters here.
fn entries(text: &str) -> Vec<Entry> {
    let mut table = String::new();
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            let name = line.split('#').next().unwrap_or_default().trim();
            table = name.trim_start_matches('[').trim_end_matches(']').trim().to_owned();
            // A table may be all that names a dependency.
            entries.push(Entry {
                table: table.clone(),
                key: String::new(),
                value: String::new(),
                line: index + 1,
            });
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let key = key.trim().to_owned();
            let value = value.trim().to_owned();
            entries.push(Entry { table: table.clone(), key, value, line: index + 1 });
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    fn found(files: &[(&str, &str)]) -> Vec<(String, usize, &'static str)> {
        let mut findings = Vec::new();
        check(&Tree::of(files), &mut findings);
        findings.into_iter().map(|f| (f.path, f.line, f.rule.name())).collect()
    }

    fn found_in(path: &str, dependencies: &str) -> Vec<(usize, &'static str)> {
        let text = format!("{LINTS}{dependencies}");
        let found = found(&[(path, &text), ("Cargo.lock", "")]);
        found.into_iter().map(|(_, line, rule)| (line, rule)).collect()
    }

    #[test]
    fn arrows_as_drawn_pass_and_others_do_not() {
        let agent = "crates/segue-agent/Cargo.toml";
        assert!(
            found_in(agent, "[dependencies]\nsegue-bus.workspace = true\ntokio = \"1\"\n")
                .is_empty()
        );
        let bad = [(4, "arrows")];
        assert_eq!(found_in(agent, "[dependencies]\nsegue-store.workspace = true\n"), bad);
        assert_eq!(found_in(agent, "[dependencies]\nsegue-store = { path = \"../x\" }\n"), bad);
        assert_eq!(found_in(agent, "[dependencies]\nx = { package = \"segue-store\" }\n"), bad);
        assert_eq!(
            found_in(agent, "[target.'cfg(unix)'.dependencies]\nsegue-store.workspace = true\n"),
            bad
        );
        assert_eq!(found_in(agent, "[build-dependencies]\nsegue-store.workspace = true\n"), bad);
        assert_eq!(found_in(agent, "[dependencies.segue-store]\n")[0], (3, "arrows"));
        assert_eq!(
            found_in("xtask/Cargo.toml", "[dependencies]\nsegue-core.workspace = true\n"),
            bad
        );
    }

    #[test]
    fn tests_may_reach_further_but_not_from_the_core() {
        let dev = "[dev-dependencies]\nsegue-testkit.workspace = true\n";
        assert!(found_in("crates/segue-bus/Cargo.toml", dev).is_empty());
        assert_eq!(found_in("crates/segue-core/Cargo.toml", dev), [(4, "arrows")]);
    }

    #[test]
    fn the_cores_manifest_is_pure_and_a_new_crate_needs_a_room() {
        let core = "crates/segue-core/Cargo.toml";
        assert_eq!(
            found_in(core, "[dependencies]\nuuid = \"1\"\ntokio.workspace = true\n"),
            [(5, "pure-core")]
        );
        assert_eq!(found_in("crates/segue-common/Cargo.toml", ""), [(0, "arrows")]);
    }

    #[test]
    fn lints_and_lock_file_are_required() {
        let found = found(&[("crates/segue-bus/Cargo.toml", "[package]\nname = \"segue-bus\"\n")]);
        let rules: Vec<_> = found.iter().map(|(path, _, rule)| (path.as_str(), *rule)).collect();
        assert_eq!(rules, [("crates/segue-bus/Cargo.toml", "lints"), ("Cargo.lock", "lockfile")]);
    }

    #[test]
    fn the_lints_table_may_be_written_in_either_form() {
        for text in [LINTS, "lints.workspace = true\n[package]\nname = \"segue-bus\"\n"] {
            assert!(found(&[("crates/segue-bus/Cargo.toml", text), ("Cargo.lock", "")]).is_empty());
        }
        let off = "[lints]\nworkspace = false\n";
        assert_eq!(found(&[("crates/segue-bus/Cargo.toml", off), ("Cargo.lock", "")]).len(), 1);
    }

    #[test]
    fn a_dependency_from_elsewhere_is_found_in_the_lock_file() {
        let lock = format!(
            "[[package]]\n{LOCK_SOURCE}\n\n[[package]]\nsource = \"git+https://example.org/x#1\"\n"
        );
        let rules: Vec<_> = found(&[("Cargo.lock", &lock)])
            .into_iter()
            .map(|(_, line, rule)| (line, rule))
            .collect();
        assert_eq!(rules, [(5, "lockfile")]);
    }
}
