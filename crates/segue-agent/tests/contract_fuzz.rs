//! Whatever a program says, it is understood or refused in words; nothing panics.

use proptest::collection::vec;
use proptest::prelude::*;
use segue_agent::contract::{is_outcome, outcome};
use segue_agent::runner::End;
use segue_core::task::{ERROR_MESSAGE_MAX, ErrorClass};
use serde_json::{Map, Value, json};

/// One outcome of each kind, with everything that it can say.
fn samples() -> Vec<Value> {
    vec![
        json!({"segue": 1, "outcome": "complete", "output": {"n": [1, 2.5, null]}}),
        json!({"segue": 1, "outcome": "complete"}),
        json!({"segue": 1, "outcome": "complete", "state": {"put": [
            {"key": "plan/api", "value": {"a": [1, null]}, "expect": 7, "policy": "last-writer"},
            {"key": "done", "value": null, "expect": "absent"},
        ]}}),
        json!({"segue": 1, "outcome": "fail", "class": "rate_limited", "message": "later", "retry_after_ms": 1500}),
        json!({"segue": 1, "outcome": "fail", "message": "no"}),
        json!({"segue": 1, "outcome": "delegate", "resume": true, "continuation": {"left": 2}, "tasks": [
            {"key": "a", "agent": "x", "input": {"n": 1}},
            {"key": "b", "name": "B", "description": "the second", "capability": "count", "needs": ["a"],
             "input": {"n": "{{ tasks.a.output.n }}"}, "template": true, "priority": 7, "on_failure": "skip",
             "retry": {"attempts": 2, "base_ms": 10, "cap_ms": 100, "factor_percent": 150, "jitter": false, "lost_max": 3},
             "timeout_s": 0.5, "workspace": "worktree", "state_keys": ["plan/*"]},
        ]}),
    ]
}

/// Words of the contract and of its neighbours, so that what is made up is often nearly right.
fn words() -> impl Strategy<Value = String> {
    let known = [
        "segue",
        "outcome",
        "output",
        "complete",
        "fail",
        "delegate",
        "class",
        "message",
        "retry_after_ms",
        "tasks",
        "state",
        "state_keys",
        "put",
        "key",
        "value",
        "expect",
        "policy",
        "resume",
        "continuation",
        "key",
        "agent",
        "capability",
        "needs",
        "template",
        "priority",
        "on_failure",
        "retry",
        "attempts",
        "timeout_s",
        "workspace",
        "transient",
        "permanent",
        "high",
        "own",
        "cancelled",
        "segue_omitted",
    ];
    prop_oneof![3 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_u64..4).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((words(), inner), 0..6).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

/// A change of one place of a value.
#[derive(Clone, Debug)]
enum Change {
    Replace(Value),
    Remove,
    Add(String, Value),
}

fn changes() -> impl Strategy<Value = (usize, Change)> {
    let change = prop_oneof![
        values().prop_map(Change::Replace),
        Just(Change::Remove),
        (words(), values()).prop_map(|(name, value)| Change::Add(name, value)),
    ];
    (any::<usize>(), change)
}

/// The pointers of all places in a value.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| places(item, format!("{at}/{n}"), found));
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(field, format!("{at}/{name}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.push(at);
}

fn changed(mut value: Value, place: usize, change: Change) -> Value {
    let mut found = Vec::new();
    places(&value, String::new(), &mut found);
    let at = &found[place % found.len()];
    match change {
        Change::Replace(new) => *value.pointer_mut(at).unwrap() = new,
        Change::Add(name, new) => match value.pointer_mut(at).unwrap() {
            Value::Object(fields) => drop(fields.insert(name, new)),
            Value::Array(items) => items.push(new),
            other => *other = new,
        },
        Change::Remove => {
            let Some((around, name)) = at.rsplit_once('/') else { return Value::Null };
            match value.pointer_mut(around).unwrap() {
                Value::Object(fields) => {
                    drop(fields.remove(&name.replace("~1", "/").replace("~0", "~")))
                }
                Value::Array(items) => drop(items.remove(name.parse().unwrap())),
                _ => unreachable!("only these have parts"),
            }
        }
    }
    value
}

/// What must hold of any value.
fn check(value: &Value) {
    let understood = outcome(value.clone());
    if understood.is_ok() {
        assert!(is_outcome(value), "understood, and yet no outcome: {value}");
    }
    match understood.map(|told| told.end) {
        Ok(End::Complete(text)) => {
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value["output"]);
        }
        Ok(End::Fail { error, .. }) => {
            assert!(!error.message.trim().is_empty(), "a failure without a reason: {value}");
            assert!(error.message.len() <= ERROR_MESSAGE_MAX);
        }
        Ok(End::Delegate { tasks, continuation, .. }) => {
            assert_eq!(tasks.len(), value["tasks"].as_array().unwrap().len());
            for (task, input) in &tasks {
                serde_json::from_str::<Value>(input).unwrap();
                assert_ne!(task.timeouts.run_ms, Some(0), "a limit that nobody can keep: {value}");
                assert!(task.retry.attempts > 0, "no attempt at all: {value}");
            }
            if let Some(text) = continuation {
                assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value["continuation"]);
            }
        }
        Ok(End::Cancelled) => panic!("nobody can say that it was cancelled: {value}"),
        Err(error) => {
            assert_eq!(error.class, ErrorClass::InvalidOutput);
            assert!(error.message.len() <= ERROR_MESSAGE_MAX);
            let says_where = ["the outcome ", "the delegated task `"];
            assert!(
                says_where.iter().any(|begin| error.message.contains(begin)),
                "{}",
                error.message
            );
        }
    }
}

#[test]
fn the_samples_are_understood() {
    for value in samples() {
        assert!(outcome(value.clone()).is_ok(), "{value}: {:?}", outcome(value.clone()));
        check(&value);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let task = |field: &str, value: Value| {
        let mut task = json!({"key": "a", "agent": "x"});
        task[field] = value;
        json!({"segue": 1, "outcome": "delegate", "tasks": [task]})
    };
    let put = |put: Value| json!({"segue": 1, "outcome": "complete", "state": {"put": [put]}});
    let cases = [
        (json!({"segue": 1, "outcome": "completed"}), "unknown variant `completed`"),
        (json!({"segue": 1, "outcome": "fail"}), "missing field `message`"),
        (
            json!({"segue": 1, "outcome": "fail", "message": "x", "class": "cancelled"}),
            "unknown variant `cancelled`",
        ),
        (json!({"segue": 1, "outcome": "fail", "message": "x", "retry_after_ms": -1}), "`-1`"),
        (json!({"segue": 1, "outcome": "complete", "result": 1}), "unknown field `result`"),
        (json!({"segue": 1, "outcome": "delegate"}), "missing field `tasks`"),
        (json!({"segue": 1, "outcome": "fail", "message": "x", "state": {}}), "field `state`"),
        (put(json!({"key": "a"})), "missing field `value`"),
        (put(json!({"key": "a", "value": 1, "expect": -1})), "a version, or \"absent\""),
        (put(json!({"key": "a", "value": 1, "expect": "soon"})), "a version, or \"absent\""),
        (put(json!({"key": "a", "value": 1, "policy": "loudest"})), "variant `loudest`"),
        (put(json!({"key": "a", "value": 1, "expects": 1})), "unknown field `expects`"),
        (put(json!([])), "the outcome cannot be understood"),
        (json!({"outcome": "complete"}), "names no version"),
        (json!({"segue": "1", "outcome": "complete"}), "version \"1\""),
        (json!([1]), "names no version"),
        (task("retry", json!({"atempts": 2})), "unknown field `atempts`"),
        (task("retry", json!({"attempts": 0})), "`attempts` of the delegated task `a` is 0"),
        (task("timeout_s", json!(0)), "`timeout_s` of the delegated task `a` is 0"),
        (task("timeout_s", json!(-2.5)), "`timeout_s` of the delegated task `a` is -2.5"),
        (task("timeout_s", json!(1e300)), "`timeout_s` of the delegated task `a` is"),
        (task("capability", json!("y")), "either an `agent` or a `capability`"),
    ];
    for (value, said) in cases {
        let error = outcome(value.clone()).map(|_| ()).unwrap_err();
        assert!(error.message.contains(said), "{value}: {said:?} is not in {:?}", error.message);
        check(&value);
    }
}

#[test]
fn the_shortest_time_limit_is_a_millisecond() {
    let value = json!({"segue": 1, "outcome": "delegate", "tasks": [{"key": "a", "agent": "x", "timeout_s": 1e-9}]});
    let Ok(End::Delegate { tasks, .. }) = outcome(value).map(|told| told.end) else {
        panic!("it is fine")
    };
    assert_eq!(tasks[0].0.timeouts.run_ms, Some(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_value_is_understood_or_refused(value in values()) {
        check(&value);
    }

    #[test]
    fn nearly_right_outcomes_are_understood_or_refused(
        sample in 0..5_usize,
        edits in vec(changes(), 1..4),
    ) {
        let mut value = samples().swap_remove(sample);
        for (place, change) in edits {
            value = changed(value, place, change);
        }
        check(&value);
    }
}
