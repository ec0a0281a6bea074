//! The files of the repository: those that git tracks, and new ones that it does not ignore.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::rust::Rust;

/// A file with text in it.
#[derive(Debug)]
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
    /// Its parts, for a Rust source.
    pub rust: Option<Rust>,
}

impl File {
    fn new(path: &str, text: String) -> Self {
        let rust = path.ends_with(".rs").then(|| Rust::new(&text));
        let mut file = File { path: path.to_owned(), text, rust };
        if let Some(rust) = &mut file.rust {
            rust.all_test |= is_test_path(path);
        }
        file
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The folder of the path with a closing `/`, empty at the root.
    pub fn folder(&self) -> &str {
        &self.path[..self.path.len() - self.name().len()]
    }

    /// Whether the file is data that tests read: other people's words, or look-alikes of them.
    pub fn is_test_data(&self) -> bool {
        ["tests/data/", "/snapshots/"].iter().any(|folder| self.path.contains(folder))
    }

    /// Lines with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// Whether a path belongs to tests by its place: a `tests` or `benches` folder, or a `tests.rs`.
fn is_test_path(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    parts.next() == Some("tests.rs") || parts.any(|part| part == "tests" || part == "benches")
}

/// The files that the checks look at.
#[derive(Debug)]
pub struct Tree {
    /// Text files, by path.
    pub files: Vec<File>,
    /// Every path, of files that are no text too.
    pub paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the repository at `root`.
    pub fn load(root: &Path) -> Result<Tree> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("git could not be started; tidy asks it which files belong to the project")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("git ls-files failed in {}: {}", root.display(), said.trim());
        }
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut files = Vec::new();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            let full = root.join(path);
            // A file deleted but not yet committed is still listed; a link is its target's business.
            if full.is_symlink() || !full.is_file() {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| format!("{path} cannot be read"))?;
            files.push((path.to_owned(), String::from_utf8(bytes).ok()));
        }
        Ok(Tree::new(files))
    }

    fn new(contents: Vec<(String, Option<String>)>) -> Tree {
        let paths = contents.iter().map(|(path, _)| path.clone()).collect();
        let mut files: Vec<File> = contents
            .into_iter()
            .filter_map(|(path, text)| text.map(|text| File::new(&path, text)))
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        mark_test_modules(&mut files);
        Tree { files, paths }
    }

    /// A tree of these paths and texts, for tests.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), Some((*text).to_owned()));
        Tree::new(files.iter().map(owned).collect())
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()
            .map(|at| &self.files[at])
    }

    /// Rust sources.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &Rust)> {
        self.files.iter().filter_map(|file| file.rust.as_ref().map(|rust| (file, rust)))
    }

    /// Whether a file or a folder of this name belongs to the repository.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        path.is_empty()
            || self.paths.contains(path)
            || self
                .paths
                .range(folder.clone()..)
                .next()
                .is_some_and(|next| next.starts_with(&folder))
    }
}

/// Marks the files of modules that their parent declares as `#[cfg(test)] mod name;`, and all below.
fn mark_test_modules(files: &mut [File]) {
    let mut test_files = Vec::new();
    for file in files.iter() {
        let Some(rust) = &file.rust else { continue };
        let folder = match file.name() {
            "mod.rs" | "lib.rs" | "main.rs" => file.folder().to_owned(),
            name => format!("{}{}/", file.folder(), name.trim_end_matches(".rs")),
        };
        test_files.extend(rust.test_modules.iter().map(|name| format!("{folder}{name}")));
    }
    for file in files {
        let is_test = test_files.iter().any(|module| {
            file.path
                .strip_prefix(module.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
        if let Some(rust) = &mut file.rust {
            rust.all_test |= is_test;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_code_is_known_by_its_place_and_by_its_declaration() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "#[cfg(test)] mod fixtures;\nmod b;"),
            ("crates/a/src/fixtures.rs", ""),
            ("crates/a/src/fixtures/deep.rs", ""),
            ("crates/a/src/b.rs", "#[cfg(test)]\nmod helpers;"),
            ("crates/a/src/b/helpers.rs", ""),
            ("crates/a/src/b/other.rs", ""),
            ("crates/a/src/b/tests.rs", ""),
            ("crates/a/tests/common/mod.rs", ""),
        ]);
        let tests: Vec<&str> = tree
            .rust()
            .filter(|(_, rust)| rust.all_test)
            .map(|(file, _)| file.path.as_str())
            .collect();
        assert_eq!(
            tests,
            [
                "crates/a/src/b/helpers.rs",
                "crates/a/src/b/tests.rs",
                "crates/a/src/fixtures.rs",
                "crates/a/src/fixtures/deep.rs",
                "crates/a/tests/common/mod.rs",
            ]
        );
    }

    #[test]
    fn files_and_their_folders_are_there_and_no_half_names() {
        let tree = Tree::of(&[("docs/decisions/001-a.md", ""), ("docs-old/x", "")]);
        assert!(
            ["docs", "docs/decisions/", "docs/decisions/001-a.md", "docs-old"]
                .iter()
                .all(|path| tree.has(path))
        );
        assert!(!tree.has("doc") && !tree.has("docs/decisions/001"));
    }

    #[test]
    fn this_repository_can_be_read() {
        let tree = Tree::load(&crate::exec::root().unwrap()).unwrap();
        assert!(tree.file("xtask/src/tidy/tree.rs").is_some_and(|file| file.rust.is_some()));
        assert!(tree.has("crates/segue-core"));
    }
}
