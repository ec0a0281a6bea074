//! Recounts a run from its database and its files, by the statements of `docs/chaos-check.sql` and nothing else.

use anyhow::{Context, Result, bail};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The statements. They are a script of the `sqlite3` shell, of whose own commands they use a few.
pub const SCRIPT: &str = include_str!("../../../../docs/chaos-check.sql");
/// The name of the script in the folder of a run.
pub const SCRIPT_FILE: &str = "chaos-check.sql";
/// The keys that were submitted, with the tasks that must come of each.
pub const SUBMITTED_FILE: &str = "submitted.txt";
/// What the agents wrote down.
pub const JOURNAL_FILE: &str = "journal.txt";
/// The lives of the node.
pub const LIVES_FILE: &str = "lives.txt";
/// The bodies in files that are what their names say.
pub const BLOBS_FILE: &str = "blobs.txt";

/// One thing that was counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub name: String,
    /// What was found: a number.
    pub found: Value,
    /// What it has to be, or may be at most.
    pub wanted: Option<Value>,
    /// Whether it is; nothing where it may be anything.
    pub holds: Option<bool>,
}

/// The database of a run in this folder.
pub fn database(dir: &Path) -> PathBuf {
    dir.join(crate::project::STATE_FOLDER).join("segue.db")
}

/// Lists the bodies in files whose content is what their names say.
///
/// # Errors
/// When the list cannot be written.
pub fn list_blobs(dir: &Path) -> Result<()> {
    let mut list = String::new();
    let folders = std::fs::read_dir(dir.join(crate::project::STATE_FOLDER).join("blobs"));
    for folder in folders.into_iter().flatten().flatten() {
        for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let (Ok(name), Ok(bytes)) =
                (file.file_name().into_string(), std::fs::read(file.path()))
            else {
                continue;
            };
            let mut hash = String::new();
            for byte in Sha256::digest(&bytes) {
                // Writing to a String cannot fail.
                let _ = write!(hash, "{byte:02x}");
            }
            if hash == name {
                list.push_str(&name);
                list.push('\n');
            }
        }
    }
    let path = dir.join(BLOBS_FILE);
    std::fs::write(&path, list).with_context(|| format!("cannot write {}", path.display()))
}

/// Counts what a run left in this folder. Reads only.
///
/// # Errors
/// When the database or a file cannot be read.
pub fn check(dir: &Path) -> Result<Vec<Finding>> {
    let path = database(dir);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let mut findings = Vec::new();
    for step in steps(SCRIPT) {
        match step {
            Step::Import { file, table } => import(&conn, &dir.join(file), table)?,
            Step::Statement(text) => {
                findings.extend(execute(&conn, &text).with_context(|| format!("in {text}"))?);
            }
        }
    }
    if findings.is_empty() {
        bail!("the check counted nothing")
    }
    Ok(findings)
}

/// What a script asks for.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Import { file: &'a str, table: &'a str },
    Statement(String),
}

/// The statements and imports of a script of the `sqlite3` shell. A statement ends with its line.
fn steps(script: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut statement = String::new();
    for line in script.lines() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with("--") {
            continue;
        }
        if let Some(command) = line.strip_prefix('.') {
            let words: Vec<&str> = command.split(' ').collect();
            if let ["import", file, table] = words[..] {
                steps.push(Step::Import { file, table });
            }
            continue;
        }
        statement.push_str(line);
        statement.push('\n');
        if line.ends_with(';') {
            steps.push(Step::Statement(std::mem::take(&mut statement)));
        }
    }
    steps
}

/// What `.import` does in the shell: each line of the file becomes a row.
fn import(conn: &Connection, path: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("cannot read {}: is this the folder of a chaos run?", path.display())
    })?;
    for line in text.lines() {
        let cells: Vec<&str> = line.split(' ').collect();
        let marks = vec!["?"; cells.len()].join(", ");
        // tidy: allow(sql) the check shares no code with the store on purpose; this is the shell's `.import`
        let statement = format!("INSERT INTO temp.{table} VALUES ({marks})");
        conn.prepare_cached(&statement)?
            .execute(params_from_iter(cells))
            .with_context(|| format!("{} holds the line {line:?}", path.display()))?;
    }
    Ok(())
}

fn execute(conn: &Connection, text: &str) -> rusqlite::Result<Vec<Finding>> {
    let mut statement = conn.prepare(text)?;
    if statement.column_count() != 4 {
        statement.execute([])?;
        return Ok(Vec::new());
    }
    statement
        .query_map([], |row| {
            let verdict: String = row.get(3)?;
            let wanted = number(row.get(2)?);
            Ok(Finding {
                name: row.get(0)?,
                found: number(row.get(1)?),
                holds: (!verdict.is_empty()).then(|| verdict == "ok"),
                wanted: (!wanted.is_null()).then_some(wanted),
            })
        })?
        .collect()
}

fn number(cell: Cell) -> Value {
    match cell {
        Cell::Integer(number) => number.into(),
        Cell::Real(number) => number.into(),
        Cell::Null | Cell::Text(_) | Cell::Blob(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_of_the_shell_is_taken_apart() {
        let found = steps(".bail on\n-- a word\n\nONE\nTWO;\n.import a.txt b\nTHREE;\n");
        let expected = [
            Step::Statement("ONE\nTWO;\n".to_owned()),
            Step::Import { file: "a.txt", table: "b" },
            Step::Statement("THREE;\n".to_owned()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_script_reads_every_file_and_ends_with_the_result() {
        let steps = steps(SCRIPT);
        for file in [SUBMITTED_FILE, JOURNAL_FILE, LIVES_FILE, BLOBS_FILE] {
            let imports = |step: &&Step<'_>| matches!(step, Step::Import { file: named, .. } if *named == file);
            assert_eq!(steps.iter().filter(imports).count(), 1, "{file}");
        }
        assert!(matches!(steps.last(), Some(Step::Statement(text)) if text.contains("verdict")));
    }

    #[test]
    fn a_folder_that_holds_no_run_is_told_from_one_that_does() {
        let folder = tempfile::tempdir().unwrap();
        let error = check(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("cannot open"), "{error:#}");
    }
}
