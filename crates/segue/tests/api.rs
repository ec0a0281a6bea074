//! The REST API as its users meet it: over the socket, in raw HTTP.

mod common;

use common::Place;
use serde_json::{Value, json};

fn value(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn tasks_are_submitted_listed_and_shown() {
    let place = Place::new();
    let up = place.up(&[]);
    let body =
        json!({"agent": "echo", "input": {"n": 1}, "priority": "high", "timeout_ms": 60_000});
    let (status, body) = place.http("POST /v1/tasks", &body.to_string());
    assert_eq!(status, 201, "{body}");
    let id = value(&body)["id"].as_str().unwrap().to_owned();
    place.ok(&["watch", &id, "--quiet"]);
    let (status, body) = place.http(&format!("GET /v1/tasks/{id}"), "");
    assert_eq!((status, &value(&body)["output"]["value"]), (200, &json!({"n": 1})));
    let (status, body) = place.http(&format!("GET /v1/tasks/{id}/output"), "");
    assert_eq!((status, body.as_str()), (200, r#"{"n":1}"#));
    let (status, body) = place.http("GET /v1/tasks?state=completed,failed&agent=echo&limit=5", "");
    assert_eq!((status, value(&body)["tasks"].as_array().unwrap().len()), (200, 1));
    let (status, body) = place.http("GET /v1/tasks?agent=nobody", "");
    assert_eq!((status, body.as_str()), (200, r#"{"tasks":[],"next":null}"#));
    up.terminate();
}

#[test]
fn a_graph_is_taken_in_as_a_whole_and_its_templates_see_the_needs() {
    let place = Place::new();
    let up = place.up(&[]);
    let graph = json!({"name": "g", "tasks": [
        {"key": "b", "agent": "echo", "needs": ["a"], "template": true, "input": {"got": "{{ tasks.a.output.n }}"}},
        {"key": "a", "agent": "echo", "input": {"n": 7}},
    ]});
    let (status, body) = place.http("POST /v1/tasks", &graph.to_string());
    assert_eq!(status, 201, "{body}");
    let view = value(&body);
    assert_eq!(view["warnings"], json!([]));
    let run = view["id"].as_str().unwrap();
    assert_eq!(place.ok(&["watch", run]).json(), json!({"b": {"got": 7}}));
    assert_eq!(place.state(view["tasks"]["a"].as_str().unwrap()), "completed");
    let cycle = json!({"tasks": [
        {"key": "a", "agent": "echo", "needs": ["b"]}, {"key": "b", "agent": "echo", "needs": ["a"]},
    ]});
    let (status, body) = place.http("POST /v1/tasks", &cycle.to_string());
    let message = value(&body)["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(status, 422, "{body}");
    assert!(message.contains("a -> b -> a") || message.contains("b -> a -> b"), "{message}");
    up.terminate();
}

#[test]
fn runs_are_submitted_with_warnings_or_refused_with_diagnostics() {
    let place = Place::new();
    let up = place.up(&[]);
    let run = |body: Value| {
        let (status, body) = place.http("POST /v1/runs", &body.to_string());
        (status, value(&body))
    };
    let (status, view) = run(json!({"workflow": "tasks: {a: {agent: nobody}}"}));
    assert_eq!(
        (status, &view["warnings"][0]["message"]),
        (201, &json!("there is no agent `nobody`"))
    );
    let (status, view) =
        run(json!({"workflow": "tasks: {a: {agent: nobody}}", "allow_missing": false}));
    assert_eq!((status, &view["error"]["code"]), (422, &json!("invalid")));
    let (status, view) = run(json!({"workflow": "tasks:\n  a: {agnet: echo}\n"}));
    assert_eq!(status, 422);
    let wrong = &view["error"]["diagnostics"][0];
    assert_eq!((&wrong["line"], &wrong["column"]), (&json!(2), &json!(7)));
    let (status, _) = run(json!({"workflow": "x", "goal": "y"}));
    assert_eq!(status, 422);
    let (status, view) = run(json!({"goal": "say it", "agent": "echo", "input": {"more": 1}}));
    assert_eq!(status, 201);
    let came = place.ok(&["watch", view["id"].as_str().unwrap()]);
    assert_eq!(came.json(), json!({"goal": "say it", "more": 1}));
    up.terminate();
}

#[test]
fn the_idempotency_key_is_a_header() {
    let place = Place::new();
    let up = place.up(&[]);
    let submit = |key: &str, body: &str| {
        let (status, body) =
            place.http_with("POST /v1/tasks", &format!("Idempotency-Key: {key}\r\n"), body);
        (status, value(&body))
    };
    let (status, first) = submit("one", r#"{"agent":"echo"}"#);
    assert_eq!((status, &first["existing"]), (201, &json!(false)));
    let (status, again) = submit("one", r#"{"agent":"echo"}"#);
    assert_eq!((status, &again["existing"], &again["id"]), (200, &json!(true), &first["id"]));
    let (status, other) = submit("one", r#"{"agent":"echo","input":1}"#);
    assert_eq!((status, &other["error"]["code"]), (409, &json!("conflict")));
    let (status, _) = submit(&"k".repeat(300), r#"{"agent":"echo"}"#);
    assert_eq!(status, 422);
    up.terminate();
}

#[test]
fn hostile_requests_are_refused_in_words() {
    let place = Place::new();
    let up = place.up(&[]);
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let large = "x".repeat(17 << 20);
    let long_name = json!({"agent": "echo", "name": "n".repeat(1_000)}).to_string();
    let cases: [(&str, &str, u16, &str); 22] = [
        ("GET /v1/tasks/..%2f..%2fetc%2fpasswd", "", 422, "invalid"),
        ("GET /v1/tasks/%00%00%00%00", "", 422, "invalid"),
        ("GET /v1/tasks/%ff%fe", "", 400, ""),
        ("GET /v1/tasks/abcd", "", 404, "not_found"),
        ("GET /v1/tasks/00000000-0000-0000-0000-000000000000", "", 404, "not_found"),
        ("GET /v1/tasks/00000000-0000-0000-0000-000000000000/log?attempt=-1", "", 400, "invalid"),
        ("GET /v1/tasks?limit=0", "", 422, "invalid"),
        ("GET /v1/tasks?limit=99999999999999999999", "", 400, "invalid"),
        ("GET /v1/tasks?stat=ready", "", 400, "invalid"),
        ("GET /v1/tasks?state=bogus", "", 422, "invalid"),
        ("GET /v1/events?follow=maybe", "", 400, "invalid"),
        ("POST /v1/tasks", "", 422, "invalid"),
        ("POST /v1/tasks", "\u{0}", 400, "invalid"),
        ("POST /v1/tasks", &deep, 400, "invalid"),
        ("POST /v1/tasks", &large, 413, "invalid"),
        ("POST /v1/tasks", &long_name, 422, "invalid"),
        ("POST /v1/tasks", r#"{"agent":"echo","capability":"repeat"}"#, 422, "invalid"),
        ("POST /v1/tasks", r#"{"agent":"echo","surprise":1}"#, 422, "invalid"),
        ("POST /v1/tasks", r#"{"tasks":[]}"#, 201, ""),
        ("POST /v1/agents/find", "{}", 422, "invalid"),
        ("DELETE /v1/tasks", "", 405, "invalid"),
        ("GET /v2/tasks", "", 404, "not_found"),
    ];
    for (request, body, status, code) in cases {
        let (came, answer) = place.http(request, body);
        assert_eq!(came, status, "{request}: {answer}");
        if !code.is_empty() {
            let error = &value(&answer)["error"];
            assert_eq!(error["code"], code, "{request}: {answer}");
            assert!(
                error["message"].as_str().is_some_and(|text| text.len() < 2_000),
                "{request}: {answer}"
            );
        }
    }
    place.ok(&["submit", "--agent", "echo", "--wait"]);
    up.terminate();
}

#[test]
fn large_inputs_and_outputs_pass_and_are_left_out_unless_asked_for() {
    let place = Place::new();
    let up = place.up(&[]);
    let text = "x".repeat(1 << 20);
    let body = json!({"agent": "echo", "input": {"text": text}});
    let (status, body) = place.http("POST /v1/tasks", &body.to_string());
    assert_eq!(status, 201, "{body}");
    let id = value(&body)["id"].as_str().unwrap().to_owned();
    place.ok(&["watch", &id, "--quiet"]);
    let detail = place.show(&id);
    assert_eq!(
        (&detail["output"]["omitted"], &detail["output"]["value"]),
        (&json!(true), &Value::Null)
    );
    let (_, body) = place.http(&format!("GET /v1/tasks/{id}?full=1"), "");
    assert_eq!(value(&body)["output"]["value"]["text"].as_str().unwrap().len(), 1 << 20);
    assert_eq!(
        place.ok(&["show", &id, "--output"]).out.len(),
        r#"{"text":""}"#.len() + (1 << 20) + 1
    );
    up.terminate();
}

#[test]
fn events_are_read_from_any_cursor_on() {
    let place = Place::new();
    let up = place.up(&[]);
    place.ok(&["submit", "--agent", "echo", "--wait", "--quiet"]);
    let read = |params: &str| -> Vec<Value> {
        let (status, body) = place.http(&format!("GET /v1/events{params}"), "");
        assert_eq!(status, 200, "{body}");
        body.lines().map(value).collect()
    };
    let all = read("");
    assert!(all.len() > 4);
    let middle = all[2]["cursor"].as_u64().unwrap();
    assert_eq!(read(&format!("?after={middle}")), all[3..]);
    assert_eq!(read(&format!("?after={middle}&limit=1")), all[3..4]);
    let run = all.last().unwrap()["run"].as_str().unwrap();
    assert!(read(&format!("?run={run}")).iter().all(|event| event["run"] == run));
    up.terminate();
}

#[test]
fn agents_are_found_by_capability_first_and_by_words_after() {
    let place = Place::new();
    let up = place.up(&[]);
    let find = |body: Value| value(&place.http("POST /v1/agents/find", &body.to_string()).1);
    let found = find(json!({"text": "repeat"}));
    assert_eq!(
        (&found["found"][0]["agent"]["name"], &found["found"][0]["by"]),
        (&json!("echo"), &json!("capability"))
    );
    let found = find(json!({"text": "who waits at a gate"}));
    assert_eq!(
        (&found["found"][0]["agent"]["name"], &found["found"][0]["by"]),
        (&json!("gate"), &json!("text"))
    );
    assert_eq!(find(json!({"capability": "none"}))["found"], json!([]));
    let came = place.ok(&["agents", "find", "wait at the gate"]);
    assert!(came.out.contains("gate"), "{came:#?}");
    place.segue(&["agents", "find", "zzzz qqqq"]).with(1);
    up.terminate();
}
