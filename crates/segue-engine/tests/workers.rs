//! Workers over a bus: they register, beat, get work and bodies, hand in outcomes, and leave; and nobody speaks for them.

mod team;

use segue_agent::spool::Spool;
use segue_agent::worker::{LinkError, SpooledBlobs, Stay};
use segue_core::command::Command;
use segue_core::ids::Incarnation;
use segue_core::letter::{Address, Letter, LetterBody};
use segue_core::payload::Payload;
use segue_core::ports::{Blobs, WorkBus};
use segue_core::task::TaskState;
use segue_core::worker::{
    Asked, FRESH_MS, PART_MAX, Say, Sealed, Stamp, TokenMaker, Way, Who, host_of, instance_of,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use team::{PROJECT, Team, WorkerRig, eventually, life, spec_on, task};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_part_without_anything_but_letters() {
    let team = Team::new(1).await;
    let worker = WorkerRig::start(&team, "red", life(1)).await;
    let id = team.engine(0).submit(vec![task("one", &json!({ "n": 1 }))]).await.unwrap();
    assert_eq!(team.output(id).await, json!({ "by": "red", "got": { "n": 1 } }));
    // It is drained like any host: it is told at its next beat, and its place is given to nobody.
    let host = worker.token.host();
    assert_eq!(team.engine(0).drain_host(host).await.unwrap(), 1);
    assert_eq!(tokio::time::timeout(PATIENCE, worker.presence.stay()).await, Ok(Stay::Leave));
    let waits = team.engine(0).submit(vec![task("two", &json!(2))]).await.unwrap();
    assert_eq!(team.state(waits).await, TaskState::Ready);
    worker.presence.bye("the test ends").await;
    let agents = team.engine(0).store().agents().await.unwrap();
    assert!(agents.iter().all(|agent| agent.gone), "{agents:?}");
    worker.host.stop().await;
    // Its next life has its slots again.
    let worker = WorkerRig::start(&team, "red", life(2)).await;
    assert_eq!(team.output(waits).await, json!({ "by": "red", "got": 2 }));
    worker.host.stop().await;
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_travel_in_parts_both_ways() {
    let team = Team::new(2).await;
    let worker = WorkerRig::start(&team, "red", life(1)).await;
    for size in [PART_MAX - 2, PART_MAX * 3 + 17] {
        let text = json!("x".repeat(size)).to_string();
        let input = team.engine(0).payload(text.clone()).await.unwrap();
        assert!(matches!(input, Payload::Stored { .. }));
        let spec = task("large", &json!(null)).spec;
        let new = segue_core::command::NewTask { spec, input };
        let id = team.engine(1).submit(vec![new]).await.unwrap();
        let output = team.output(id).await;
        assert_eq!(output["got"].as_str().unwrap().len(), size);
    }
    assert_eq!(worker.spool.waiting(), 0);
    let missing = worker.blobs.get(segue_core::payload::Hash::of(b"nobody has this")).await;
    assert!(
        matches!(missing, Err(segue_core::ports::StoreError::MissingPayload(_))),
        "{missing:?}"
    );
    worker.host.stop().await;
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_of_a_worker_that_died_are_delivered_by_its_next_life() {
    let team = Team::new(1).await;
    let worker = WorkerRig::start(&team, "red", life(1)).await;
    // From here on nothing of the worker gets through, as if its broker were away.
    worker.bus.cut.store(true, Ordering::SeqCst);
    let ids = [json!({ "n": 1 }), json!("y".repeat(300_000))];
    let mut submitted = Vec::new();
    for input in &ids {
        let input = team.engine(0).payload(input.to_string()).await.unwrap();
        let spec = task("one", &json!(null)).spec;
        let new = segue_core::command::NewTask { spec, input };
        submitted.push(team.engine(0).submit(vec![new]).await.unwrap());
    }
    // The large input cannot be fetched while the bus is away; the small one is done and kept.
    eventually("the outcome is on the disk", async || worker.spool.waiting() == 1).await;
    assert_eq!(team.state(submitted[0]).await, TaskState::Assigned);
    let folder = worker.die();
    let next = WorkerRig::start_in(&team, "red", life(2), folder).await;
    assert_eq!(team.output(submitted[0]).await, json!({ "by": "red", "got": { "n": 1 } }));
    let attempts = team.engine(0).store().attempts(submitted[0]).await.unwrap();
    assert_eq!(attempts.len(), 1, "it was not done twice: {attempts:?}");
    team.output(submitted[1]).await;
    assert_eq!(next.spool.waiting(), 0);
    next.host.stop().await;
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_set_by_the_answer() {
    let team = Team::new(1).await;
    let worker = WorkerRig::with_clock(&team, "red", life(1), 10 * FRESH_MS as i64).await;
    let id = team.engine(0).submit(vec![task("one", &json!(1))]).await.unwrap();
    team.output(id).await;
    let behind = worker.link.now().since_ms(team.engine(0).now());
    assert!(behind < FRESH_MS, "{behind}");
    worker.host.stop().await;
    team.stop().await;
}

fn who(name: &str) -> Who {
    Who { name: name.into(), version: "1".into(), machine: String::new() }
}

/// Publishes this as a letter to the engine.
async fn send(team: &Team, sealed: Sealed) {
    let letter = Letter {
        seq: 0,
        version: segue_core::letter::WIRE_VERSION,
        from: "red".into(),
        to: Address::Engine,
        task: None,
        reply_to: None,
        correlation: None,
        causation: None,
        traceparent: None,
        hops: 0,
        at: sealed.at,
        body: LetterBody::Host(Box::new(sealed)),
    };
    team.bus.publish(vec![letter]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_replayed_and_foolish_letters_are_dead_letters_with_their_reason() {
    let team = Team::new(1).await;
    let worker = WorkerRig::start(&team, "red", life(5)).await;
    let maker = TokenMaker::new(PROJECT, team::KEY);
    let red = host_of(PROJECT, "red");
    let seal = |host, life, number, at, say| {
        let stamp = Stamp { host, incarnation: life, number, at };
        let said = serde_json::to_string(&Asked { reply: Uuid::from_u128(1), say }).unwrap();
        Sealed::seal(&maker.token(host), PROJECT, Way::ToEngine, stamp, said)
    };
    let now = team.engine(0).now();
    let beat = || Say::Beat {
        who: who("red"),
        load: 0.0,
        running: 0,
        agents: vec![instance_of(red, "a")],
        lease_ms: 9_000,
    };
    let hello = |name: &str, agents| Say::Hello { who: who(name), agents, lease_ms: 9_000 };
    let good = seal(red, life(5), 1_000, now, beat());
    let other = host_of(PROJECT, "blue");
    let own = vec![spec_on(red, "a")];
    let cases = [
        (Sealed { number: 1_001, ..good.clone() }, "the signature is not that of host"),
        (Sealed { said: "{}".into(), ..good.clone() }, "the signature is not that of host"),
        // The same letter again, after it was heard.
        (good.clone(), "came before"),
        (seal(red, life(5), 999, now, beat()), "came before"),
        // An earlier life that somebody recorded.
        (seal(red, life(4), 9_999, now, hello("red", own.clone())), "only one may run"),
        (seal(red, life(5), 2_000, now, hello("blue", own.clone())), "not that of worker `blue`"),
        (
            seal(other, life(5), 1, now, hello("blue", own)),
            "is not that of agent `a` on this worker",
        ),
        (
            seal(
                red,
                life(5),
                2_001,
                now,
                Say::Get { hash: segue_core::payload::Hash([0; 32]), offset: 0 },
            ),
            "missing",
        ),
    ];
    send(&team, good.clone()).await;
    for (sealed, reason) in cases {
        let before = team.dead().await.len();
        send(&team, sealed).await;
        eventually("it is a dead letter", async || team.dead().await.len() > before).await;
        let dead = team.dead().await.pop().unwrap();
        assert!(dead.contains(reason), "{dead} for {reason}");
    }
    // What is too old does nothing, whoever sends it: not even a life that would be newer registers.
    let old = segue_core::time::Time(now.0 - FRESH_MS as i64 - 1_000);
    send(&team, seal(red, life(9), 1, old, hello("red", Vec::new()))).await;
    let id = team.engine(0).submit(vec![task("one", &json!(1))]).await.unwrap();
    assert_eq!(team.output(id).await, json!({ "by": "red", "got": 1 }));
    let agents = team.engine(0).store().agents().await.unwrap();
    assert_eq!(agents.iter().map(|agent| agent.incarnation).collect::<Vec<_>>(), [life(5)]);
    worker.host.stop().await;
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_taken_for_gone_comes_back_with_its_next_beat() {
    let team = Team::new(1).await;
    let worker = WorkerRig::start(&team, "red", life(1)).await;
    let instance = instance_of(worker.token.host(), "a");
    let gone = Command::ExpireAgent { instance, reason: "the test says so".into() };
    team.engine(0).command(gone).await.unwrap();
    let stay = tokio::spawn({
        let presence = worker.presence.clone();
        async move { presence.stay().await }
    });
    let id = team.engine(0).submit(vec![task("one", &json!(1))]).await.unwrap();
    assert_eq!(team.output(id).await, json!({ "by": "red", "got": 1 }));
    // Another process with the same token takes its place; this one is told so, and ends.
    let next = WorkerRig::start(&team, "red", life(2)).await;
    let Ok(Ok(Stay::Refused(reason))) = tokio::time::timeout(PATIENCE, stay).await else {
        panic!("it went on");
    };
    assert!(reason.contains("only one may run"), "{reason}");
    worker.host.stop().await;
    next.host.stop().await;
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_without_a_key_for_workers_takes_none() {
    let team = Team::with(1, None).await;
    let token = TokenMaker::new(PROJECT, team::KEY).worker("red").unwrap();
    let link = team.link(token, Incarnation(Uuid::from_u128(1))).await;
    let say = Say::Bye { reason: "x".into() };
    let asked = link.ask(say, Duration::from_millis(300)).await;
    assert!(matches!(asked, Err(LinkError::Ask(_))), "{asked:?}");
    eventually("it is a dead letter", async || !team.dead().await.is_empty()).await;
    assert!(team.dead().await[0].contains("takes no workers"));
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_signed_by_a_node_is_none() {
    let team = Team::new(1).await;
    let mut token = TokenMaker::new(PROJECT, team::KEY).worker("red").unwrap();
    token.token = TokenMaker::new(PROJECT, [9; 32]).token(token.host());
    let link = team.link(token, life(1)).await;
    let asked = link.ask(Say::Bye { reason: "x".into() }, Duration::from_millis(300)).await;
    assert!(matches!(asked, Err(LinkError::Ask(_))), "a stranger is not answered: {asked:?}");
    team.stop().await;
}

#[tokio::test]
async fn a_full_spool_says_so_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, left) = Spool::with_bytes_max(folder.path(), 1_000).unwrap();
    assert!(left.is_empty());
    let none: Arc<dyn Blobs> = Arc::new(team::MapBlobs::default());
    let blobs = SpooledBlobs::new(spool.clone(), none);
    spool.room().await;
    let Payload::Stored { hash, .. } = blobs.put(vec![b'1'; 2_000]).await.unwrap() else {
        panic!("it is kept");
    };
    assert!(tokio::time::timeout(Duration::from_millis(20), spool.room()).await.is_err());
    assert_eq!(blobs.get(hash).await.unwrap().len(), 2_000);
    let letter = team::outcome_of(Payload::Stored { hash, size: 2_000 });
    let batch = spool.keep(&[letter]).await.unwrap().unwrap();
    spool.done(batch).await;
    spool.room().await;
    assert_eq!(std::fs::read_dir(folder.path().join("bodies")).unwrap().count(), 0);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.path()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn what_is_damaged_in_a_spool_is_kept_aside_and_the_rest_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(folder.path()).unwrap();
    spool.keep(&[team::outcome_of(Payload::null())]).await.unwrap().unwrap();
    drop(spool);
    let outcomes = folder.path().join("outcomes");
    std::fs::write(outcomes.join("000000000007.json"), "[{").unwrap();
    std::fs::write(outcomes.join("000000000008.x.draft"), "[").unwrap();
    std::fs::write(folder.path().join("bodies").join("f".repeat(64)), "left by a crash").unwrap();
    let (spool, left) = Spool::open(folder.path()).unwrap();
    assert_eq!((left.len(), spool.waiting()), (1, 1));
    assert_eq!(left[0].1, [team::outcome_of(Payload::null())]);
    assert!(outcomes.join("000000000007.damaged").exists());
    assert!(!outcomes.join("000000000008.x.draft").exists());
    assert_eq!(std::fs::read_dir(folder.path().join("bodies")).unwrap().count(), 0);
}
