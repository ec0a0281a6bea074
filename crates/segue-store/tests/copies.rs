//! Export and import, backup and restore, and the audit that they end with.

mod support;

use proptest::prelude::*;
use segue_core::ids::ProjectId;
use segue_core::ports::{Store, StoreError};
use segue_store::sqlite::{Options, SqliteStore, import, restore, verify};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use support::full::{everything, export, fill, is_restored};
use support::*;
use uuid::Uuid;

fn read(dir: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    import(&options(dir), &mut &bytes[..]).map(drop)
}

#[tokio::test]
async fn what_is_exported_comes_in_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    fill(&store).await;
    let before = everything(&store).await;
    let bytes = export(&store).await;
    drop(store);
    let other = tempfile::tempdir().expect("a folder");
    let header = import(&options(other.path()), &mut bytes.as_slice()).expect("imports");
    assert_eq!(header.project, PROJECT);
    assert!(header.rows.values().all(|count| *count > 0), "every table is met: {:?}", header.rows);
    let store = open(other.path());
    assert_eq!(everything(&store).await, before);
    assert_eq!(store.audit().await, Ok(Vec::new()));
    let again = export(&store).await;
    // Between header and end the same lines; letters of attempts that had ended went when it was opened.
    let rows = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        let rows =
            lines[1..lines.len() - 1].iter().filter(|line| !line.starts_with("{\"letters\""));
        rows.map(|line| (*line).to_owned()).collect()
    };
    assert_eq!(rows(&again), rows(&bytes));
    // And it goes on.
    accept(store.as_ref(), vec![submit(vec![spec("a")])]).await;
    assert_eq!(store.audit().await, Ok(Vec::new()));
}

#[tokio::test]
async fn an_export_can_go_to_another_project_and_replaces_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    fill(&store).await;
    let bytes = export(&store).await;
    let error = read(dir.path(), &bytes).expect_err("it is open");
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    drop(store);
    let error = read(dir.path(), &bytes).expect_err("there is something in it");
    assert!(error.to_string().contains("tasks"), "{error}");
    let other = tempfile::tempdir().expect("a folder");
    let theirs = Options { project: ProjectId(Uuid::from_u128(99)), ..options(other.path()) };
    // An empty store is no obstacle.
    drop(SqliteStore::open(theirs.clone()).expect("opens"));
    import(&theirs, &mut bytes.as_slice()).expect("imports");
    assert!(SqliteStore::open(options(other.path())).is_err(), "it is another project's");
    SqliteStore::open(theirs).expect("opens");
}

/// An export of a small store, made once.
fn small_export() -> &'static [u8] {
    static EXPORT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    EXPORT.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("builds");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a folder");
            let store = open(dir.path());
            fill(&store).await;
            export(&store).await
        })
    })
}

/// It is refused, and nothing of it is left but bodies to which nothing refers.
fn is_refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let error = read(dir.path(), bytes).expect_err("it is damaged").to_string();
    let left: Vec<_> = fs::read_dir(dir.path())
        .expect("lists")
        .map(|entry| entry.expect("lists").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "blobs" && name != "segue.db-lock")
        .collect();
    assert!(left.is_empty(), "{left:?} is left after: {error}");
    error
}

#[test]
fn an_export_that_was_cut_is_refused() {
    let bytes = small_export();
    let ends: Vec<usize> = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .collect();
    for end in ends.iter().step_by(17).take_while(|end| **end < bytes.len()) {
        is_refused(&bytes[..*end]);
    }
    for cut in [0, 1, 100, bytes.len() - 1] {
        is_refused(&bytes[..cut]);
    }
}

#[test]
fn what_is_no_export_is_refused_with_the_line() {
    for (bytes, says) in [
        (&b"hello\n"[..], "line 1"),
        (b"{}\n", "line 1"),
        (b"[]\n", "line 1"),
        (b"{\"segue_export\":99}\n", "newer"),
        (b"{\"segue_export\":1,\"tables_version\":99}\n", "newer"),
        (b"{\"segue_export\":1,\"tables_version\":1}\n", "line 1"),
        (b"\xff\xfe\x00\n", "line 1"),
    ] {
        let error = is_refused(bytes);
        assert!(error.contains(says), "{error}");
    }
    let text = String::from_utf8(small_export().to_vec()).expect("UTF-8");
    let mut lines: Vec<&str> = text.lines().collect();
    let header = lines[0];
    for (wrong, says) in [
        ("{\"strangers\":{}}", "line 2"),
        ("{\"tasks\":{\"id\":\"no id\"}}", "`id` of `tasks`"),
        ("{\"tasks\":{\"color\":1}}", "`color`"),
        ("{\"tasks\":{}}", "line 2"),
        ("{\"blob\":{\"hash\":\"00\"}}", "line 2"),
        ("{\"end\":{\"lines\":1,\"sha256\":\"\"}}", "line 2"),
        ("{\"a\":1,\"b\":2}", "line 2"),
    ] {
        let error = is_refused(format!("{header}\n{wrong}\n").as_bytes());
        assert!(error.contains(says), "{error}");
    }
    // A row twice.
    let doubled = lines.iter().position(|line| line.starts_with("{\"tasks\"")).expect("is there");
    lines.insert(doubled, lines[doubled]);
    let error = is_refused((lines.join("\n") + "\n").as_bytes());
    assert!(error.contains(&format!("line {}", doubled + 2)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_changed_byte_is_noticed(at: prop::sample::Index, bit in 0_u32..8) {
        let mut bytes = small_export().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        is_refused(&bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_of_one_moment_while_others_write() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    fill(&store).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                accept(store.as_ref(), vec![submit(vec![spec("a"), spec("a")])]).await;
            }
        }
    });
    for _ in 0..3 {
        let bytes = export(&store).await;
        let other = tempfile::tempdir().expect("a folder");
        read(other.path(), &bytes).expect("what was exported fits together");
        let copy = tempfile::tempdir().expect("a folder");
        store.backup(copy.path()).await.expect("backs up");
        verify(copy.path()).expect("what was backed up fits together");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.expect("no panic");
    assert_eq!(store.health(), Ok(()));
}

#[tokio::test]
async fn a_backup_is_restored() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    fill(&store).await;
    let (before, exported) = (everything(&store).await, export(&store).await);
    let manifest = store.backup(&copy.path().join("today")).await.expect("backs up");
    assert_eq!(manifest.files.len(), 3, "the database and two large bodies");
    let from = copy.path().join("today");
    assert_eq!(verify(&from), Ok(manifest.clone()));
    let error = store.backup(&from).await.expect_err("it is not empty");
    assert!(error.to_string().contains("not empty"), "{error}");
    let error = restore(&from, dir.path()).expect_err("it is open");
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    // What comes after the backup is not in it.
    accept(store.as_ref(), vec![submit(vec![spec("a")])]).await;
    drop(store);
    let error = restore(&from, dir.path()).expect_err("there is one");
    assert!(error.to_string().contains("segue.db"), "{error}");
    let new = copy.path().join("restored");
    assert_eq!(restore(&from, &new), Ok(manifest));
    is_restored(&open(&new), &before, &exported).await;
}

#[tokio::test]
async fn a_damaged_backup_is_noticed_and_not_restored() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    fill(&store).await;
    let from = dir.path().join("backup");
    let manifest = store.backup(&from).await.expect("backs up");
    for file in &manifest.files {
        let path = from.join(&file.path);
        let bytes = fs::read(&path).expect("reads");
        let mut changed = bytes.clone();
        let at = changed.len() - 3;
        changed[at] ^= 1;
        fs::write(&path, changed).expect("writes");
        let error = verify(&from).expect_err("it was changed");
        assert!(error.to_string().contains(&file.path), "{error}");
        fs::remove_file(&path).expect("removes");
        let error = restore(&from, &dir.path().join("new")).expect_err("it is missing");
        assert!(error.to_string().contains(&file.path), "{error}");
        assert!(!dir.path().join("new").exists());
        fs::write(&path, bytes).expect("writes");
    }
    let path = from.join("manifest.json");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, text.replace("blobs/", "../../blobs/")).expect("writes");
    let error = verify(&from).expect_err("it climbs out");
    assert!(error.to_string().contains("elsewhere"), "{error}");
    fs::remove_file(&path).expect("removes");
    let error = verify(&from).expect_err("it has no manifest");
    assert!(error.to_string().contains("not finished"), "{error}");
    fs::write(&path, &text).expect("writes");
    verify(&from).expect("all is as it was");
}

#[tokio::test]
async fn an_audit_finds_what_does_not_fit() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    fill(&store).await;
    assert_eq!(store.audit().await, Ok(Vec::new()));
    let shell = shell(dir.path());
    for (sql, says) in [
        ("UPDATE tasks SET state = 6 WHERE n = 6", "by state"),
        (
            "DELETE FROM events WHERE run_seq = 2 AND run IN (SELECT run FROM events WHERE run_seq = 3)",
            "gap",
        ),
        ("UPDATE agents SET slots_used = 17", "slots"),
        ("UPDATE tasks SET run_events = 100 WHERE n = 5", "events"),
        ("UPDATE payloads SET body = '1'", "hash"),
        ("DELETE FROM payloads", "missing"),
        ("UPDATE counters SET next_task = 1", "number"),
        ("DELETE FROM tasks WHERE n = 4", "parent"),
    ] {
        assert!(shell.execute(sql, []).expect("writes") > 0, "{sql}");
        let findings = store.audit().await.expect("reads");
        assert!(findings.iter().any(|finding| finding.contains(says)), "{sql}: {findings:?}");
    }
}
