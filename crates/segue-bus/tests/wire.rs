//! The wire format: what is sent is what its schema says, and whatever comes in is read or refused, never worse.

use jsonschema::Validator;
use proptest::prelude::*;
use segue_bus::wire::{self, Expected};
use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::ids::{HostId, ProjectId};
use segue_core::letter::{Address, Letter};
use segue_core::payload::Hash;
use segue_core::time::Time;
use segue_core::worker::{Answer, Asked, BODY_MAX, PART_MAX, Part, Say, Who, host_of, instance_of};
use segue_testkit::bus_suite::{letter, one_of_each};
use serde_json::{Value, json};
use std::sync::LazyLock;
use uuid::Uuid;

const SCHEMA: &str = include_str!("../../../docs/wire.schema.json");
const PROJECT: &str = "demo";

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "the schema is one");
    jsonschema::validator_for(&schema).unwrap()
});

fn host() -> Address {
    Address::Host(HostId(Uuid::from_u128(1)))
}

fn message(letters: &[Letter]) -> Vec<u8> {
    let texts: Vec<_> =
        letters.iter().map(|letter| wire::letter_text(PROJECT, letter).unwrap()).collect();
    wire::message(texts.iter().map(Vec::as_slice), false)
}

fn read(data: &[u8]) -> Result<Vec<Result<Letter, String>>, String> {
    let expected = Expected { project: PROJECT, to: None, bytes_max: 1 << 20, from_engine: None };
    let message = wire::read(data, &expected).map_err(|bad| bad.reason)?;
    Ok(message.letters.into_iter().map(|found| found.letter.map_err(|bad| bad.reason)).collect())
}

/// Whether every letter of it is one.
fn is_read(data: &[u8]) -> bool {
    read(data).is_ok_and(|letters| letters.iter().all(Result::is_ok))
}

#[test]
fn what_is_sent_is_what_the_schema_says_and_comes_back_whole() {
    let letters: Vec<Letter> =
        [host(), Address::Engine, Address::Agent("é b".into()), Address::All]
            .iter()
            .flat_map(one_of_each)
            .collect();
    let data = message(&letters);
    let value: Value = serde_json::from_slice(&data).unwrap();
    let errors: Vec<String> = VALIDATOR
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let came: Vec<Letter> = read(&data).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(came, letters);
}

#[test]
fn a_traceparent_stands_in_the_letter_and_a_wrong_one_counts_as_none() {
    let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = Letter { traceparent: span.parse().ok(), ..one_of_each(&host()).remove(0) };
    let data = message(std::slice::from_ref(&sent));
    let mut value: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(value["letters"][0]["traceparent"], span);
    for wrong in [json!(""), json!("00-0-0-0"), json!(span.to_uppercase()), Value::Null] {
        value["letters"][0]["traceparent"] = wrong;
        let came = read(value.to_string().as_bytes()).unwrap().remove(0).unwrap();
        assert_eq!(came, Letter { traceparent: None, ..sent.clone() });
    }
}

/// The schema of one of its definitions.
fn definition(name: &str) -> Validator {
    let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let definitions = schema["$defs"].take();
    let schema = json!({ "$ref": format!("#/$defs/{name}"), "$defs": definitions });
    jsonschema::validator_for(&schema).unwrap()
}

fn questions() -> Vec<Say> {
    let who = Who { name: "red-1.eu".into(), version: "1".into(), machine: String::new() };
    let host = host_of(ProjectId(Uuid::from_u128(8)), &who.name);
    let agent = AgentSpec {
        instance: instance_of(host, "é"),
        name: "é".into(),
        kind: AgentKind::Codex,
        description: "reviews".into(),
        capabilities: vec![Capability { name: "review".into(), ..Capability::default() }].into(),
        max_concurrency: 0,
        delegates: true,
    };
    let (hash, agents) = (Hash::of(b"a"), vec![agent.instance]);
    vec![
        Say::Hello { who: who.clone(), agents: vec![agent], lease_ms: 3_000 },
        Say::Beat { who, load: 0.25, running: 7, agents, lease_ms: u64::MAX },
        Say::Bye { reason: "\u{1F44B}".into() },
        Say::Get { hash, offset: u64::MAX },
        Say::Put { part: Part(vec![0; PART_MAX]) },
        Say::Join { hash, size: BODY_MAX, parts: vec![hash, hash] },
    ]
}

fn answers() -> Vec<Answer> {
    let reason = || "because".to_owned();
    vec![
        Answer::Done { now: Time(1), lease_ms: 3_000, leave: true },
        Answer::Again { now: Time(-1), reason: reason() },
        Answer::Part { size: 3, offset: 0, part: Part(b"abc".to_vec()) },
        Answer::Refused { reason: reason() },
        Answer::Later { reason: reason() },
    ]
}

#[test]
fn what_workers_say_and_are_answered_is_what_the_schema_says() {
    let (asked, answer) = (definition("asked"), definition("answer"));
    for say in questions() {
        let value = serde_json::to_value(Asked { reply: Uuid::from_u128(1), say }).unwrap();
        assert!(asked.is_valid(&value) && !answer.is_valid(&value), "{value}");
        let without = |field: &str| {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(field);
            less
        };
        for field in value.as_object().unwrap().keys() {
            // What the schema does without, readers do without.
            let less = without(field);
            let is_read = serde_json::from_value::<Asked>(less.clone()).is_ok();
            assert!(is_read || !asked.is_valid(&less), "{less}");
        }
    }
    for said in answers() {
        let value = serde_json::to_value(said).unwrap();
        assert!(answer.is_valid(&value) && !asked.is_valid(&value), "{value}");
    }
}

#[test]
fn each_letter_says_where_it_stands() {
    let letters = [letter(&host(), 1), letter(&host(), 2)];
    let data = message(&letters);
    let expected =
        Expected { project: PROJECT, to: Some(&host()), bytes_max: 1 << 20, from_engine: None };
    let found = wire::read(&data, &expected).unwrap();
    for (found, letter) in found.letters.iter().zip(&letters) {
        assert_eq!(data[found.at.clone()], wire::letter_text(PROJECT, letter).unwrap());
    }
}

#[test]
fn fields_that_nobody_knows_are_no_reason_to_refuse() {
    let mut value: Value = serde_json::from_slice(&message(&one_of_each(&host()))).unwrap();
    value["later"] = json!({ "a": [1] });
    for letter in value["letters"].as_array_mut().unwrap() {
        letter["later"] = json!(null);
        letter["body"]["later"] = json!("x");
    }
    assert!(VALIDATOR.is_valid(&value));
    assert!(is_read(value.to_string().as_bytes()));
}

#[test]
fn what_the_schema_refuses_is_refused() {
    let good: Value = serde_json::from_slice(&message(&[letter(&host(), 1)])).unwrap();
    let bad: [(&str, Value); 12] = [
        ("/version", json!(2)),
        ("/version", json!("1")),
        ("/letters", json!([])),
        ("/letters", json!({})),
        ("/letters/0", json!([])),
        ("/letters/0/project", json!(null)),
        ("/letters/0/version", json!(42)),
        ("/letters/0/from", json!("x".repeat(257))),
        ("/letters/0/to", json!("nobody")),
        ("/letters/0/to", json!({ "host": "not an id" })),
        ("/letters/0/hops", json!(-1)),
        ("/letters/0/body", json!({ "type": "query" })),
    ];
    assert!(VALIDATOR.is_valid(&good) && is_read(good.to_string().as_bytes()));
    for (at, value) in bad {
        let mut message = good.clone();
        *message.pointer_mut(at).unwrap() = value.clone();
        assert!(!VALIDATOR.is_valid(&message), "{at}: {value}");
        assert!(!is_read(message.to_string().as_bytes()), "{at}: {value}");
    }
}

/// Every place in a JSON value.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(value, format!("{at}/{name}"), all);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                places(value, format!("{at}/{i}"), all);
            }
        }
        _ => {}
    }
    all.push(at);
}

fn other_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!({})),
        Just(json!("engine")),
        Just(json!(1.5)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        ".{0,300}".prop_map(|text| json!(text)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_worse_than_refused(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&data);
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(
        which in 0_usize..11,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut data = message(&one_of_each(&host())[which..=which]);
        for (at, byte) in damage {
            let at = at.index(data.len());
            data[at] = byte;
        }
        data.truncate(cut.index(data.len()) + 1);
        let _ = read(&data);
    }

    /// Whatever value stands anywhere in a message: what is taken for letters is what the schema allows.
    #[test]
    fn whatever_is_read_is_what_the_schema_says(
        which in 0_usize..11,
        at in any::<prop::sample::Index>(),
        value in other_value(),
    ) {
        let data = message(&one_of_each(&host())[which..=which]);
        let mut message: Value = serde_json::from_slice(&data).unwrap();
        let mut all = Vec::new();
        places(&message, String::new(), &mut all);
        let at = at.get(&all);
        *message.pointer_mut(at).unwrap() = value;
        let text = message.to_string();
        prop_assert!(!is_read(text.as_bytes()) || VALIDATOR.is_valid(&message), "{at}: {text}");
    }
}
