//! Agents that come, go and report late; and what time brings.

use super::place::*;
use segue_core::agent::{Agent, AgentStatus};
use segue_core::command::{Command, Excused, Proof, Reject, Reply};
use segue_core::event::Fact;
use segue_core::ids::Incarnation;
use segue_core::letter::Secret;
use segue_core::retry::RetryPolicy;
use segue_core::task::{AttemptEnd, ErrorClass, TaskState, Timeouts};
use segue_core::time::Time;

/// When the lease of a host ends, what it held is ready again at once, and the agent is gone.
pub async fn a_lease_that_ends_gives_its_tasks_back(place: &Place) {
    let hands = place.open().await;
    let worker = hands.register("a", 2).await;
    hands.one(worker.register(1_000)).await;
    let (one, two) = (hands.submit(hands.spec("a")).await, hands.submit(hands.spec("a")).await);
    let work = hands.give_out(10).await;
    hands.one(work[0].start(BEGIN)).await;
    place.clock.advance(900);
    let renew =
        Command::Renew { host: worker.host, incarnation: worker.incarnation, lease_ms: 1_000 };
    hands.one(renew).await;
    place.clock.advance(900);
    let tick = |excused| Command::Tick { limit: 100, excused };
    let quiet = Reply::Done { changed: false };
    assert_eq!(hands.one(tick(Excused::Nobody)).await.reply, quiet);
    drop(hands);
    let hands = place.open().await;
    place.clock.advance(200);
    // Not as long as nobody could have renewed it.
    assert_eq!(hands.one(tick(Excused::Everybody)).await.reply, quiet);
    assert_eq!(hands.one(tick(Excused::Workers)).await.reply, Reply::Done { changed: true });
    for id in [one, two] {
        let task = hands.task(id).await;
        assert_eq!((task.state, task.lost, task.tried), (TaskState::Ready, 1, 0));
        let records = hands.store().attempts(id).await.expect("reads");
        assert_eq!(records[0].attempt.end, Some(AttemptEnd::Lost));
    }
    let agents = hands.store().agents().await.expect("reads");
    assert_eq!(agents[0].status(), AgentStatus::Offline);
    assert_eq!(agents[0].slots_used, 0);
    let again = hands
        .try_one(Command::Renew { host: worker.host, incarnation: worker.incarnation, lease_ms: 1 })
        .await;
    assert!(matches!(again, Err(Reject::Superseded(_))), "{again:?}");
}

/// A host that registers with a new life has lost what it held in the old one.
pub async fn a_new_life_of_a_host_ends_the_old_one(place: &Place) {
    let hands = place.open().await;
    let mut worker = hands.register("a", 2).await;
    let id = hands.submit(hands.spec("a")).await;
    let old = hands.give_out(10).await;
    hands.one(old[0].start(BEGIN)).await;
    drop(hands);
    let hands = place.open().await;
    hands.trust(worker.spec.instance);
    let before = Command::Renew { host: worker.host, incarnation: worker.incarnation, lease_ms: 1 };
    worker.incarnation = Incarnation(place.id());
    hands.one(worker.register(DAY_MS)).await;
    assert_eq!(hands.state(id).await, TaskState::Ready);
    assert!(matches!(hands.try_one(before).await, Err(Reject::Superseded(_))));
    let new = hands.give_out(10).await;
    assert_eq!(new[0].task, id);
    assert_eq!((new[0].request.number, new[0].request.incarnation), (2, worker.incarnation));
    assert_eq!(hands.one(old[0].complete()).await.reply, Reply::Late);
    assert_eq!(hands.one(new[0].complete()).await.reply, Reply::Accepted);
    assert_eq!(hands.state(id).await, TaskState::Completed);
}

/// An outcome of a superseded attempt completes nothing, yet what it brought stands in the log; one that comes twice counts once.
pub async fn late_outcomes_are_kept_and_change_nothing(place: &Place) {
    let hands = place.open().await;
    let worker = hands.register("a", 1).await;
    let id = hands.submit(hands.spec("a")).await;
    let first = hands.give_out(1).await;
    let gone = Command::ExpireAgent { instance: worker.spec.instance, reason: "it left".into() };
    hands.one(gone).await;
    hands.register("a", 1).await;
    let second = hands.give_out(1).await;
    assert_eq!(hands.one(second[0].complete()).await.reply, Reply::Accepted);
    drop(hands);
    let hands = place.open().await;
    let before = hands.task(id).await;
    assert_eq!(hands.one(first[0].complete()).await.reply, Reply::Late);
    assert_eq!(hands.one(second[0].complete()).await.reply, Reply::Duplicate);
    let after = hands.task(id).await;
    assert_eq!((after.state, &after.output), (TaskState::Completed, &before.output));
    let kept = hands.events().await.into_iter().find_map(|event| match event.fact {
        Fact::LateOutcome { attempt, output, .. } => Some((attempt, output)),
        _ => None,
    });
    assert_eq!(kept, Some((first[0].request.attempt, Some(json("{\"done\":true}")))));
}

/// Whoever lacks the secret of an attempt changes nothing.
pub async fn a_report_without_the_secret_is_refused(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 1).await;
    let id = hands.submit(hands.spec("a")).await;
    let work = hands.give_out(1).await;
    let mut forged = work[0].clone();
    forged.request.secret = Secret([1; 32]);
    let proof = Proof { secret: Secret([2; 32]), ..work[0].proof() };
    let decisions = hands
        .apply(vec![
            forged.complete(),
            Command::Progress { proof, note: json("1") },
            forged.start(BEGIN),
        ])
        .await;
    for decision in decisions {
        assert!(matches!(decision, Err(Reject::Forbidden(_))), "{decision:?}");
    }
    assert_eq!(hands.state(id).await, TaskState::Assigned);
    assert_eq!(hands.one(work[0].complete()).await.reply, Reply::Accepted);
}

/// Retries, limits in the queue and of the whole come when they are due, the earliest first, also after reopening.
pub async fn timers_find_what_is_due(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 1).await;
    assert_eq!(hands.store().next_due().await.expect("reads"), None);
    let mut retried = hands.spec("a");
    retried.retry = RetryPolicy { base_ms: 5_000, jitter: false, ..RetryPolicy::default() };
    let mut queued = hands.spec("nobody");
    queued.timeouts = Timeouts { queue_ms: Some(2_000), ..Timeouts::default() };
    let mut whole = hands.spec("nobody");
    whole.timeouts = Timeouts { whole_ms: Some(9_000), ..Timeouts::default() };
    let ids = [retried.id, queued.id, whole.id];
    hands.submit(retried).await;
    let work = hands.give_out(1).await;
    hands.one(work[0].fail(ErrorClass::Transient)).await;
    assert_eq!(hands.state(ids[0]).await, TaskState::Retrying);
    hands.submit(queued).await;
    hands.submit(whole).await;
    drop(hands);
    let hands = place.open().await;
    let due = |ms: u64| Some(Time(BEGIN.0).plus_ms(ms));
    for (id, at, state) in [
        (ids[1], 2_000, TaskState::Failed),
        (ids[0], 5_000, TaskState::Ready),
        (ids[2], 9_000, TaskState::Failed),
    ] {
        assert_eq!(hands.store().next_due().await.expect("reads"), due(at));
        let early = i64::try_from(hands.store().now().since_ms(BEGIN)).expect("small");
        place.clock.advance(at as i64 - 1 - early);
        let tick = Command::Tick { limit: 10, excused: Excused::Nobody };
        assert_eq!(hands.one(tick.clone()).await.reply, Reply::Done { changed: false });
        place.clock.advance(1);
        assert_eq!(hands.one(tick).await.reply, Reply::Done { changed: true });
        assert_eq!(hands.state(id).await, state);
    }
    assert_eq!(hands.store().next_due().await.expect("reads"), None);
}

/// A drained agent ends what it has and gets nothing new, until it is taken back.
pub async fn a_drained_agent_gets_nothing_new(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 2).await;
    hands.submit(hands.spec("a")).await;
    let work = hands.give_out(1).await;
    hands.one(Command::Drain { agent: "a".into(), drained: true }).await;
    hands.submit(hands.spec("a")).await;
    assert!(hands.give_out(10).await.is_empty());
    assert_eq!(hands.one(work[0].complete()).await.reply, Reply::Accepted);
    let agents = hands.store().agents().await.expect("reads");
    assert_eq!(agents[0].status(), AgentStatus::Maintenance);
    hands.one(Command::Drain { agent: "a".into(), drained: false }).await;
    assert_eq!(hands.give_out(10).await.len(), 1);
    let unknown = hands.try_one(Command::Drain { agent: "b".into(), drained: true }).await;
    assert!(matches!(unknown, Err(Reject::Unknown { .. })), "{unknown:?}");
}

/// Whoever knows the fleet as it was at a version is told of those alone who came, changed, were drained or went since; by a store without versions of
/// everybody.
pub async fn what_is_new_of_the_fleet_is_told_by_its_version(place: &Place) {
    let hands = place.open().await;
    let mut version = 0;
    let mut news = async |hands: &Hands<'_>| {
        let known = version;
        let told = hands.store().agents_since(known).await.expect("reads");
        version = told.0;
        let mut agents: Vec<String> = told.1.iter().map(word).collect();
        agents.sort();
        (known > 0 && version > 0, agents)
    };
    // What is told where nothing is left out.
    let all = async |hands: &Hands<'_>| {
        let mut agents: Vec<String> =
            hands.store().agents().await.expect("reads").iter().map(word).collect();
        agents.sort();
        agents
    };
    let mut worker = hands.register("a", 2).await;
    let other = hands.register("b", 2).await;
    let (_, told) = news(&hands).await;
    assert_eq!(told, ["a", "b"]);
    assert_eq!(told, all(&hands).await);
    // Slots and leases are no news.
    hands.submit(hands.spec("a")).await;
    assert_eq!(hands.give_out(10).await.len(), 1);
    let (host, incarnation) = (worker.host, worker.incarnation);
    hands.one(Command::Renew { host, incarnation, lease_ms: 5_000_000 }).await;
    let (is_partial, told) = news(&hands).await;
    assert_eq!(told, if is_partial { Vec::new() } else { all(&hands).await });
    hands.one(Command::Drain { agent: "a".into(), drained: true }).await;
    let (is_partial, told) = news(&hands).await;
    assert_eq!(told, if is_partial { vec!["a drained".to_owned()] } else { all(&hands).await });
    hands
        .one(Command::ExpireAgent { instance: other.spec.instance, reason: "enough".into() })
        .await;
    drop(hands);
    let hands = place.open().await;
    let (is_partial, told) = news(&hands).await;
    assert_eq!(told, if is_partial { vec!["b gone".to_owned()] } else { all(&hands).await });
    worker.spec.name = "c".into();
    hands.one(worker.register(1_000_000)).await;
    let (is_partial, told) = news(&hands).await;
    let now = all(&hands).await;
    let said: Vec<String> = now.iter().filter(|word| word.starts_with('c')).cloned().collect();
    assert_eq!((said.len(), told), (1, if is_partial { said } else { now }));
    let leases = hands.store().leases().await.expect("reads");
    let named: Vec<_> = leases.iter().map(|(instance, _)| *instance).collect();
    assert_eq!(named, [worker.spec.instance], "who has gone has no lease");
}

fn word(agent: &Agent) -> String {
    let drained = if agent.drained { " drained" } else { "" };
    let gone = if agent.gone { " gone" } else { "" };
    format!("{}{drained}{gone}", agent.spec.name)
}
