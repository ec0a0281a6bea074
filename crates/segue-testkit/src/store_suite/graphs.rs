//! Graphs: needs, children, cascades that are too large for one commit.

use super::place::*;
use segue_core::command::{CASCADE_MAX, Command, DutyKind, Rendered, Reply};
use segue_core::event::Fact;
use segue_core::ids::TaskId;
use segue_core::letter::{LetterBody, Notice};
use segue_core::outcome::Outcome;
use segue_core::payload::Payload;
use segue_core::ports::TaskFilter;
use segue_core::task::{Need, Route, TaskSpec, TaskState, Template, WaitFor};
use std::collections::BTreeSet;

fn need(task: TaskId) -> Need {
    Need { task, name: None, order_only: false }
}

/// A root for children, and that many children under it.
fn group(place: &Place, children: usize) -> Vec<TaskSpec> {
    let root = TaskId(place.id());
    let mut specs = vec![TaskSpec::new(root, "group", Route::Group)];
    specs.extend((0..children).map(|number| {
        let mut spec =
            TaskSpec::new(TaskId(place.id()), &format!("child {number}"), Route::agent("a"));
        spec.parent = Some(root);
        spec.root = root;
        spec
    }));
    specs
}

/// Each task of a chain becomes ready with the end of the one before it, also over a reopening.
pub async fn needs_unblock_one_after_another(place: &Place) {
    let hands = place.open().await;
    let worker = hands.register("a", 4).await;
    let mut specs: Vec<TaskSpec> = (0..4).map(|_| hands.spec("a")).collect();
    for at in 1..specs.len() {
        specs[at].needs = vec![need(specs[at - 1].id)];
    }
    let ids: Vec<TaskId> = specs.iter().map(|spec| spec.id).collect();
    for spec in specs {
        hands.submit(spec).await;
    }
    let work = hands.give_out(10).await;
    assert_eq!(work.len(), 1, "the others wait");
    // The batch that ends one also gives out the next.
    let decisions = hands.apply(vec![work[0].complete(), hands.assign(10)]).await;
    let next = super::place::work(&decisions[1].as_ref().expect("accepted").letters);
    assert_eq!(next[0].task, ids[1]);
    drop(hands);
    let hands = place.open().await;
    hands.trust(worker.spec.instance);
    hands.one(next[0].complete()).await;
    assert_eq!(hands.work_off().await, 2);
    for id in ids {
        assert_eq!(hands.state(id).await, TaskState::Completed);
    }
    check_log(&hands.events().await);
}

/// More dependents than one commit may change: the rest follows by duties, and the task that needs them all runs last.
pub async fn a_wide_fan_out_and_fan_in_go_on_by_duties(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 1_000).await;
    let width = CASCADE_MAX + CASCADE_MAX / 2;
    let source = hands.spec("a");
    let mut middle: Vec<TaskSpec> = (0..width).map(|_| hands.spec("a")).collect();
    for spec in &mut middle {
        spec.needs = vec![need(source.id)];
    }
    let mut sink = hands.spec("a");
    sink.needs = middle.iter().map(|spec| need(spec.id)).collect();
    hands.submit(source.clone()).await;
    hands.apply(middle.iter().map(|spec| submit(vec![spec.clone()])).collect()).await;
    hands.submit(sink.clone()).await;
    assert_eq!(hands.task(source.id).await.dependents as usize, width);
    let work = hands.give_out(1).await;
    let effects = hands.one(work[0].complete()).await;
    let duty = effects.duties.first().cloned().expect("the cascade is not done");
    assert_eq!(hands.store().duties(10).await.expect("reads"), std::slice::from_ref(&duty));
    let ready = async |hands: &Hands<'_>| -> usize {
        let counts = hands.store().counts().await.expect("reads");
        counts.get(&TaskState::Ready).copied().unwrap_or(0) as usize
    };
    assert!((1..=CASCADE_MAX).contains(&ready(&hands).await));
    drop(hands);
    let hands = place.open().await;
    assert_eq!(hands.store().duties(10).await.expect("reads"), std::slice::from_ref(&duty));
    let mut next = Some(duty);
    while let Some(duty) = next {
        let effects = hands.one(Command::Continue(duty)).await;
        assert_eq!(effects.reply, Reply::Done { changed: true });
        next = hands.store().duties(10).await.expect("reads").pop();
    }
    assert_eq!(ready(&hands).await, width);
    hands.register("a", 1_000).await;
    assert_eq!(hands.work_off().await, width + 1);
    assert_eq!(hands.state(sink.id).await, TaskState::Completed);
}

/// A task that delegates gives its slot back, and its next attempt gets what the first one left.
pub async fn a_parent_waits_without_a_slot_and_is_resumed(place: &Place) {
    let hands = place.open().await;
    let worker = hands.register("a", 1).await;
    let parent = hands.submit(hands.spec("a")).await;
    let work = hands.give_out(10).await;
    let park = work[0].end(Outcome::Delegate {
        tasks: vec![delegated("one", "a"), delegated("two", "a")],
        resume: true,
        continuation: Some(json("{\"step\":2}")),
    });
    hands.apply(vec![park, Command::Settle { letters: vec![work[0].seq] }]).await;
    let waiting = hands.task(parent).await;
    assert_eq!(waiting.state, TaskState::Waiting);
    assert_eq!(waiting.wait_for, Some(WaitFor::Resume));
    assert_eq!((waiting.children, waiting.open_children), (2, 2));
    drop(hands);
    let hands = place.open().await;
    hands.trust(worker.spec.instance);
    assert_eq!(*hands.task(parent).await, *waiting);
    for _ in 0..2 {
        let work = hands.give_out(10).await;
        assert_eq!(work.len(), 1, "one slot");
        assert_eq!(hands.task(work[0].task).await.spec.parent, Some(parent));
        hands.one(work[0].complete()).await;
    }
    let work = hands.give_out(10).await;
    assert_eq!(work[0].task, parent);
    assert_eq!(work[0].request.number, 2);
    let resume = work[0].request.resume.as_ref().expect("it resumes");
    assert_eq!(resume.continuation.as_ref().and_then(Payload::text), Some("{\"step\":2}"));
    hands.one(work[0].complete()).await;
    assert_eq!(hands.state(parent).await, TaskState::Completed);
    let records = hands.store().attempts(parent).await.expect("reads");
    assert_eq!(records.iter().map(|it| it.attempt.number).collect::<Vec<_>>(), [1, 2]);
}

/// A delegation that is made again (its first report was lost, or the attempt was) makes no second child under the same key.
pub async fn a_delegation_made_again_finds_its_children(place: &Place) {
    let hands = place.open().await;
    let worker = hands.register("a", 2).await;
    let parent = hands.submit(hands.spec("a")).await;
    let work = hands.give_out(1).await;
    let call = Command::Delegate { proof: work[0].proof(), tasks: vec![delegated("part", "b")] };
    let replies: Vec<Reply> = hands
        .apply(vec![call.clone(), call.clone()])
        .await
        .into_iter()
        .map(|decision| decision.expect("accepted").reply)
        .collect();
    assert_eq!(replies[0], replies[1]);
    drop(hands);
    let hands = place.open().await;
    hands.trust(worker.spec.instance);
    assert_eq!(hands.one(call).await.reply, replies[0]);
    let filter = TaskFilter { parent: Some(parent), limit: 10, ..TaskFilter::default() };
    let children = hands.store().tasks(filter).await.expect("reads");
    let ids: Vec<TaskId> = children.iter().map(|child| child.id()).collect();
    assert_eq!(replies[0], Reply::Delegated(ids));
    assert_eq!(children.len(), 1);
}

/// Cancelling a task ends everything under it, tells the hosts of what runs, and frees their slots.
pub async fn cancelling_reaches_the_whole_tree(place: &Place) {
    let hands = place.open().await;
    let worker = hands.register("a", 5).await;
    let width = CASCADE_MAX + 10;
    let specs = group(place, width);
    let root = specs[0].id;
    hands.one(submit(specs)).await;
    let work = hands.give_out(100).await;
    assert_eq!(work.len(), 5);
    let cancelled = hands.one(Command::Cancel { task: root, reason: "enough".into() }).await;
    let told: BTreeSet<_> = cancelled
        .letters
        .iter()
        .filter_map(|letter| match &letter.body {
            LetterBody::Event(Notice::Cancel { attempt, .. }) => Some(*attempt),
            _ => None,
        })
        .collect();
    let running: BTreeSet<_> = work.iter().map(|work| work.request.attempt).collect();
    assert_eq!(told, running);
    drop(hands);
    let hands = place.open().await;
    let mut rounds = 0;
    loop {
        let duties = hands.store().duties(10_000).await.expect("reads");
        if duties.is_empty() {
            break;
        }
        assert!(rounds < 10, "the cascade ends: {} duties are left", duties.len());
        rounds += 1;
        hands.apply(duties.into_iter().map(Command::Continue).collect()).await;
    }
    let counts = hands.store().counts().await.expect("reads");
    assert_eq!(counts.get(&TaskState::Cancelled).copied(), Some(width as u64 + 1));
    assert_eq!(counts.len(), 1, "nothing else is left: {counts:?}");
    let agents = hands.store().agents().await.expect("reads");
    let agent = agents.iter().find(|agent| agent.spec.instance == worker.spec.instance);
    assert_eq!(agent.map(|agent| agent.slots_used), Some(0));
    check_log(&hands.events().await);
}

/// A `for_each` becomes one child an item, as many open at a time as it says; its output is collected.
pub async fn a_list_becomes_children(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 10).await;
    let mut spec = hands.spec("a");
    spec.template = Some(Box::new(Template {
        for_each: Some("input.list".into()),
        max_parallel: Some(2),
        ..Template::default()
    }));
    let id = spec.id;
    let effects = hands.one(submit(vec![spec])).await;
    assert_eq!(effects.duties.first().map(|duty| duty.kind), Some(DutyKind::Render));
    let items = (0..5).map(|number| json(&format!("{number}"))).collect();
    hands.one(Command::Expand { task: id, rendered: Ok(Rendered::Items(items)) }).await;
    drop(hands);
    let hands = place.open().await;
    let list = hands.task(id).await;
    assert_eq!((list.state, &list.spec.route), (TaskState::Waiting, &Route::Group));
    hands.register("a", 10).await;
    let mut done = Vec::new();
    while done.len() < 5 {
        let work = hands.give_out(10).await;
        assert!((1..=2).contains(&work.len()), "two at a time: {}", work.len());
        done.extend(work.iter().map(|work| work.request.input.text().unwrap_or("?").to_owned()));
        hands.apply(work.iter().map(Work::complete).collect()).await;
    }
    done.sort();
    assert_eq!(done, ["0", "1", "2", "3", "4"]);
    let duties = hands.store().duties(10).await.expect("reads");
    assert_eq!(duties.iter().map(|duty| &duty.kind).collect::<Vec<_>>(), [&DutyKind::Collect]);
    let output = Rendered::Output(json("[0,1]"));
    hands.one(Command::Expand { task: id, rendered: Ok(output) }).await;
    let list = hands.task(id).await;
    assert_eq!(list.state, TaskState::Completed);
    assert_eq!(list.output.as_ref().and_then(Payload::text), Some("[0,1]"));
}

/// Work that a commit left behind is found after reopening, once, and goes when it is done.
pub async fn duties_stay_until_they_are_done(place: &Place) {
    let hands = place.open().await;
    let mut spec = hands.spec("a");
    spec.template = Some(Box::new(Template { input: true, ..Template::default() }));
    let id = hands.submit(spec).await;
    assert_eq!(hands.state(id).await, TaskState::Blocked);
    let duties = hands.store().duties(10).await.expect("reads");
    assert_eq!(duties.len(), 1);
    assert_eq!((duties[0].task, &duties[0].kind), (id, &DutyKind::Render));
    drop(hands);
    let hands = place.open().await;
    assert_eq!(hands.store().duties(10).await.expect("reads"), duties);
    let rendered = Ok(Rendered::Input(json("{\"rendered\":true}")));
    hands.one(Command::Expand { task: id, rendered: rendered.clone() }).await;
    assert!(hands.store().duties(10).await.expect("reads").is_empty());
    let again = hands.one(Command::Expand { task: id, rendered }).await;
    assert_eq!(again.reply, Reply::Done { changed: false });
    drop(hands);
    let hands = place.open().await;
    let task = hands.task(id).await;
    assert_eq!(task.state, TaskState::Ready);
    assert_eq!(task.input.text(), Some("{\"rendered\":true}"));
    let unblocked = hands.events().await;
    assert!(unblocked.iter().any(|event| event.fact == Fact::Unblocked));
}
