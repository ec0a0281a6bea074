//! What is there after the store was closed, or its process ended, and was opened again.

use super::place::*;
use segue_core::command::Command;
use segue_core::outcome::Outcome;
use segue_core::ports::Clock;
use segue_core::task::{ErrorClass, Need, Priority, ProcessRef, Template, Timeouts, WorkspaceKind};
use segue_core::task::{OnFailure, Usage};

/// Everything that a store tells through its port.
async fn everything(hands: &Hands<'_>) -> Vec<String> {
    let store = hands.store();
    let mut all = Vec::new();
    let filter = segue_core::ports::TaskFilter { limit: usize::MAX, ..Default::default() };
    for task in store.tasks(filter).await.expect("reads") {
        all.push(format!("{task:?}"));
        for record in store.attempts(task.id()).await.expect("reads") {
            all.push(format!("{record:?}"));
        }
    }
    all.extend(hands.events().await.iter().map(|event| format!("{event:?}")));
    all.extend(hands.unsent().await.iter().map(|letter| format!("{letter:?}")));
    all.extend(store.agents().await.expect("reads").iter().map(|agent| format!("{agent:?}")));
    all.extend(store.duties(1_000).await.expect("reads").iter().map(|duty| format!("{duty:?}")));
    all.push(format!("{:?}", store.counts().await.expect("reads")));
    all.push(format!("{:?}", store.next_due().await.expect("reads")));
    all
}

/// Tasks in every state with every field set, agents, events, letters and duties are the same after reopening.
pub async fn reopening_finds_everything(place: &Place) {
    let hands = place.open().await;
    let worker = hands.register_with("a", 8, &["review"]).await;
    hands.register("gone", 1).await;
    hands.one(Command::Drain { agent: "gone".into(), drained: true }).await;
    let running = work_in_every_state(&hands).await;
    let task = running.task;
    tasks_that_wait(&hands, task).await;
    let before = everything(&hands).await;
    let states = hands.store().counts().await.expect("reads");
    assert!(states.len() >= 7, "many states are met: {states:?}");
    drop(hands);
    let hands = place.open().await;
    hands.trust(worker.spec.instance);
    assert_eq!(everything(&hands).await, before);
    // And the store goes on with it.
    let Command::Finish { task, mut response } = running.complete() else { unreachable!() };
    let usage = Usage { input_tokens: 1_000, cost_usd: Some(0.25), cpu_ms: 77, ..Usage::default() };
    response.usage = Some(usage.clone());
    hands.one(Command::Finish { task, response }).await;
    let record = hands.store().attempts(task).await.expect("reads").remove(0);
    assert_eq!(record.usage, Some(usage));
    assert_eq!(record.attempt.process, Some(PROCESS));
}

/// The process of the attempt that runs.
const PROCESS: ProcessRef = ProcessRef { pid: 4_242, start_time: 123_456_789_012 };

/// One task of each kind of end, and one that runs, with every field of its own set. Returns the one that runs.
async fn work_in_every_state(hands: &Hands<'_>) -> Work {
    let mut full = hands.spec("a");
    full.priority = Priority::new(7).expect("1 to 10");
    full.on_failure = OnFailure::Continue;
    full.timeouts =
        Timeouts { queue_ms: Some(60_000), run_ms: Some(70_000), whole_ms: Some(80_000) };
    full.workspace = Some(WorkspaceKind::Worktree);
    full.idempotency_key = Some("once".into());
    full.retry.attempts = 7;
    let full = hands.submit(full).await;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(hands.submit(hands.spec("a")).await);
    }
    let work = hands.give_out(10).await;
    assert_eq!(work.len(), 6);
    let of = |id| work.iter().find(|work| work.task == id).expect("it was given out");
    let running = of(full).clone();
    let proof = running.proof();
    hands.one(Command::Start { proof: proof.clone(), at: BEGIN, process: Some(PROCESS) }).await;
    hands.one(of(others[0]).complete()).await;
    hands.one(of(others[1]).fail(ErrorClass::Transient)).await;
    hands.one(of(others[2]).fail(ErrorClass::Permanent)).await;
    hands.one(Command::Cancel { task: others[3], reason: "not \"now\"\n\u{1f680}".into() }).await;
    let park = Outcome::Delegate {
        tasks: vec![delegated("part", "nobody")],
        resume: true,
        continuation: Some(json("\"left behind\"")),
    };
    hands.one(of(others[4]).end(park)).await;
    hands.one(Command::Progress { proof, note: json("{\"percent\":50}") }).await;
    running
}

/// A task that needs another and will be rendered, and one that can be rendered now.
async fn tasks_that_wait(hands: &Hands<'_>, needed: segue_core::ids::TaskId) {
    let mut blocked = hands.spec("a");
    blocked.needs = vec![Need { task: needed, name: Some("whole".into()), order_only: false }];
    blocked.template = Some(Box::new(Template {
        input: true,
        when: Some("tasks.whole.output".into()),
        max_parallel: Some(3),
        ..Template::default()
    }));
    hands.submit(blocked).await;
    let mut render = hands.spec("b");
    render.template = Some(Box::new(Template { input: true, ..Template::default() }));
    hands.submit(render).await;
}

/// A letter that was committed and not settled comes again with the same number and content; a settled one does not.
pub async fn unsent_letters_come_again_after_a_crash(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 10).await;
    for _ in 0..6 {
        hands.submit(hands.spec("a")).await;
    }
    let assign = hands.assign(10);
    let letters = hands.one(assign).await.letters;
    assert_eq!(letters.len(), 6);
    let seqs: Vec<u64> = letters.iter().map(|letter| letter.seq).collect();
    // Two runs of numbers and one that nobody ever had.
    let settle = Command::Settle { letters: vec![seqs[4], seqs[0], seqs[1], 9_999_999] };
    hands.one(settle.clone()).await;
    drop(hands);
    let hands = place.open().await;
    let left: Vec<_> = [2, 3, 5].iter().map(|at| letters[*at].clone()).collect();
    assert_eq!(hands.unsent().await, left);
    assert_eq!(hands.store().unsent(seqs[2], 1).await.expect("reads"), left[1..2]);
    hands.one(settle).await;
    assert_eq!(hands.unsent().await, left);
    // Work that has ended meanwhile need not be given out again.
    hands.one(work(&letters)[2].complete()).await;
    let after = hands.unsent().await;
    assert!(after.len() == 2 || after == left, "a stale letter may stay or go: {after:?}");
    let all = Command::Settle { letters: seqs };
    hands.one(all).await;
    assert!(hands.unsent().await.is_empty());
}

/// The numbers of letters and events rise over every reopening, though what they named has gone.
pub async fn numbers_are_never_issued_twice(place: &Place) {
    let mut letters = Vec::new();
    for _ in 0..3 {
        let hands = place.open().await;
        hands.register("a", 1).await;
        hands.submit(hands.spec("a")).await;
        let work = hands.give_out(1).await;
        letters.push(work[0].seq);
        hands.apply(vec![work[0].complete(), Command::Settle { letters: vec![work[0].seq] }]).await;
        assert!(hands.unsent().await.is_empty());
        check_log(&hands.events().await);
        place.clock.advance(10);
    }
    assert!(letters.is_sorted_by(|a, b| a < b), "{letters:?}");
}

/// A clock that is set back is not followed, neither while the store is open nor when it is opened again.
pub async fn the_clock_never_goes_back(place: &Place) {
    let hands = place.open().await;
    place.clock.advance(10_000);
    hands.submit(hands.spec("a")).await;
    place.clock.advance(-60_000);
    assert!(hands.store().now() >= BEGIN.plus_ms(10_000));
    let second = hands.submit(hands.spec("a")).await;
    assert!(hands.task(second).await.created_at >= BEGIN.plus_ms(10_000));
    drop(hands);
    let hands = place.open().await;
    assert!(place.clock.now() < BEGIN);
    assert!(hands.store().now() >= BEGIN.plus_ms(10_000));
    hands.submit(hands.spec("a")).await;
    let times: Vec<_> = hands.events().await.iter().map(|event| event.at).collect();
    assert!(times.is_sorted(), "{times:?}");
}
