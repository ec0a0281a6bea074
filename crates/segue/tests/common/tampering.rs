//! Statements that damage what a chaos run left, and what has to be found then: the files `data/chaos-tamper*.sql`.

use std::path::Path;

/// What stands before the first name, and all statements, each with the line above it: what has to be found.
pub fn tamperings(text: &str) -> (String, Vec<(&str, String)>) {
    let (_, body) = text.split_once("\n\n").expect("a head");
    let (mut first, mut named) = (String::new(), Vec::new());
    for line in body.lines() {
        if let Some(name) = line.strip_prefix("-- ") {
            named.push((name, String::new()));
            continue;
        }
        let statements = named.last_mut().map_or(&mut first, |(_, statements)| statements);
        statements.push_str(line);
        statements.push('\n');
    }
    (first, named)
}

/// A copy of these files of a folder.
pub fn copy_of(dir: &Path, files: &[&str]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("folder");
    for name in files {
        let to = copy.path().join(name);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        std::fs::copy(dir.join(name), to).expect("copied");
    }
    copy
}

/// Changes the lines of a file.
pub fn change_lines(file: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let text = std::fs::read_to_string(file).expect("read");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(file, lines.join("\n") + "\n").expect("written");
}
