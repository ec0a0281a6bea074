//! The JSON Schema of workflow files and the reader agree.

use std::collections::{BTreeMap, BTreeSet};

use segue_core::workflow;
use serde_json::{Value, json};

/// A value for every key of every map, by the map and the key. It differs from the default.
fn values() -> BTreeMap<&'static str, Vec<(&'static str, Value)>> {
    BTreeMap::from([
        (
            "",
            vec![
                ("name", json!("n")),
                ("description", json!("d")),
                ("input", json!({"goal": "string"})),
                ("output", json!("{{ tasks.t.output }}")),
                ("timeout", json!("1h30m")),
                ("max_parallel", json!(3)),
                ("tasks", json!({"t": {"agent": "y"}})),
            ],
        ),
        (
            "task",
            vec![
                ("agent", json!("y")),
                ("capability", json!("c")),
                ("description", json!("d")),
                ("prompt", json!("p {{ run.id }}")),
                ("input", json!({"a": 1})),
                ("needs", json!(["other"])),
                ("when", json!("tasks.other.output.ok")),
                ("for_each", json!("[1, 2]")),
                ("max_parallel", json!(3)),
                ("retry", json!(5)),
                ("timeout", json!(90)),
                ("priority", json!("high")),
                ("on_failure", json!("skip")),
                ("workspace", json!("worktree")),
                ("state_keys", json!(["plan/*", "done"])),
            ],
        ),
        (
            "input",
            vec![
                ("type", json!("integer")),
                ("description", json!("d")),
                ("required", json!(false)),
                ("default", json!(5)),
                ("enum", json!([1, 2])),
            ],
        ),
        (
            "retry",
            vec![
                ("attempts", json!(7)),
                ("base", json!("5s")),
                ("factor", json!(1.5)),
                ("cap", json!("10m")),
                ("jitter", json!("none")),
            ],
        ),
        ("timeout", vec![("queue", json!("5s")), ("run", json!(2.5))]),
    ])
}

/// A workflow with one map that has the given keys, and nothing else that matters.
fn file(map: &str, entries: &[(&str, Value)]) -> Value {
    let given: serde_json::Map<String, Value> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut file = json!({"tasks": {"t": {"agent": "x"}, "other": {"agent": "x"}}});
    let task = |file: &mut Value, key: &str, value: Value| file["tasks"]["t"][key] = value;
    match map {
        "" => file.as_object_mut().unwrap().extend(given),
        "task" => {
            if given.contains_key("capability") {
                file["tasks"]["t"] = json!({});
            }
            if given.contains_key("max_parallel") {
                task(&mut file, "for_each", json!("[1]"));
            }
            file["tasks"]["t"].as_object_mut().unwrap().extend(given);
        }
        "input" => file["input"] = json!({"i": Value::Object(given)}),
        other => task(&mut file, other, Value::Object(given)),
    }
    file
}

fn read(file: &Value) -> Value {
    let text = file.to_string();
    match workflow::parse(text.as_bytes()) {
        Ok(checked) => serde_json::to_value(checked.workflow).unwrap(),
        Err(wrong) => panic!("{}", wrong.render("flow.json", &text, false)),
    }
}

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&workflow::json_schema()).expect("the schema is one")
}

#[test]
fn the_schema_is_a_schema() {
    assert!(jsonschema::draft202012::meta::is_valid(&workflow::json_schema()));
}

#[test]
fn the_reader_knows_and_uses_every_key_of_the_schema() {
    let schema = workflow::json_schema();
    let validator = validator();
    for (map, values) in values() {
        let object = if map.is_empty() { &schema } else { &schema["$defs"][map] };
        let in_schema: BTreeSet<&str> =
            object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let tested: BTreeSet<&str> = values.iter().map(|(key, _)| *key).collect();
        assert_eq!(in_schema, tested, "keys of {map:?}");
        let base_file =
            if map == "task" { file(map, &[("for_each", json!("[1]"))]) } else { file(map, &[]) };
        for entry in values {
            let with_key = file(map, std::slice::from_ref(&entry));
            assert!(validator.is_valid(&with_key), "{map}.{}: {with_key}", entry.0);
            let differs = read(&with_key) != read(&base_file);
            assert!(differs, "{map}.{} changes nothing", entry.0);
            let description = &object["properties"][entry.0]["description"];
            assert!(description.as_str().is_some_and(|text| text.len() > 10), "{map}.{}", entry.0);
        }
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let validator = validator();
    let task = |task: Value| json!({"tasks": {"t": task}});
    let wrong = [
        json!({}),
        json!([]),
        json!({"tasks": []}),
        json!({"tasks": {}}),
        json!({"tasks": {"1": {"agent": "x"}}}),
        json!({"tasks": {"a b": {"agent": "x"}}}),
        json!({"nmae": "x", "tasks": {"t": {"agent": "x"}}}),
        json!({"tasks": {"t": {"agent": "x"}}, "timeout": "5min"}),
        json!({"tasks": {"t": {"agent": "x"}}, "timeout": 0}),
        json!({"tasks": {"t": {"agent": "x"}}, "input": {"a": "strng"}}),
        task(json!({})),
        task(json!(null)),
        task(json!({"agent": "x", "capability": "y"})),
        task(json!({"agent": "x", "agnet": "y"})),
        task(json!({"agent": "x", "needs": [1]})),
        task(json!({"agent": "x", "needs": {}})),
        task(json!({"agent": "x", "priority": 4})),
        task(json!({"agent": "x", "priority": "urgent"})),
        task(json!({"agent": "x", "retry": 0})),
        task(json!({"agent": "x", "retry": {"attempts": 0}})),
        task(json!({"agent": "x", "retry": {"jiter": "full"}})),
        task(json!({"agent": "x", "timeout": {"qeue": 1}})),
        task(json!({"agent": "x", "when": 5})),
        task(json!({"agent": "x", "for_each": [1]})),
        task(json!({"agent": "x", "max_parallel": 2})),
        task(json!({"agent": "x", "on_failure": "ignore"})),
        task(json!({"agent": "x", "workspace": "here"})),
        task(json!({"agent": "x", "state_keys": [7]})),
        task(json!({"agent": "x", "state_keys": {"a": 1}})),
        task(json!({"agent": "x", "state_keys": ""})),
    ];
    for file in wrong {
        assert!(!validator.is_valid(&file), "the schema takes {file}");
        assert!(workflow::parse(file.to_string().as_bytes()).is_err(), "the reader takes {file}");
    }
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    let validator = validator();
    for duration in ["90s", "5m", "1h30m", "1h 30m", "250ms", "1.5h", "2d", "90"] {
        let file = json!({"timeout": duration, "tasks": {"t": {"agent": "x"}}, "x-any": [1]});
        assert!(validator.is_valid(&file), "{duration}");
        read(&file);
    }
    let file = json!({"input": {"a": null, "b": "any", "c-d": {}}, "tasks": {"my-task": {"agent": "x", "needs": "other", "when": false, "priority": 10}, "other": {"capability": "c", "input": []}}});
    assert!(validator.is_valid(&file));
    read(&file);
}
