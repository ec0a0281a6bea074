//! What agents get by their tasks alone, shared state and traces, by the real binary.

mod common;

use common::Place;
use serde_json::{Value, json};

const CONFIG: &str = include_str!("data/keeper/segue.toml");
const KEEPER: &str = include_str!("data/keeper/keeper.py");

fn a_place() -> Place {
    let place = Place::with(CONFIG);
    place.write("keeper.py", KEEPER);
    place
}

impl Place {
    /// The value under a key.
    fn value(&self, key: &str) -> Value {
        self.ok(&["state", "get", key]).json()
    }

    /// Submits a task with this input, waits, and gives it as `segue show` has it.
    fn done(&self, input: &Value, more: &[&str]) -> Value {
        self.write("input.json", &input.to_string());
        let args = ["--agent", "keeper", "-i", "@input.json"];
        let id = self.submit(&[&args, more].concat());
        self.segue(&["watch", &id, "--quiet"]);
        self.show(&id)
    }
}

#[test]
fn a_workflow_reads_state_and_its_agents_write_it() {
    let place = a_place();
    place.ok(&["state", "put", "plan/api", r#"{"owner": "anna", "parts": ["a", "b"]}"#]);
    place.write(
        "flow.yaml",
        r#"
name: count
tasks:
  first:
    agent: keeper
    state_keys: [counts/one, 'plan/*']
    input:
      count: counts/one
      owner: "{{ state['plan/api'].owner }}"
      style: "{{ state.style | default('short') }}"
  second:
    agent: keeper
    needs: first
    state_keys: counts/*
    when: state['counts/one'] == 1
    input: {count: counts/one, seen: "{{ state['counts/one'] }}"}
  each:
    agent: keeper
    for_each: state['plan/api'].parts
    state_keys: counts/*
    input: {count: "counts/{{ item }}"}
output:
  first: "{{ tasks.first.output }}"
  second: "{{ tasks.second.output }}"
  count: "{{ state['counts/one'] }}"
"#,
    );
    let output = place.ok(&["run", "flow.yaml"]).json();
    let first = &output["first"];
    assert_eq!(first["input"]["owner"], "anna", "{output:#}");
    assert_eq!(first["input"]["style"], "short");
    let given = &first["state"];
    assert_eq!(given["keys"], json!(["counts/one", "plan/*"]));
    assert_eq!(given["values"]["plan/api"]["value"]["owner"], "anna");
    assert!(given["values"]["plan/api"]["version"].is_u64());
    assert!(given["values"].get("counts/one").is_none(), "it was not there yet: {given:#}");
    // What the template read was made before the task; what the attempt was given, with it.
    assert_eq!(output["second"]["input"]["seen"], 1);
    assert_eq!(output["second"]["state"]["values"]["counts/one"]["value"], 1);
    assert_eq!(output["count"], 2);
    for key in ["counts/a", "counts/b"] {
        assert_eq!(place.value(key), 1);
    }
    let history = place.ok(&["state", "history", "counts/one", "--json"]).json();
    let writer = &history["versions"][0]["writer"];
    let task = place.show(writer["task"].as_str().expect("a task wrote it"));
    assert_eq!(task["attempts"][0]["id"], writer["attempt"]);
}

#[test]
fn a_key_that_is_not_there_and_one_that_is_not_written_out_are_errors() {
    let place = a_place();
    let flow = |text: &str| {
        place.write(
            "flow.yaml",
            &format!("tasks:\n  only:\n    agent: keeper\n    input: {{x: \"{text}\"}}\n"),
        );
        place.segue(&["run", "flow.yaml", "--quiet"]).err
    };
    let said = flow("{{ state['plan/api'].owner }}");
    assert!(said.contains("there is no key `plan/api` in the shared state"), "{said}");
    assert!(said.contains("default(..)"), "{said}");
    let said = flow("{{ state[run.id] }}");
    assert!(said.contains("must be written out"), "{said}");
    let said = flow("{{ state }}");
    assert!(said.contains("`state` alone cannot be read"), "{said}");
    let said = flow("{{ state['a b'] }}");
    assert!(said.contains("is no key"), "{said}");
    place.write(
        "flow.yaml",
        "tasks:\n  only:\n    agent: keeper\n    state_keys: [ok, 'a b', 7]\n    input: {}\n",
    );
    let said = place.segue(&["run", "flow.yaml"]).with(2).err;
    assert!(said.contains("`a b` is no key") && said.contains("a key is expected"), "{said}");
}

#[test]
fn what_an_agent_may_not_write_is_not_written() {
    let place = a_place();
    place.ok(&["state", "put", "plan/api", "1"]);
    let up = place.up(&[]);
    let say = |put: Value| json!({"say": {"outcome": "complete", "state": {"put": put}}});
    let one = |key: &str| json!([{"key": "plan/new", "value": 1}, {"key": key, "value": 2}]);
    let may = ["--state-key", "plan/*", "--retry-attempts", "1"];
    let cases = [
        (say(one("other")), &may[..], "permanent", "`other`"),
        (say(one("plan/new")), &may, "invalid_output", "twice"),
        (say(one("plan//x")), &may, "invalid_output", "is no key"),
        (say(json!([{"key": "plan/new"}])), &may, "invalid_output", "missing field `value`"),
        (say(json!("all of it")), &may, "invalid_output", "cannot be understood"),
        (
            say(
                json!([{"key": "plan/new", "value": 1}, {"key": "plan/api", "value": 2, "expect": "absent"}]),
            ),
            &may,
            "transient",
            "is at version 1",
        ),
        // Nothing is allowed that is not declared.
        (say(one("plan/x")), &["--retry-attempts", "1"], "permanent", "`state_keys` are empty"),
    ];
    for (input, more, class, part) in cases {
        let shown = place.done(&input, more);
        let error = &shown["task"]["error"];
        assert_eq!(error["class"], class, "{input}: {error:#}");
        assert!(error["message"].as_str().unwrap().contains(part), "{input}: {error:#}");
        place.segue(&["state", "get", "plan/new"]).with(2);
    }
    let mut large = say(json!([{"key": "plan/new", "value": 0}]));
    large["large"] = json!(5 << 20);
    let shown = place.done(&large, &may);
    let message = shown["task"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("at most 4194304"), "{message}");
    // One that is large and fits comes through, whole.
    large["large"] = json!(1 << 20);
    assert_eq!(place.done(&large, &may)["task"]["state"], "completed");
    assert_eq!(place.value("plan/new").as_str().map(str::len), Some(1 << 20));
    up.terminate();
}

#[test]
fn a_conflict_is_tried_again_with_what_stands_there_then() {
    let place = a_place();
    let up = place.up(&[]);
    let put = json!([{"key": "count", "value": 9, "expect": "absent", "policy": "reject"}]);
    let input = json!({"say": {"outcome": "complete", "state": {"put": put}}});
    assert_eq!(place.done(&input, &["--state-key", "count"])["task"]["state"], "completed");
    let shown = place.done(&input, &["--state-key", "count", "--retry-attempts", "2"]);
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(2), "{shown:#}");
    assert_eq!(shown["attempts"][0]["error"]["class"], "transient");
    // One that goes by what it is given counts on.
    let shown = place.done(&json!({"count": "count"}), &["--state-key", "count"]);
    assert_eq!(shown["task"]["state"], "completed", "{shown:#}");
    assert_eq!(place.value("count"), 10);
    up.terminate();
}

#[test]
fn what_is_delegated_uses_what_was_handed_on_and_no_more() {
    let place = a_place();
    place.ok(&["state", "put", "plan/api", r#"{"owner": "anna"}"#]);
    place.ok(&["state", "put", "secret", "\"hidden\""]);
    let up = place.up(&[]);
    let delegate = |keys: Value, template: &str| {
        let input = json!({"count": "plan/count", "read": template});
        let part = json!({"key": "part", "agent": "keeper", "template": true, "state_keys": keys, "input": input});
        json!({"say": {"outcome": "delegate", "tasks": [part]}})
    };
    let may = ["--state-key", "plan/*"];
    let shown = place.done(&delegate(json!(["plan/*"]), "{{ state['plan/api'].owner }}"), &may);
    assert_eq!(shown["task"]["state"], "completed", "{shown:#}");
    let output = &shown["output"]["value"]["part"];
    assert_eq!(output["input"]["read"], "anna", "{shown:#}");
    assert_eq!(output["state"]["keys"], json!(["plan/*"]));
    assert_eq!(place.value("plan/count"), 1);
    // Reading by a template is no way round, and neither is asking for more.
    let shown = place.done(&delegate(json!(["plan/count"]), "{{ state.secret }}"), &may);
    let message = shown["task"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("`secret`") && message.contains("state_keys"), "{message}");
    let shown = place.done(&delegate(json!(["secret"]), "x"), &may);
    let message = shown["task"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("`secret`") && message.contains("may not use itself"), "{message}");
    up.terminate();
}

const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[test]
fn a_trace_goes_from_whoever_asks_through_every_attempt() {
    let place = a_place();
    let up = place.up(&[]);
    let input = json!({"count": "n"});
    // Nobody traces: the run has a trace of its own.
    let shown = place.done(&input, &["--state-key", "n"]);
    let run = shown["task"]["id"].as_str().unwrap().replace('-', "");
    assert_eq!((&shown["trace"], &shown["traceparent"]), (&json!(run), &Value::Null));
    let span = shown["attempts"][0]["traceparent"].as_str().unwrap();
    let attempt = shown["attempts"][0]["id"].as_str().unwrap().replace('-', "");
    assert_eq!(span, format!("00-{run}-{}-03", &attempt[16..]));
    assert_eq!(shown["output"]["value"]["traceparent"], span, "its program has it: {shown:#}");
    let told = |id: &Value| {
        let text = place.ok(&["events", id.as_str().unwrap(), "--json"]).out;
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut assigned = events.filter(|event| event["event"] == "assigned");
        assigned.next().expect("it was given out")["traceparent"].clone()
    };
    assert_eq!(told(&shown["task"]["id"]), span);
    // Somebody traces: by the option, and in what is delegated.
    let part = json!({"key": "part", "agent": "keeper", "state_keys": ["n"], "input": input});
    let split = json!({"say": {"outcome": "delegate", "tasks": [part]}});
    let shown = place.done(&split, &["--state-key", "n", "--traceparent", SPAN]);
    assert_eq!((&shown["trace"], &shown["traceparent"]), (&json!(&SPAN[3..35]), &json!(SPAN)));
    let child = place.show(shown["children"][0]["id"].as_str().unwrap());
    assert_eq!((&child["trace"], &child["traceparent"]), (&shown["trace"], &shown["traceparent"]));
    let (above, below) =
        (&shown["attempts"][0]["traceparent"], &child["attempts"][0]["traceparent"]);
    assert_ne!(above, below);
    for span in [above, below] {
        let span = span.as_str().unwrap();
        assert!(span.starts_with(&SPAN[..36]) && span.ends_with("-00"), "{span}");
    }
    assert_eq!(&child["output"]["value"]["traceparent"], below);
    assert_eq!(told(&child["task"]["id"]), *below);
    up.terminate();
}

#[test]
fn a_span_comes_by_variable_or_header_and_a_wrong_one_is_refused() {
    let place = a_place();
    let submit = |span: &str, more: &[&str]| {
        let args = ["submit", "--agent", "keeper", "-i", "count=n", "--allow-missing"];
        let mut command = place.command(&[&args, more].concat());
        common::came(command.env("TRACEPARENT", span))
    };
    let given = |id: &str| place.show(id)["traceparent"].clone();
    let came = submit(SPAN, &[]).with(0);
    assert_eq!(given(came.out.trim()), SPAN);
    let other = SPAN.replace("4bf92f", "4bf92e");
    let came = submit(SPAN, &["--traceparent", &other]).with(0);
    assert_eq!(given(came.out.trim()), other);
    // A variable that is set to nothing is not set.
    assert_eq!(given(submit("", &[]).with(0).out.trim()), Value::Null);
    let wrong =
        [&SPAN.to_uppercase(), "00-0-0-00", &SPAN.replace("4bf92f", "4bf92g"), "\u{1b}[31m"];
    for span in wrong {
        let came = submit(span, &[]).with(2);
        assert!(came.err.contains("is no traceparent"), "{came:#?}");
        assert!(came.err.contains("variable TRACEPARENT"), "{came:#?}");
        let came = place.segue(&["run", "--goal", "x", "--agent", "keeper", "--traceparent", span]);
        assert!(came.with(2).err.contains("is no traceparent"));
    }
    let up = place.up(&[]);
    let body = json!({"agent": "keeper", "input": {"count": "n"}, "state_keys": ["n"]}).to_string();
    let send = |headers: &str| place.http_with("POST /v1/tasks", headers, &body);
    let (status, answer) = send(&format!("Traceparent: {SPAN}\r\n"));
    assert_eq!(status, 201, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(given(answer["id"].as_str().unwrap()), SPAN);
    for wrong in ["traceparent: 00-1-2-3\r\n", "traceparent: \r\n", "traceparent: \u{e9}\r\n"] {
        let (status, answer) = send(wrong);
        assert!([400, 422].contains(&status) && answer.contains("is no traceparent"), "{answer}");
    }
    let (status, answer) = send(&format!("traceparent: {SPAN}\r\ntraceparent: {SPAN}\r\n"));
    assert!([400, 422].contains(&status) && answer.contains("several"), "{answer}");
    up.terminate();
}
