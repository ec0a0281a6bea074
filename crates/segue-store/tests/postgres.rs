//! The questions of the testkit, asked of PostgreSQL: one server, a database for each question.

mod support;

use segue_core::command::{Command, Excused};
use segue_core::ids::{ProjectId, TaskId};
use segue_core::outcome::Outcome;
use segue_core::ports::{Blobs, Clock, Fut, Store, StoreError};
use segue_core::state::StateCommand;
use segue_core::task::{ErrorClass, Need, Route, TaskSpec};
use segue_core::time::Time;
use segue_store::backup::Backups;
use segue_store::objects::{self, ObjectBlobs, Objects};
use segue_store::postgres::{EmptyProject, LargeBodies, Options, PostgresStore, Tls};
use segue_store::sqlite;
use segue_testkit::servers::{Certificate, Postgres, PostgresOptions, another_authority};
use segue_testkit::store_suite::{self, KEY, Opened, Place, Plan, SEED, TestClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// A place on a database of its own. Bodies that are too large for the database go into a folder.
async fn a_place(server: &Postgres) -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = segue_store::sqlite::SqliteStore::open(support::options(dir.path()));
    let blobs: Arc<dyn LargeBodies> = folder.expect("the folder for bodies opens");
    let clock = TestClock::new();
    let options = Options {
        clock: Some(clock.clone()),
        lanes: 1,
        // A store that is opened again is another one: it does not wait for the first.
        letters_grace: Duration::ZERO,
        ..Options::new(server.database().await, ProjectId(Uuid::now_v7()), KEY, blobs)
    };
    let opens = Arc::new(AtomicU64::new(0));
    let open = move || -> Fut<'static, Opened> {
        let seed = SEED + opens.fetch_add(1, Ordering::SeqCst);
        let options = Options { seed: Some(seed), ..options.clone() };
        Box::pin(async move {
            let store = PostgresStore::connect(options).await.expect("the store connects");
            Opened { store: store.clone(), blobs: Some(store) }
        })
    };
    Place::new(clock, Box::new(open), dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_every_question_of_the_suite() {
    let server = Arc::new(Postgres::start().await);
    let of_it = server.clone();
    segue_testkit::store_suite::ask_all(move || {
        let server = of_it.clone();
        async move { a_place(&server).await }
    })
    .await;
}

/// The seed of the random commands, and how many there are: see `CONTRIBUTING.md`.
const SEED_VARIABLE: &str = "SEGUE_RANDOM_SEED";
const COMMANDS_VARIABLE: &str = "SEGUE_RANDOM_COMMANDS";

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_commands_give_the_same_on_sqlite_and_postgresql() {
    let seed = number(SEED_VARIABLE, 20_261_128);
    let commands = number(COMMANDS_VARIABLE, 20_000) as usize;
    #[allow(clippy::print_stdout)]
    {
        println!("{SEED_VARIABLE}={seed} {COMMANDS_VARIABLE}={commands}");
    }
    let server = Postgres::start().await;
    let place = a_place(&server).await;
    let dir = tempfile::tempdir().expect("a folder");
    let options = sqlite::Options {
        clock: place.clock.clone(),
        sync: sqlite::Sync::Off,
        seed: Some(place.seed),
        threads: sqlite::Threads::Callers,
        ..sqlite::Options::new(dir.path(), ProjectId(Uuid::now_v7()), place.key)
    };
    let other: Arc<dyn Store> = sqlite::SqliteStore::open(options).expect("SQLite opens");
    let plan = Plan { seed, commands, batches: usize::MAX, every: 500 };
    let given = store_suite::random_commands_give_the_same(&place, &other, plan).await;
    assert!(given >= commands, "{given}");
}

/// From SQLite into PostgreSQL and back: what is exported at the end is what was exported at the beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_moves_from_sqlite_to_postgresql_and_back_without_loss() {
    let (clock, dirs) =
        (TestClock::new(), [(); 3].map(|()| tempfile::tempdir().expect("a folder")));
    let open = |at: usize| sqlite::Options {
        clock: clock.clone(),
        sync: sqlite::Sync::Off,
        seed: Some(SEED),
        threads: sqlite::Threads::Callers,
        ..sqlite::Options::new(dirs[at].path(), support::PROJECT, KEY)
    };
    // A project with something of everything in it: what random commands leave, and bodies of every size.
    let first = sqlite::SqliteStore::open(open(0)).expect("it opens");
    let opened = Opened { store: first.clone(), blobs: Some(first.clone()) };
    let place = Place::new(
        clock.clone(),
        Box::new(move || Box::pin(std::future::ready(opened.clone()))),
        (),
    );
    let reference: Arc<dyn Store> =
        Arc::new(segue_testkit::memory::MemoryStore::new(clock.clone(), SEED, KEY));
    let plan = Plan { seed: 12, commands: 2_500, batches: usize::MAX, every: usize::MAX };
    store_suite::random_commands_give_the_same(&place, &reference, plan).await;
    let large = format!("\"{}\"", "l".repeat(200_000));
    let stored = first.put(large.into_bytes()).await.expect("a large body is kept");
    for input in [stored, store_suite::json(&store_suite::text_of(10_000))] {
        let tasks = vec![segue_core::command::NewTask { spec: support::spec("a"), input }];
        let submit = segue_core::command::Command::Submit(segue_core::command::Submit { tasks });
        support::accept(first.as_ref(), vec![submit]).await;
    }
    let before = exported(&first).await;
    let server = Postgres::start().await;
    let blobs: Arc<dyn LargeBodies> =
        sqlite::SqliteStore::open(open(1)).expect("the folder for bodies opens");
    let options = Options {
        clock: Some(clock.clone()),
        ..Options::new(server.database().await, support::PROJECT, KEY, blobs)
    };
    let header = segue_store::postgres::import(options.clone(), &mut before.as_slice()).await;
    let header = header.expect("PostgreSQL imports");
    assert!(
        header.rows["tasks"] > 300 && header.rows["letters"] > 0 && header.rows["duties"] > 0,
        "{:?}",
        header.rows
    );
    let second = segue_store::postgres::import(options.clone(), &mut before.as_slice()).await;
    assert!(second.is_err(), "nothing is written over: {second:?}");
    let store = PostgresStore::connect(options).await.expect("it connects");
    assert_eq!(store.audit().await.expect("it reads"), Vec::<String>::new());
    let mut between = Vec::new();
    store.export(&mut between).await.expect("PostgreSQL exports");
    same_lines(&before, &between);
    sqlite::import(&open(2), &mut between.as_slice()).expect("SQLite imports");
    let last = sqlite::SqliteStore::open(open(2)).expect("it opens");
    let after = exported(&last).await;
    same_lines(&before, &after);
    // And PostgreSQL goes on with it where SQLite stopped.
    support::accept(store.as_ref(), vec![support::submit(vec![support::spec("a")])]).await;
    assert_eq!(store.audit().await.expect("it reads"), Vec::<String>::new());
}

/// Takes a lock, and returns its token.
async fn token(store: &PostgresStore) -> u64 {
    let (name, holder) = (Arc::from("deploy"), "somebody".into());
    let lock = StateCommand::Lock { name: Arc::clone(&name), holder, ttl_ms: 60_000 };
    support::accept(store, vec![store_suite::state(lock)]).await;
    store.lock_of(name).await.expect("reads").expect("is held").token
}

/// The files of the bodies at a place, which are made to look as if they had been written two hours ago.
async fn aged(place: &std::path::Path, objects: &Objects) -> Vec<std::path::PathBuf> {
    let then = std::time::SystemTime::now() - Duration::from_secs(2 * 3600);
    let found = objects.list("bodies").await.expect("lists");
    let files: Vec<_> = found.into_iter().map(|one| place.join(one.name)).collect();
    for file in &files {
        let opened = std::fs::File::options().write(true).open(file).expect("is there");
        opened.set_modified(then).expect("is set");
    }
    files
}

/// A backup of one project goes into another, empty one; and the large bodies there go with the run that refers to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_and_large_bodies_go_with_their_runs() {
    let (server, dir) = (Postgres::start().await, tempfile::tempdir().expect("a folder"));
    let database = server.database().await;
    let place = |name: &str| {
        let path = dir.path().join(name);
        let opened = Objects::open(&path.to_string_lossy(), &objects::Options::default());
        (path, opened.expect("it opens"))
    };
    let clock = TestClock::new();
    let options = |objects: &Objects| Options {
        clock: Some(clock.clone()),
        ..Options::new(
            database.clone(),
            ProjectId(Uuid::now_v7()),
            KEY,
            Arc::new(ObjectBlobs::new(objects.clone())),
        )
    };
    let ((one_path, one), (two_path, two), (_, kept)) =
        (place("one"), place("two"), place("backups"));
    let store = PostgresStore::connect(options(&one)).await.expect("it connects");
    let body = format!("\"{}\"", "l".repeat(200_000)).into_bytes();
    let input = store.put(body.clone()).await.expect("it is kept");
    let (spec, hash) = (support::spec("a"), input.hash());
    let task = spec.id;
    let tasks = vec![segue_core::command::NewTask { spec, input }];
    let submit = segue_core::command::Command::Submit(segue_core::command::Submit { tasks });
    support::accept(store.as_ref(), vec![submit]).await;
    let backups = Backups::new(kept, dir.path().join("scratch"));
    let first = backups.write(store.as_ref(), None).await.expect("it is written");
    assert_eq!(first.bodies.len(), 1);
    // A body that the last backup has is not read again.
    for file in aged(&one_path, &one).await {
        std::fs::remove_file(file).expect("it goes");
    }
    let second = backups.write(store.as_ref(), None).await.expect("it is written");
    assert_eq!((second.bodies.len(), second.written.objects), (1, 0));
    let before = token(&store).await;

    let into = options(&two);
    backups.restore(None, &EmptyProject(into.clone())).await.expect("it is restored");
    let again = backups.restore(None, &EmptyProject(into.clone())).await;
    assert!(again.is_err(), "nothing is written over: {again:?}");
    let store = PostgresStore::connect(into).await.expect("it connects");
    assert_eq!(store.audit().await.expect("it reads"), Vec::<String>::new());
    let after = token(&store).await;
    assert!(after > before, "no token is issued twice: {before} {after}");

    assert_eq!(aged(&two_path, &two).await.len(), 1);
    let far = Time(clock.now().0 + 1_000);
    let pruned = store.prune(far).await.expect("it prunes");
    assert_eq!((pruned.runs, pruned.bytes), (0, 0), "it is referred to");
    assert_eq!(store.get(hash).await, Ok(body.clone()));
    let cancel = segue_core::command::Command::Cancel { task, reason: "enough".into() };
    support::accept(store.as_ref(), vec![cancel]).await;
    let pruned = store.prune(far).await.expect("it prunes");
    assert_eq!((pruned.runs, pruned.payloads, pruned.bytes), (1, 1, body.len() as u64));
    assert_eq!(store.get(hash).await, Err(StoreError::MissingPayload(hash.hex())));
}

async fn exported(store: &sqlite::SqliteStore) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let out = file.reopen().expect("it opens");
    store.export(out).await.expect("SQLite exports");
    std::fs::read(file.path()).expect("it reads")
}

/// All lines but the last, which sums up the first, which says when it was made.
fn same_lines(one: &[u8], two: &[u8]) {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = std::str::from_utf8(bytes).expect("lines of JSON");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.pop();
        lines
    };
    let (one, two) = (lines(one), lines(two));
    for (one, two) in one.iter().zip(&two) {
        assert_eq!(one, two);
    }
    assert_eq!(one.len(), two.len());
}

/// Every connection of a store is encrypted and bound to the server's certificate; a server that cannot prove who it is hears no password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_spoken_to_by_tls_who_is_not_trusted_on_postgres() {
    let server = Postgres::start_with(PostgresOptions { tls: true, ..Default::default() }).await;
    let dir = tempfile::tempdir().expect("a folder");
    let blobs: Arc<dyn LargeBodies> =
        sqlite::SqliteStore::open(support::options(dir.path())).expect("it opens");
    let name = server.database_name().await;
    let plain = server.url(&name).split('?').next().expect("a URL").to_owned();
    let with = |more: &str, tls: Tls| Options {
        tls,
        connect_timeout: Duration::from_secs(2),
        ..Options::new(format!("{plain}{more}"), support::PROJECT, KEY, blobs.clone())
    };
    let trusted = || Tls::Authorities(server.authority().to_owned());
    let bound = "?sslmode=verify-full&channel_binding=require";
    let store = PostgresStore::connect(with(bound, trusted())).await.expect("it connects");
    let signals = store.signals();
    support::accept(store.as_ref(), vec![support::submit(vec![support::spec("a")])]).await;
    let mut listener = signals.listen();
    signals.hint(segue_core::ports::Topic::Ready);
    listener.next(&[segue_core::ports::Topic::Ready]).await;
    assert_eq!(store.counts().await.expect("reads").values().sum::<u64>(), 1);
    drop((listener, signals, store));
    // Without a word about TLS in the URL, it is used because an authority is named.
    assert!(segue_store::postgres::examine(&with("", trusted())).await.is_ok());

    let other = dir.path().join("other.pem");
    std::fs::write(&other, another_authority()).expect("it is written");
    let password = plain.split([':', '@']).nth(2).expect("a password").to_owned();
    let refused = async |options: Options, says: &str| {
        let (connected, examined) = (
            PostgresStore::connect(options.clone()).await.map(drop),
            segue_store::postgres::examine(&options).await.map(drop),
        );
        for error in [connected, examined].map(|result| result.expect_err("it is refused")) {
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error} {error:?}").contains(&password), "{error}");
        }
    };
    refused(with("?sslmode=require", Tls::System), "UnknownIssuer").await;
    refused(with(bound, Tls::Authorities(other)), "UnknownIssuer").await;
    refused(with("?sslmode=disable", trusted()), "no encryption").await;
    let missing = Tls::Authorities("/nowhere/ca.pem".into());
    refused(with(bound, missing), "/nowhere/ca.pem").await;
    server.show(Certificate::OfAnotherName).await;
    refused(with(bound, trusted()), "not valid for name").await;
    server.show(Certificate::Expired).await;
    refused(with(bound, trusted()), "certificate expired").await;
    server.show(Certificate::Good).await;
    assert!(segue_store::postgres::examine(&with(bound, trusted())).await.is_ok());
}

/// Round trips of one batch at most, whatever is in it.
const TRIPS_MAX: u64 = 8;

/// So many commands of all kinds that come together under load, each about another task, all accepted.
async fn mixed(store: &PostgresStore, size: usize) -> Vec<Command> {
    let assign = support::register(store, "hand", 2_000).await;
    let specs = || (0..size).map(|_| support::spec("hand"));
    support::accept(store, specs().map(|spec| support::submit(vec![spec])).collect()).await;
    let effects = support::accept(store, vec![assign.clone()]).await;
    let works = store_suite::work(&effects[0].letters);
    assert_eq!(works.len(), size);
    let start = works.iter().map(|work| work.start(store.now())).collect();
    support::accept(store, start).await;
    let done = || Outcome::Complete { output: store_suite::json("{\"done\":true}") };
    let mut batch: Vec<Command> = Vec::with_capacity(size);
    for (at, work) in works.iter().enumerate() {
        let proof = work.proof();
        batch.push(match at % 12 {
            0 => work.end(done()),
            1 => support::submit(vec![support::spec("hand"), support::spec("nobody")]),
            2 => Command::Progress { proof, note: store_suite::json("\"half\"") },
            3 => Command::Delegate { proof, tasks: vec![store_suite::delegated("one", "hand")] },
            4 => work.fail(ErrorClass::Transient),
            5 => Command::Cancel { task: work.task, reason: "enough".into() },
            6 => store_suite::write(store_suite::put(&format!("key/{at}"), "1")),
            7 => {
                let mut waits = support::spec("hand");
                waits.needs = vec![Need { task: work.task, name: None, order_only: true }];
                support::submit(vec![waits])
            }
            8 => Command::Settle { letters: vec![work.seq] },
            9 => {
                let (name, holder) = (format!("lock {at}").into(), "somebody".into());
                store_suite::state(StateCommand::Lock { name, holder, ttl_ms: 60_000 })
            }
            10 => work.end(Outcome::Delegate {
                tasks: vec![
                    store_suite::delegated("a", "hand"),
                    store_suite::delegated("b", "hand"),
                ],
                resume: true,
                continuation: None,
            }),
            _ => work.fail(ErrorClass::Permanent),
        });
    }
    batch.push(Command::Tick { limit: 512, excused: Excused::Nobody });
    batch.push(assign);
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_a_handful_of_round_trips_whatever_its_size_on_postgres() {
    let server = Postgres::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let blobs: Arc<dyn LargeBodies> =
        sqlite::SqliteStore::open(support::options(dir.path())).expect("it opens");
    for size in [1, 64, 1_000] {
        let url = server.database().await;
        let options =
            Options { lanes: 1, ..Options::new(url, support::PROJECT, KEY, blobs.clone()) };
        let store = PostgresStore::connect(options).await.expect("it connects");
        let batch = mixed(&store, size).await;
        let before = store.traffic();
        let effects = support::accept(store.as_ref(), batch).await;
        let after = store.traffic();
        let (trips, statements) = (after.0 - before.0, after.1 - before.1);
        eprintln!("{size:5} commands: {trips} round trips, {statements} statements");
        let given = effects.iter().any(|effects| !effects.letters.is_empty());
        assert!(given || size == 1, "work was given out");
        assert!(trips <= TRIPS_MAX, "{size} commands took {trips} round trips");
        assert_eq!(store.audit().await.expect("it reads"), Vec::<String>::new());
    }
}

/// New work is loaded and written; so is the end of a task, with the agents that may take what it was waited for by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_is_three_round_trips_and_new_work_two_on_postgres() {
    let server = Postgres::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let blobs: Arc<dyn LargeBodies> =
        sqlite::SqliteStore::open(support::options(dir.path())).expect("it opens");
    let options = Options {
        lanes: 1,
        ..Options::new(server.database().await, support::PROJECT, KEY, blobs.clone())
    };
    let store = PostgresStore::connect(options).await.expect("it connects");
    let assign = support::register(store.as_ref(), "hand", 4).await;
    let root = support::spec("group").id;
    let in_run = |mut spec: TaskSpec, needs: &[TaskId]| {
        spec.root = root;
        spec.parent = Some(root);
        spec.needs =
            needs.iter().map(|task| Need { task: *task, name: None, order_only: false }).collect();
        spec
    };
    let group = TaskSpec { id: root, root, route: Route::Group, ..support::spec("group") };
    let first = in_run(support::spec("hand"), &[]);
    let second = in_run(support::spec("hand"), &[first.id]);
    let third = in_run(support::spec("hand"), &[second.id]);
    let mut batch = vec![support::submit(vec![group, first, second, third]), assign.clone()];
    // What agents say is read once.
    let other = support::submit(vec![support::spec("hand")]);
    support::accept(store.as_ref(), vec![other, assign.clone()]).await;
    let mut trips = Vec::new();
    for number in 0..4 {
        let before = store.traffic().0;
        let effects = support::accept(store.as_ref(), batch).await;
        trips.push(store.traffic().0 - before);
        let letters: Vec<_> = effects.into_iter().flat_map(|effects| effects.letters).collect();
        let works = store_suite::work(&letters);
        assert_eq!(works.len(), usize::from(number < 3), "each is given out in turn");
        let done = Outcome::Complete { output: store_suite::json("1") };
        batch = works.first().map(|work| work.end(done)).into_iter().collect();
        batch.push(assign.clone());
    }
    assert_eq!(trips, [2, 3, 3, 3]);
    // Attempts that say that they have begun come with those that end.
    let submit = || support::submit(vec![support::spec("hand")]);
    let given = support::accept(store.as_ref(), vec![submit(), submit(), assign.clone()]).await;
    let letters: Vec<_> = given.into_iter().flat_map(|effects| effects.letters).collect();
    let works = store_suite::work(&letters);
    let done = Outcome::Complete { output: store_suite::json("1") };
    let batch = vec![works[0].start(store.now()), works[1].end(done), assign];
    let before = store.traffic().0;
    support::accept(store.as_ref(), batch).await;
    assert_eq!(store.traffic().0 - before, 3);
}
