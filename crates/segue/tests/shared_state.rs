//! `segue state` and `segue lock`, by the real binary.

mod common;

use common::Place;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn a_watch_tells_how_it_stands_then_every_change_and_ends_well() {
    let place = Place::new();
    place.ok(&["state", "put", "plan/api", "1"]);
    place.ok(&["state", "put", "plan/old", "1"]);
    place.ok(&["state", "delete", "plan/old"]);
    place.ok(&["state", "put", "planet", "1"]);
    let came = place.ok(&["state", "watch", "plan/*"]);
    assert_eq!(came.out.lines().count(), 1, "{came:#?}");
    assert!(came.err.contains("no node runs"), "{came:#?}");
    let up = place.up(&[]);
    let mut watch = place.start(&["state", "watch", "plan/*", "--json"]);
    let mut next = || serde_json::from_str::<Value>(&watch.out_line("{")).unwrap();
    let first = next();
    assert_eq!((&first["key"], &first["value"]), (&json!("plan/api"), &json!(1)));
    let writer = &["--by", "anna"];
    place.ok(&[&["state", "put", "plan/api", r#"{"a": 2}"#], &writer[..]].concat());
    place.ok(&["state", "put", "elsewhere", "2"]);
    place.ok(&["state", "delete", "plan/api"]);
    let second = next();
    assert_eq!(second["value"], json!({"a": 2}));
    assert_eq!(second["writer"], json!({"person": "anna"}));
    let third = next();
    assert_eq!((&third["deleted"], &third["value"]), (&json!(true), &Value::Null));
    assert!(third["version"].as_u64() > second["version"].as_u64());
    // Over the end of a node, to the next one.
    up.terminate();
    let up = place.up(&[]);
    place.ok(&["state", "put", "plan/new", "\"here\""]);
    assert_eq!(next()["value"], json!("here"));
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().with(0).err, "");
    up.terminate();
}

#[test]
fn values_of_every_kind_come_back_as_they_were_written() {
    let place = Place::new();
    let file = place.write("value.json", "{\"n\": 1.50, \"s\": \"\\u0000\"}\n");
    place.write("note.txt", "not { json\n");
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    place.write("large.json", &large);
    for (given, expected) in [
        ("null", "null"),
        ("plain text", "\"plain text\""),
        (" [1,  2.50e3] ", "[1,  2.50e3]"),
        ("@value.json", std::fs::read_to_string(file).unwrap().trim()),
        ("@note.txt", "\"not { json\\n\""),
        ("@large.json", &large),
    ] {
        place.ok(&["state", "put", "k", given]);
        assert_eq!(place.ok(&["state", "get", "k"]).out.trim_end(), expected);
    }
    let listed = place.ok(&["state", "list", "--json"]).json();
    assert_eq!(listed["versions"][0]["omitted"], true, "{listed:#}");
    assert_eq!(listed["versions"][0]["bytes"], large.len());
    let history = place.ok(&["state", "history", "k", "--json"]).json();
    assert_eq!(history["versions"].as_array().unwrap().len(), 6);
    let listed = place.ok(&["state", "list"]).out;
    assert!(listed.contains(&large.len().to_string()) && !listed.contains("yyy"), "{listed}");
}

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    for (args, code, part) in [
        (&["state", "get", "k"][..], 2, "there is no key `k`"),
        (&["state", "history", "k"], 2, "there is no key `k`"),
        (&["state", "put", "a//b", "1"], 2, "is no key"),
        (&["state", "put", "k", "1", "--expect", "soon"], 2, "is no version"),
        (&["state", "put", "k", "1", "--policy", "guess"], 2, "is no policy"),
        (&["state", "put", "k", "@missing.json"], 2, "missing.json cannot be read"),
        (
            &["state", "put", "k", "1", "--base", "3"],
            2,
            "version 3 of `k` is not there to merge with",
        ),
        (&["state", "put", "k", "1", "--lock", "deploy", "--token", "9"], 1, "nobody holds it"),
        (&["state", "policy", "a*b", "merge"], 2, "is no key"),
        (&["state", "policy", "a"], 2, "say which policy"),
        (&["lock", "renew", "deploy", "1"], 1, "nobody holds it"),
        (&["lock", "take", "deploy", "--ttl", "30d"], 2, "a lock is held for"),
    ] {
        let came = place.segue(args).with(code);
        assert!(came.err.contains(part), "{args:?}: {came:#?}");
    }
    let too_large = format!("\"{}\"", "x".repeat(5 << 20));
    place.write("too-large.json", &too_large);
    let came = place.segue(&["state", "put", "k", "@too-large.json"]).with(2);
    assert!(came.err.contains("at most 4194304 bytes"), "{came:#?}");
}

#[test]
fn a_lock_is_waited_for() {
    let place = Place::new();
    let up = place.up(&[]);
    let token = place.ok(&["lock", "take", "deploy", "--ttl", "1h", "--holder", "left"]).out;
    let came = place.segue(&["lock", "take", "deploy"]).with(1);
    assert!(came.err.contains("held by left") && came.err.contains("--wait"), "{came:#?}");
    let listed = place.ok(&["lock", "list", "--json"]).json();
    assert_eq!(listed["locks"][0]["holder"], "left");
    let waits = place.start(&["lock", "take", "deploy", "--wait", "10m", "--holder", "right"]);
    place.ok(&["lock", "release", "deploy", token.trim()]);
    let next = waits.end().with(0).out;
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    assert!(number(&next) > number(&token), "{next} after {token}");
    let came = place.ok(&["lock", "release", "deploy", token.trim()]);
    assert!(came.out.contains("was not held under this token"), "{came:#?}");
    place.ok(&["lock", "renew", "deploy", next.trim(), "--ttl", "1ms"]);
    place.ok(&["lock", "take", "deploy", "--wait", "1m"]);
    up.terminate();
}

#[test]
fn the_api_takes_writes_and_streams_changes() {
    let place = Place::new();
    let up = place.up(&[]);
    let post = |path: &str, body: Value| place.http(&format!("POST {path}"), &body.to_string());
    let (status, body) = post("/v1/state/plan%2Fapi", json!({"value": {"a": 1}}));
    assert_eq!(status, 200, "{body}");
    let stored: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(stored, json!({"key": "plan/api", "version": 1, "changed": true, "merged": false}));
    let terms = json!({"expect": "absent", "by": "anna"});
    let (status, body) = post("/v1/state/plan%2Fapi", json!({"value": 1, "terms": terms}));
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("\"conflict\"") && body.contains("--expect 1"), "{body}");
    let (status, _) = post("/v1/state/plan%2Fapi", json!({"value": 1, "unknown": 1}));
    assert_eq!(status, 400);
    let (status, _) = place.http("GET /v1/state/none", "");
    assert_eq!(status, 404);
    let (status, body) = place.http("GET /v1/state-changes?after=0", "");
    assert_eq!((status, body.lines().count()), (200, 1), "{body}");
    up.terminate();
}
