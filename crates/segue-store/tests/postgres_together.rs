//! Several stores on one database at a time, as nodes of a cluster are, with what must hold afterwards asked in SQL that shares nothing with the store.

mod support;

use segue_core::command::{Assign, Candidate, Command, Duty, DutyKind, NewTask, Rendered, Submit};
use segue_core::event::Event;
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::outcome::Outcome;
use segue_core::payload::Payload;
use segue_core::ports::{EventFilter, Passing, Store, StoreError};
use segue_core::task::{Need, Route, TaskSpec, TaskState};
use segue_store::postgres::{LargeBodies, Options, PostgresStore};
use segue_testkit::servers::{Postgres, Proxy};
use segue_testkit::store_suite::{self, Work};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long all the work of a question may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);
const PROJECT: ProjectId = ProjectId(Uuid::from_u128(7));

/// A database with a project that several stores have open.
struct Together {
    url: String,
    blobs: Arc<dyn LargeBodies>,
    _dir: tempfile::TempDir,
}

impl Together {
    /// The same database by way of another address.
    fn by(mut self, url: String) -> Together {
        self.url = url;
        self
    }

    async fn on(server: &Postgres) -> Together {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = segue_store::sqlite::SqliteStore::open(support::options(dir.path()));
        Together { url: server.database().await, blobs: folder.expect("it opens"), _dir: dir }
    }

    async fn store(&self) -> Arc<PostgresStore> {
        self.store_with(Duration::from_millis(300)).await
    }

    /// A store that leaves the letters of others alone for so long.
    async fn store_with(&self, letters_grace: Duration) -> Arc<PostgresStore> {
        let options = Options {
            letters_grace,
            away_patience: Duration::from_secs(10),
            ..Options::new(self.url.clone(), PROJECT, support::KEY, self.blobs.clone())
        };
        PostgresStore::connect(options).await.expect("the store connects")
    }

    /// A connection such as somebody with a shell has.
    async fn shell(&self) -> tokio_postgres::Client {
        let client = self.client().await;
        client.batch_execute("SET search_path = segue").await.expect("it is there");
        client
    }

    async fn client(&self) -> tokio_postgres::Client {
        let (client, wire) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
            .await
            .expect("the server answers");
        tokio::spawn(wire);
        client
    }

    /// Before a store was there.
    async fn plain(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.expect("it is done");
    }

    /// What must hold when all work is done.
    async fn check(&self, tasks: i64) {
        let shell = self.shell().await;
        let none: [(&str, &str); 8] = [
            ("a task has not ended", "SELECT id::text FROM tasks WHERE state NOT IN (6, 7, 8)"),
            (
                "a task completed more or less than once",
                "SELECT t.id::text FROM tasks AS t WHERE t.state = 6 AND 1 <> (SELECT count(*) FROM events AS e
                 WHERE e.kind = 'completed' AND coalesce(e.task, e.run) = t.id)",
            ),
            (
                "an agent has more or fewer slots in use than tasks",
                "SELECT instance::text FROM agents AS a WHERE slots_used <> (SELECT count(*) FROM tasks WHERE held_by = a.instance)",
            ),
            (
                "the log of a run has a gap, or two events of one number",
                "SELECT run::text FROM events GROUP BY run
                 HAVING count(*) <> max(run_seq) OR min(run_seq) <> 1 OR count(DISTINCT run_seq) <> count(*)",
            ),
            (
                "the cursors of a run do not rise with its log",
                "SELECT run::text FROM (SELECT run, run_seq, lag(run_seq) OVER (PARTITION BY run ORDER BY cursor) AS before FROM events) AS e
                 WHERE before >= run_seq",
            ),
            (
                "a run has more or fewer events than it counts",
                "SELECT id::text FROM tasks AS t WHERE root IS NULL AND run_events <> (SELECT count(*) FROM events WHERE run = t.id)",
            ),
            (
                "a completed task has needs that are not met",
                "SELECT id::text FROM tasks WHERE state = 6 AND (unmet <> 0 OR open_children <> 0)",
            ),
            (
                "tasks are not counted as they are",
                "SELECT 'all' FROM (SELECT sum(s0 + s1 + s2 + s3 + s4 + s5) AS open, sum(s6) AS completed, sum(s7) AS failed, sum(s8) AS cancelled
                 FROM counters) AS c WHERE open <> 0 OR completed <> (SELECT count(*) FROM tasks WHERE state = 6)
                 OR failed <> (SELECT count(*) FROM tasks WHERE state = 7) OR cancelled <> (SELECT count(*) FROM tasks WHERE state = 8)",
            ),
        ];
        for (what, sql) in none {
            let found = shell.query(sql, &[]).await.expect("it reads");
            let found: Vec<String> = found.iter().map(|row| row.get(0)).take(5).collect();
            assert!(found.is_empty(), "{what}: {found:?}");
        }
        let count = shell.query_one("SELECT count(*) FROM tasks", &[]).await.expect("it reads");
        assert_eq!(count.get::<_, i64>(0), tasks, "no task is lost");
    }
}

/// Registers agents that all stores give work to; returns the command that assigns to them.
async fn register(store: &PostgresStore, agents: usize, slots: u32) -> Command {
    let instances: Vec<InstanceId> = (0..agents).map(|_| InstanceId(Uuid::now_v7())).collect();
    let register = Command::Register {
        host: HostId(Uuid::now_v7()),
        incarnation: Incarnation(Uuid::now_v7()),
        agents: instances.iter().map(|it| store_suite::agent(*it, "a", slots, &["b"])).collect(),
        lease_ms: 3_600_000,
    };
    support::accept(store, vec![register]).await;
    let fit = |instance: &InstanceId| Candidate { instance: *instance, health: 1.0, load: 0.0 };
    let candidates = instances.iter().map(fit).collect::<Vec<_>>().into();
    Command::Assign(Assign { candidates, limit: 50 })
}

/// A batch of work: a group with children that need each other, and single tasks that need some of `others` in the order in which they stand there.
fn graphs(others: &[TaskId]) -> (Vec<TaskId>, Command) {
    let id = || TaskId(Uuid::now_v7());
    let mut group = TaskSpec::new(id(), "group", Route::Group);
    group.root = group.id;
    let mut specs = vec![group.clone()];
    for at in 0..4 {
        let mut child = TaskSpec::new(id(), "child", Route::agent("a"));
        (child.root, child.parent) = (group.id, Some(group.id));
        if at > 1 {
            child.needs = vec![need(specs[at - 1].id), need(specs[at].id)];
        }
        specs.push(child);
    }
    for chunk in others.chunks(3) {
        let mut single = TaskSpec::new(id(), "single", Route::capability("b"));
        single.needs = chunk.iter().map(|other| need(*other)).collect();
        specs.push(single);
    }
    let ids = specs.iter().map(|spec| spec.id).collect();
    let input = Payload::of_text("{}").expect("JSON");
    let tasks = specs.into_iter().map(|spec| NewTask { spec, input: input.clone() }).collect();
    (ids, Command::Submit(Submit { tasks }))
}

fn need(task: TaskId) -> Need {
    Need { task, name: None, order_only: false }
}

/// Does what an engine does until everything has ended: assigns, reports, settles, carries out duties; a store that is away is asked again.
async fn work(
    store: Arc<PostgresStore>,
    assign: Command,
    tasks: u64,
    all_submitted: Arc<AtomicBool>,
) {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "all work is done in time");
        match work_once(&store, &assign, tasks, &all_submitted).await {
            Ok(true) => return,
            Ok(false) => tokio::task::yield_now().await,
            Err(error) => assert!(error.is_passing(), "{error}"),
        }
    }
}

async fn work_once(
    store: &Arc<PostgresStore>,
    assign: &Command,
    tasks: u64,
    all_submitted: &AtomicBool,
) -> Result<bool, StoreError> {
    let mut letters = Vec::new();
    for effects in store.apply(vec![assign.clone()]).await?.into_iter().flatten() {
        letters.extend(effects.letters);
    }
    if letters.is_empty() {
        // What was given out by a commit whose answer was lost, or by somebody who has gone.
        letters = store.unsent(0, 200).await?;
    }
    let mut batch: Vec<Command> = Vec::new();
    let work: Vec<Work> = store_suite::work(&letters);
    let at = store.now();
    batch.extend(work.iter().map(|work| work.start(at)));
    batch.extend(work.iter().map(Work::complete));
    batch.push(Command::Settle { letters: letters.iter().map(|letter| letter.seq).collect() });
    for Duty { task, kind } in store.duties(50).await? {
        batch.push(match kind {
            DutyKind::Render => unreachable!("no templates here"),
            DutyKind::Collect => {
                let output = Payload::of_text("[]").expect("JSON");
                Command::Expand { task, rendered: Ok(Rendered::Output(output)) }
            }
            kind => Command::Continue(Duty { task, kind }),
        });
    }
    batch.push(assign.clone());
    store.apply(batch).await?;
    let counts = store.counts().await?;
    let ended: u64 =
        counts.iter().filter(|(state, _)| state.is_terminal()).map(|(_, count)| count).sum();
    Ok(all_submitted.load(Ordering::SeqCst) && ended >= tasks)
}

/// Submits this, again where it is not known whether it was kept.
async fn insist(store: &PostgresStore, command: Command) {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "it is taken in in time");
        match store.apply(vec![command.clone()]).await {
            // The second time the tasks may be there already.
            Ok(_) => return,
            Err(error) => assert!(error.is_passing(), "{error}"),
        }
    }
}

/// Follows the log from its beginning, until it has seen this many ends of tasks.
async fn follow(store: Arc<PostgresStore>, stop: Arc<AtomicBool>) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    loop {
        let last = stop.load(Ordering::SeqCst);
        let after = seen.last().map_or(0, |event| event.cursor);
        let filter = EventFilter { after, limit: 500, ..EventFilter::default() };
        match store.events(filter).await {
            Ok(events) if events.is_empty() && last => return seen,
            Ok(events) => seen.extend(events),
            Err(error) => assert!(error.is_passing(), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Three stores submit crossing graphs and work them off together, while one follows the log. `meanwhile` happens to the server.
async fn all_at_once(server: &Postgres, meanwhile: impl Future<Output = ()>) {
    let place = Together::on(server).await;
    let stores = [place.store().await, place.store().await, place.store().await];
    let assign = register(&stores[0], 4, 3).await;
    let (rounds, stop) = (6, Arc::new(AtomicBool::new(false)));
    let follower = tokio::spawn(follow(place.store().await, stop.clone()));
    // What each round needs of the round before, of which every store has submitted a part.
    let mut plan: Vec<Vec<Command>> = Vec::new();
    let (mut before, mut tasks) = (Vec::new(), 0);
    for _ in 0..rounds {
        let (mut now, mut commands) = (Vec::new(), Vec::new());
        for _ in &stores {
            let (ids, command) = graphs(&before);
            tasks += ids.len() as u64;
            now.extend(ids.into_iter().rev().step_by(2));
            commands.push(command);
        }
        now.truncate(12);
        before = now;
        plan.push(commands);
    }
    let all_submitted = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = stores
        .iter()
        .map(|store| {
            tokio::spawn(work(store.clone(), assign.clone(), tasks, all_submitted.clone()))
        })
        .collect();
    let submit = async {
        for commands in plan {
            let submits =
                stores.iter().zip(commands).map(|(store, command)| insist(store, command));
            futures_util::future::join_all(submits).await;
        }
        all_submitted.store(true, Ordering::SeqCst);
    };
    futures_util::future::join(submit, meanwhile).await;
    for worker in workers {
        worker.await.expect("the work is done");
    }
    stop.store(true, Ordering::SeqCst);
    let seen = follower.await.expect("the log is followed");
    place.check(tasks as i64).await;
    let shell = place.shell().await;
    let rows = shell.query("SELECT cursor FROM events ORDER BY cursor", &[]).await.expect("reads");
    let all: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let seen: Vec<i64> = seen.iter().map(|event| event.cursor as i64).collect();
    assert_eq!(seen, all, "whoever follows the log sees every event once, in order");
    for store in &stores {
        assert_eq!(store.health(), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_on_the_same_runs_and_agents_keep_all_counts() {
    let server = Postgres::start().await;
    all_at_once(&server, async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_server_under_load_loses_nothing() {
    let server = Postgres::start().await;
    all_at_once(&server, async {
        server.kill().await;
        server.start_again().await;
        server.kill().await;
        server.start_again().await;
    })
    .await;
}

/// Commits whose answers are lost with the line: what was answered is true, and what was said not to be written is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_loses_and_doubles_nothing() {
    let server = Postgres::start().await;
    let proxy = Proxy::to(&server.address()).await;
    let database = server.database_name().await;
    let direct = Together::on(&server).await.by(server.url(&database));
    let url = server.url_by(&proxy.addr(), &database);
    let store = Together::on(&server).await.by(url).store().await;
    let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let submitter = |count: usize| {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move {
            let mut said = Vec::new();
            for _ in 0..count {
                let spec = support::spec("a");
                let id = spec.id;
                let answer = store.apply(vec![support::submit(vec![spec])]).await;
                said.push((id, answer.map(|decisions| decisions[0].is_ok())));
                done.fetch_add(1, Ordering::SeqCst);
            }
            said
        })
    };
    let submitters: Vec<_> = (0..4).map(|_| submitter(60)).collect();
    for cut in 1..=6 {
        let begin = Instant::now();
        while done.load(Ordering::SeqCst) < cut * 30 {
            assert!(begin.elapsed() < PATIENCE, "the work goes on after a cut");
            tokio::task::yield_now().await;
        }
        proxy.cut().await;
        proxy.heal().await;
    }
    let shell = direct.shell().await;
    let (mut kept, mut unknown) = (0, 0);
    for submitter in submitters {
        for (id, said) in submitter.await.expect("it ends") {
            let sql = "SELECT count(*) FROM tasks WHERE id = $1";
            let found: i64 = shell.query_one(sql, &[&id.0]).await.expect("reads").get(0);
            match said {
                Ok(accepted) => {
                    assert!(
                        accepted && found == 1,
                        "task {id}: accepted {accepted}, found {found}"
                    );
                    kept += 1;
                }
                Err(StoreError::Away(text)) if text.contains("not known") => unknown += 1,
                Err(StoreError::Away(text)) => assert_eq!(found, 0, "task {id}: {text}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(kept >= 200, "nearly all were kept at last: {kept}, {unknown} not known");
    assert_eq!(store.health(), Ok(()), "it is back by itself");
}

/// The primary is lost; its synchronous standby takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_takes_over_has_all_that_was_answered() {
    let primary = Postgres::start().await;
    let database = primary.database_name().await;
    let standby = primary.standby(true).await;
    let hosts = format!("{},{}", primary.address(), standby.address());
    let url = format!("{}?target_session_attrs=read-write", primary.url_by(&hosts, &database));
    let place = Together::on(&primary).await.by(url);
    let store = place.store().await;
    let (one, two) = (support::spec("a"), support::spec("a"));
    let ids = vec![one.id, two.id];
    support::accept(store.as_ref(), vec![support::submit(vec![one])]).await;
    primary.kill().await;
    standby.promote().await;
    insist(&store, support::submit(vec![two])).await;
    assert_eq!(store.tasks_by_id(ids).await.expect("reads").len(), 2);
    assert_eq!(store.health(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_stores_do_to_each_other_is_borne() {
    let server = Postgres::start().await;
    a_late_commit_is_never_stepped_over(&Together::on(&server).await).await;
    a_deadlock_is_decided_anew(&Together::on(&server).await).await;
    roots_are_locked_in_one_order(&Together::on(&server).await).await;
    a_batch_takes_few_round_trips(&Together::on(&server).await).await;
    an_assignment_that_was_kept_out_says_so(&Together::on(&server).await).await;
    letters_of_another_are_left_to_it_for_a_while(&Together::on(&server).await).await;
    a_hint_reaches_the_other_nodes(&Together::on(&server).await).await;
    text_that_no_row_can_hold_is_refused_alone(&Together::on(&server).await).await;
}

/// Somebody holds cursors in an open transaction while others commit greater ones.
async fn a_late_commit_is_never_stepped_over(place: &Together) {
    let store = place.store().await;
    let late = place.shell().await;
    let project: i32 =
        late.query_one("SELECT number FROM projects", &[]).await.expect("one").get(0);
    let class = 0x5365_0000 | project;
    late.batch_execute("BEGIN").await.expect("begins");
    let lock = "SELECT pg_advisory_xact_lock_shared($1, (SELECT ((CASE WHEN is_called THEN last_value ELSE last_value - 1 END)
                % 2147483648)::int4 FROM cursors))";
    late.execute(lock, &[&class]).await.expect("locks");
    let insert = "INSERT INTO events (cursor, project, run, run_seq, at, kind, data)
                  SELECT nextval('cursors'), $1, gen_random_uuid(), 1, 0, 'unblocked', '{}' RETURNING cursor";
    let first: i64 = late.query_one(insert, &[&project]).await.expect("inserts").get(0);
    let task = support::spec("a");
    support::accept(store.as_ref(), vec![support::submit(vec![task])]).await;
    let all = EventFilter { limit: 100, ..EventFilter::default() };
    let seen = store.events(all.clone()).await.expect("reads");
    assert!(seen.is_empty(), "nothing is shown beyond what is open: {seen:?}");
    late.batch_execute("COMMIT").await.expect("commits");
    let seen = store.events(all).await.expect("reads");
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0].cursor, first as u64, "the late one stands where its cursor says");
}

/// Two who lock the same tasks in another order.
async fn a_deadlock_is_decided_anew(place: &Together) {
    // For the lines of the store, which connect later.
    place
        .plain("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 4000', current_database()); END $$")
        .await;
    let store = place.store().await;
    let (one, two) = (support::spec("a"), support::spec("a"));
    let (first, second) = (one.id, two.id);
    support::accept(store.as_ref(), vec![support::submit(vec![one]), support::submit(vec![two])])
        .await;
    let other = place.shell().await;
    // Each looks once, when it has waited for so long: the store when the other waits as well, also on a slow machine.
    other.batch_execute("SET deadlock_timeout = '10min'; BEGIN").await.expect("begins");
    let lock = "SELECT 1 FROM tasks WHERE id = $1 FOR UPDATE";
    other.query(lock, &[&second.0]).await.expect("locks");
    let cancel = |task| Command::Cancel { task, reason: "a test".into() };
    let batch = vec![cancel(first), cancel(second)];
    let ours = tokio::spawn({
        let store = store.clone();
        async move { store.apply(batch).await }
    });
    somebody_waits(&place.shell().await).await;
    // Who looks and finds that nobody can go on gives way.
    other.query(lock, &[&first.0]).await.expect("the store gives way");
    other.batch_execute("COMMIT").await.expect("commits");
    let decisions = ours.await.expect("it answers").expect("it is decided anew");
    assert!(decisions.iter().all(Result::is_ok), "{decisions:?}");
    assert_eq!(store.counts().await.expect("reads").get(&TaskState::Cancelled), Some(&2));
}

/// An end in one run and a beginning in another, whose root comes first: whoever waits for that one holds no other that somebody may wait for.
async fn roots_are_locked_in_one_order(place: &Together) {
    let store = place.store().await;
    let assign = register(&store, 1, 4).await;
    let mut roots = [TaskId(Uuid::now_v7()), TaskId(Uuid::now_v7())];
    roots.sort_unstable();
    let run = |root: &TaskId| {
        let group = TaskSpec::new(*root, "group", Route::Group);
        let child = TaskSpec { root: *root, parent: Some(*root), ..support::spec("a") };
        support::submit(vec![group, child])
    };
    let batch = roots.iter().map(run).chain([assign]).collect();
    let given = support::accept(store.as_ref(), batch).await;
    let letters: Vec<_> = given.into_iter().flat_map(|effects| effects.letters).collect();
    let works = store_suite::work(&letters);
    let of = |root: TaskId| works.iter().find(|work| work.request.run == root).expect("given out");
    let done = Outcome::Complete { output: store_suite::json("1") };
    let batch = vec![of(roots[1]).end(done), of(roots[0]).start(store.now())];

    let other = place.shell().await;
    other.batch_execute("BEGIN").await.expect("begins");
    let lock = "SELECT 1 FROM tasks WHERE id = $1 FOR UPDATE NOWAIT";
    other.query(lock, &[&roots[0].0]).await.expect("locks");
    let ours = tokio::spawn({
        let store = store.clone();
        async move { store.apply(batch).await }
    });
    somebody_waits(&place.shell().await).await;
    other.query(lock, &[&roots[1].0]).await.expect("nobody holds it");
    other.batch_execute("COMMIT").await.expect("commits");
    let decisions = ours.await.expect("it answers").expect("it is decided");
    assert!(decisions.iter().all(Result::is_ok), "{decisions:?}");
}

/// Waits until a connection of this database waits for a lock.
async fn somebody_waits(shell: &tokio_postgres::Client) {
    let begin = Instant::now();
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let count: i64 = shell.query_one(sql, &[]).await.expect("reads").get(0);
        if count > 0 {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "nobody waits");
    }
}

/// What a batch costs does not depend on its size.
async fn a_batch_takes_few_round_trips(place: &Together) {
    let store = place.store().await;
    for size in [1_usize, 1_000] {
        let assign = register(&store, 4, 1_000).await;
        let trips = |phase: &'static str, before: (u64, u64)| {
            let trips = store.traffic().0 - before.0;
            assert!(trips <= 8, "{phase} of {size}: {trips} round trips");
        };
        let before = store.traffic();
        let Command::Assign(assign) = assign else { unreachable!() };
        let assign = Command::Assign(Assign { limit: size, ..assign });
        let mut batch: Vec<Command> =
            (0..size).map(|_| support::submit(vec![support::spec("a")])).collect();
        batch.push(assign.clone());
        let given = support::accept(store.as_ref(), batch).await;
        trips("submit and assign", before);
        let letters: Vec<_> = given.into_iter().flat_map(|effects| effects.letters).collect();
        let work = store_suite::work(&letters);
        assert_eq!(work.len(), size);
        let before = store.traffic();
        let at = store.now();
        let settle = Command::Settle { letters: work.iter().map(|work| work.seq).collect() };
        let batch = work.iter().map(|work| work.start(at)).chain([settle]).collect();
        support::accept(store.as_ref(), batch).await;
        trips("start and settle", before);
        let before = store.traffic();
        let batch = work.iter().map(Work::complete).chain([assign]).collect();
        support::accept(store.as_ref(), batch).await;
        trips("finish", before);
    }
}

/// Somebody else has the only agent in hand.
async fn an_assignment_that_was_kept_out_says_so(place: &Together) {
    let store = place.store().await;
    let assign = register(&store, 1, 1).await;
    support::accept(store.as_ref(), vec![support::submit(vec![support::spec("a")])]).await;
    let other = place.shell().await;
    other.batch_execute("BEGIN; SELECT 1 FROM agents FOR UPDATE").await.expect("locks");
    let effects = support::accept(store.as_ref(), vec![assign.clone()]).await.remove(0);
    assert!(effects.letters.is_empty() && effects.look_again, "{effects:?}");
    other.batch_execute("ROLLBACK").await.expect("lets go");
    let effects = support::accept(store.as_ref(), vec![assign.clone()]).await.remove(0);
    assert!(effects.letters.len() == 1 && !effects.look_again, "{effects:?}");
    let effects = support::accept(store.as_ref(), vec![assign]).await.remove(0);
    assert!(!effects.look_again, "nobody is in the way: {effects:?}");
}

async fn letters_of_another_are_left_to_it_for_a_while(place: &Together) {
    let mine = place.store_with(Duration::from_secs(3_600)).await;
    let others = place.store().await;
    let assign = register(&mine, 1, 1).await;
    support::accept(mine.as_ref(), vec![support::submit(vec![support::spec("a")]), assign]).await;
    let letters = mine.unsent(0, 10).await.expect("reads");
    assert_eq!(letters.len(), 1);
    let begin = Instant::now();
    let taken = loop {
        let taken = others.unsent(0, 10).await.expect("reads");
        if !taken.is_empty() {
            break taken;
        }
        assert!(begin.elapsed() < PATIENCE, "it is taken over after a while");
    };
    assert_eq!(taken, letters, "the same letter");
    assert!(mine.unsent(0, 10).await.expect("reads").is_empty(), "now it is the other's");
}

async fn a_hint_reaches_the_other_nodes(place: &Together) {
    use segue_core::ports::Topic;
    let (here, there) = (place.store().await.signals(), place.store().await.signals());
    let mut ear = there.listen();
    let heard = async {
        loop {
            // Until the other listens, hints may be lost.
            here.hint(Topic::Ready);
            let next = ear.next(&[Topic::Ready]);
            if let Ok(topic) = tokio::time::timeout(Duration::from_millis(100), next).await {
                return topic;
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await;
    assert_eq!(heard, Ok(Topic::Ready));
    let mut own = here.listen();
    here.hint(Topic::Due);
    assert_eq!(own.next(&[Topic::Due, Topic::Events]).await, Topic::Due, "its own at once");
    segue_testkit::bus_suite::others_are_told_and_nobody_here(here, there).await;
}

async fn text_that_no_row_can_hold_is_refused_alone(place: &Together) {
    let store = place.store().await;
    let mut odd = support::spec("a");
    odd.idempotency_key = Some("a\0b".into());
    let good = support::submit(vec![support::spec("a")]);
    let batch = vec![support::submit(vec![odd]), good];
    let decisions = store.apply(batch).await.expect("the batch is kept");
    assert!(decisions[0].is_err() && decisions[1].is_ok(), "{decisions:?}");
}
