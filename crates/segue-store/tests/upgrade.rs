//! Databases and backups that an older version made.

mod support;

use segue_core::payload::Hash;
use segue_core::ports::{EventFilter, Store};
use segue_core::time::Time;
use segue_store::sqlite::{FileSum, Manifest, restore, verify};
use segue_testkit::store_suite::{put, write};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use support::*;

const FIRST: &str = include_str!("../src/sqlite/migrations/001_start.sql");

fn tables(conn: &rusqlite::Connection) -> BTreeSet<(String, String)> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'migrations'";
    let mut statement = conn.prepare(sql).expect("prepares");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("reads");
    rows.collect::<Result<_, _>>().expect("reads")
}

/// A database with a task in it, as the first version made them.
async fn of_the_first_version(dir: &Path) {
    let store = open(dir);
    accept(store.as_ref(), vec![submit(vec![spec("a")])]).await;
    drop(store);
    let conn = shell(dir);
    let made = rusqlite::Connection::open_in_memory().expect("opens");
    made.execute_batch(FIRST).expect("creates");
    let wanted = tables(&made);
    let names: BTreeSet<&String> = wanted.iter().map(|(name, _)| name).collect();
    for (name, sql) in tables(&conn) {
        if !names.contains(&name) && sql.starts_with("CREATE TABLE") {
            conn.execute_batch(&format!("DROP TABLE {name}")).expect("drops");
        }
    }
    conn.execute("DELETE FROM migrations WHERE number > 1", []).expect("deletes");
    assert_eq!(tables(&conn), wanted, "it is as the first migration alone makes it");
    conn.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).expect("one file");
}

#[tokio::test]
async fn a_database_of_the_first_version_is_brought_up() {
    let dir = tempfile::tempdir().expect("a folder");
    of_the_first_version(dir.path()).await;
    for round in 1..3_u64 {
        let store = open(dir.path());
        assert_eq!(all_tasks(store.as_ref()).await.len(), 1);
        let filter = EventFilter { limit: 10, ..EventFilter::default() };
        assert_eq!(store.events(filter).await.expect("reads").len(), 1);
        assert_eq!(store.state_stamp().await.expect("reads"), round - 1);
        accept(store.as_ref(), vec![write(put("k", &round.to_string()))]).await;
        let found = store.state_get("k".into(), None).await.expect("reads").expect("is there");
        assert_eq!(found.version, round);
        assert_eq!(store.audit().await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn a_backup_of_the_first_version_is_checked_and_restored() {
    let (from, to) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    of_the_first_version(from.path()).await;
    let database = fs::read(from.path().join("segue.db")).expect("reads");
    let sha256 = Hash::of(&database);
    let file = FileSum { path: "segue.db".into(), bytes: database.len() as u64, sha256 };
    let (project, made_at) = (PROJECT, Time(1));
    let files = vec![file];
    let manifest = Manifest { segue_backup: 1, tables_version: 1, project, made_at, files };
    let text = serde_json::to_vec(&manifest).expect("JSON");
    fs::write(from.path().join("manifest.json"), text).expect("writes");
    verify(from.path()).expect("it is whole");
    restore(from.path(), to.path()).expect("restores");
    let store = open(to.path());
    assert_eq!(all_tasks(store.as_ref()).await.len(), 1);
    accept(store.as_ref(), vec![write(put("k", "1"))]).await;
    // Whoever had it brought up before it was lost may have been given stamps since.
    assert_eq!(store.state_stamp().await.expect("reads"), (1 << 32) + 1);
}
