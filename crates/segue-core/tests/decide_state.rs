//! Shared state and locks: every command against every standing of a key and a lock as one golden file, and what holds for any list of
//! commands.
//!
//! `SEGUE_BLESS=1 cargo test -p segue-core --test decide_state` writes the file anew.

mod support;

use proptest::prelude::*;
use segue_core::command::{Command, Reject, Reply};
use segue_core::decide::{Chance, Ctx};
use segue_core::payload::{DATABASE_MAX, Hash, Payload};
use segue_core::ports::Effects;
use segue_core::state::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use support::world::World;
use support::{BEGIN, invariants, text};

const KEY: &str = "plan";
const LOCK: &str = "deploy";
const TTL_MS: u64 = 1_000;

/// A project with nothing but state, and what the hand at the table knows of it.
struct Room {
    world: World,
    ctx: Ctx,
    /// The version that the hand has read.
    read: Option<u64>,
    /// The token that the hand was given.
    token: Option<u64>,
}

impl Room {
    fn new() -> Room {
        let ctx = Ctx { now: BEGIN, chance: Chance::new(1), key: [0; 32] };
        Room { world: World::new(), ctx, read: None, token: None }
    }

    fn act(&mut self, command: StateCommand) -> Result<Effects, Reject> {
        let before = self.world.clone();
        let decision = self.world.one(Command::State(Box::new(command)), &mut self.ctx);
        invariants::check(&self.world).expect("the invariants hold");
        if decision.is_err() {
            self.world.same_rows(&before).expect("what is refused changes nothing");
        }
        assert!(self.world.events.is_empty() && self.world.letters.is_empty());
        decision
    }

    fn put(&mut self, value: &str) -> u64 {
        let put = put(Some(value), Expect::Anything);
        match self.act(StateCommand::Put(put)).expect("is written").reply {
            Reply::Stored { version, changed: true, merged: false } => version,
            reply => panic!("{reply:?}"),
        }
    }

    fn delete(&mut self) {
        self.act(StateCommand::Put(put(None, Expect::Anything))).expect("is deleted");
    }

    fn lock(&mut self, holder: &str) -> u64 {
        match self.act(lock(holder)).expect("is free").reply {
            Reply::Locked { token, .. } => token,
            reply => panic!("{reply:?}"),
        }
    }

    fn current(&self) -> Option<&StateVersion> {
        let newest = self.world.state_keys.get(KEY)?.last()?;
        self.world.state.get(newest).filter(|row| row.value.is_some())
    }

    fn value(&self) -> Option<String> {
        let value = self.current()?.value.as_ref()?;
        Some(value.text().expect("it is small").to_owned())
    }
}

fn put(value: Option<&str>, expect: Expect) -> Put {
    Put {
        key: KEY.into(),
        value: value.map(text),
        expect,
        policy: None,
        writer: Writer::person("hand"),
        fence: None,
    }
}

fn lock(holder: &str) -> StateCommand {
    StateCommand::Lock { name: LOCK.into(), holder: holder.into(), ttl_ms: TTL_MS }
}

fn fence(token: u64) -> Claim {
    Claim { name: LOCK.into(), token }
}

// ---- the table ------------------------------------------------------------------------------

const READ: &str = r#"{"a":1,"b":1}"#;
const MINE: &str = r#"{"a":2,"b":1}"#;

type Row = (&'static str, fn() -> Room);

/// A key that the hand has read, and what happened to it since.
fn read(since: impl Fn(&mut Room)) -> Room {
    let mut room = Room::new();
    room.read = Some(room.put(READ));
    since(&mut room);
    room
}

fn keys() -> Vec<Row> {
    vec![
        ("never written", Room::new),
        ("as it was read", || read(|_| {})),
        ("another member changed", || {
            read(|room| {
                room.put(r#"{"a":1,"b":3}"#);
            })
        }),
        ("the same member changed", || {
            read(|room| {
                room.put(r#"{"a":3,"b":1}"#);
            })
        }),
        ("the same change", || {
            read(|room| {
                room.put(MINE);
            })
        }),
        ("no object any more", || {
            read(|room| {
                room.put("[1]");
            })
        }),
        ("deleted", || read(Room::delete)),
        ("deleted and back", || {
            read(|room| {
                room.delete();
                room.put(READ);
            })
        }),
        ("read too long ago", || {
            read(|room| {
                (0..HISTORY_MAX).for_each(|_| {
                    room.put(r#"{"a":1,"b":3}"#);
                })
            })
        }),
    ]
}

type Ask = (&'static str, fn(&Room) -> Option<StateCommand>);

fn with(room: &Room, value: Option<&str>, policy: Policy) -> Option<StateCommand> {
    let put = put(value, Expect::Version(room.read?));
    Some(StateCommand::Put(Put { policy: Some(policy), ..put }))
}

fn writes() -> Vec<Ask> {
    vec![
        ("put", |_| Some(StateCommand::Put(put(Some(MINE), Expect::Anything)))),
        ("put, expect absent", |_| Some(StateCommand::Put(put(Some(MINE), Expect::Absent)))),
        ("put, expect absent, merge", |_| {
            let policy = Some(Policy::Merge);
            Some(StateCommand::Put(Put { policy, ..put(Some(MINE), Expect::Absent) }))
        }),
        ("put, expect what was read, reject", |room| with(room, Some(MINE), Policy::Reject)),
        ("put, expect what was read, last-writer", |room| {
            with(room, Some(MINE), Policy::LastWriter)
        }),
        ("put, expect what was read, merge", |room| with(room, Some(MINE), Policy::Merge)),
        ("delete", |_| Some(StateCommand::Put(put(None, Expect::Anything)))),
        ("delete, expect what was read, reject", |room| with(room, None, Policy::Reject)),
        ("delete, expect what was read, merge", |room| with(room, None, Policy::Merge)),
    ]
}

/// A lock that the hand took, and what happened since.
fn took(since: impl Fn(&mut Room)) -> Room {
    let mut room = Room::new();
    room.token = Some(room.lock("hand"));
    since(&mut room);
    room
}

fn pass(room: &mut Room, ms: u64) {
    room.ctx.now = room.ctx.now.plus_ms(ms);
}

fn locks() -> Vec<Row> {
    vec![
        ("never taken", || {
            let mut room = Room::new();
            room.token = Some(7);
            room
        }),
        ("held by the hand", || took(|room| pass(room, TTL_MS - 1))),
        ("its time is up", || took(|room| pass(room, TTL_MS))),
        ("held by another since", || {
            took(|room| {
                pass(room, TTL_MS);
                room.lock("another");
            })
        }),
        ("given back", || {
            took(|room| {
                let fence = fence(room.token.expect("was taken"));
                room.act(StateCommand::ReleaseLock { fence }).expect("is given back");
            })
        }),
    ]
}

fn turns() -> Vec<Ask> {
    vec![
        ("lock", |_| Some(lock("hand"))),
        ("renew", |room| {
            Some(StateCommand::RenewLock { fence: fence(room.token?), ttl_ms: TTL_MS })
        }),
        ("release", |room| Some(StateCommand::ReleaseLock { fence: fence(room.token?) })),
        ("put under it", |room| {
            let fence = Some(fence(room.token?));
            Some(StateCommand::Put(Put { fence, ..put(Some(MINE), Expect::Anything) }))
        }),
    ]
}

fn answer(room: &Room, decision: Result<Effects, Reject>) -> String {
    match decision {
        Ok(effects) => match effects.reply {
            Reply::Stored { changed, merged, .. } => {
                let what = if changed { "written" } else { "nothing to do" };
                let value = room.value().unwrap_or_else(|| "absent".into());
                format!("{what}{}: `{value}`", if merged { ", merged" } else { "" })
            }
            Reply::Locked { token, .. } => format!("held under {token}"),
            Reply::Done { changed: true } => "done".into(),
            Reply::Done { changed: false } => "nothing to do".into(),
            reply => format!("DEFECT: {reply:?}"),
        },
        Err(reject) => format!("refused: {reject}"),
    }
}

fn table(rows: &[Row], asks: &[Ask]) -> String {
    let mut text = String::from("| |");
    for (name, _) in rows {
        let _ = write!(text, " {name} |");
    }
    let _ = write!(text, "\n|---|{}", "---|".repeat(rows.len()));
    for (name, ask) in asks {
        let _ = write!(text, "\n| {name} |");
        for (_, build) in rows {
            let mut room = build();
            match ask(&room) {
                None => text.push_str("  |"),
                Some(command) => {
                    let decision = room.act(command);
                    let _ = write!(text, " {} |", answer(&room, decision));
                }
            }
        }
    }
    text
}

#[test]
fn every_command_against_every_standing() {
    let text = format!(
        "# Shared state: every command against every standing of a key\n\nIt held `{READ}` when it was read; `{MINE}` is put.\n\n{}\n\n\
         # Locks: every command against every standing of a lock\n\n{}\n",
        table(&keys(), &writes()),
        table(&locks(), &turns()),
    );
    assert!(!text.contains("DEFECT") && !text.contains("not loaded"), "{text}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/shared_state.md");
    if std::env::var_os("SEGUE_BLESS").is_some() {
        std::fs::write(path, &text).expect("the file is written");
    }
    let golden = std::fs::read_to_string(path).expect("the file is there");
    assert_eq!(text, golden, "the table changed: look at it, and write it with SEGUE_BLESS=1");
}

// ---- rules ----------------------------------------------------------------------------------

#[test]
fn the_policy_of_a_key_is_its_own_else_that_of_the_longest_prefix() {
    let mut room = Room::new();
    let set = |pattern: &str, policy| StateCommand::SetPolicy { pattern: pattern.into(), policy };
    let stale = |key: &str| {
        let mut put = put(Some("1"), Expect::Version(99));
        put.key = key.into();
        StateCommand::Put(put)
    };
    assert!(room.act(stale("a/b")).is_err(), "reject is what holds where nothing is said");
    room.act(set("*", Some(Policy::LastWriter))).unwrap();
    assert!(room.act(stale("a/b")).is_ok());
    room.act(set("a/*", Some(Policy::Reject))).unwrap();
    assert!(room.act(stale("a/b")).is_err());
    assert!(room.act(stale("c")).is_ok());
    room.act(set("a/b", Some(Policy::LastWriter))).unwrap();
    assert!(room.act(stale("a/b")).is_ok());
    assert!(room.act(stale("a/bc")).is_err());
    assert_eq!(room.act(set("a/*", None)).unwrap().reply, Reply::Done { changed: true });
    assert_eq!(room.act(set("a/*", None)).unwrap().reply, Reply::Done { changed: false });
    assert!(room.act(stale("a/bc")).is_ok());
    for number in 0..POLICIES_MAX - 2 {
        room.act(set(&format!("k{number}"), Some(Policy::Merge))).unwrap();
    }
    assert!(matches!(room.act(set("more", Some(Policy::Merge))), Err(Reject::Invalid(_))));
    room.act(set("k1", Some(Policy::Reject))).expect("one that is there may change");
}

#[test]
fn what_is_out_of_bounds_is_refused_before_anything_is_loaded() {
    let mut room = Room::new();
    let large = Payload::Stored { hash: Hash([1; 32]), size: VALUE_MAX + 1 };
    let bad_put = |change: fn(&mut Put)| {
        let mut put = put(Some("1"), Expect::Anything);
        change(&mut put);
        StateCommand::Put(put)
    };
    let mut too_large = put(Some("1"), Expect::Anything);
    too_large.value = Some(large);
    let of_lock = |name: &str, holder: &str, ttl_ms| StateCommand::Lock {
        name: name.into(),
        holder: holder.into(),
        ttl_ms,
    };
    let commands = vec![
        StateCommand::Put(too_large),
        bad_put(|put| put.key = "".into()),
        bad_put(|put| put.key = "a\0".into()),
        bad_put(|put| put.writer = Writer::person("")),
        bad_put(|put| put.fence = Some(Claim { name: "".into(), token: 1 })),
        StateCommand::SetPolicy { pattern: "a*b".into(), policy: None },
        of_lock("", "x", 1),
        of_lock("x", "\n", 1),
        of_lock("x", "x", 0),
        of_lock("x", "x", LOCK_TTL_MS_MAX + 1),
        StateCommand::RenewLock { fence: fence(1), ttl_ms: 0 },
    ];
    for command in commands {
        let snapshot = Default::default();
        let command = Command::State(Box::new(command));
        assert!(segue_core::scope::missing(&snapshot, &command, BEGIN).is_empty(), "{command:?}");
        let Command::State(command) = command else { unreachable!() };
        assert!(matches!(room.act(*command.clone()), Err(Reject::Invalid(_))), "{command:?}");
    }
}

#[test]
fn large_values_are_kept_and_not_merged() {
    let mut room = Room::new();
    let large = |n: u8| Payload::Stored { hash: Hash([n; 32]), size: DATABASE_MAX as u64 + 1 };
    let mut command = put(None, Expect::Anything);
    command.value = Some(large(1));
    room.act(StateCommand::Put(command.clone())).expect("is kept");
    command.expect = Expect::Absent;
    command.policy = Some(Policy::Merge);
    command.value = Some(text("{}"));
    let refused = room.act(StateCommand::Put(command)).unwrap_err();
    assert!(refused.to_string().contains("too large to be merged"), "{refused}");
}

#[test]
fn stamps_are_never_issued_twice_whatever_goes() {
    let mut room = Room::new();
    let one = room.put("1");
    let two = room.lock("hand");
    room.delete();
    room.act(StateCommand::ReleaseLock { fence: fence(two) }).unwrap();
    let three = room.lock("hand");
    let four = room.put("1");
    assert!(one < two && two < three && three < four, "{one} {two} {three} {four}");
}

// ---- any list of commands -------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Draw {
    key: u8,
    value: Option<u8>,
    /// How many versions back the writer has read; `None` takes nothing for granted.
    back: Option<usize>,
    policy: u8,
    lock: Option<u8>,
    ms: u64,
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let draw = (
        0..2_u8,
        prop::option::weighted(0.85, 0..4_u8),
        prop::option::of(0..4_usize),
        0..3_u8,
        prop::option::weighted(0.3, 0..3_u8),
        0..700_u64,
    );
    let draw = draw.prop_map(|(key, value, back, policy, lock, ms)| Draw {
        key,
        value,
        back,
        policy,
        lock,
        ms,
    });
    prop::collection::vec(draw, 1..150)
}

fn command(room: &Room, draw: &Draw, token: u64) -> StateCommand {
    match draw.lock {
        Some(0) => return lock("hand"),
        Some(1) => return StateCommand::RenewLock { fence: fence(token), ttl_ms: TTL_MS },
        Some(_) => return StateCommand::ReleaseLock { fence: fence(token) },
        None => {}
    }
    let key = format!("k{}", draw.key);
    let kept = room.world.state_keys.get(key.as_str()).cloned().unwrap_or_default();
    let expect = match draw.back {
        None => Expect::Anything,
        Some(back) => match kept.iter().rev().nth(back) {
            Some(version) => Expect::Version(*version),
            None => Expect::Absent,
        },
    };
    let value = draw.value.map(|n| text(&format!(r#"{{"m{}":{n},"same":1}}"#, n % 2)));
    let policy = [Policy::Reject, Policy::LastWriter, Policy::Merge][usize::from(draw.policy)];
    let fence = draw.ms.is_multiple_of(5).then(|| fence(token));
    StateCommand::Put(Put {
        key: key.into(),
        value,
        expect,
        policy: Some(policy),
        fence,
        ..put(None, expect)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// One key after another is compared with a plain map: a write that takes something for granted is accepted just where that is so, or
    /// where its policy allows more; a fence just where its token is the one given out last, and not over.
    #[test]
    fn writes_are_accepted_just_where_they_may_be(draws in draws()) {
        let mut room = Room::new();
        let mut newest: BTreeMap<String, (u64, Option<Payload>)> = BTreeMap::new();
        let (mut token, mut held_until, mut stamp) = (0, None, 0);
        for draw in draws {
            room.ctx.now = room.ctx.now.plus_ms(draw.ms);
            let held = held_until.is_some_and(|until| room.ctx.now < until);
            let command = command(&room, &draw, token);
            let decision = room.act(command.clone());
            match (&command, decision.map(|effects| effects.reply)) {
                (StateCommand::Lock { .. }, Ok(Reply::Locked { token: new, until })) => {
                    prop_assert!(!held && new > stamp);
                    (token, stamp, held_until) = (new, new, Some(until));
                }
                (StateCommand::RenewLock { .. }, Ok(Reply::Locked { token: same, until })) => {
                    prop_assert!(held && same == token);
                    held_until = Some(until);
                }
                (StateCommand::ReleaseLock { .. }, Ok(Reply::Done { changed })) => {
                    prop_assert_eq!(changed, held);
                    held_until = None;
                }
                (StateCommand::Put(put), reply) => {
                    let (version, value) = newest.get(&*put.key).cloned().unwrap_or_default();
                    let current = value.as_ref().map(|_| version);
                    let fits = match put.expect {
                        Expect::Anything => true,
                        Expect::Absent => current.is_none(),
                        Expect::Version(version) => current == Some(version),
                    };
                    let fenced = put.fence.is_some() && !held;
                    let refused = fenced || (!fits && put.policy == Some(Policy::Reject));
                    match reply {
                        Ok(Reply::Stored { version: new, changed, merged }) => {
                            prop_assert!(!refused);
                            prop_assert!(!merged || put.policy == Some(Policy::Merge));
                            if changed {
                                prop_assert!(new > stamp);
                                stamp = new;
                                let row = room.world.state[&new].clone();
                                prop_assert!(merged || row.value == put.value);
                                newest.insert(put.key.to_string(), (new, row.value));
                            } else {
                                prop_assert_eq!(new, version);
                            }
                        }
                        Ok(reply) => prop_assert!(false, "{:?}", reply),
                        Err(reject) => prop_assert!(refused || put.policy == Some(Policy::Merge), "{}", reject),
                    }
                }
                (_, Ok(reply)) => prop_assert!(false, "{:?}", reply),
                (StateCommand::Lock { .. }, Err(_)) => prop_assert!(held),
                (_, Err(_)) => prop_assert!(!held),
            }
        }
        for (key, (version, value)) in newest {
            let kept = &room.world.state_keys[key.as_str()];
            prop_assert_eq!(kept.last(), Some(&version));
            prop_assert_eq!(&room.world.state[&version].value, &value);
        }
    }

    #[test]
    fn a_batch_gives_the_same_rows_as_its_commands_one_by_one(draws in draws(), size in 1..20_usize) {
        let (mut single, mut whole) = (Room::new(), Room::new());
        for batch in draws.chunks(size) {
            let mut commands = Vec::new();
            let token = single.world.locks.get(LOCK).map_or(0, |lock| lock.token);
            for draw in batch {
                let command = command(&single, draw, token);
                let _ = single.act(command.clone());
                commands.push(Command::State(Box::new(command)));
            }
            whole.world.run(&commands, &mut whole.ctx);
            prop_assert_eq!(single.world.same_rows(&whole.world), Ok(()));
            let ms = batch[0].ms;
            pass(&mut single, ms);
            pass(&mut whole, ms);
        }
    }
}
