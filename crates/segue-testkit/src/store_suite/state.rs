//! Shared state and locks.

use super::payloads::body;
use super::place::*;
use segue_core::command::{Command, Reject, Reply};
use segue_core::payload::{DATABASE_MAX, INLINE_MAX, Payload};
use segue_core::state::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who writes where nobody else is named.
const HAND: &str = "hand";
/// How long a lock lasts here, in milliseconds.
const TTL_MS: u64 = 1_000;

/// A write of a key that takes nothing for granted.
pub fn put(key: &str, value: &str) -> Put {
    Put {
        key: key.into(),
        value: Some(json(value)),
        expect: Expect::Anything,
        policy: None,
        writer: Writer::person(HAND),
        fence: None,
    }
}

/// The deletion of a key.
pub fn deletion(key: &str) -> Put {
    Put { value: None, ..put(key, "null") }
}

/// The command that makes this change of shared state.
pub fn state(change: StateCommand) -> Command {
    Command::State(Box::new(change))
}

/// The command that writes.
pub fn write(put: Put) -> Command {
    state(StateCommand::Put(put))
}

fn lock(name: &str, holder: &str) -> Command {
    state(StateCommand::Lock { name: name.into(), holder: holder.into(), ttl_ms: TTL_MS })
}

fn claim(name: &str, token: u64) -> Claim {
    Claim { name: name.into(), token }
}

impl Hands<'_> {
    /// Writes, and returns the version.
    async fn stored(&self, put: Put) -> u64 {
        match self.one(write(put)).await.reply {
            Reply::Stored { version, .. } => version,
            reply => panic!("{reply:?}"),
        }
    }

    async fn conflict(&self, put: Put) -> StateConflict {
        match self.try_one(write(put)).await {
            Err(Reject::StateConflict(conflict)) => *conflict,
            other => panic!("{other:?}"),
        }
    }

    async fn locked(&self, name: &str, holder: &str) -> u64 {
        match self.one(lock(name, holder)).await.reply {
            Reply::Locked { token, .. } => token,
            reply => panic!("{reply:?}"),
        }
    }

    async fn current(&self, key: &str) -> Option<StateVersion> {
        self.store().state_get(key.into(), None).await.expect("reads")
    }

    async fn value(&self, key: &str) -> Option<String> {
        let value = self.current(key).await?.value.expect("it is there");
        let bytes = body(self, &value).await;
        Some(String::from_utf8(bytes).expect("JSON is UTF-8"))
    }

    async fn keys(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let after = after.map(Arc::from);
        let rows = self.store().state_list(prefix.into(), after, limit).await.expect("reads");
        rows.iter().map(|row| row.key.to_string()).collect()
    }

    async fn history(&self, key: &str) -> Vec<StateVersion> {
        self.store().state_history(key.into(), None, usize::MAX).await.expect("reads")
    }

    async fn changes(&self, prefix: &str, after: u64) -> Vec<StateVersion> {
        self.store().state_changes(prefix.into(), after, usize::MAX).await.expect("reads")
    }
}

/// A key is read as it was written, version by version, also after reopening.
pub async fn a_key_is_read_as_it_was_written(place: &Place) {
    let mut hands = place.open().await;
    assert_eq!(hands.current("plan/api").await, None);
    assert_eq!(hands.store().state_stamp().await.expect("reads"), 0);
    let one = hands.stored(put("plan/api", r#"{"a": [1,  2.50e3]}"#)).await;
    place.clock.advance(10);
    let task = hands.submit(hands.spec("nobody")).await;
    let writer = Writer::Task { task, attempt: segue_core::ids::AttemptId(place.id()) };
    let two = hands.stored(Put { writer: writer.clone(), ..put("plan/api", "2") }).await;
    assert!(one < two);
    for round in 0..2 {
        if round == 1 {
            drop(hands);
            hands = place.open().await;
        }
        assert_eq!(hands.value("plan/api").await.as_deref(), Some("2"));
        let old = hands.store().state_get("plan/api".into(), Some(one)).await.expect("reads");
        let old = old.expect("it is kept");
        assert_eq!((old.version, old.at, old.merged), (one, BEGIN, false));
        assert_eq!(old.writer, Writer::person(HAND));
        assert_eq!(old.value.expect("it is there").text(), Some(r#"{"a": [1,  2.50e3]}"#));
        let new = hands.current("plan/api").await.expect("it is there");
        assert_eq!((new.at, new.writer), (BEGIN.plus_ms(10), writer.clone()));
        let other = hands.store().state_get("plan".into(), Some(one)).await.expect("reads");
        assert_eq!(other, None, "a version belongs to its key");
        assert_eq!(hands.store().state_stamp().await.expect("reads"), two);
        let versions: Vec<u64> =
            hands.history("plan/api").await.iter().map(|row| row.version).collect();
        assert_eq!(versions, [two, one]);
        let paged = hands.store().state_history("plan/api".into(), Some(two), 5).await;
        assert_eq!(paged.expect("reads").len(), 1);
    }
}

/// A write that takes something for granted changes nothing where that is not so, and says what is.
pub async fn a_write_is_refused_where_it_takes_for_granted_what_is_not_so(place: &Place) {
    let hands = place.open().await;
    let expecting = |value: &str, expect| Put { expect, ..put("k", value) };
    let one = hands.stored(expecting("1", Expect::Absent)).await;
    let found = hands.conflict(expecting("2", Expect::Absent)).await;
    assert_eq!((found.expected, found.current), (Expect::Absent, Some(one)));
    let two = hands.stored(expecting("2", Expect::Version(one))).await;
    let found = hands.conflict(expecting("3", Expect::Version(one))).await;
    assert_eq!((found.expected, found.current), (Expect::Version(one), Some(two)));
    hands.conflict(Put { expect: Expect::Version(one), ..deletion("k") }).await;
    assert_eq!(hands.value("k").await.as_deref(), Some("2"));
    hands.stored(Put { expect: Expect::Version(two), ..deletion("k") }).await;
    assert_eq!(hands.current("k").await, None);
    let found = hands.conflict(expecting("3", Expect::Version(two))).await;
    assert_eq!(found.current, None);
    let last = hands.stored(expecting("4", Expect::Absent)).await;
    assert!(last > two, "numbers are never issued twice");
    // Within one batch each write sees the ones before it.
    let answers = hands
        .apply(vec![
            write(expecting("5", Expect::Version(last))),
            write(expecting("6", Expect::Version(last))),
            write(expecting("7", Expect::Version(last + 1))),
        ])
        .await;
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok(), "{answers:?}");
    assert_eq!(hands.value("k").await.as_deref(), Some("7"));
}

/// Of many who write on the ground of the same version, one is heard at a time, and nothing that was answered is lost.
pub async fn concurrent_writers_lose_nothing(place: &Place) {
    const WRITERS: usize = 8;
    const EACH: u64 = 6;
    let hands = place.open().await;
    hands.stored(put("count", "0")).await;
    let count = async |store: Arc<dyn segue_core::ports::Store>| {
        for _ in 0..EACH {
            loop {
                let read = store.state_get("count".into(), None).await.expect("reads");
                let read = read.expect("it is there");
                let value = read.value.expect("it is there");
                let number: u64 = value.text().expect("small").parse().expect("a number");
                let mut put = put("count", &(number + 1).to_string());
                put.expect = Expect::Version(read.version);
                let decision = store.apply(vec![write(put)]).await.expect("commits").remove(0);
                match decision {
                    Ok(_) => break,
                    Err(Reject::StateConflict(_)) => continue,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| count(hands.store().clone())).collect();
    futures_util::future::join_all(writers).await;
    let expected = (WRITERS as u64 * EACH).to_string();
    assert_eq!(hands.value("count").await, Some(expected));
}

/// What two made of one version becomes one where they changed different things; else it is named what they both changed.
pub async fn changes_of_different_members_are_merged(place: &Place) {
    let hands = place.open().await;
    // Larger than a row, so that the bodies have to be fetched.
    let filler = "x".repeat(INLINE_MAX);
    let text = |a: u32, b: u32| format!(r#"{{"a":{{"n":{a}}},"b":{b},"filler":"{filler}"}}"#);
    let base = hands.stored(put("k", &text(1, 1))).await;
    hands.stored(put("k", &text(1, 2))).await;
    let merging = |value: &str| Put {
        expect: Expect::Version(base),
        policy: Some(Policy::Merge),
        ..put("k", value)
    };
    let reply = hands.one(write(merging(&text(2, 1)))).await.reply;
    let Reply::Stored { changed: true, merged: true, version } = reply else { panic!("{reply:?}") };
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let found = hands.value("k").await.expect("it is there");
    assert_eq!(value(&found), value(&text(2, 2)));
    assert!(hands.current("k").await.expect("it is there").merged);
    let again = hands.one(write(merging(&text(2, 1)))).await.reply;
    assert_eq!(again, Reply::Stored { version, changed: false, merged: true });
    let found = hands.conflict(merging(&text(3, 3))).await;
    assert_eq!(found.pointers, ["/a/n", "/b"]);
    assert_eq!((found.expected, found.current), (Expect::Version(base), Some(version)));
    // The policy of the key says the same.
    let policy = StateCommand::SetPolicy { pattern: "k*".into(), policy: Some(Policy::Merge) };
    hands.one(state(policy)).await;
    let added = Put {
        expect: Expect::Version(version),
        ..put("k", &text(2, 2).replacen('{', "{\"new\":1,", 1))
    };
    hands.stored(put("k", &text(2, 7))).await;
    hands.stored(added).await;
    let found = value(&hands.value("k").await.expect("it is there"));
    assert_eq!((&found["new"], &found["b"]), (&1.into(), &7.into()));
}

/// Policies are kept, replaced and taken back.
pub async fn policies_are_kept(place: &Place) {
    let hands = place.open().await;
    let set =
        |pattern: &str, policy| state(StateCommand::SetPolicy { pattern: pattern.into(), policy });
    hands.one(set("plan/*", Some(Policy::Merge))).await;
    hands.one(set("plan/api", Some(Policy::Reject))).await;
    hands.one(set("plan/api", Some(Policy::LastWriter))).await;
    hands.one(set("gone", Some(Policy::Merge))).await;
    hands
        .apply(vec![set("gone", None), set("brief", Some(Policy::Merge)), set("brief", None)])
        .await;
    drop(hands);
    let hands = place.open().await;
    let expected: BTreeMap<Arc<str>, Policy> =
        [("plan/*".into(), Policy::Merge), ("plan/api".into(), Policy::LastWriter)].into();
    assert_eq!(hands.store().state_policies().await.expect("reads"), expected);
    hands.stored(put("plan/api", "1")).await;
    hands.stored(Put { expect: Expect::Version(99), ..put("plan/api", "2") }).await;
}

/// Keys come in the order of their bytes, page by page, without those that were deleted.
pub async fn keys_are_listed_by_prefix_and_page(place: &Place) {
    let hands = place.open().await;
    let mut batch: Vec<Command> = ["b", "a/2", "a/1", "a", "a0", "a/1/x", "A", "a-1", "a/3"]
        .into_iter()
        .map(|key| write(put(key, "1")))
        .collect();
    batch.push(write(deletion("a/3")));
    hands.apply(batch).await;
    let all = ["A", "a", "a-1", "a/1", "a/1/x", "a/2", "a0", "b"];
    assert_eq!(hands.keys("", None, 100).await, all);
    assert_eq!(hands.keys("a/", None, 100).await, ["a/1", "a/1/x", "a/2"]);
    assert_eq!(hands.keys("a/1", None, 100).await, ["a/1", "a/1/x"]);
    assert_eq!(hands.keys("a/", Some("a/1"), 1).await, ["a/1/x"]);
    assert_eq!(hands.keys("", Some("a0"), 100).await, ["b"]);
    assert!(hands.keys("c", None, 100).await.is_empty());
    let mut paged: Vec<String> = Vec::new();
    loop {
        let page = hands.keys("", paged.last().map(String::as_str), 3).await;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
}

/// Whoever remembers the last version that was seen misses none after it, deletions among them.
pub async fn what_changed_after_a_version_is_read(place: &Place) {
    let hands = place.open().await;
    let seen = hands.stored(put("plan/a", "1")).await;
    let two = hands.stored(put("other", "1")).await;
    let three = hands.stored(put("plan/b", "1")).await;
    let four = hands.stored(deletion("plan/a")).await;
    let versions = |rows: Vec<StateVersion>| rows.iter().map(|row| row.version).collect::<Vec<_>>();
    assert_eq!(versions(hands.changes("plan/", seen).await), [three, four]);
    assert_eq!(versions(hands.changes("", seen).await), [two, three, four]);
    assert!(hands.changes("plan/", four).await.is_empty());
    let last = hands.changes("plan/", three).await.remove(0);
    assert_eq!((&*last.key, last.value), ("plan/a", None));
    let page = hands.store().state_changes("".into(), 0, 2).await.expect("reads");
    assert_eq!(versions(page), [seen, two]);
    assert_eq!(hands.store().state_stamp().await.expect("reads"), four);
}

/// Of each key the newest versions are kept, and the bodies of the others go with them.
pub async fn the_history_of_a_key_is_bounded(place: &Place) {
    let hands = place.open().await;
    let first = hands.stored(put("k", "0")).await;
    let batch: Vec<Command> =
        (1..HISTORY_MAX + 10).map(|n| write(put("k", &n.to_string()))).collect();
    hands.apply(batch).await;
    let kept = hands.history("k").await;
    assert_eq!(kept.len(), HISTORY_MAX);
    assert!(kept.iter().all(|row| row.version > first));
    assert_eq!(hands.store().state_get("k".into(), Some(first)).await.expect("reads"), None);
    assert_eq!(hands.value("k").await, Some((HISTORY_MAX + 9).to_string()));
    let stale =
        Put { expect: Expect::Version(first), policy: Some(Policy::Merge), ..put("k", "1") };
    let refused = hands.try_one(write(stale)).await;
    assert!(matches!(&refused, Err(Reject::Invalid(why)) if why.contains("oldest")), "{refused:?}");
}

/// Values of every size come back, and stay as long as a version refers to them, whatever is pruned.
pub async fn bodies_of_state_are_kept_as_long_as_they_are_referred_to(place: &Place) {
    let hands = place.open().await;
    let mut sizes = vec![2, INLINE_MAX, INLINE_MAX + 1, DATABASE_MAX];
    if hands.blobs().is_some() {
        sizes.push(300_000);
    }
    let payload = async |size: usize| -> Payload {
        match hands.blobs() {
            Some(blobs) => blobs.put(text_of(size).into_bytes()).await.expect("is kept"),
            None => json(&text_of(size)),
        }
    };
    for size in &sizes {
        let value = Some(payload(*size).await);
        hands.stored(Put { value, ..put(&format!("k{size}"), "0") }).await;
    }
    // A run that refers to the same bodies goes, and so does a second key.
    hands.register("a", 10).await;
    for size in &sizes {
        let new =
            segue_core::command::NewTask { spec: hands.spec("a"), input: payload(*size).await };
        let tasks = vec![new];
        hands.one(Command::Submit(segue_core::command::Submit { tasks })).await;
        let value = Some(payload(*size).await);
        hands.stored(Put { value, ..put("second", "0") }).await;
    }
    hands.work_off().await;
    hands.stored(deletion("second")).await;
    place.clock.advance(1_000);
    let pruned = hands.store().prune(BEGIN.plus_ms(1_000)).await.expect("prunes");
    assert_eq!((pruned.runs as usize, pruned.keys), (sizes.len(), 1));
    for size in &sizes {
        let key = format!("k{size}");
        assert_eq!(hands.value(&key).await, Some(text_of(*size)), "{key}");
    }
    // Versions that are not kept any more take their bodies along, those that are keep theirs.
    let key = format!("k{DATABASE_MAX}");
    hands.apply((0..HISTORY_MAX).map(|_| write(put(&key, "0"))).collect()).await;
    let key = format!("k{}", INLINE_MAX + 1);
    hands.apply((0..HISTORY_MAX - 1).map(|_| write(put(&key, "0"))).collect()).await;
    let oldest = hands.history(&key).await.pop().expect("it is kept").value.expect("it is there");
    assert_eq!(body(&hands, &oldest).await, text_of(INLINE_MAX + 1).into_bytes());
}

/// A deleted key goes with its history once it was deleted before what is pruned; what is there stays, however old.
pub async fn pruning_takes_deleted_keys(place: &Place) {
    let hands = place.open().await;
    let first = hands.stored(put("old", "1")).await;
    hands.stored(put("stays", "1")).await;
    hands.stored(deletion("old")).await;
    place.clock.advance(1_000);
    hands.stored(put("young", "1")).await;
    hands.stored(deletion("young")).await;
    let held = hands.locked("held", "somebody").await;
    assert_eq!(hands.history("old").await.len(), 2);
    assert_eq!(hands.store().prune(BEGIN).await.expect("prunes").keys, 0);
    assert_eq!(hands.store().prune(BEGIN.plus_ms(1)).await.expect("prunes").keys, 1);
    assert!(hands.history("old").await.is_empty());
    assert_eq!(hands.history("young").await.len(), 2);
    assert_eq!(hands.value("stays").await.as_deref(), Some("1"));
    let locks = hands.store().locks(None, 10).await.expect("reads");
    assert_eq!(locks.iter().map(|lock| lock.token).collect::<Vec<_>>(), [held]);
    let again = hands.stored(Put { expect: Expect::Absent, ..put("old", "1") }).await;
    assert!(again > first + 4, "numbers are never issued twice");
    place.clock.advance(60_000);
    hands.store().prune(BEGIN.plus_ms(50_000)).await.expect("prunes");
    assert!(hands.store().locks(None, 10).await.expect("reads").is_empty());
}

/// A lock is held by one, for a time by the store's clock; the token of the next one is greater.
pub async fn a_lock_is_held_by_one_until_its_time_is_up(place: &Place) {
    let hands = place.open().await;
    let one = hands.locked("deploy", "left").await;
    match hands.try_one(lock("deploy", "right")).await {
        Err(Reject::Held { lock, left_ms }) => {
            assert_eq!((&*lock.holder, lock.token, left_ms), ("left", one, TTL_MS));
        }
        other => panic!("{other:?}"),
    }
    let other = hands.locked("build", "right").await;
    place.clock.advance(TTL_MS as i64 - 1);
    let renew = |token| StateCommand::RenewLock { fence: claim("deploy", token), ttl_ms: TTL_MS };
    let renewed = hands.one(state(renew(one))).await.reply;
    assert_eq!(renewed, Reply::Locked { token: one, until: BEGIN.plus_ms(2 * TTL_MS - 1) });
    drop(hands);
    let hands = place.open().await;
    place.clock.advance(TTL_MS as i64 - 1);
    assert!(hands.try_one(lock("deploy", "right")).await.is_err(), "it is held still");
    place.clock.advance(1);
    let two = hands.locked("deploy", "right").await;
    assert!(one < other && other < two);
    assert!(matches!(hands.try_one(state(renew(one))).await, Err(Reject::Fenced(_))));
    let release = |token| StateCommand::ReleaseLock { fence: claim("deploy", token) };
    let unchanged = Reply::Done { changed: false };
    assert_eq!(hands.one(state(release(one))).await.reply, unchanged);
    assert!(hands.try_one(lock("deploy", "left")).await.is_err(), "it is the other's");
    assert_eq!(hands.one(state(release(two))).await.reply, Reply::Done { changed: true });
    assert_eq!(hands.one(state(release(two))).await.reply, unchanged);
    assert!(hands.locked("deploy", "left").await > two);
    let locks = hands.store().locks(None, 10).await.expect("reads");
    assert_eq!(locks.iter().map(|lock| &*lock.name).collect::<Vec<_>>(), ["build", "deploy"]);
    assert_eq!(hands.store().locks(Some("build".into()), 10).await.expect("reads").len(), 1);
    assert_eq!(hands.store().locks(None, 1).await.expect("reads").len(), 1);
    let one = hands.store().lock_of("build".into()).await.expect("reads").expect("is there");
    assert_eq!((one.token, &*one.holder), (other, "right"));
    assert_eq!(hands.store().lock_of("nothing".into()).await.expect("reads"), None);
}

/// Who lost a lock does not write under it, in whatever order the commands come.
pub async fn a_lost_lock_writes_nothing(place: &Place) {
    let hands = place.open().await;
    let under = |token, value: &str| {
        write(Put { fence: Some(claim("deploy", token)), ..put("target", value) })
    };
    let one = hands.locked("deploy", "left").await;
    hands.one(under(one, "\"left\"")).await;
    place.clock.advance(TTL_MS as i64);
    let late = hands.try_one(under(one, "\"late\"")).await;
    assert!(matches!(late, Err(Reject::Fenced(_))), "{late:?}");
    let two = hands.locked("deploy", "right").await;
    let answers = hands
        .apply(vec![
            under(one, "\"late\""),
            under(two, "\"right\""),
            state(StateCommand::ReleaseLock { fence: claim("deploy", two) }),
            under(two, "\"too late\""),
        ])
        .await;
    let accepted: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [false, true, true, false]);
    assert_eq!(hands.value("target").await.as_deref(), Some("\"right\""));
}

/// Effects tell when somebody who watches has to look, and shared state leaves no trace in any log.
pub async fn state_is_told_apart_from_events(place: &Place) {
    let hands = place.open().await;
    assert!(hands.one(write(put("k", "1"))).await.state_changed);
    assert!(!hands.one(write(deletion("nothing"))).await.state_changed);
    assert!(hands.one(lock("l", "left")).await.state_changed);
    let submitted = hands.one(submit(vec![hands.spec("nobody")])).await;
    assert!(!submitted.state_changed);
    assert_eq!(hands.events().await.len(), 1);
    assert!(hands.unsent().await.is_empty());
}
