//! The wire format: what is sent is what its schema says, and whatever comes in is read or refused, never worse.

use jsonschema::Validator;
use proptest::prelude::*;
use segue_bus::wire::{self, Expected};
use segue_core::ids::HostId;
use segue_core::letter::{Address, Letter};
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
        which in 0_usize..10,
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
        which in 0_usize..10,
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
