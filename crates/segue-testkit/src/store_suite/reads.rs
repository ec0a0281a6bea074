//! Lists: filters and pages.

use super::place::*;
use segue_core::command::Command;
use segue_core::ids::{PROJECT_LOG, TaskId};
use segue_core::ports::{EventFilter, TaskFilter};
use segue_core::task::{ErrorClass, Route, TaskSpec, TaskState};

async fn ids(hands: &Hands<'_>, filter: TaskFilter) -> Vec<TaskId> {
    let tasks = hands.store().tasks(filter).await.expect("reads");
    tasks.iter().map(|task| task.id()).collect()
}

fn all() -> TaskFilter {
    TaskFilter { limit: 100, ..TaskFilter::default() }
}

fn state(states: &[TaskState]) -> TaskFilter {
    TaskFilter { states: states.to_vec(), ..all() }
}

/// Tasks come newest first, those of a parent oldest first; by state, by run, a page at a time.
pub async fn tasks_are_filtered_and_paged(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 3).await;
    assert!(ids(&hands, all()).await.is_empty());
    let mut single = Vec::new();
    for _ in 0..9 {
        single.push(hands.submit(hands.spec("a")).await);
    }
    let root = TaskId(place.id());
    let mut specs = vec![TaskSpec::new(root, "group", Route::Group)];
    for _ in 0..4 {
        let mut spec = hands.spec("nobody");
        spec.parent = Some(root);
        spec.root = root;
        specs.push(spec);
    }
    let family: Vec<TaskId> = specs.iter().map(|spec| spec.id).collect();
    hands.one(submit(specs)).await;
    let work = hands.give_out(3).await;
    hands.one(work[0].complete()).await;
    hands.one(work[1].fail(ErrorClass::Permanent)).await;
    hands.one(Command::Cancel { task: single[8], reason: "no".into() }).await;

    check_pages(&hands, &single, &family).await;
    check_states(&hands, &single, &family).await;
    check_families(&hands, &single, &family).await;
    let some = vec![single[3], TaskId(place.id()), family[2], single[3]];
    let found = hands.store().tasks_by_id(some).await.expect("reads");
    let mut found: Vec<TaskId> = found.iter().map(|task| task.id()).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, [single[3], family[2]]);
    let counts = hands.store().counts().await.expect("reads");
    assert_eq!(counts.values().sum::<u64>(), 14);
    assert_eq!(counts.get(&TaskState::Ready), Some(&9));
    assert_eq!(counts.get(&TaskState::Retrying), None);
}

async fn check_pages(hands: &Hands<'_>, single: &[TaskId], family: &[TaskId]) {
    let mut newest: Vec<TaskId> = single.iter().chain(family).copied().collect();
    newest.reverse();
    assert_eq!(ids(hands, all()).await, newest);
    let mut paged = Vec::new();
    loop {
        let filter =
            TaskFilter { before: paged.last().copied(), limit: 4, ..TaskFilter::default() };
        let page = ids(hands, filter).await;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, newest);
}

async fn check_states(hands: &Hands<'_>, single: &[TaskId], family: &[TaskId]) {
    assert_eq!(ids(hands, state(&[TaskState::Completed])).await, single[..1]);
    assert_eq!(ids(hands, state(&[TaskState::Assigned])).await, single[2..3]);
    let ended = state(&[TaskState::Failed, TaskState::Cancelled]);
    assert_eq!(ids(hands, ended).await, [single[8], single[1]]);
    assert_eq!(ids(hands, state(&[TaskState::Waiting])).await, family[..1]);
    assert!(ids(hands, state(&[TaskState::Retrying])).await.is_empty());
    let ready: Vec<TaskId> =
        family[1..].iter().rev().chain(single[3..8].iter().rev()).copied().collect();
    assert_eq!(ids(hands, state(&[TaskState::Ready])).await, ready);
    let second = TaskFilter { before: Some(ready[1]), limit: 2, ..state(&[TaskState::Ready]) };
    assert_eq!(ids(hands, second).await, ready[2..4]);
    let mixed = TaskFilter { limit: 3, ..state(&[TaskState::Completed, TaskState::Ready]) };
    assert_eq!(ids(hands, mixed).await, ready[..3]);
}

async fn check_families(hands: &Hands<'_>, single: &[TaskId], family: &[TaskId]) {
    let run = TaskFilter { run: Some(family[0]), ..all() };
    let of_run: Vec<TaskId> = family.iter().rev().copied().collect();
    assert_eq!(ids(hands, run.clone()).await, of_run);
    let two = TaskFilter { before: Some(of_run[1]), limit: 2, ..run.clone() };
    assert_eq!(ids(hands, two).await, of_run[2..4]);
    let ready_of_run = TaskFilter { states: vec![TaskState::Ready], ..run };
    assert_eq!(ids(hands, ready_of_run).await, of_run[..4]);
    let alone = TaskFilter { run: Some(single[0]), ..all() };
    assert_eq!(ids(hands, alone).await, single[..1]);
    let parent = TaskFilter { parent: Some(family[0]), ..all() };
    assert_eq!(ids(hands, parent.clone()).await, family[1..]);
    let first = TaskFilter { limit: 1, ..parent };
    assert_eq!(ids(hands, first).await, family[1..2]);
}

/// Events come in the order of their cursors; of all, of a run, of a task, after a cursor.
pub async fn events_are_filtered_and_paged(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 5).await;
    let root = hands.submit(hands.spec("a")).await;
    let other = hands.submit(hands.spec("a")).await;
    for work in hands.give_out(10).await {
        hands.apply(vec![work.start(BEGIN), work.complete()]).await;
    }
    let all = hands.events().await;
    let read = async |filter: EventFilter| hands.store().events(filter).await.expect("reads");
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map_or(0, |event: &segue_core::event::Event| event.cursor);
        let page = read(EventFilter { after, limit: 2, ..EventFilter::default() }).await;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
    for run in [root, other, PROJECT_LOG] {
        let of_run: Vec<_> = all.iter().filter(|event| event.run == run).cloned().collect();
        assert!(!of_run.is_empty());
        let filter = EventFilter { run: Some(run), limit: 100, ..EventFilter::default() };
        assert_eq!(read(filter.clone()).await, of_run);
        let rest = EventFilter { after: of_run[0].cursor, ..filter };
        assert_eq!(read(rest).await, of_run[1..]);
    }
    let of_task = EventFilter { task: Some(other), limit: 100, ..EventFilter::default() };
    let expected: Vec<_> = all.iter().filter(|event| event.task == other).cloned().collect();
    assert_eq!(read(of_task.clone()).await, expected);
    let both = EventFilter { run: Some(other), ..of_task.clone() };
    assert_eq!(read(both).await, expected);
    let neither = EventFilter { run: Some(root), ..of_task };
    assert!(read(neither).await.is_empty());
    let unknown =
        EventFilter { task: Some(TaskId(place.id())), limit: 9, ..EventFilter::default() };
    assert!(read(unknown).await.is_empty());
}

/// However commands come together, the log of each run counts 1, 2, 3 .. in the order of the stream.
pub async fn the_log_of_a_run_has_no_gap(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 50).await;
    let root = TaskId(place.id());
    let mut specs = vec![TaskSpec::new(root, "group", Route::Group)];
    specs.extend((0..40).map(|_| {
        let mut spec = hands.spec("a");
        spec.parent = Some(root);
        spec.root = root;
        spec
    }));
    hands.one(submit(specs)).await;
    let reporters: Vec<_> = hands
        .give_out(100)
        .await
        .into_iter()
        .map(|work| {
            let store = hands.store().clone();
            tokio::spawn(async move {
                store.apply(vec![work.start(BEGIN)]).await.expect("commits");
                store.apply(vec![work.complete()]).await.expect("commits");
            })
        })
        .collect();
    for reporter in reporters {
        reporter.await.expect("no panic");
    }
    let events = hands.events().await;
    check_log(&events);
    let of_run = events.iter().filter(|event| event.run == root).count() as u64;
    assert_eq!(hands.task(root).await.run_events, of_run);
    drop(hands);
    let hands = place.open().await;
    assert_eq!(hands.events().await, events);
}
