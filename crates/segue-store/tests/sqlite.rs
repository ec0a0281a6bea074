//! The SQLite adapter, in a folder of its own.

mod support;

use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::command::{Assign, Candidate, Command, NewTask, Submit};
use segue_core::ids::{HostId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::letter::{LetterBody, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::payload::Payload;
use segue_core::ports::{EventFilter, Store};
use segue_core::state::OutcomeState;
use segue_core::task::{Route, TaskSpec, TaskState};
use segue_store::sqlite::{Options, SqliteStore};
use uuid::Uuid;

#[tokio::test]
async fn a_task_makes_the_trip_and_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options::new(dir.path(), ProjectId(Uuid::now_v7()), [7; 32]);
    let store = SqliteStore::open(options.clone()).expect("opens");
    let instance = InstanceId(Uuid::now_v7());
    let spec = AgentSpec {
        instance,
        name: "worker".into(),
        kind: AgentKind::Builtin,
        description: "".into(),
        capabilities: [].into(),
        max_concurrency: 2,
        delegates: false,
    };
    let task = TaskId(Uuid::now_v7());
    let new = NewTask {
        spec: TaskSpec::new(task, "first", Route::agent("worker")),
        input: Payload::of_text("{\"a\":1}").expect("json"),
    };
    let candidates = [Candidate { instance, health: 1.0, load: 0.0 }].into();
    let decisions = store
        .apply(vec![
            Command::Register {
                host: HostId(Uuid::now_v7()),
                incarnation: Incarnation(Uuid::now_v7()),
                agents: vec![spec],
                lease_ms: 60_000,
            },
            Command::Submit(Submit { tasks: vec![new] }),
            Command::Assign(Assign { candidates, limit: 10 }),
        ])
        .await
        .expect("commits");
    let letters = &decisions[2].as_ref().expect("assigned").letters;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].seq, 1);
    assert_eq!(store.unsent(0, 10).await.expect("reads"), *letters);
    drop(store);

    let store = SqliteStore::open(options).expect("opens again");
    assert_eq!(store.unsent(0, 10).await.expect("reads"), *letters);
    let LetterBody::TaskRequest(request) = &letters[0].body else { panic!("no work") };
    let response = TaskResponse {
        attempt: request.attempt,
        secret: request.secret.clone(),
        started_at: None,
        process: None,
        outcome: Outcome::Complete { output: Payload::of_text("[2]").expect("json") },
        state: OutcomeState::default(),
        usage: None,
        ended: Vec::new(),
    };
    let finish = Command::Finish { task, response: Box::new(response) };
    store
        .apply(vec![finish, Command::Settle { letters: vec![1] }])
        .await
        .expect("commits")
        .into_iter()
        .for_each(|decision| drop(decision.expect("accepted")));
    let found = store.task(task).await.expect("reads").expect("is there");
    assert_eq!(found.state, TaskState::Completed);
    assert_eq!(found.output.as_ref().and_then(Payload::text), Some("[2]"));
    assert!(store.unsent(0, 10).await.expect("reads").is_empty());
    let events = store.events(EventFilter { limit: 100, ..EventFilter::default() }).await;
    let seqs: Vec<u64> = events.expect("reads").iter().map(|event| event.run_seq).collect();
    assert_eq!(seqs, [1, 1, 2, 3]);
}

#[tokio::test]
async fn letters_of_attempts_that_have_ended_leave_the_outbox() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = support::open(dir.path());
    let assign = support::register(store.as_ref(), "a", 5).await;
    let tasks = (0..3).map(|_| support::submit(vec![support::spec("a")])).collect();
    support::accept(store.as_ref(), tasks).await;
    let effects = support::accept(store.as_ref(), vec![assign]).await;
    let work = segue_testkit::store_suite::work(&effects[0].letters);
    support::accept(store.as_ref(), vec![work[1].complete()]).await;
    let shell = support::shell(dir.path());
    let kept = || -> i64 {
        let sql = "SELECT count(*) FROM letters";
        shell.query_row(sql, [], |row| row.get(0)).expect("reads")
    };
    assert_eq!(kept(), 3);
    assert_eq!(store.unsent(0, 10).await.expect("reads").len(), 2);
    assert_eq!(kept(), 2);
}
