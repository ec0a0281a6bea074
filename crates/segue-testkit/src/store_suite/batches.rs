//! Batches: whole, in order, and each caller answered.

use super::place::*;
use segue_core::command::{Command, NewTask, Reject, Reply, Submit};
use segue_core::ids::TaskId;
use segue_core::task::{Need, TaskState, Timeouts};
use std::collections::BTreeSet;

fn need(task: TaskId) -> Need {
    Need { task, name: None, order_only: false }
}

/// A refused command changes nothing; those around it are kept.
pub async fn an_accepted_batch_is_kept_and_a_refused_command_leaves_the_others(place: &Place) {
    let hands = place.open().await;
    let (one, two) = (hands.spec("a"), hands.spec("a"));
    let unknown = TaskId(place.id());
    let decisions = hands
        .apply(vec![
            submit(vec![one.clone()]),
            Command::Cancel { task: unknown, reason: "no".into() },
            submit(vec![one.clone()]),
            submit(vec![two.clone()]),
        ])
        .await;
    assert!(decisions[0].is_ok());
    assert!(matches!(decisions[1], Err(Reject::Unknown { .. })), "{:?}", decisions[1]);
    assert!(matches!(decisions[2], Err(Reject::Conflict(_))), "{:?}", decisions[2]);
    assert!(decisions[3].is_ok());
    assert_eq!(hands.state(one.id).await, TaskState::Ready);
    assert_eq!(hands.state(two.id).await, TaskState::Ready);
    assert_eq!(hands.store().task(unknown).await.expect("reads"), None);
    let events = hands.events().await;
    assert_eq!(events.len(), 2, "one event a submit: {events:?}");
    let nothing = hands.apply(Vec::new()).await;
    assert!(nothing.is_empty());
}

/// What a command does is seen by the next one of its batch; `Assign` sees all of them, wherever it stands.
pub async fn commands_are_decided_in_order_and_assign_comes_last(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 1).await;
    let (one, two) = (hands.spec("a"), hands.spec("a"));
    let mut second = two.clone();
    second.needs = vec![need(one.id)];
    let decisions = hands
        .apply(vec![
            hands.assign(10),
            submit(vec![one.clone()]),
            submit(vec![second]),
            Command::Cancel { task: two.id, reason: "not needed".into() },
        ])
        .await;
    let replies: Vec<&Reply> =
        decisions.iter().map(|decision| &decision.as_ref().expect("accepted").reply).collect();
    assert_eq!(*replies[0], Reply::Assigned(1));
    assert_eq!(*replies[3], Reply::Done { changed: true });
    assert_eq!(hands.state(one.id).await, TaskState::Assigned);
    assert_eq!(hands.state(two.id).await, TaskState::Cancelled);
}

/// Callers that come together may share a commit, yet each gets the answers to its own commands.
pub async fn concurrent_callers_each_get_their_own_answer(place: &Place) {
    let hands = place.open().await;
    let specs: Vec<_> = (0..200).map(|_| hands.spec("a")).collect();
    let callers = specs.iter().map(|spec| {
        let (store, spec) = (hands.store().clone(), spec.clone());
        tokio::spawn(async move {
            let id = spec.id;
            let unknown = Command::Retry { task: TaskId(uuid::Uuid::nil()) };
            let decisions =
                store.apply(vec![submit(vec![spec]), unknown]).await.expect("the store commits");
            // What was answered is there for whoever reads afterwards.
            let task = store.task(id).await.expect("reads").expect("is there");
            (id, decisions, task)
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        let (id, decisions, task) = caller.await.expect("no panic");
        let reply = decisions[0].as_ref().map(|effects| effects.reply.clone());
        assert_eq!(reply, Ok(Reply::Submitted { root: id, count: 1 }));
        assert!(matches!(decisions[1], Err(Reject::Unknown { .. })));
        assert_eq!(task.id(), id);
    }
    let events = hands.events().await;
    check_log(&events);
    let runs: BTreeSet<TaskId> = events.iter().map(|event| event.run).collect();
    assert_eq!(runs.len(), 200);
}

/// An idempotency key finds the task of the earlier submit, in the same batch, later, and after reopening; another body is a conflict.
pub async fn the_same_submit_twice_is_one(place: &Place) {
    let hands = place.open().await;
    let keyed = |text: &str| {
        let mut spec = hands.spec("a");
        spec.name = "keyed".into();
        spec.idempotency_key = Some("key".into());
        Command::Submit(Submit { tasks: vec![NewTask { spec, input: json(text) }] })
    };
    let decisions = hands.apply(vec![keyed("1"), keyed("1"), keyed("2")]).await;
    let Ok(Reply::Submitted { root, .. }) = decisions[0].as_ref().map(|it| it.reply.clone()) else {
        panic!("refused: {decisions:?}")
    };
    assert_eq!(decisions[1].as_ref().map(|it| it.reply.clone()), Ok(Reply::Existing { root }));
    assert!(matches!(decisions[2], Err(Reject::Conflict(_))), "{:?}", decisions[2]);
    let (again, other) = (keyed("1"), keyed("2"));
    drop(hands);
    let hands = place.open().await;
    assert_eq!(hands.one(again).await.reply, Reply::Existing { root });
    assert!(matches!(hands.try_one(other).await, Err(Reject::Conflict(_))));
    assert_eq!(hands.events().await.len(), 1);
}

/// A graph with a cycle, or with a need that nobody has, leaves nothing behind; a good one comes in whole.
pub async fn a_graph_is_taken_in_whole_or_not_at_all(place: &Place) {
    let hands = place.open().await;
    let (mut one, mut two, three) = (hands.spec("a"), hands.spec("a"), hands.spec("a"));
    one.needs = vec![need(two.id)];
    two.needs = vec![need(one.id)];
    let round = hands.try_one(submit(vec![three.clone(), one.clone(), two.clone()])).await;
    assert!(matches!(round, Err(Reject::Cycle { .. })), "{round:?}");
    two.needs = vec![need(TaskId(place.id()))];
    let dangling = hands.try_one(submit(vec![three.clone(), one.clone(), two.clone()])).await;
    assert!(matches!(dangling, Err(Reject::Unknown { .. })), "{dangling:?}");
    for id in [one.id, two.id, three.id] {
        assert_eq!(hands.store().task(id).await.expect("reads"), None);
    }
    assert!(hands.events().await.is_empty());
    two.needs = vec![need(three.id)];
    let reply = hands.one(submit(vec![one.clone(), two.clone(), three.clone()])).await.reply;
    assert_eq!(reply, Reply::Submitted { root: one.id, count: 3 });
    for (id, state, unmet) in [
        (one.id, TaskState::Blocked, 1),
        (two.id, TaskState::Blocked, 1),
        (three.id, TaskState::Ready, 0),
    ] {
        let task = hands.task(id).await;
        assert_eq!((task.state, task.unmet), (state, unmet));
    }
}

/// Letters carry the numbers under which they stand in the outbox; the rest tells whom to wake.
pub async fn effects_say_what_to_do_next(place: &Place) {
    let hands = place.open().await;
    let mut spec = hands.spec("a");
    spec.timeouts = Timeouts { queue_ms: Some(5_000), ..Timeouts::default() };
    let submitted = hands.one(submit(vec![spec.clone()])).await;
    assert!(submitted.may_assign);
    assert_eq!(submitted.next_due, Some(BEGIN.plus_ms(5_000)));
    assert!(submitted.letters.is_empty());
    hands.register("a", 1).await;
    let assign = hands.assign(10);
    let assigned = hands.one(assign).await;
    assert_eq!(assigned.letters.len(), 1);
    assert!(assigned.letters[0].seq > 0, "a letter has its number");
    assert_eq!(hands.unsent().await, assigned.letters);
    let work = work(&assigned.letters);
    assert_eq!(
        work[0].request.secret,
        segue_core::decide::secret_of(&place.key, work[0].request.attempt)
    );
    let finished = hands.one(work[0].complete()).await;
    assert_eq!(finished.reply, Reply::Accepted);
    let ended = finished.ended.iter().map(|task| (task.id(), task.state));
    assert_eq!(ended.collect::<Vec<_>>(), [(spec.id, TaskState::Completed)]);
    assert_eq!(hands.task(spec.id).await, finished.ended[0], "as it was committed");
}
