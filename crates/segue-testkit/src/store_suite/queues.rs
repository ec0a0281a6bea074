//! Queues: who is next, and for whom.

use super::place::*;
use segue_core::command::{Command, Reply};
use segue_core::ids::TaskId;
use segue_core::route::AGING_MS_PER_POINT;
use segue_core::task::{Need, Priority, TaskState};
use std::collections::BTreeSet;

/// The more urgent comes first, unless another has waited long enough; of two alike, the older one.
pub async fn a_queue_is_served_by_rank_with_aging(place: &Place) {
    let hands = place.open().await;
    let with = |priority: u8| {
        let mut spec = hands.spec("a");
        spec.priority = Priority::new(priority).expect("1 to 10");
        spec
    };
    let patient = hands.submit(with(1)).await;
    place.clock.advance(9 * AGING_MS_PER_POINT + 1);
    let (medium, critical, later) = (with(5), with(10), with(10));
    let order = [patient, critical.id, later.id, medium.id];
    hands.one(submit(vec![medium])).await;
    hands.one(submit(vec![critical])).await;
    hands.one(submit(vec![later])).await;
    hands.register("a", 1).await;
    let mut served = Vec::new();
    for _ in 0..order.len() {
        let work = hands.give_out(10).await;
        served.extend(work.iter().map(|work| work.task));
        hands.apply(work.iter().map(Work::complete).collect()).await;
    }
    assert_eq!(served, order);
}

/// A task that a batch unblocks is compared with those that wait in the store, and passes none of them.
pub async fn nothing_jumps_the_queue_within_a_batch(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 1).await;
    let first = hands.spec("a");
    let mut second = hands.spec("a");
    second.needs = vec![Need { task: first.id, name: None, order_only: false }];
    hands.one(submit(vec![first.clone()])).await;
    hands.one(submit(vec![second.clone()])).await;
    let work = hands.give_out(1).await;
    assert_eq!(work[0].task, first.id);
    let waiting: Vec<TaskId> = {
        let specs: Vec<_> = (0..5).map(|_| hands.spec("a")).collect();
        let ids = specs.iter().map(|spec| spec.id).collect();
        for spec in specs {
            hands.submit(spec).await;
            place.clock.advance(1);
        }
        ids
    };
    place.clock.advance(1);
    // The batch that unblocks `second` also assigns: the slot goes to the one that has waited longest.
    let decisions = hands.apply(vec![work[0].complete(), hands.assign(1)]).await;
    let given = super::place::work(&decisions[1].as_ref().expect("accepted").letters);
    assert_eq!(given.iter().map(|work| work.task).collect::<Vec<_>>(), waiting[..1]);
    assert_eq!(hands.state(second.id).await, TaskState::Ready);
}

/// However many ask at once: an instance holds no more tasks than it has slots.
pub async fn slots_are_never_exceeded(place: &Place) {
    let hands = place.open().await;
    let workers = [hands.register("a", 3).await, hands.register("a", 4).await];
    let specs: Vec<_> = (0..50).map(|_| hands.spec("a")).collect();
    for chunk in specs.chunks(10) {
        hands.apply(chunk.iter().map(|spec| submit(vec![spec.clone()])).collect()).await;
    }
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (store, assign) = (hands.store().clone(), hands.assign(50));
            tokio::spawn(async move { store.apply(vec![assign.clone(), assign]).await })
        })
        .collect();
    let mut given = Vec::new();
    for caller in callers {
        for decision in caller.await.expect("no panic").expect("the store commits") {
            given.extend(work(&decision.expect("accepted").letters));
        }
    }
    assert_eq!(given.len(), 7);
    let tasks: BTreeSet<TaskId> = given.iter().map(|work| work.task).collect();
    assert_eq!(tasks.len(), 7, "no task is given out twice");
    for agent in hands.store().agents().await.expect("reads") {
        let held = given.iter().filter(|work| work.request.instance == agent.spec.instance).count();
        assert_eq!(agent.slots_used as usize, held);
        assert_eq!(agent.slots_used, agent.spec.max_concurrency);
        assert!(workers.iter().any(|worker| worker.spec.instance == agent.spec.instance));
    }
    hands.apply(given.iter().map(Work::complete).collect()).await;
    assert_eq!(hands.work_off().await, 43, "the rest is done in turn");
}

/// Two assignments in one batch: the second goes on behind what the first has given out.
pub async fn an_assignment_goes_on_where_the_last_one_stopped(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 10).await;
    let specs: Vec<_> = (0..6).map(|_| hands.spec("a")).collect();
    let ids: Vec<TaskId> = specs.iter().map(|spec| spec.id).collect();
    for spec in specs {
        hands.submit(spec).await;
    }
    let (two, ten) = (hands.assign(2), hands.assign(10));
    let decisions = hands.apply(vec![two.clone(), two, ten.clone(), ten]).await;
    let given: Vec<Vec<TaskId>> = decisions
        .iter()
        .map(|decision| {
            let letters = &decision.as_ref().expect("accepted").letters;
            work(letters).iter().map(|work| work.task).collect()
        })
        .collect();
    assert_eq!(given, [&ids[..2], &ids[2..4], &ids[4..], &[]]);
    assert_eq!(decisions[3].as_ref().map(|it| it.reply.clone()), Ok(Reply::Assigned(0)));
}

/// The head of a queue that the same batch cancels does not hide those behind it.
pub async fn what_a_batch_takes_out_of_a_queue_hides_nobody(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 1).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(hands.submit(hands.spec("a")).await);
    }
    let mut batch: Vec<Command> = ids[..19]
        .iter()
        .map(|id| Command::Cancel { task: *id, reason: "no more".into() })
        .collect();
    batch.push(hands.assign(1));
    let decisions = hands.apply(batch).await;
    let given = work(&decisions[19].as_ref().expect("accepted").letters);
    assert_eq!(given.iter().map(|work| work.task).collect::<Vec<_>>(), ids[19..]);
}

/// Tasks that nobody can take stand in nobody's way; each queue is served by who serves it.
pub async fn many_idle_routes_stand_beside_a_busy_one(place: &Place) {
    let hands = place.open().await;
    let mut batch = Vec::new();
    for number in 0..300 {
        batch.push(submit(vec![hands.spec(&format!("nobody-{number}"))]));
    }
    hands.apply(batch).await;
    let worker = hands.register_with("somebody", 5, &["review", "write"]).await;
    let mut review = hands.spec("-");
    review.route = segue_core::task::Route::capability("review");
    let mut write = hands.spec("-");
    write.route = segue_core::task::Route::capability("write");
    let mut other = hands.spec("-");
    other.route = segue_core::task::Route::capability("paint");
    let named = hands.spec("somebody");
    let wanted: BTreeSet<TaskId> = [review.id, write.id, named.id].into();
    let paint = other.id;
    for spec in [review, write, other, named] {
        hands.submit(spec).await;
    }
    let given = hands.give_out(100).await;
    assert_eq!(given.iter().map(|work| work.task).collect::<BTreeSet<_>>(), wanted);
    assert!(given.iter().all(|work| work.request.instance == worker.spec.instance));
    assert_eq!(hands.state(paint).await, TaskState::Ready);
    assert!(hands.give_out(100).await.is_empty());
    // A new task on a route that was found empty is seen again.
    let again = hands.submit(hands.spec("somebody")).await;
    assert_eq!(hands.give_out(100).await[0].task, again);
}
