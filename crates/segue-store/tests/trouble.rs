//! Trouble with the file: each kind has its error, nothing is half-written, and the store says how it is.
// Children of these tests speak by their standard output.
#![allow(clippy::print_stdout)]

mod support;

use segue_core::command::Command;
use segue_core::ids::ProjectId;
use segue_core::payload::{DATABASE_MAX, Payload};
use segue_core::ports::{Blobs, Store, StoreError};
use segue_core::task::TaskState;
use segue_store::sqlite::{Options, SqliteStore};
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use support::*;
use uuid::Uuid;

fn refused(options: Options) -> StoreError {
    match SqliteStore::open(options) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

/// Whether the error names a file in this folder.
fn names(error: &StoreError, dir: &Path) -> bool {
    error.to_string().contains(&dir.display().to_string())
}

fn is_root(dir: &Path) -> bool {
    fs::metadata(dir).expect("is there").uid() == 0
}

#[tokio::test]
async fn a_second_store_is_kept_out_until_the_first_has_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = open(dir.path());
    let error = refused(options(dir.path()));
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    assert!(names(&error, dir.path()), "{error}");
    drop(first);
    open(dir.path());
}

/// Plays the child that has the store open.
#[test]
fn child_that_holds_the_store() {
    let Some(dir) = child_dir() else { return };
    let _store = open(&dir);
    println!("\nopen");
    let mut line = String::new();
    // Until its standard input ends, or it is killed.
    let _ = std::io::stdin().read_line(&mut line);
}

#[tokio::test]
async fn another_process_keeps_the_store_until_it_is_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut process = child("child_that_holds_the_store", dir.path()).spawn().expect("starts");
    let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "open"));
    let error = refused(options(dir.path()));
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    kill(process);
    open(dir.path());
}

#[tokio::test]
async fn a_shell_that_writes_holds_up_a_batch_and_no_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let (one, two) = (spec("a"), spec("a"));
    let (one_id, two_id) = (one.id, two.id);
    let shell = shell(dir.path());
    shell.execute_batch("BEGIN IMMEDIATE").expect("begins");
    let error = store.apply(vec![submit(vec![one])]).await.expect_err("locked");
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    assert!(names(&error, dir.path()), "{error}");
    assert_eq!(store.health(), Err(error));
    assert_eq!(store.task(one_id).await, Ok(None), "reading goes on");
    shell.execute_batch("ROLLBACK").expect("ends");
    accept(store.as_ref(), vec![submit(vec![two])]).await;
    assert_eq!(store.health(), Ok(()));
    assert!(store.task(two_id).await.expect("reads").is_some());
    assert_eq!(store.task(one_id).await, Ok(None));
}

#[tokio::test]
async fn what_a_shell_has_written_is_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let assign = register(store.as_ref(), "a", 5).await;
    let task = spec("a");
    let id = task.id;
    accept(store.as_ref(), vec![submit(vec![task])]).await;
    let shell = shell(dir.path());
    shell.execute("UPDATE agents SET drained = 1", []).expect("writes");
    let effects = accept(store.as_ref(), vec![assign]).await;
    assert!(effects[0].letters.is_empty(), "the agent is drained");
    shell.execute("UPDATE tasks SET name = 'renamed'", []).expect("writes");
    accept(store.as_ref(), vec![Command::Cancel { task: id, reason: "enough".into() }]).await;
    let task = store.task(id).await.expect("reads").expect("is there");
    assert_eq!((&*task.spec.name, task.state), ("renamed", TaskState::Cancelled));
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("segue.db");
    rusqlite::Connection::open(&path)
        .and_then(|conn| conn.execute_batch("CREATE TABLE theirs (x); PRAGMA application_id = 77;"))
        .expect("writes");
    let before = fs::read(&path).expect("reads");
    let error = refused(options(dir.path()));
    assert!(matches!(error, StoreError::Version(_)), "{error}");
    assert!(names(&error, dir.path()), "{error}");
    assert_eq!(fs::read(&path).expect("reads"), before);
    fs::write(&path, b"this is a letter to my aunt, and not a database at all").expect("writes");
    let error = refused(options(dir.path()));
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn another_project_and_a_newer_version_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(open(dir.path()));
    let other = Options { project: ProjectId(Uuid::from_u128(8)), ..options(dir.path()) };
    let error = refused(other);
    assert!(matches!(error, StoreError::Version(_)), "{error}");
    assert!(error.to_string().contains(&PROJECT.to_string()), "{error}");
    let sql = "UPDATE migrations SET checksum = 'x'";
    shell(dir.path()).execute(sql, []).expect("writes");
    let error = refused(options(dir.path()));
    assert!(matches!(error, StoreError::Version(_)), "{error}");
    let sql = "INSERT INTO migrations VALUES (99, 'later', 'y', 0)";
    shell(dir.path()).execute(sql, []).expect("writes");
    let error = refused(options(dir.path()));
    assert!(matches!(&error, StoreError::Version(text) if text.contains("99")), "{error}");
}

/// Overwrites the middle of the database file.
fn damage(dir: &Path) {
    let mut file = fs::File::options().write(true).open(dir.join("segue.db")).expect("opens");
    let length = file.metadata().expect("is there").len();
    let from = length / 8;
    file.seek(SeekFrom::Start(from)).expect("seeks");
    let garbage: Vec<u8> = (0..length - from).map(|at| (at * 131 % 251) as u8).collect();
    file.write_all(&garbage).expect("writes");
}

#[tokio::test]
async fn a_damaged_file_takes_no_more_writes() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut ids = Vec::new();
    for _ in 0..50 {
        let task = spec("a");
        ids.push(task.id);
        accept(store.as_ref(), vec![submit(vec![task])]).await;
    }
    drop(store);
    assert!(!dir.path().join("segue.db-wal").exists(), "all of it is in the one file");
    damage(dir.path());
    match SqliteStore::open(options(dir.path())) {
        Err(error) => assert!(matches!(error, StoreError::Corrupt(_)), "{error}"),
        Ok(store) => {
            let mut errors = Vec::new();
            for id in &ids {
                errors.extend(store.task(*id).await.err());
            }
            assert!(
                errors.iter().any(|error| matches!(error, StoreError::Corrupt(_))),
                "{errors:?}"
            );
            assert!(matches!(store.health(), Err(StoreError::Corrupt(_))));
            let error = store.apply(vec![submit(vec![spec("a")])]).await.expect_err("no writes");
            assert!(matches!(error, StoreError::Stopped(_)), "{error}");
        }
    }
    let mut file =
        fs::File::options().write(true).open(dir.path().join("segue.db")).expect("opens");
    file.write_all(&[0; 100]).expect("writes");
    let error = refused(options(dir.path()));
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert!(names(&error, dir.path()), "{error}");
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let task = spec("a");
    let id = task.id;
    accept(store.as_ref(), vec![submit(vec![task])]).await;
    shell(dir.path()).execute("UPDATE tasks SET state = 77", []).expect("writes");
    let error = store.task(id).await.expect_err("no such state");
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("state")), "{error}");
    assert_eq!(store.health(), Err(error));
}

/// Plays the child that may not write in the folder: prints how opening goes, and how writing does.
#[tokio::test]
async fn child_that_may_not_write() {
    let Some(dir) = child_dir() else { return };
    match SqliteStore::open(options(&dir)) {
        Ok(store) => {
            println!("\nopened, then {:?}", store.apply(vec![submit(vec![spec("a")])]).await)
        }
        Err(error) => println!("\nrefused: {error:?}"),
    }
}

/// Root may write everywhere, so its child becomes somebody else.
fn say_as_nobody(dir: &Path) -> String {
    use std::os::unix::process::CommandExt;
    let mut process = child("child_that_may_not_write", dir);
    if is_root(Path::new("/proc/self")) {
        process.uid(65_534);
    }
    let output = match process.output() {
        Ok(output) => output,
        Err(error) => return format!("cannot be asked: {error}"),
    };
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_read_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let inside = dir.path().join("segue");
    drop(open(&inside));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("sets");
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o555)).expect("sets");
    let said = say_as_nobody(&inside);
    if said.contains("cannot be asked") {
        eprintln!("skipped: nobody may not run this program here ({said})");
        return;
    }
    assert!(said.contains("refused: ReadOnly("), "{said}");
    assert!(said.contains(&inside.display().to_string()), "{said}");
    let missing = dir.path().join("segue/not/there");
    let said = say_as_nobody(&missing);
    assert!(said.contains("refused: ReadOnly("), "{said}");
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).expect("sets");
}

/// A small file system of its own; `None` where this user may not have one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().expect("a folder");
        let status = Process::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_room_helps() {
    let Some(disk) = SmallDisk::mount("4m") else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let dir = disk.0.path().join("segue");
    let store = open(&dir);
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 1024 * 1024]).expect("writes");
    let text = format!("\"{}\"", "x".repeat(1_500));
    let mut kept = Vec::new();
    let error = loop {
        let specs: Vec<_> = (0..20).map(|_| spec("a")).collect();
        let ids: Vec<_> = specs.iter().map(|spec| spec.id).collect();
        match store.apply(vec![submit_with(specs, &text)]).await {
            Ok(_) => kept.extend(ids),
            Err(error) => break error,
        }
        assert!(kept.len() < 10_000, "the disk is small");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(names(&error, &dir), "{error}");
    assert_eq!(store.health(), Err(error));
    let mut there = all_tasks(store.as_ref()).await;
    there.sort();
    let mut expected = kept.clone();
    expected.sort();
    assert_eq!(there, expected, "what was answered and nothing else");
    let large = vec![b'x'; 3 * 1024 * 1024];
    let error = store.put(large).await.expect_err("no room");
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    fs::remove_file(&ballast).expect("removes");
    accept(store.as_ref(), vec![submit(vec![spec("a")])]).await;
    assert_eq!(store.health(), Ok(()));
    drop(store);
    assert_eq!(integrity(&dir), "ok");
    assert_eq!(all_tasks(open(&dir).as_ref()).await.len(), kept.len() + 1);
}

/// Plays the child whose files may not grow beyond a limit: says how many submits went well, and what then went wrong.
#[tokio::test]
async fn child_whose_files_may_not_grow() {
    let Some(dir) = child_dir() else { return };
    let store = open(&dir);
    let text = format!("\"{}\"", "x".repeat(1_500));
    let mut kept = 0;
    let error = loop {
        match store.apply(vec![submit_with(vec![spec("a")], &text)]).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100_000, "the limit is low");
    };
    let again = store.apply(vec![submit_with(vec![spec("a")], &text)]).await;
    println!("\nkept {kept}, then {error:?}, then {again:?}, health {:?}", store.health());
}

#[tokio::test]
async fn a_file_that_may_not_grow_is_an_error_and_no_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    // In blocks of 512 bytes: 2 MiB.
    let limit = "trap '' XFSZ; ulimit -f 4096";
    let output = child_after(limit, "child_whose_files_may_not_grow", dir.path()).output();
    let said = String::from_utf8_lossy(&output.expect("runs").stdout).into_owned();
    let line = said.lines().find(|line| line.starts_with("kept ")).expect("it says so");
    assert!(line.contains("then Io(") || line.contains("then Full("), "{line}");
    assert!(line.contains("health Err("), "{line}");
    let kept: usize = line["kept ".len()..]
        .split(',')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!(kept > 10, "{line}");
    assert_eq!(integrity(dir.path()), "ok");
    // The one that was not answered may have come through.
    let there = all_tasks(open(dir.path()).as_ref()).await.len();
    assert!((kept..=kept + 1).contains(&there), "{there} of {kept}");
}

#[tokio::test]
async fn bodies_are_checked_and_leftovers_removed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let body = vec![b'x'; DATABASE_MAX + 1];
    let payload = store.put(body.clone()).await.expect("is kept");
    let Payload::Stored { hash, .. } = payload else { panic!("too large for a row") };
    let name = hash.hex();
    let path = dir.path().join("blobs").join(&name[..2]).join(&name);
    assert_eq!(fs::read(&path).expect("is there"), body);
    fs::write(&path, &body[1..]).expect("writes");
    let error = store.get(hash).await.expect_err("it is not what its name says");
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    // Whoever puts the body again mends it.
    store.put(body.clone()).await.expect("is kept");
    assert_eq!(store.get(hash).await, Ok(body));
    drop(store);
    let leftover = dir.path().join("blobs/unfinished-1");
    fs::write(&leftover, b"half of").expect("writes");
    open(dir.path());
    assert!(!leftover.exists());
}

#[tokio::test]
async fn pruning_removes_bodies_that_nobody_needs() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let sizes = [10, 10_000, DATABASE_MAX + 1];
    let text = |letter: &str, size: usize| format!("\"{}\"", letter.repeat(size - 2));
    let mut hashes = Vec::new();
    for letter in ["a", "b"] {
        for size in sizes {
            let input = store.put(text(letter, size).into_bytes()).await.expect("is kept");
            hashes.push(input.hash());
            let task = spec("nobody");
            let id = task.id;
            let new = segue_core::command::NewTask { spec: task, input };
            let submit = segue_core::command::Submit { tasks: vec![new] };
            accept(store.as_ref(), vec![Command::Submit(submit)]).await;
            if letter == "a" {
                let cancel = Command::Cancel { task: id, reason: "no more".into() };
                accept(store.as_ref(), vec![cancel]).await;
            }
        }
    }
    let orphan = store.put(text("c", 100_000).into_bytes()).await.expect("is kept").hash();
    hashes.push(orphan);
    // As if they had been put yesterday: what is young may be waiting for its command.
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    for hash in &hashes {
        let name = hash.hex();
        let path = dir.path().join("blobs").join(&name[..2]).join(&name);
        if let Ok(file) = fs::File::open(path) {
            file.set_modified(yesterday).expect("sets");
        }
    }
    let later = store.now().plus_ms(1);
    let pruned = store.prune(later).await.expect("prunes");
    assert_eq!((pruned.runs, pruned.tasks), (3, 3));
    assert_eq!(pruned.payloads, 3, "one in the database, one file, and the orphan");
    assert_eq!(pruned.bytes, (DATABASE_MAX + 1 + 100_000) as u64);
    for (hash, kept) in hashes.iter().zip([false, false, false, false, true, true, false]) {
        assert_eq!(store.get(*hash).await.is_ok(), kept, "{hash:?}");
    }
}

#[tokio::test]
async fn no_secret_reaches_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let assign = register(store.as_ref(), "a", 100).await;
    let tasks: Vec<_> = (0..20).map(|_| submit(vec![spec("a")])).collect();
    accept(store.as_ref(), tasks).await;
    let effects = accept(store.as_ref(), vec![assign]).await;
    let work = segue_testkit::store_suite::work(&effects[0].letters);
    assert_eq!(work.len(), 20);
    let half = work.iter().take(10);
    let batch = half.flat_map(|work| [work.start(store.now()), work.complete()]).collect();
    accept(store.as_ref(), batch).await;
    let cancel = Command::Cancel { task: work[15].task, reason: "enough".into() };
    accept(store.as_ref(), vec![cancel]).await;
    let mut needles: Vec<Vec<u8>> = vec![KEY.to_vec()];
    for work in &work {
        let secret = work.request.secret.0;
        needles.push(secret.to_vec());
        needles.push(serde_json::to_vec(&secret).expect("JSON"));
        needles.push(segue_core::payload::Hash(secret).hex().into_bytes());
    }
    let check = |when: &str| {
        for entry in fs::read_dir(dir.path()).expect("lists") {
            let path = entry.expect("lists").path();
            if !path.is_file() {
                continue;
            }
            let bytes = fs::read(&path).expect("reads");
            for needle in &needles {
                let found = bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "a secret stands in {} {when}", path.display());
            }
        }
    };
    check("while it is open");
    drop(store);
    check("after it was closed");
    // Yet the letters that are left can be made again.
    let store = open(dir.path());
    let again = segue_testkit::store_suite::work(&store.unsent(0, 100).await.expect("reads"));
    assert_eq!(again.len(), 9);
    for again in again {
        let first = work.iter().find(|work| work.task == again.task).expect("was given out");
        assert_eq!(first.request, again.request);
    }
}
