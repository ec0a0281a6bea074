//! Backups: the same questions asked of a folder and of an S3 server.

mod support;

use bytes::Bytes;
use futures_util::FutureExt;
use segue_core::command::{Command, Excused, NewTask, Submit};
use segue_core::ids::ProjectId;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, EventFilter, Store, StoreError};
use segue_core::state::StateCommand;
use segue_store::backup::{BackupError, Backups, Keep, Manifest, Numbers, Progress, Stage};
use segue_store::objects::{Created, ObjectBlobs, Objects, Options, Secret, Trouble};
use segue_store::sqlite::{self, EmptyFolder, SqliteStore};
use segue_testkit::servers::{Proxy, S3};
use segue_testkit::store_suite::{state, text_of};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::full::{everything, export, fill, is_restored};
use support::*;
use tempfile::TempDir;
use uuid::Uuid;

/// How long something is waited for that has to happen.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A place with nothing in it, and room on this machine.
struct Rig {
    objects: Objects,
    here: TempDir,
}

impl Rig {
    fn backups(&self) -> Backups {
        Backups::new(self.objects.clone(), self.here.path().join("scratch"))
    }

    fn open(&self, name: &str) -> Arc<SqliteStore> {
        open(&self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }
}

fn empty(dir: &Path) -> EmptyFolder {
    EmptyFolder(options(dir))
}

/// Tasks with inputs that are kept in the database, so that parts of the payloads become full.
async fn submit_large(store: &SqliteStore, tasks: usize, salt: &str) {
    for at in 0..tasks {
        let input = Payload::of_text(format!("\"{salt} {at} {}\"", "x".repeat(60_000)));
        let new = NewTask { spec: spec("a"), input: input.expect("JSON") };
        accept(store, vec![Command::Submit(Submit { tasks: vec![new] })]).await;
    }
}

/// The lines of an export that are rows or bodies.
fn rows(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    lines[1..lines.len() - 1].iter().map(|line| (*line).to_owned()).collect()
}

/// All objects of a place but its clock.
async fn objects(objects: &Objects) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["objects", "manifests"] {
        let found = objects.list(folder).await.expect("lists");
        names.extend(found.into_iter().map(|found| found.name));
    }
    names.sort();
    names
}

async fn what_is_restored_is_what_was_backed_up(rig: Rig) {
    let store = rig.open("store");
    fill(&store).await;
    let (before, exported) = (everything(&store).await, export(&store).await);
    let backups = rig.backups();
    let manifest = backups.write(store.as_ref(), None).await.expect("is written");
    assert_eq!((manifest.number, manifest.project, manifest.fence), (1, PROJECT, 0));
    assert_eq!(manifest.bodies.len(), 2, "two bodies stand outside the database");
    // What comes after the backup is not in it.
    accept(store.as_ref(), vec![submit(vec![spec("a")])]).await;
    let verified = backups.verify(None, true).await.expect("is read");
    assert_eq!((verified.findings, verified.deep), (Vec::new(), true));
    assert_eq!(verified.rows, manifest.rows());

    let mut file = backups.spell(&manifest, Numbers::AsTheyWere).await.expect("is read");
    let mut spelled = Vec::new();
    file.read_to_end(&mut spelled).expect("reads");
    assert_eq!(rows(&spelled), rows(&exported));

    let refused = backups.restore(None, &empty(&rig.path("store"))).await;
    assert!(matches!(refused, Err(BackupError::Store(StoreError::Locked(_)))), "{refused:?}");
    drop(store);
    let refused = backups.restore(None, &empty(&rig.path("store"))).await.expect_err("not empty");
    assert!(refused.to_string().contains("import into an empty folder"), "{refused}");
    let restored = backups.restore(None, &empty(&rig.path("new"))).await.expect("is restored");
    assert_eq!(restored, manifest);
    // Between header and end the same lines, but for the numbers that come next.
    let mut again = Vec::new();
    sqlite::export_file(&options(&rig.path("new")), &mut again).expect("exports");
    let is_number = |line: &str| {
        ["counters", "stamps"].iter().any(|name| line.starts_with(&format!("{{\"{name}\"")))
    };
    let but_numbers = |bytes: &[u8]| -> Vec<String> {
        rows(bytes).into_iter().filter(|line| !is_number(line)).collect()
    };
    assert_eq!(but_numbers(&again), but_numbers(&exported));
    let store = rig.open("new");
    is_restored(&store, &before, &exported).await;
}

/// The token of a lock that somebody got after the backup is not given to another after the restore, though the backup knows of no token at all.
async fn no_token_is_issued_twice(rig: Rig) {
    let store = rig.open("store");
    accept(store.as_ref(), vec![submit(vec![spec("a")])]).await;
    let backups = rig.backups();
    let manifest = backups.write(store.as_ref(), None).await.expect("is written");
    assert!(manifest.tables.iter().all(|table| table.table != "stamps"));
    let before = token(store.as_ref()).await;
    drop(store);
    backups.restore(None, &empty(&rig.path("new"))).await.expect("is restored");
    let store = rig.open("new");
    let after = token(store.as_ref()).await;
    assert!(after > before, "{before} {after}");
    assert_eq!(store.audit().await, Ok(Vec::new()));
}

/// Takes a lock, and returns its token.
async fn token(store: &dyn Store) -> u64 {
    let (name, holder) = (Arc::from("deploy"), "somebody".into());
    let lock = StateCommand::Lock { name: Arc::clone(&name), holder, ttl_ms: 60_000 };
    accept(store, vec![state(lock)]).await;
    store.lock_of(name).await.expect("reads").expect("is held").token
}

async fn only_what_changed_is_written(rig: Rig) {
    let store = rig.open("store");
    register(store.as_ref(), "a", 2).await;
    submit_large(&store, 60, "first").await;
    let body = store.put(text_of(300_000).into_bytes()).await.expect("is kept");
    let new = NewTask { spec: spec("a"), input: body };
    accept(store.as_ref(), vec![Command::Submit(Submit { tasks: vec![new] })]).await;
    let backups = rig.backups();
    let first = backups.write(store.as_ref(), None).await.expect("is written");
    assert!(first.written.bytes > 3_500_000, "{:?}", first.written);
    assert_eq!(first.written.objects, first.size().0);
    // Nothing changed: not one object.
    let second = backups.write(store.as_ref(), None).await.expect("is written");
    assert_eq!((second.written.objects, second.written.bytes), (0, 0));
    assert_eq!(second.rows_sha256, first.rows_sha256);
    assert_eq!(second.previous.expect("it is the second").sha256, first.sha256);
    // One task more: the last part of each table that got a row, and the counters.
    submit_large(&store, 1, "second").await;
    let third = backups.write(store.as_ref(), None).await.expect("is written");
    assert!(third.written.objects <= 6, "{:?}", third.written);
    assert!(third.written.bytes * 2 < first.written.bytes, "{:?}", third.written);
    // An early row that changes: its part alone, and those that every change changes.
    let tasks = all_tasks(store.as_ref()).await;
    let cancel = Command::Cancel { task: *tasks.last().expect("some"), reason: "enough".into() };
    accept(store.as_ref(), vec![cancel]).await;
    let fourth = backups.write(store.as_ref(), None).await.expect("is written");
    assert!(fourth.written.objects <= 6, "{:?}", fourth.written);
    assert!(fourth.written.bytes * 2 < first.written.bytes, "{:?}", fourth.written);
    let count = objects(&rig.objects).await.len() as u64;
    let written: u64 =
        [&first, &second, &third, &fourth].map(|one| one.written.objects).iter().sum();
    assert_eq!(count, written + 4, "what was written is there, and the manifests");
    // Every one of them is whole.
    for number in 1..=4 {
        let verified = backups.verify(Some(number), number == 4).await.expect("is read");
        assert_eq!(verified.findings, Vec::<String>::new(), "{number}");
    }
    let restored = backups.restore(Some(1), &empty(&rig.path("new"))).await.expect("is restored");
    assert_eq!(restored, first);
    assert_eq!(all_tasks(rig.open("new").as_ref()).await.len(), 61);
}

async fn each_number_has_one_winner(rig: Rig) {
    for round in 0..4 {
        let name = format!("manifests/{round}");
        let tries = (0..16).map(|mine: u8| {
            let (objects, name) = (rig.objects.clone(), name.clone());
            tokio::spawn(async move {
                (
                    mine,
                    objects.create(&name, Bytes::from(vec![mine; 1_000])).await.expect("answers"),
                )
            })
        });
        let mut winners = Vec::new();
        for one in futures_util::future::join_all(tries).await {
            if let (mine, Created::Mine) = one.expect("no panic") {
                winners.push(mine);
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        let there = rig.objects.get(&name, 1_000).await.expect("is there");
        assert_eq!(there, vec![winners[0]; 1_000]);
    }
}

async fn many_writers_write_as_many_backups(rig: Rig) {
    let store = rig.open("store");
    fill(&store).await;
    let backups = rig.backups();
    let writers = (0..16).map(|_| {
        let (backups, store) = (backups.clone(), store.clone());
        tokio::spawn(async move { backups.write(store.as_ref(), None).await })
    });
    let mut written: Vec<Manifest> = Vec::new();
    for one in futures_util::future::join_all(writers).await {
        written.push(one.expect("no panic").expect("is written"));
    }
    written.sort_by_key(|manifest| manifest.number);
    let numbers: Vec<u64> = written.iter().map(|manifest| manifest.number).collect();
    assert_eq!(numbers, (1..=16).collect::<Vec<u64>>());
    for (number, manifest) in (1..).zip(&written) {
        assert_eq!(&backups.at(Some(number)).await.expect("is there"), manifest);
        let previous = manifest.previous.map(|link| (link.number, link.sha256));
        let expected = (number > 1).then(|| (number - 1, written[number as usize - 2].sha256));
        assert_eq!(previous, expected);
    }
}

async fn damage_is_found_and_named(rig: Rig) {
    let store = rig.open("store");
    fill(&store).await;
    let backups = rig.backups();
    backups.write(store.as_ref(), None).await.expect("is written");
    for name in objects(&rig.objects).await {
        let whole = rig.objects.get(&name, u64::MAX).await.expect("is there");
        let mut changed = whole.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        let cut = whole.slice(..whole.len() - 1);
        let longer = Bytes::from([whole.as_ref(), b"x"].concat());
        for damaged in [Some(Bytes::from(changed)), Some(cut), Some(longer), None] {
            match &damaged {
                Some(bytes) => rig.objects.put(&name, bytes.clone()).await.expect("writes"),
                None => rig.objects.remove(std::slice::from_ref(&name)).await.expect("removes"),
            }
            is_named(&rig, &backups, &name, damaged.is_none()).await;
        }
        rig.objects.put(&name, whole).await.expect("writes");
    }
    let verified = backups.verify(None, true).await.expect("is read");
    assert_eq!(verified.findings, Vec::<String>::new());
}

async fn is_named(rig: &Rig, backups: &Backups, name: &str, is_gone: bool) {
    let new = rig.path("new");
    let error = backups.restore(Some(1), &empty(&new)).await.expect_err("it is damaged");
    assert!(!new.join("segue.db").exists(), "nothing was restored");
    if name.starts_with("manifests") && is_gone {
        assert!(matches!(error, BackupError::None(_)), "{error}");
        return;
    }
    assert!(error.to_string().contains(name), "{name}: {error}");
    match backups.verify(Some(1), false).await {
        Ok(verified) => {
            assert_eq!(verified.findings.len(), 1, "{:?}", verified.findings);
            assert!(verified.findings[0].contains(name), "{name}: {:?}", verified.findings);
            assert!(verified.findings[0].contains("cannot be restored"), "{:?}", verified.findings);
        }
        Err(error @ BackupError::Damaged { .. }) => assert!(error.to_string().contains(name)),
        Err(error) => panic!("{error}"),
    }
}

async fn an_earlier_holder_does_not_win_over_a_later_one(rig: Rig) {
    let store = rig.open("store");
    fill(&store).await;
    let backups = rig.backups();
    assert_eq!(backups.write(store.as_ref(), Some(5)).await.expect("is written").fence, 5);
    // A person's backup lets nobody in again.
    assert_eq!(backups.write(store.as_ref(), None).await.expect("is written").fence, 5);
    assert_eq!(backups.write(store.as_ref(), Some(7)).await.expect("is written").fence, 7);
    let error = backups.write(store.as_ref(), Some(6)).await.expect_err("it came too late");
    assert!(matches!(error, BackupError::Fenced { number: 3, theirs: 7, mine: 6 }), "{error}");
    // One that began under a good lease and is overtaken while it writes.
    let (overtaken, successor) = (backups.clone(), backups.clone());
    let began = Arc::new(tokio::sync::Notify::new());
    let slow = {
        let (began, store) = (began.clone(), store.clone());
        let overtaken = overtaken.watched(move |progress: Progress| {
            if progress.stage == Stage::Reading {
                began.notify_one();
            }
        });
        let gate = Gate { store: store.clone(), open: Arc::new(tokio::sync::Notify::new()) };
        let opened = gate.open.clone();
        (tokio::spawn(async move { overtaken.write(&gate, Some(8)).await }), opened)
    };
    began.notified().await;
    successor.write(store.as_ref(), Some(9)).await.expect("is written");
    slow.1.notify_one();
    let error = slow.0.await.expect("no panic").expect_err("it was overtaken");
    assert!(matches!(error, BackupError::Fenced { theirs: 9, mine: 8, .. }), "{error}");
    assert_eq!(backups.at(None).await.expect("is there").fence, 9);
}

/// A store whose export waits until somebody says so.
struct Gate {
    store: Arc<SqliteStore>,
    open: Arc<tokio::sync::Notify>,
}

impl segue_store::backup::Exports for Gate {
    fn export_rows(
        &self,
        known: segue_store::backup::Known,
        out: Box<dyn Write + Send>,
    ) -> segue_core::ports::Fut<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.open.notified().await;
            self.store.export_rows(known, out).await
        })
    }
}

async fn what_ran_comes_back_as_lost(rig: Rig) {
    let store = rig.open("store");
    let assign = register(store.as_ref(), "a", 2).await;
    accept(store.as_ref(), vec![submit(vec![spec("a"), spec("a"), spec("a")]), assign]).await;
    let backups = rig.backups();
    backups.write(store.as_ref(), None).await.expect("is written");
    drop(store);
    // Another folder, so another key: nobody can prove that an attempt of before is theirs.
    let other = sqlite::Options::new(rig.path("new"), PROJECT, [9; 32]);
    backups.restore(None, &EmptyFolder(other.clone())).await.expect("is restored");
    let later = sqlite::Options { clock: Arc::new(Later), ..other };
    let store = SqliteStore::open(later).expect("opens");
    assert_eq!(store.counts().await.expect("reads").len(), 2, "two are held still, one is ready");
    accept(store.as_ref(), vec![Command::Tick { limit: 100, excused: Excused::Nobody }]).await;
    assert_eq!(store.audit().await, Ok(Vec::new()));
    for id in all_tasks(store.as_ref()).await {
        let task = store.task(id).await.expect("reads").expect("is there");
        let attempts = store.attempts(id).await.expect("reads");
        assert!(!task.state.is_terminal(), "{task:?}");
        assert_eq!(task.lost as usize, attempts.len(), "a lost attempt stands in the log");
    }
    let filter = EventFilter { limit: usize::MAX, ..EventFilter::default() };
    let events = store.events(filter).await.expect("reads");
    let lost = events.iter().filter(|event| format!("{event:?}").contains("Lost")).count();
    assert!(lost >= 2, "{events:#?}");
}

/// A day after everything here.
struct Later;

impl segue_core::ports::Clock for Later {
    fn now(&self) -> segue_core::time::Time {
        sqlite::SystemClock.now().plus_ms(24 * 60 * 60 * 1000)
    }
}

async fn what_is_there_must_fit(rig: Rig) {
    let backups = rig.backups();
    let error = backups.at(None).await.expect_err("there is none");
    assert!(error.to_string().contains("there is no backup at"), "{error}");
    let store = rig.open("store");
    fill(&store).await;
    backups.write(store.as_ref(), None).await.expect("is written");
    let error = backups.at(Some(9)).await.expect_err("there is none");
    assert!(error.to_string().contains("no backup 9"), "{error}");
    let theirs = sqlite::Options::new(rig.path("theirs"), ProjectId(Uuid::from_u128(99)), KEY);
    let theirs = SqliteStore::open(theirs).expect("opens");
    let error = backups.write(theirs.as_ref(), None).await.expect_err("it is another project");
    assert!(matches!(error, BackupError::OtherProject(_)), "{error}");
    assert_eq!(backups.list().await.expect("lists").len(), 1);
}

async fn what_is_given_up_can_still_be_read_for_a_day(rig: Rig) {
    let store = rig.open("store");
    fill(&store).await;
    let backups = rig.backups();
    for _ in 0..4 {
        submit_large(&store, 1, "more").await;
        backups.write(store.as_ref(), None).await.expect("is written");
    }
    let there = objects(&rig.objects).await;
    let keep = Keep { last: 2, hourly: 0, daily: 0, weekly: 0 };
    let swept = backups.sweep(&keep).await.expect("sweeps");
    assert_eq!((swept.kept, swept.given_up), (vec![3, 4], vec![1, 2]));
    assert_eq!((swept.objects, swept.removed), (0, Vec::new()));
    assert_eq!(objects(&rig.objects).await, there, "nothing goes before its time");
    let again = backups.sweep(&keep).await.expect("sweeps");
    assert_eq!(again.given_up, Vec::<u64>::new());
    for number in 1..=4 {
        let verified = backups.verify(Some(number), false).await.expect("is read");
        assert_eq!(verified.findings, Vec::<String>::new(), "{number}");
        let retired = backups.at(Some(number)).await.expect("is there").retired;
        assert_eq!(retired, number < 3);
    }
    // The number after the latest, whatever was given up.
    let next = backups.write(store.as_ref(), None).await.expect("is written");
    assert_eq!(next.number, 5);
}

async fn bodies_are_kept_once_and_checked(rig: Rig) {
    let blobs = ObjectBlobs::new(rig.objects.clone());
    let body = text_of(200_000).into_bytes();
    let (one, two) = (blobs.put(body.clone()).await, blobs.put(body.clone()).await);
    assert_eq!(one, Ok(Payload::Stored { hash: Hash::of(&body), size: body.len() as u64 }));
    assert_eq!(one, two);
    let copies = rig.objects.list("bodies").await.expect("lists");
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(blobs.get(Hash::of(&body)).await, Ok(body.clone()));
    let missing = blobs.get(Hash::of(b"other")).await;
    assert_eq!(missing, Err(StoreError::MissingPayload(Hash::of(b"other").hex())));
    // Nobody refers to it, but it is young.
    let swept = blobs.sweep(|_| Box::pin(async { Ok(Vec::new()) })).await;
    assert_eq!(swept, Ok((0, 0)));
    rig.objects.put(&copies[0].name, Bytes::from_static(b"damaged")).await.expect("writes");
    let damaged = blobs.get(Hash::of(&body)).await;
    assert!(matches!(&damaged, Err(StoreError::Corrupt(what)) if what.contains(&copies[0].name)));
    // What is damaged is put anew, since it does not have the length.
    blobs.put(body.clone()).await.expect("is kept");
    assert_eq!(blobs.get(Hash::of(&body)).await, Ok(body));
}

/// Asks every question, each of a place of its own, and says at the end which failed.
macro_rules! ask_every_question {
    ($rig:expr) => {
        ask!(
            $rig;
            what_is_restored_is_what_was_backed_up,
            no_token_is_issued_twice,
            only_what_changed_is_written,
            each_number_has_one_winner,
            many_writers_write_as_many_backups,
            damage_is_found_and_named,
            an_earlier_holder_does_not_win_over_a_later_one,
            what_ran_comes_back_as_lost,
            what_is_there_must_fit,
            what_is_given_up_can_still_be_read_for_a_day,
            bodies_are_kept_once_and_checked,
        )
    };
}

macro_rules! ask {
    ($rig:expr; $($question:ident),* $(,)?) => {{
        let mut failed = Vec::new();
        $(
            let (rig, began) = ($rig.await, std::time::Instant::now());
            if AssertUnwindSafe($question(rig)).catch_unwind().await.is_err() {
                failed.push(stringify!($question));
            }
            println!("{:6} ms {}", began.elapsed().as_millis(), stringify!($question));
        )*
        assert!(failed.is_empty(), "failed: {failed:?}");
    }};
}

async fn folder() -> Rig {
    let here = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", here.path().join("place").display());
    Rig { objects: Objects::open(&url, &Options::default()).expect("opens"), here }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_in_a_folder() {
    ask_every_question!(folder());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_on_s3() {
    let server = S3::start().await;
    ask_every_question!(bucket(&server));
    let server = &server;
    ask!(
        async { server };
        a_server_that_fails_in_the_middle_loses_nothing,
        an_answer_that_is_lost_is_settled_by_reading_back,
        what_is_wrong_with_a_server_is_said,
    );
}

/// How a server is reached, over this address.
fn options_of(server: &S3, address: &str) -> Options {
    Options {
        endpoint: Some(format!("http://{address}")),
        access_key_id: Some(server.access_key().to_owned()),
        secret_access_key: Some(Secret::new(server.secret_key())),
        ..Options::default()
    }
}

async fn bucket(server: &S3) -> Rig {
    let url = format!("s3://{}/some/prefix", server.bucket().await);
    let objects = Objects::open(&url, &options_of(server, &server.address())).expect("opens");
    Rig { objects, here: tempfile::tempdir().expect("a folder") }
}

async fn a_server_that_fails_in_the_middle_loses_nothing(server: &S3) {
    let direct = bucket(server).await;
    let store = direct.open("store");
    fill(&store).await;
    let whole = direct.backups();
    whole.write(store.as_ref(), None).await.expect("is written");
    submit_large(&store, 1, "more").await;
    let line = Arc::new(Proxy::to(&server.address()).await);
    let over = Objects::open(direct.objects.url(), &options_of(server, &line.addr()));
    let over = Backups::new(over.expect("opens"), direct.path("scratch"));
    let broken = {
        let line = line.clone();
        over.clone().watched(move |progress| {
            if progress.stage == Stage::Writing && progress.done == 2 {
                let line = line.clone();
                let runtime = tokio::runtime::Handle::current();
                tokio::task::block_in_place(|| runtime.block_on(line.cut()));
            }
        })
    };
    let error = broken.write(store.as_ref(), None).await.expect_err("the line is cut");
    assert!(error.is_away(), "{error}");
    assert!(error.hint().expect("there is one").contains("nothing is lost"), "{error}");
    let error = over.verify(None, false).await.expect_err("the line is cut");
    assert!(error.is_away(), "{error}");
    let restored =
        over.restore(None, &empty(&direct.path("new"))).await.expect_err("the line is cut");
    assert!(restored.is_away() && !direct.path("new").exists(), "{restored}");
    // What was there is there, and nothing that looks like more.
    assert_eq!(whole.list().await.expect("lists").len(), 1);
    assert_eq!(whole.verify(None, true).await.expect("is read").findings, Vec::<String>::new());
    line.heal().await;
    let second = over.write(store.as_ref(), None).await.expect("is written");
    assert_eq!(second.number, 2);
    assert_eq!(whole.verify(None, true).await.expect("is read").findings, Vec::<String>::new());
}

async fn an_answer_that_is_lost_is_settled_by_reading_back(server: &S3) {
    let direct = bucket(server).await;
    let line = Proxy::to(&server.address()).await;
    let over = Objects::open(direct.objects.url(), &options_of(server, &line.addr()));
    let over = over.expect("opens");
    line.hold_answers().await;
    let mine = Bytes::from_static(b"mine");
    let create = tokio::spawn({
        let mine = mine.clone();
        async move { over.create("manifests/1", mine).await }
    });
    let is_there = async {
        while direct.objects.look("manifests/1").await.expect("answers").is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_there).await.expect("it is written");
    // The connection ends before its answer comes: the same is sent once more, and refused on account of itself.
    line.reset().await;
    line.heal().await;
    assert_eq!(create.await.expect("no panic"), Ok(Created::Mine));
    let theirs = direct.objects.create("manifests/1", Bytes::from_static(b"theirs")).await;
    assert_eq!(theirs, Ok(Created::Taken));
    assert_eq!(direct.objects.get("manifests/1", 10).await, Ok(mine));
}

async fn what_is_wrong_with_a_server_is_said(server: &S3) {
    let options = options_of(server, &server.address());
    let none = Objects::open("s3://no-such-bucket/prefix", &options).expect("opens");
    let error = none.list("manifests").await.expect_err("there is no bucket");
    assert_eq!(error.trouble, Trouble::NoBucket, "{error}");
    let error = none.now().await.expect_err("there is no bucket");
    assert_eq!(error.trouble, Trouble::NoBucket, "{error}");
    let nobody = Options { access_key_id: None, secret_access_key: None, ..options.clone() };
    let error = Objects::open("s3://bucket/prefix", &nobody).expect_err("there is no key");
    assert_eq!(error.trouble, Trouble::Denied, "{error}");
    // Nobody speaks TLS there.
    let address = format!("https://{}", server.address());
    let tls = Options { endpoint: Some(address), ..options };
    let error = Objects::open("s3://bucket/prefix", &tls).expect("opens").now().await;
    let error = error.expect_err("there is no TLS");
    assert_eq!(error.trouble, Trouble::Away, "{error}");
    let told = format!("{error} {error:?} {tls:?}");
    assert!(!told.contains(server.secret_key()), "{told}");
}

/// The path of an object in a folder.
fn path_of(rig: &Rig, name: &str) -> PathBuf {
    rig.path("place").join(name)
}

/// Makes a file look as if it had been written hours ago.
fn age(path: &Path, hours: u64) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(then))
        .expect("is there");
}

#[tokio::test]
async fn what_nobody_refers_to_goes_after_a_day() {
    let rig = folder().await;
    let store = rig.open("store");
    fill(&store).await;
    let backups = rig.backups();
    for _ in 0..3 {
        submit_large(&store, 1, "more").await;
        backups.write(store.as_ref(), None).await.expect("is written");
    }
    // Left behind by a backup that was never finished: an old one, and one that may be under way.
    for (by, hours) in [(1, 25), (2, 23)] {
        let name = format!("objects/{}/{}", Uuid::from_u128(by).simple(), Hash::of(b"x").hex());
        rig.objects.put(&name, Bytes::from_static(b"x")).await.expect("writes");
        age(&path_of(&rig, &name), hours);
    }
    for name in objects(&rig.objects).await {
        if !name.contains("-")
            && name.starts_with("objects/")
            && !name.contains(&Hash::of(b"x").hex())
        {
            age(&path_of(&rig, &name), 48);
        }
    }
    let keep = Keep { last: 1, hourly: 0, daily: 0, weekly: 0 };
    let swept = backups.sweep(&keep).await.expect("sweeps");
    assert_eq!((swept.given_up, swept.objects, swept.bytes), (vec![1, 2], 1, 1));
    for number in [1, 2] {
        age(&path_of(&rig, &format!("manifests/{number:010}.json")), 25);
    }
    let swept = backups.sweep(&keep).await.expect("sweeps");
    assert_eq!((&swept.kept[..], &swept.removed[..]), (&[3][..], &[1, 2][..]));
    assert!(swept.objects > 0, "{swept:?}");
    let latest = backups.at(None).await.expect("is there");
    let wanted: u64 = latest.size().0;
    assert_eq!(
        objects(&rig.objects).await.len() as u64,
        wanted + 2,
        "its objects, its manifest, and the young one"
    );
    assert_eq!(backups.verify(None, true).await.expect("is read").findings, Vec::<String>::new());
    assert_eq!(backups.write(store.as_ref(), None).await.expect("is written").number, 4);
    // Nobody knows what a damaged manifest refers to: nothing goes.
    fs::write(path_of(&rig, "manifests/0000000003.json"), "x").expect("writes");
    let error = backups.sweep(&keep).await.expect_err("it is damaged");
    assert!(error.to_string().contains("manifests/0000000003.json"), "{error}");
}

#[tokio::test]
async fn a_body_that_nobody_refers_to_goes_after_an_hour() {
    let rig = folder().await;
    let blobs = ObjectBlobs::new(rig.objects.clone());
    let bodies: Vec<Vec<u8>> = (0..3).map(|n| text_of(100_000 + n).into_bytes()).collect();
    for body in &bodies {
        blobs.put(body.clone()).await.expect("is kept");
    }
    let names: Vec<String> =
        rig.objects.list("bodies").await.expect("lists").into_iter().map(|one| one.name).collect();
    for (name, hours) in names.iter().zip([2, 2, 0]) {
        age(&path_of(&rig, name), hours);
    }
    let hash_of =
        |name: &str| Hash::from_hex(name.split('/').nth(2).expect("a hash")).expect("a hash");
    let referred = hash_of(&names[0]);
    // Somebody puts a body again that is about to go: it is a copy of its own.
    let body = bodies.iter().find(|body| Hash::of(body) == hash_of(&names[1])).expect("is one");
    blobs.put(body.clone()).await.expect("is kept");
    let swept = blobs.sweep(|_| Box::pin(async move { Ok(vec![referred]) })).await;
    assert_eq!(swept, Ok((1, body.len() as u64)));
    for body in &bodies {
        assert_eq!(blobs.get(Hash::of(body)).await.as_ref(), Ok(body));
    }
}

/// Plays the child: makes a backup, and is gone after as many objects as the file says.
#[tokio::test]
async fn child_that_is_killed_between_two_objects() {
    let Some(dir) = child_dir() else { return };
    let limit: u64 =
        fs::read_to_string(dir.join("limit")).expect("reads").parse().expect("a number");
    let objects = Objects::open(&dir.join("place").to_string_lossy(), &Options::default());
    let written = AtomicU64::new(0);
    let backups =
        Backups::new(objects.expect("opens"), dir.join("scratch")).watched(move |progress| {
            let count =
                written.fetch_add(u64::from(progress.stage == Stage::Writing), Ordering::SeqCst);
            if progress.stage == Stage::Writing && count + 1 == limit {
                // As by kill -9: nothing is tidied up.
                std::process::abort();
            }
        });
    backups.write(open(&dir.join("store")).as_ref(), None).await.expect("is written");
}

#[tokio::test]
async fn a_backup_that_was_killed_is_nothing() {
    let rig = folder().await;
    let store = rig.open("store");
    fill(&store).await;
    drop(store);
    let backups = rig.backups();
    let mut survived = None;
    for limit in 1..100 {
        fs::write(rig.path("limit"), limit.to_string()).expect("writes");
        let mut process = child("child_that_is_killed_between_two_objects", rig.here.path())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        lines.for_each(drop);
        if process.wait().expect("ends").success() {
            survived = Some(limit);
            break;
        }
        assert!(backups.list().await.expect("lists").is_empty(), "there is no manifest");
        let error = backups.at(None).await.expect_err("there is none");
        assert!(matches!(error, BackupError::None(_)), "{error}");
    }
    let objects_of_one = survived.expect("one is finished at last") - 1;
    assert!(objects_of_one >= 8, "it was killed between all of {objects_of_one} objects");
    assert_eq!(backups.verify(None, true).await.expect("is read").findings, Vec::<String>::new());
    assert!(
        fs::read_dir(rig.path("scratch")).expect("lists").next().is_none(),
        "nothing is left here"
    );
    let left: BTreeSet<String> = objects(&rig.objects).await.into_iter().collect();
    for name in left.iter().filter(|name| name.starts_with("objects")) {
        age(&path_of(&rig, name), 25);
    }
    let swept = backups.sweep(&Keep::default()).await.expect("sweeps");
    assert!(swept.objects >= objects_of_one * (objects_of_one - 1) / 2, "{swept:?}");
    assert_eq!(backups.verify(None, true).await.expect("is read").findings, Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_said() {
    let here = tempfile::tempdir().expect("a folder");
    fs::write(here.path().join("file"), "x").expect("writes");
    let url = here.path().join("file/place");
    let error =
        Objects::open(&url.to_string_lossy(), &Options::default()).expect_err("it is a file");
    assert_eq!(error.trouble, Trouble::Config);
    assert!(error.to_string().contains("file/place"), "{error}");
}
