//! SQL lives in the store: nowhere else does a string hold a statement.
// tidy: allow-file(sql) the fixtures of this check are statements

use super::rules::{Finding, Rule};
use super::tree::Tree;

const HOME: &str = "crates/segue-store/";

/// Statements outside the store, tests included.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in tree.rust().filter(|(file, _)| !file.path.starts_with(HOME)) {
        for string in rust.strings.iter().filter(|string| is_statement(&string.text)) {
            let what =
                format!("an SQL statement outside {HOME}: ask the store for what you need by name");
            findings.push(Finding::new(&file.path, string.line, Rule::Sql, what));
        }
    }
}

/// Whether a string holds an SQL statement, by its keywords in capitals and in their order.
fn is_statement(text: &str) -> bool {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let follows = |first: &str, seconds: &[&str]| {
        words.windows(2).any(|pair| pair[0] == first && seconds.contains(&pair[1]))
    };
    let before = |first: &str, later: &str| {
        words
            .iter()
            .position(|word| *word == first)
            .is_some_and(|at| words[at + 1..].contains(&later))
    };
    let starts = |first: &str| words.len() > 1 && words[0] == first;
    starts("SELECT")
        || before("SELECT", "FROM")
        || follows("INSERT", &["INTO", "OR"])
        || before("UPDATE", "SET")
        || follows("DELETE", &["FROM"])
        || follows("CREATE", &["TABLE", "INDEX", "UNIQUE", "TRIGGER", "VIEW", "TEMP"])
        || follows("DROP", &["TABLE", "INDEX"])
        || follows("ALTER", &["TABLE"])
        || follows("BEGIN", &["IMMEDIATE", "EXCLUSIVE"])
        || starts("PRAGMA")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_from_sentences() {
        for sql in [
            "SELECT 1",
            "WITH x AS (SELECT a FROM b) SELECT c",
            "INSERT OR IGNORE INTO t VALUES (?1)",
            "UPDATE task\n SET state = 1",
            "DELETE FROM task",
            "CREATE TABLE t (id)",
            "PRAGMA journal_mode = WAL",
            "BEGIN IMMEDIATE",
        ] {
            assert!(is_statement(sql), "{sql}");
        }
        for words in [
            "SELECT",
            "select an agent from the list",
            "UPDATE",
            "DELETE /v1/tasks/{id}",
            "INSERT coin",
            "",
            "PRAGMA",
        ] {
            assert!(!is_statement(words), "{words}");
        }
    }

    #[test]
    fn the_store_may_and_nobody_else() {
        let text = "fn f() {\n    run(\"DELETE FROM task\"); // SELECT x FROM y\n}\n";
        let tree =
            Tree::of(&[("crates/segue-store/src/a.rs", text), ("crates/segue/tests/a.rs", text)]);
        let mut findings = Vec::new();
        check(&tree, &mut findings);
        let places: Vec<_> = findings.iter().map(|f| (f.path.as_str(), f.line)).collect();
        assert_eq!(places, [("crates/segue/tests/a.rs", 2)]);
    }
}
