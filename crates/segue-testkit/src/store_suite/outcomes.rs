//! Outcomes that write shared state.

use super::place::*;
use super::state::{put, write};
use segue_core::command::{Command, Reply};
use segue_core::outcome::Outcome;
use segue_core::payload::{Hash, Payload};
use segue_core::state::*;
use segue_core::task::{ErrorClass, TaskSpec, TaskState};

/// What an outcome writes.
fn writes(puts: &[(&str, &str, Expect)]) -> OutcomeState {
    let put = |(key, value, expect): &(&str, &str, Expect)| KeyPut {
        key: (*key).into(),
        value: json(value),
        expect: *expect,
        policy: None,
    };
    OutcomeState { put: puts.iter().map(put).collect() }
}

fn done() -> Outcome {
    Outcome::Complete { output: json("1") }
}

impl Hands<'_> {
    fn may(&self, keys: &[&str]) -> TaskSpec {
        let mut spec = self.spec("writer");
        spec.state_keys = keys.iter().map(|key| (*key).into()).collect();
        spec.retry.attempts = 2;
        spec
    }

    async fn given(&self, spec: TaskSpec) -> Work {
        self.submit(spec).await;
        self.give_out(1).await.remove(0)
    }

    async fn text_under(&self, key: &str) -> Option<String> {
        let found = self.store().state_get(key.into(), None).await.expect("reads")?;
        Some(found.value?.text()?.to_owned())
    }
}

/// What an outcome writes is there exactly where its task has completed, with the attempt as its writer; also after reopening.
pub async fn an_outcome_writes_state_in_its_own_commit(place: &Place) {
    let mut hands = place.open().await;
    hands.register("writer", 8).await;
    let work = hands.given(hands.may(&["plan/*", "done"])).await;
    let given = work.request.state.clone().expect("it may use some");
    assert_eq!(given.keys, ["plan/*".into(), "done".into()]);
    let before = hands.store().state_stamp().await.expect("reads");
    let state = writes(&[
        ("plan/api", r#"{"a": [1,  2.50e3]}"#, Expect::Absent),
        ("done", "true", Expect::Anything),
    ]);
    let end = work.end_with(done(), state);
    let effects = hands.one(end.clone()).await;
    assert!(effects.state_changed, "those who watch are told");
    assert_eq!(hands.state(work.task).await, TaskState::Completed);
    let writer = Writer::Task { task: work.task, attempt: work.request.attempt };
    // A second time, and after the store was opened again, it is the same.
    assert_eq!(hands.one(end).await.reply, Reply::Duplicate);
    for round in 0..2 {
        if round == 1 {
            drop(hands);
            hands = place.open().await;
        }
        let changes = hands.store().state_changes("".into(), before, 10).await.expect("reads");
        let found: Vec<(&str, u64, &Writer)> =
            changes.iter().map(|row| (&*row.key, row.version, &row.writer)).collect();
        assert_eq!(found, [("plan/api", before + 1, &writer), ("done", before + 2, &writer)]);
        assert_eq!(hands.text_under("plan/api").await.as_deref(), Some(r#"{"a": [1,  2.50e3]}"#));
        assert_eq!(hands.task(work.task).await.spec.state_keys, given.keys);
    }
    // One that delegates writes as well, and hands on no more than it has.
    hands.register("writer", 8).await;
    let parent = hands.given(hands.may(&["plan/*"])).await;
    let mut part = delegated("part", "writer");
    part.state_keys = vec!["plan/part".into()];
    let tasks = vec![part];
    let delegate = Outcome::Delegate { tasks, resume: false, continuation: None };
    let state = writes(&[("plan/split", "1", Expect::Anything)]);
    hands.one(parent.end_with(delegate, state)).await;
    assert_eq!(hands.state(parent.task).await, TaskState::Waiting);
    assert_eq!(hands.text_under("plan/split").await.as_deref(), Some("1"));
    let child = hands.give_out(5).await.remove(0);
    assert_eq!(child.request.state.as_ref().expect("handed on").keys, ["plan/part".into()]);
    let state = writes(&[("plan/part", "2", Expect::Anything)]);
    hands.one(child.end_with(done(), state)).await;
    assert_eq!(hands.text_under("plan/part").await.as_deref(), Some("2"));
}

/// Of what is refused nothing is written, not even what stands beside it; the attempt fails and says why.
pub async fn an_outcome_whose_writes_are_refused_writes_nothing_and_fails(place: &Place) {
    let hands = place.open().await;
    hands.register("writer", 64).await;
    hands.one(write(put("plan/api", "1"))).await;
    let stamp = hands.store().state_stamp().await.expect("reads");
    let fine = ("plan/fine", "1", Expect::Anything);
    let many: Vec<String> = (0..=PUTS_MAX).map(|n| format!("plan/{n}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "1", Expect::Anything)).collect();
    let mut large = writes(&[fine, ("plan/large", "1", Expect::Anything)]);
    large.put[1].value = Payload::Stored { hash: Hash::of(b"x"), size: VALUE_MAX + 1 };
    let cases = [
        // What others wrote meanwhile may fit the next time.
        (
            writes(&[fine, ("plan/api", "2", Expect::Absent)]),
            ErrorClass::Transient,
            "is at version",
        ),
        (
            writes(&[fine, ("plan/b", "2", Expect::Version(stamp))]),
            ErrorClass::Transient,
            "is absent",
        ),
        // What the task may not do, it may not the next time either.
        (writes(&[fine, ("other", "2", Expect::Anything)]), ErrorClass::Permanent, "`other`"),
        (writes(&[fine, ("plan", "2", Expect::Anything)]), ErrorClass::Permanent, "`plan`"),
        (writes(&[fine, fine]), ErrorClass::InvalidOutput, "twice"),
        (writes(&[fine, ("plan//x", "2", Expect::Anything)]), ErrorClass::InvalidOutput, "no key"),
        (writes(&[fine, ("plan/\0", "2", Expect::Anything)]), ErrorClass::InvalidOutput, "no key"),
        (writes(&many), ErrorClass::InvalidOutput, "at most 32"),
        (large, ErrorClass::InvalidOutput, "at most 4194304"),
    ];
    for (state, class, part) in cases {
        let work = hands.given(hands.may(&["plan/*"])).await;
        assert_eq!(hands.one(work.end_with(done(), state)).await.reply, Reply::Accepted);
        let task = hands.task(work.task).await;
        let expected = if class.is_retryable() { TaskState::Retrying } else { TaskState::Failed };
        assert_eq!(task.state, expected, "{part}");
        let error = task.error.clone().expect("it says why");
        assert_eq!(error.class, class, "{error:?}");
        assert!(error.message.contains(part), "{error:?}");
        assert_eq!(hands.store().state_stamp().await.expect("reads"), stamp);
        assert_eq!(hands.text_under("plan/fine").await, None);
    }
    // One without any right, one that fails, and one that came too late.
    let work = hands.given(hands.spec("writer")).await;
    assert_eq!(work.request.state, None);
    hands.one(work.end_with(done(), writes(&[fine]))).await;
    assert_eq!(hands.state(work.task).await, TaskState::Failed);
    let work = hands.given(hands.may(&["*"])).await;
    let Command::Finish { task, mut response } = work.fail(ErrorClass::Permanent) else {
        unreachable!("an end is a finish")
    };
    response.state = writes(&[fine]);
    hands.one(Command::Finish { task, response }).await;
    let work = hands.given(hands.may(&["*"])).await;
    hands.one(Command::Cancel { task: work.task, reason: "enough".into() }).await;
    let late = hands.one(work.end_with(done(), writes(&[fine]))).await;
    assert_eq!(late.reply, Reply::Late);
    // And a right that was handed on is never more than what there was.
    let work = hands.given(hands.may(&["plan/*"])).await;
    let mut part = delegated("part", "writer");
    part.state_keys = vec!["pl*".into()];
    let delegate = Outcome::Delegate { tasks: vec![part], resume: false, continuation: None };
    hands.one(work.end_with(delegate, writes(&[fine]))).await;
    let error = hands.task(work.task).await.error.clone().expect("it says why");
    assert!(error.message.contains("`pl*`"), "{error:?}");
    assert_eq!(hands.store().state_stamp().await.expect("reads"), stamp);
}

/// Of outcomes that were made from the same version one is heard; the others are tried again, and merged where the policy says so.
pub async fn outcomes_that_write_the_same_key_at_once_lose_nothing(place: &Place) {
    const WRITERS: usize = 8;
    let hands = place.open().await;
    hands.register("writer", 64).await;
    let base = match hands.one(write(put("k", "{}"))).await.reply {
        Reply::Stored { version, .. } => version,
        other => panic!("{other:?}"),
    };
    let mut all = Vec::new();
    for policy in [Policy::Merge, Policy::Reject] {
        let mut ends = Vec::new();
        for n in 0..WRITERS {
            let work = hands.given(hands.may(&["k*"])).await;
            let mut state = match policy {
                Policy::Merge => {
                    writes(&[("k", &format!("{{\"m{n}\":{n}}}"), Expect::Version(base))])
                }
                Policy::Reject | Policy::LastWriter => {
                    writes(&[("kept", &n.to_string(), Expect::Absent)])
                }
            };
            state.put[0].policy = Some(policy);
            ends.push(work.end_with(done(), state));
            all.push((policy, work.task));
        }
        let store = hands.store();
        let each = ends.into_iter().map(|end| store.apply(vec![end]));
        for answer in futures_util::future::join_all(each).await {
            let reply = answer.expect("commits").remove(0).expect("is taken in").reply;
            assert_eq!(reply, Reply::Accepted);
        }
    }
    let merged: serde_json::Value =
        serde_json::from_str(&hands.text_under("k").await.expect("there")).expect("JSON");
    assert_eq!(merged.as_object().map(serde_json::Map::len), Some(WRITERS), "{merged}");
    let mut completed = [0, 0];
    for (policy, task) in all {
        let state = hands.state(task).await;
        let of = usize::from(policy == Policy::Reject);
        completed[of] += usize::from(state == TaskState::Completed);
        assert!([TaskState::Completed, TaskState::Retrying].contains(&state), "{state}");
    }
    assert_eq!(completed, [WRITERS, 1], "all that merge, and the first of those that do not");
}
