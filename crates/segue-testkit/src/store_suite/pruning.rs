//! Retention: whole runs go, and what others need stays.

use super::place::*;
use segue_core::command::{Command, Rendered, Reply};
use segue_core::ids::TaskId;
use segue_core::ports::{EventFilter, TaskFilter};
use segue_core::task::{Need, Route, TaskSpec, TaskState};

/// Runs that ended before a time go with their tasks, attempts, events and keys; younger ones and open ones stay.
pub async fn pruning_takes_whole_runs_that_ended(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 10).await;
    let open = hands.submit(hands.spec("nobody")).await;
    let mut keyed = hands.spec("a");
    keyed.idempotency_key = Some("key".into());
    let old = hands.submit(keyed).await;
    let root = TaskId(place.id());
    let mut specs = vec![TaskSpec::new(root, "group", Route::Group)];
    specs.extend((0..3).map(|_| {
        let mut spec = hands.spec("a");
        spec.parent = Some(root);
        spec.root = root;
        spec
    }));
    hands.one(submit(specs)).await;
    for work in hands.give_out(10).await {
        hands.apply(vec![work.complete(), Command::Settle { letters: vec![work.seq] }]).await;
    }
    let collected = Ok(Rendered::Output(json("[]")));
    hands.one(Command::Expand { task: root, rendered: collected }).await;
    place.clock.advance(1_000);
    let young = hands.submit(hands.spec("a")).await;
    hands.work_off().await;
    let letters = hands.unsent().await.last().map_or(0, |letter| letter.seq);
    let events = hands.events().await;

    let nothing = hands.store().prune(BEGIN).await.expect("prunes");
    assert_eq!((nothing.runs, nothing.tasks, nothing.events), (0, 0, 0));
    let pruned = hands.store().prune(BEGIN.plus_ms(1_000)).await.expect("prunes");
    assert_eq!((pruned.runs, pruned.tasks), (2, 5));
    let gone = events.iter().filter(|event| event.run == old || event.run == root).count();
    assert_eq!(pruned.events, gone as u64);
    let left = hands.store().tasks(TaskFilter { limit: 100, ..TaskFilter::default() }).await;
    let left: Vec<TaskId> = left.expect("reads").iter().map(|task| task.id()).collect();
    assert_eq!(left, [young, open]);
    assert!(hands.store().attempts(old).await.expect("reads").is_empty());
    let log = EventFilter { run: Some(root), limit: 100, ..EventFilter::default() };
    assert!(hands.store().events(log).await.expect("reads").is_empty());
    let counts = hands.store().counts().await.expect("reads");
    assert_eq!(counts.values().sum::<u64>(), 2);
    drop(hands);

    let hands = place.open().await;
    hands.register("a", 1).await;
    let mut again = hands.spec("a");
    again.idempotency_key = Some("key".into());
    let reply = hands.one(submit(vec![again])).await.reply;
    assert!(matches!(reply, Reply::Submitted { .. }), "the key is free again: {reply:?}");
    let work = hands.give_out(1).await;
    assert!(work[0].seq > letters);
    let newest = hands.events().await.last().map_or(0, |event| event.cursor);
    assert!(newest > events.last().map_or(0, |event| event.cursor));
}

/// A run that a task still needs stays until that one has ended too.
pub async fn pruning_leaves_what_others_need(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 10).await;
    let needed = hands.submit(hands.spec("a")).await;
    let mut waiting = hands.spec("nobody");
    waiting.needs = vec![Need { task: needed, name: Some("it".into()), order_only: false }];
    let waiting = hands.submit(waiting).await;
    hands.work_off().await;
    assert_eq!(hands.state(waiting).await, TaskState::Ready);
    place.clock.advance(10_000);
    let later = BEGIN.plus_ms(5_000);
    assert_eq!(hands.store().prune(later).await.expect("prunes").runs, 0);
    assert_eq!(hands.state(needed).await, TaskState::Completed);
    hands.one(Command::Cancel { task: waiting, reason: "no more".into() }).await;
    assert_eq!(hands.store().prune(later).await.expect("prunes").runs, 1);
    assert_eq!(hands.store().task(needed).await.expect("reads"), None);
    // One that was cancelled before what it needed had ended: that one must not stumble over it.
    let slow = hands.submit(hands.spec("a")).await;
    let mut given_up = hands.spec("a");
    given_up.needs = vec![Need { task: slow, name: None, order_only: false }];
    let given_up = hands.submit(given_up).await;
    hands.one(Command::Cancel { task: given_up, reason: "no more".into() }).await;
    place.clock.advance(10_000);
    let pruned = hands.store().prune(BEGIN.plus_ms(15_000)).await.expect("prunes");
    assert_eq!(pruned.runs, 2, "it and the one that waited");
    assert_eq!(hands.work_off().await, 1);
    assert_eq!(hands.state(slow).await, TaskState::Completed);
}
