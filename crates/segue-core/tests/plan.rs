//! The planner against the team of `examples/repo-report` and against teams made for a question.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use segue_core::plan::{Goal, Known, Offer, Plan, Source, Who, keys, plan, step};
use segue_core::template::{Context, EndState, TaskView, render_value};
use serde_json::{Map, Value, json};

// ---- A team as the planning agent sees it ------------------------------------------------------------

/// The team of the example, read from its own file.
fn repo_report() -> Vec<Value> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/repo-report/segue.toml");
    let text = std::fs::read_to_string(file).expect("the example's team file");
    let file: toml::Table = text.parse().expect("TOML");
    let schema = |capability: &toml::Value, name: &str| -> Value {
        serde_json::from_str(capability[name].as_str().expect("a schema"))
            .expect("JSON in a schema")
    };
    let capability = |one: &toml::Value| {
        json!({
            "name": one["name"].as_str(),
            "description": one["description"].as_str(),
            "input_schema": schema(one, "input_schema"),
            "output_schema": schema(one, "output_schema"),
            "cost_usd": one["cost_usd"].as_float(),
            "duration_s": one["duration_s"].as_float().or(one["duration_s"].as_integer().map(|n| n as f64)),
        })
    };
    let agent = |one: &toml::Value| {
        json!({
            "name": one["name"].as_str(),
            "kind": one["kind"].as_str(),
            "description": one["description"].as_str(),
            "capabilities": one["capability"].as_array().expect("capabilities").iter().map(capability).collect::<Vec<_>>(),
            "available": 1,
        })
    };
    file["agent"].as_array().expect("agents").iter().map(agent).collect()
}

/// An agent with one capability of the same name that takes and makes strings.
fn agent(name: &str, takes: &[&str], makes: &[&str]) -> Value {
    let schema = |names: &[&str]| {
        let properties: Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        json!({"type": "object", "required": names, "properties": properties})
    };
    json!({
        "name": name, "kind": "command", "description": "", "available": 1,
        "capabilities": [{
            "name": name, "description": "", "cost_usd": 0.0, "duration_s": 1.0,
            "input_schema": schema(takes), "output_schema": schema(makes),
        }],
    })
}

fn task(team: &[Value], input: &Value, resume: Value) -> Value {
    json!({
        "segue": 1,
        "project": {"id": "p", "dir": "/somewhere"},
        "task": {"id": "t", "run": "r", "name": "goal", "capability": "orchestrate", "attempt": {"id": "a", "number": 1}},
        "input": input,
        "team": team,
        "resume": resume,
    })
}

/// What the engine tells of children when it resumes their parent. Either must do.
#[derive(Clone, Copy, Debug)]
enum Children {
    All,
    LastWave,
}

/// How a run of the planning agent went.
#[derive(Debug)]
struct Ride {
    /// The keys of each wave.
    waves: Vec<Vec<String>>,
    /// The input of the first task given under each key; the engine knows no other.
    inputs: BTreeMap<String, Value>,
    /// The last outcome.
    end: Value,
    /// The size of the largest continuation.
    continuation_bytes: usize,
}

/// Plays the engine: does what the planner delegates by `work(key, input)` until it completes or fails. A key that
/// was delegated before keeps its first result, as in the engine.
fn ride(
    team: &[Value],
    input: &Value,
    children: Children,
    work: &dyn Fn(&str, &Value) -> Value,
) -> Ride {
    let mut ride = Ride {
        waves: Vec::new(),
        inputs: BTreeMap::new(),
        end: Value::Null,
        continuation_bytes: 0,
    };
    let mut done: BTreeMap<String, Value> = BTreeMap::new();
    let mut resume = Value::Null;
    for _ in 0..50 {
        let outcome = step(&task(team, input, resume.clone()));
        assert_eq!(outcome["segue"], 1, "{outcome}");
        if outcome["outcome"] != "delegate" {
            ride.end = outcome;
            return ride;
        }
        assert_eq!(outcome["resume"], true);
        let mut wave = Vec::new();
        for task in outcome["tasks"].as_array().expect("tasks") {
            let key = task["key"].as_str().expect("a key").to_owned();
            let child = done.entry(key.clone()).or_insert_with(|| {
                let mut child = work(&key, &task["input"]);
                child["key"] = json!(key);
                child
            });
            assert!(child["state"].is_string());
            ride.inputs.entry(key.clone()).or_insert_with(|| task["input"].clone());
            wave.push(key);
        }
        assert!(!wave.is_empty(), "a wave without tasks");
        let told: Vec<&Value> = match children {
            Children::All => done.values().collect(),
            Children::LastWave => wave.iter().map(|key| &done[key]).collect(),
        };
        ride.continuation_bytes =
            ride.continuation_bytes.max(outcome["continuation"].to_string().len());
        resume = json!({"continuation": outcome["continuation"], "children": told});
        ride.waves.push(wave);
    }
    panic!("no end after {:?}", ride.waves);
}

/// A completed child whose output has everything its agent declares.
fn completes(team: &[Value], key: &str) -> Value {
    let made = team
        .iter()
        .flat_map(|agent| {
            agent["capabilities"].as_array().into_iter().flatten().map(move |one| (agent, one))
        })
        .find(|(agent, one)| {
            key == agent["name"]
                || key
                    == format!(
                        "{}.{}",
                        agent["name"].as_str().unwrap_or(""),
                        one["name"].as_str().unwrap_or("")
                    )
        });
    let properties =
        made.map(|(_, one)| one["output_schema"]["properties"].clone()).unwrap_or_default();
    let output: Map<String, Value> = properties
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| (name.clone(), json!(format!("{name} by {key}"))))
        .collect();
    json!({"state": "completed", "output": output, "error": null})
}

/// The waves of a ride in which everybody completes; the same for both ways of telling of children.
fn waves(team: &[Value], input: &Value) -> Vec<Vec<String>> {
    let all = ride(team, input, Children::All, &|key, _| completes(team, key));
    let last = ride(team, input, Children::LastWave, &|key, _| completes(team, key));
    assert_eq!(all.waves, last.waves);
    assert_eq!(all.end, last.end);
    assert_eq!(all.end["outcome"], "complete", "{}", all.end);
    all.waves
}

fn failure(team: &[Value], input: &Value) -> String {
    let outcome = step(&task(team, input, Value::Null));
    assert_eq!(
        (&outcome["outcome"], &outcome["class"]),
        (&json!("fail"), &json!("permanent")),
        "{outcome}"
    );
    outcome["message"].as_str().expect("a message").to_owned()
}

fn capability<'a>(team: &'a mut [Value], agent: &str) -> &'a mut Value {
    let one = team.iter_mut().find(|one| one["name"] == agent).expect("the agent");
    &mut one["capabilities"][0]
}

// ---- repo-report: nobody wrote the order down --------------------------------------------------------

#[test]
fn the_five_agents_plan_their_order_from_a_goal_in_words() {
    let team = repo_report();
    let goal = json!({"goal": "a report on this repository"});
    assert_eq!(
        waves(&team, &goal),
        [vec!["inventory"], vec!["history", "markers"], vec!["reporter"]]
    );

    let ride = ride(&team, &goal, Children::LastWave, &|key, _| completes(&team, key));
    assert_eq!(
        ride.end["output"],
        json!({"report": "report by reporter", "report_path": "report_path by reporter"})
    );
    assert_eq!(
        ride.inputs["history"],
        json!({"commit": "commit by inventory", "files": "files by inventory"})
    );
    assert_eq!(ride.inputs["reporter"]["bus_factor"], "bus_factor by history");
    assert!(ride.inputs["reporter"].get("files").is_none(), "the reporter consumes no files");
    assert!(ride.inputs["reporter"].get("licenses").is_none(), "nobody makes licences");
}

fn licenses() -> Value {
    let mut sixth = agent("licenses", &["commit"], &["licenses"]);
    sixth["capabilities"][0]["output_schema"]["properties"]["licenses"]["contentMediaType"] =
        json!("text/tab-separated-values");
    sixth
}

#[test]
fn a_sixth_agent_takes_part_when_somebody_wants_what_it_makes() {
    let mut team = repo_report();
    team.push(licenses());
    let report = json!({"goal": "a report on this repository"});
    let before = waves(&team, &report);
    assert_eq!(
        before,
        [vec!["inventory"], vec!["history", "markers"], vec!["reporter"]],
        "optional is not asked for"
    );

    let both = json!({"goal": "a report and the licences", "produces": ["report", "licenses"]});
    assert_eq!(
        waves(&team, &both),
        [vec!["inventory"], vec!["history", "licenses", "markers"], vec!["reporter"]]
    );
    let ride = ride(&team, &both, Children::All, &|key, _| completes(&team, key));
    assert_eq!(
        ride.inputs["reporter"]["licenses"], "licenses by licenses",
        "optional, and there anyway"
    );

    let required = capability(&mut team, "reporter")["input_schema"]["required"]
        .as_array_mut()
        .expect("required");
    required.push(json!("licenses"));
    assert_eq!(
        waves(&team, &report),
        [vec!["inventory"], vec!["history", "licenses", "markers"], vec!["reporter"]]
    );
}

#[test]
fn renamed_agents_are_found_by_what_they_make() {
    let mut team = repo_report();
    capability(&mut team, "inventory")["name"] = json!("stocktaking");
    team.iter_mut().find(|one| one["name"] == "inventory").expect("it")["name"] =
        json!("warehouse");
    let goal = json!({"goal": "a report on this repository"});
    assert_eq!(
        waves(&team, &goal),
        [vec!["warehouse"], vec!["history", "markers"], vec!["reporter"]]
    );
}

#[test]
fn without_an_agent_the_plan_says_what_is_missing_and_who_would_need_it() {
    let mut team = repo_report();
    team.retain(|one| one["name"] != "markers");
    let goal = json!({"goal": "a report on this repository"});
    assert_eq!(
        failure(&team, &goal),
        "no plan: nobody produces `marker_counts`, which `report` of reporter consumes; \
         nobody produces `markers`, which `report` of reporter consumes"
    );
    // Somebody hands them in: then nobody has to make them.
    let given = json!({"goal": "a report on this repository", "marker_counts": "mine", "markers": "mine too"});
    assert_eq!(waves(&team, &given), [vec!["inventory"], vec!["history"], vec!["reporter"]]);
}

#[test]
fn part_of_the_work_is_done_for_part_of_the_goal() {
    let team = repo_report();
    assert_eq!(
        waves(&team, &json!({"produces": "bus_factor"})),
        [vec!["inventory"], vec!["history"]]
    );
    assert_eq!(waves(&team, &json!({"produces": ["files"]})), [vec!["inventory"]]);
    let schema =
        json!({"produces": {"type": "object", "properties": {"markers": {"type": "string"}}}});
    assert_eq!(waves(&team, &schema), [vec!["inventory"], vec!["markers"]]);
    let done = step(&task(&team, &json!({"produces": ["files"], "files": "here"}), Value::Null));
    assert_eq!(done, json!({"segue": 1, "outcome": "complete", "output": {"files": "here"}}));
}

// ---- Who is chosen -----------------------------------------------------------------------------------

fn priced(name: &str, takes: &[&str], makes: &[&str], usd: f64, seconds: f64) -> Value {
    let mut one = agent(name, takes, makes);
    one["capabilities"][0]["cost_usd"] = json!(usd);
    one["capabilities"][0]["duration_s"] = json!(seconds);
    one
}

#[test]
fn the_cheapest_then_the_quickest_then_the_first_by_name_is_chosen_whatever_the_order_of_the_team()
{
    let x = json!({"produces": ["x"]});
    for (team, chosen) in [
        (vec![priced("a", &[], &["x"], 0.2, 1.0), priced("b", &[], &["x"], 0.1, 9.0)], "b"),
        (vec![priced("a", &[], &["x"], 0.1, 5.0), priced("b", &[], &["x"], 0.1, 4.0)], "b"),
        (vec![priced("b", &[], &["x"], 0.1, 4.0), priced("a", &[], &["x"], 0.1, 4.0)], "a"),
        (vec![priced("a", &[], &["x"], -5.0, 4.0), priced("b", &[], &["x"], 0.0, 3.0)], "b"),
    ] {
        assert_eq!(waves(&team, &x), [[chosen]]);
        let turned: Vec<Value> = team.into_iter().rev().collect();
        assert_eq!(waves(&turned, &x), [[chosen]]);
    }
}

#[test]
fn what_a_producer_needs_itself_counts_and_a_shared_step_counts_once() {
    // Alone, `direct` (3) is cheaper than `via` (1) with its `base` (2.5). Yet `other` needs `base` anyway.
    let mut team = vec![
        priced("base", &[], &["raw"], 2.5, 1.0),
        priced("direct", &[], &["x"], 3.0, 1.0),
        priced("via", &["raw"], &["x"], 1.0, 1.0),
    ];
    assert_eq!(waves(&team, &json!({"produces": ["x"]})), [vec!["direct"]]);
    team.push(priced("other", &["raw"], &["y"], 1.0, 1.0));
    assert_eq!(
        waves(&team, &json!({"produces": ["x", "y"]})),
        [vec!["base"], vec!["other", "via"]]
    );

    // One that makes both for 3 is cheaper than two that make one each for 2, though dearer for either.
    let pair = [
        priced("both", &[], &["x", "y"], 3.0, 1.0),
        priced("one", &[], &["x"], 2.0, 1.0),
        priced("two", &[], &["y"], 2.0, 1.0),
    ];
    assert_eq!(waves(&pair, &json!({"produces": ["x", "y"]})), [vec!["both"]]);
    assert_eq!(waves(&pair, &json!({"produces": ["x"]})), [vec!["one"]]);
}

#[test]
fn whoever_can_work_now_comes_before_the_cheaper_who_cannot() {
    let mut team =
        vec![priced("cheap", &[], &["x"], 0.0, 1.0), priced("dear", &[], &["x"], 9.0, 9.0)];
    team[0]["available"] = json!(0);
    assert_eq!(waves(&team, &json!({"produces": ["x"]})), [["dear"]]);
    team.pop();
    assert_eq!(
        waves(&team, &json!({"produces": ["x"]})),
        [["cheap"]],
        "nobody else: then it is waited for"
    );
}

#[test]
fn the_words_of_the_goal_choose_among_those_who_make_the_same() {
    let mut team = vec![
        priced("plain", &[], &["report"], 0.0, 1.0),
        priced("fancy", &[], &["report"], 5.0, 1.0),
    ];
    assert_eq!(waves(&team, &json!({"goal": "a fancy report"})), [["fancy"]]);
    team[1]["capabilities"][0]["input_schema"] = json!({"required": ["silk"]});
    let message = failure(&team[1..], &json!({"goal": "a fancy report"}));
    assert_eq!(message, "no plan: nobody produces `silk`, which `fancy` of fancy consumes");
    assert_eq!(
        waves(&team, &json!({"goal": "a fancy report"})),
        [["plain"]],
        "who cannot is replaced"
    );
}

#[test]
fn an_agent_with_two_capabilities_is_told_which_one_is_meant() {
    let mut both = agent("clerk", &[], &["x"]);
    let second = agent("clerk", &["x"], &["y"])["capabilities"][0].clone();
    both["capabilities"].as_array_mut().expect("list").push(second);
    both["capabilities"][1]["name"] = json!("second");
    let team = [both];
    let ride =
        ride(&team, &json!({"produces": ["y"]}), Children::All, &|key, _| completes(&team, key));
    assert_eq!(ride.waves, [["clerk.clerk"], ["clerk.second"]]);
    let first = step(&task(&team, &json!({"produces": ["y"]}), Value::Null));
    assert_eq!(
        (first["tasks"][0].get("agent"), &first["tasks"][0]["capability"]),
        (None, &json!("clerk"))
    );
}

#[test]
fn keys_never_clash() {
    let offer = |agent: &str, capability: &str| Offer {
        agent: agent.to_owned(),
        capability: capability.to_owned(),
        description: String::new(),
        consumes: json!({}),
        produces: json!({}),
        cost_usd: 0.0,
        duration_s: 0.0,
        available: 1,
    };
    let offers =
        [offer("a", "b"), offer("a", "c"), offer("a.b", "x"), offer("d", "e"), offer("d", "e")];
    let keys = keys(&offers);
    assert_eq!(keys[..2], ["a.b", "a.c"]);
    assert_eq!(keys[2], "a.b~2");
    assert_eq!(keys[3..], ["d", "d"], "two instances of one agent are one");
}

#[test]
fn the_planner_does_not_delegate_to_itself() {
    let mut team = vec![agent("me", &[], &["x"]), agent("other", &[], &["x"])];
    team[0]["capabilities"][0]["name"] = json!("orchestrate");
    assert_eq!(waves(&team, &json!({"produces": ["x"]})), [["other"]]);
    assert_eq!(
        failure(&team[..1], &json!({"produces": ["x"]})),
        "no plan: nobody produces `x`, which the goal wants"
    );
}

#[test]
fn long_chains_and_crowds_are_planned() {
    let offer = |agent: String, takes: &[String], makes: &[String]| {
        let schema = |names: &[String]| {
            let properties: Map<String, Value> =
                names.iter().map(|name| (name.clone(), json!({}))).collect();
            json!({"properties": properties, "required": names})
        };
        Offer {
            agent,
            capability: "work".to_owned(),
            description: String::new(),
            consumes: schema(takes),
            produces: schema(makes),
            cost_usd: 1.0,
            duration_s: 1.0,
            available: 1,
        }
    };
    let name = |n: usize| format!("p{n:04}");
    let chain: Vec<Offer> = (0..800)
        .map(|n| {
            let takes = if n == 0 { vec![] } else { vec![name(n - 1)] };
            offer(format!("agent{n:04}"), &takes, &[name(n)])
        })
        .collect();
    let goal = Goal::of(json!({"required": [name(799)]}));
    let found = plan(&goal, &chain, &Known::default()).expect("a plan");
    assert_eq!(found.steps.len(), 800);
    assert_eq!(found.steps[799].key, "agent0799");

    let all: Vec<String> = (0..6).map(name).collect();
    let crowd: Vec<Offer> =
        (0..200).map(|n| offer(format!("agent{n:04}"), &[], &all[n % 6..n % 6 + 1])).collect();
    let found =
        plan(&Goal::of(json!({"required": all})), &crowd, &Known::default()).expect("a plan");
    let chosen: Vec<&str> = found.steps.iter().map(|step| step.key.as_str()).collect();
    assert_eq!(
        chosen,
        ["agent0000", "agent0001", "agent0002", "agent0003", "agent0004", "agent0005"]
    );
}

// ---- Why there is no plan ----------------------------------------------------------------------------

#[test]
fn a_circle_is_named_and_avoided_when_there_is_a_way_around() {
    let mut team = vec![agent("a", &["y"], &["x"]), agent("b", &["x"], &["y"])];
    assert_eq!(
        failure(&team, &json!({"produces": ["x"]})),
        "no plan: `x`, which the goal wants, can only be made in a circle: \
         `a` of a needs what `b` of b makes, which needs what `a` of a makes"
    );
    assert_eq!(
        failure(&[agent("own", &["x"], &["x"])], &json!({"produces": ["x"]})),
        "no plan: `x`, which the goal wants, can only be made in a circle: `own` of own needs what `own` of own makes"
    );
    team.push(priced("c", &[], &["y"], 100.0, 100.0));
    assert_eq!(waves(&team, &json!({"produces": ["x"]})), [["c"], ["a"]]);
}

#[test]
fn an_optional_property_never_closes_a_circle() {
    let mut team = vec![agent("a", &[], &["x"]), agent("b", &["x"], &["y"])];
    team[0]["capabilities"][0]["input_schema"]["properties"]["y"] = json!({"type": "string"});
    let goal = json!({"produces": ["x", "y"]});
    assert_eq!(waves(&team, &goal), [["a"], ["b"]]);
    // Two that would each like what the other makes: one of them gets it.
    team[1] = agent("b", &[], &["y"]);
    team[1]["capabilities"][0]["input_schema"]["properties"]["x"] = json!({"type": "string"});
    assert_eq!(waves(&team, &goal), [["b"], ["a"]]);
}

#[test]
fn types_that_do_not_fit_are_said() {
    let mut team = vec![agent("scan", &[], &["files"]), agent("count", &["files"], &["total"])];
    capability(&mut team, "scan")["output_schema"]["properties"]["files"] =
        json!({"type": "array", "items": {"type": "string"}});
    assert_eq!(
        failure(&team, &json!({"produces": ["total"]})),
        "no plan: nobody produces `files`, which `count` of count consumes \
         (`scan` of scan makes array of string, and string is wanted)"
    );
    assert_eq!(
        failure(&team, &json!({"produces": ["total"], "files": 7})),
        "no plan: nobody produces `files`, which `count` of count consumes \
         (it is given as integer, and string is wanted, `scan` of scan makes array of string, and string is wanted)"
    );
    team.push(priced("list", &[], &["files"], 9.0, 9.0));
    assert_eq!(waves(&team, &json!({"produces": ["total"]})), [["list"], ["count"]]);
}

#[test]
fn the_same_name_in_two_types_goes_to_whom_it_fits() {
    let typed = |name: &str, takes: &str, kind: &str, makes: &str| {
        let mut one = agent(name, &[takes], &[makes]);
        one["capabilities"][0]["input_schema"]["properties"][takes] = json!({"type": kind});
        one
    };
    let mut team = vec![agent("texts", &[], &["data"]), agent("lists", &[], &["data"])];
    capability(&mut team, "lists")["output_schema"]["properties"]["data"] =
        json!({"type": "array"});
    team.push(typed("reader", "data", "string", "read"));
    team.push(typed("counter", "data", "array", "count"));
    let work = |key: &str, _: &Value| match key {
        "lists" => json!({"state": "completed", "output": {"data": ["one"]}}),
        _ => completes(&team, key),
    };
    for children in [Children::All, Children::LastWave] {
        let ride = ride(&team, &json!({"produces": ["read", "count"]}), children, &work);
        assert_eq!(ride.waves, [["lists", "texts"], ["counter", "reader"]]);
        assert_eq!(ride.inputs["counter"], json!({"data": ["one"]}));
        assert_eq!(ride.inputs["reader"], json!({"data": "data by texts"}));
    }
}

// ---- What children do --------------------------------------------------------------------------------

fn fails(class: &str, message: &str) -> Value {
    json!({"state": "failed", "output": null, "error": {"class": class, "message": message}})
}

#[test]
fn a_failed_child_is_replaced_by_another_producer_or_ends_the_goal_with_its_own_error() {
    let mut team = repo_report();
    let goal = json!({"goal": "a report on this repository"});
    let work = |team: &[Value], key: &str| match key {
        "history" => fails("timeout", "no answer for 300 s"),
        _ => completes(team, key),
    };
    for children in [Children::All, Children::LastWave] {
        let alone = ride(&team, &goal, children, &|key, _| work(&team, key));
        assert_eq!(
            (&alone.end["outcome"], &alone.end["class"]),
            (&json!("fail"), &json!("timeout"))
        );
        assert_eq!(
            alone.end["message"],
            "`history` failed: no answer for 300 s; no plan: \
             nobody produces `bus_factor`, which `report` of reporter consumes (`history` of history failed); \
             nobody produces `history`, which `report` of reporter consumes (`history` of history failed); \
             nobody produces `hotspots`, which `report` of reporter consumes (`history` of history failed)"
        );
    }
    let mut second = team.iter().find(|one| one["name"] == "history").expect("it").clone();
    second["name"] = json!("old-history");
    second["capabilities"][0]["duration_s"] = json!(500);
    team.push(second);
    for children in [Children::All, Children::LastWave] {
        let ride = ride(&team, &goal, children, &|key, _| work(&team, key));
        assert_eq!(
            ride.waves,
            [vec!["inventory"], vec!["history", "markers"], vec!["old-history"], vec!["reporter"]]
        );
        assert_eq!(ride.end["outcome"], "complete");
        assert_eq!(ride.inputs["reporter"]["hotspots"], "hotspots by old-history");
        assert_eq!(
            ride.inputs["reporter"]["markers"], "markers by markers",
            "what others made is not lost"
        );
    }
}

#[test]
fn a_cancelled_child_counts_as_failed_and_a_rate_limit_is_handed_on() {
    let team = [agent("a", &[], &["x"])];
    let goal = json!({"produces": ["x"]});
    let cancelled = ride(
        &team,
        &goal,
        Children::All,
        &|_, _| json!({"state": "cancelled", "output": null, "error": null}),
    );
    assert_eq!(cancelled.end["class"], "permanent");
    assert!(
        cancelled.end["message"]
            .as_str()
            .expect("text")
            .starts_with("`a` failed: it was cancelled; ")
    );
    let limited = ride(
        &team,
        &goal,
        Children::All,
        &|_, _| json!({"state": "failed", "error": {"class": "rate_limited", "message": "later", "retry_after_ms": 1500}}),
    );
    assert_eq!(
        (&limited.end["class"], &limited.end["retry_after_ms"]),
        (&json!("rate_limited"), &json!(1500))
    );
}

#[test]
fn a_child_that_completes_without_what_it_promised_is_replaced_or_named() {
    let mut team = vec![agent("a", &[], &["x", "y"]), agent("user", &["x", "y"], &["z"])];
    let goal = json!({"produces": ["z"]});
    let half = |team: &[Value], key: &str| match key {
        "a" => json!({"state": "completed", "output": {"y": "fine", "x": 3}}),
        _ => completes(team, key),
    };
    let alone = ride(&team, &goal, Children::All, &|key, _| half(&team, key));
    assert_eq!(
        alone.end["message"],
        "no plan: nobody produces `x`, which `user` of user consumes (`a` of a brought integer, and string is wanted)"
    );
    team.push(priced("b", &[], &["x"], 5.0, 5.0));
    for children in [Children::All, Children::LastWave] {
        let ride = ride(&team, &goal, children, &|key, _| half(&team, key));
        assert_eq!(ride.waves, [["a"], ["b"], ["user"]]);
        assert_eq!(ride.inputs["user"], json!({"x": "x by b", "y": "fine"}));
    }
    let nothing = ride(
        &team[..2],
        &goal,
        Children::All,
        &|_, _| json!({"state": "completed", "output": null}),
    );
    assert_eq!(
        nothing.end["message"],
        "no plan: nobody produces `x`, which `user` of user consumes (`a` of a completed without it); \
         nobody produces `y`, which `user` of user consumes (`a` of a completed without it)"
    );
}

#[test]
fn large_facts_travel_on_only_while_somebody_will_take_them() {
    let team = repo_report();
    let goal = json!({"goal": "a report on this repository"});
    let large = "x".repeat(300_000);
    let work = |team: &[Value], key: &str| {
        let mut child = completes(team, key);
        if key == "inventory" {
            child["output"]["files"] = json!(large);
        }
        child
    };
    let small = ride(&team, &goal, Children::LastWave, &|key, _| work(&team, key));
    assert_eq!(small.end["outcome"], "complete");
    assert_eq!(small.inputs["markers"]["files"].as_str().map(str::len), Some(300_000));
    assert!(small.continuation_bytes < 10_000, "{} bytes kept", small.continuation_bytes);

    // `old-history` needs the files after all: the inventory is asked again, under its old key.
    let mut team = team;
    let mut second = team.iter().find(|one| one["name"] == "history").expect("it").clone();
    second["name"] = json!("old-history");
    second["capabilities"][0]["duration_s"] = json!(500);
    team.push(second);
    let work = |key: &str, _: &Value| {
        if key == "history" { fails("permanent", "broken") } else { work(&team, key) }
    };
    let again = ride(&team, &goal, Children::LastWave, &work);
    assert_eq!(
        again.waves,
        [
            vec!["inventory"],
            vec!["history", "markers"],
            vec!["inventory"],
            vec!["old-history"],
            vec!["reporter"]
        ]
    );
    assert_eq!(again.end["outcome"], "complete");
    let told = ride(&team, &goal, Children::All, &work);
    assert_eq!(told.waves.len(), 4, "with all children told, nobody is asked twice");
}

#[test]
fn outputs_too_large_to_be_handed_over_are_referred_to() {
    let team = repo_report();
    let omitted =
        json!({"segue_omitted": "2000000 bytes are more than the 1048576", "sha256": "00"});
    let work = |key: &str, _: &Value| match key {
        "inventory" => json!({"state": "completed", "output": omitted}),
        _ => completes(&team, key),
    };
    let input = json!({"goal": "a report on this repository", "summary": "with {{ braces }}"});
    for children in [Children::All, Children::LastWave] {
        let ride = ride(&team, &input, children, &work);
        assert_eq!(ride.end["outcome"], "complete", "{}", ride.end);
        // The inventory stands there again, so that others can need it; by its key it is found.
        assert_eq!(
            ride.waves,
            [
                vec!["inventory"],
                vec!["inventory", "history", "markers"],
                vec!["history", "inventory", "markers", "reporter"]
            ]
        );
        assert_eq!(ride.inputs["history"]["files"], "{{ tasks[\"inventory\"].output[\"files\"] }}");
        assert_eq!(
            ride.inputs["reporter"]["markers"],
            "{{ tasks[\"markers\"].output[\"markers\"] }}"
        );
        let views: BTreeMap<String, TaskView> = ["inventory", "history", "markers"]
            .into_iter()
            .map(|key| {
                let output = completes(&team, key)["output"].clone();
                (key.to_owned(), TaskView { state: EndState::Completed, output, error: None })
            })
            .collect();
        let rendered = render_value(&ride.inputs["reporter"], &Context::new(&json!({}), &views))
            .expect("it renders");
        assert_eq!(rendered["languages"], "languages by inventory");
        assert_eq!(rendered["hotspots"], "hotspots by history");
        assert_eq!(rendered["summary"], "with {{ braces }}");
    }
    let last = ride(&team, &json!({"produces": ["files"]}), Children::All, &work);
    assert_eq!(
        last.end["message"],
        "`files` by `inventory` was made, but the output it is part of is too large to be handed to a task that waits for it"
    );
}

#[test]
fn the_team_may_change_while_children_work() {
    let team = repo_report();
    let goal = json!({"goal": "a report on this repository"});
    let first = step(&task(&team, &goal, Value::Null));
    let mut later = team.clone();
    later.retain(|one| one["name"] != "markers" && one["name"] != "inventory");
    let mut new = team.iter().find(|one| one["name"] == "markers").expect("it").clone();
    new["name"] = json!("finder");
    later.push(new);
    let mut child = completes(&team, "inventory");
    child["key"] = json!("inventory");
    let resume = json!({"continuation": first["continuation"], "children": [child]});
    let second = step(&task(&later, &goal, resume));
    // The inventory has left the team, but what it made is still there; `finder` has come for `markers`.
    let keys: Vec<&str> = second["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .filter_map(|one| one["key"].as_str())
        .collect();
    assert_eq!(keys, ["finder", "history"]);
    assert_eq!(second["tasks"][0]["input"]["files"], "files by inventory");
    let children: Vec<Value> = keys
        .iter()
        .map(|key| {
            let mut child = completes(&later, key);
            child["key"] = json!(key);
            child
        })
        .collect();
    let resume = json!({"continuation": second["continuation"], "children": children});
    let third = step(&task(&later, &goal, resume));
    assert_eq!(third["tasks"][0]["input"]["languages"], "languages by inventory", "{third}");
}

// ---- Bad input ---------------------------------------------------------------------------------------

#[test]
fn bad_tasks_fail_with_a_reason() {
    let team = [agent("a", &[], &["x"])];
    for (input, reason) in [
        (json!({}), "neither `goal`"),
        (json!({"goal": 7}), "neither `goal`"),
        (json!(null), "neither `goal`"),
        (json!({"goal": "bake bread"}), "no word of the goal `bake bread` matches"),
        (json!({"produces": []}), "`produces` names no property"),
        (json!({"produces": 3}), "`produces` names no property"),
        (json!({"produces": " , "}), "`produces` names no property"),
        (json!({"produces": {"type": "object"}}), "`produces` names no property"),
    ] {
        let message = failure(&team, &input);
        assert!(message.contains(reason), "{input}: {message}");
    }
    let message = |task: Value| step(&task)["message"].as_str().unwrap_or_default().to_owned();
    assert!(message(json!({"input": {"goal": "x"}})).contains("delegates = true"));
    assert!(message(json!({"segue": 2, "team": []})).contains("version 2"));
    assert!(message(task(&[], &json!({"goal": "x"}), Value::Null)).contains("There is: nobody"));
    let running = json!({"continuation": null, "children": [{"key": "a", "state": "running"}]});
    assert!(message(task(&team, &json!({"produces": "x"}), running)).contains("`a` is `running`"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "a",
            "x",
            "completed",
            "failed",
            "string",
            "goal",
            "produces",
            "required",
            "orchestrate",
            "1",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 96, 6, |inner| {
        let names = prop::sample::select(vec![
            "segue",
            "input",
            "goal",
            "produces",
            "team",
            "name",
            "capabilities",
            "input_schema",
            "output_schema",
            "properties",
            "required",
            "type",
            "items",
            "resume",
            "continuation",
            "children",
            "key",
            "state",
            "output",
            "error",
            "facts",
            "brought",
            "failed",
            "by",
            "agent",
            "capability",
            "x",
            "a",
            "cost_usd",
            "duration_s",
            "available",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..8).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

// ---- Whatever the team -------------------------------------------------------------------------------

/// What an offer takes and makes (and whether as text), which of it is optional, cost, duration, availability.
type Parts = (BTreeMap<u8, bool>, BTreeMap<u8, bool>, BTreeSet<u8>, u8, u8, u32);

/// A team over eight properties, of which each offer takes and makes some, in two types.
fn any_team() -> impl Strategy<Value = Vec<Offer>> {
    let names = || prop::collection::btree_map(0..8_u8, any::<bool>(), 0..4);
    let offer =
        (names(), names(), prop::collection::btree_set(0..8_u8, 0..3), 0..4_u8, 0..4_u8, 0..3_u32);
    prop::collection::vec(offer, 0..14).prop_map(|offers| {
        let name = |n: u8| format!("p{n}");
        let kind = |text: bool| json!({"type": if text { "string" } else { "array" }});
        let schema = |all: &BTreeMap<u8, bool>, required: Vec<String>| {
            let properties: Map<String, Value> =
                all.iter().map(|(n, text)| (name(*n), kind(*text))).collect();
            json!({"properties": properties, "required": required})
        };
        let build = |(index, parts): (usize, Parts)| {
            let (takes, makes, optional, usd, seconds, available) = parts;
            let required =
                takes.keys().filter(|n| !optional.contains(n)).map(|n| name(*n)).collect();
            Offer {
                agent: format!("agent{}", index / 2),
                capability: format!("c{}", index % 2),
                description: String::new(),
                consumes: schema(&takes, required),
                produces: schema(&makes, Vec::new()),
                cost_usd: f64::from(usd),
                duration_s: f64::from(seconds),
                available,
            }
        };
        offers.into_iter().enumerate().map(build).collect()
    })
}

fn kinds(schema: &Value, name: &str) -> Option<String> {
    Some(schema["properties"].get(name)?["type"].as_str()?.to_owned())
}

/// Whether the wanted properties (as strings) can be made at all, found by making everything that can be.
fn reachable(offers: &[Offer], given: &Map<String, Value>, wanted: &[String]) -> bool {
    let mut have: BTreeSet<(String, String)> =
        given.keys().map(|name| (name.clone(), "string".to_owned())).collect();
    loop {
        let before = have.len();
        for offer in offers {
            let required = offer.consumes["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let met = |name: &str| {
                kinds(&offer.consumes, name)
                    .is_some_and(|kind| have.contains(&(name.to_owned(), kind)))
            };
            if required.into_iter().all(met) {
                let made: Vec<String> = offer.produces["properties"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.clone())
                    .collect();
                have.extend(
                    made.into_iter()
                        .filter_map(|name| Some((name.clone(), kinds(&offer.produces, &name)?))),
                );
            }
        }
        if have.len() == before {
            return wanted.iter().all(|name| have.contains(&(name.clone(), "string".to_owned())));
        }
    }
}

fn check(found: &Plan, goal: &Goal, offers: &[Offer]) {
    let mut seen: BTreeMap<&str, &Offer> = BTreeMap::new();
    let provides =
        |source: &Source, name: &str, kind: &str, seen: &BTreeMap<&str, &Offer>| match source {
            Source::Given => kind == "string" && goal.given.contains_key(name),
            Source::Step(key) => seen
                .get(key.as_str())
                .is_some_and(|offer| kinds(&offer.produces, name).as_deref() == Some(kind)),
        };
    for step in &found.steps {
        let who = Who { agent: step.agent.clone(), capability: step.capability.clone() };
        let offer = offers.iter().find(|offer| offer.who() == who).expect("a step of the team");
        for name in
            offer.consumes["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            assert!(step.inputs.contains_key(name), "{} has no source for {name}", step.key);
        }
        for (name, source) in &step.inputs {
            let kind = kinds(&offer.consumes, name).expect("a property it consumes");
            assert!(
                provides(source, name, &kind, &seen),
                "{} takes {name} from {source:?}",
                step.key
            );
        }
        assert!(!step.gives.is_empty(), "nobody needs {}", step.key);
        assert!(seen.insert(&step.key, offer).is_none(), "{} twice", step.key);
    }
    for (name, source) in &found.goal {
        assert!(provides(source, name, "string", &seen), "the goal takes {name} from {source:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_in_order_complete_and_the_same_however_the_team_is_listed(
        offers in any_team(),
        given in prop::collection::btree_set(0..8_u8, 0..3),
        wanted in prop::collection::btree_set(0..8_u8, 1..4),
        turn in any::<prop::sample::Index>(),
    ) {
        let wanted: Vec<String> = wanted.into_iter().map(|n| format!("p{n}")).collect();
        let properties: Map<String, Value> = wanted.iter().map(|name| (name.clone(), json!({"type": "string"}))).collect();
        let mut goal = Goal::of(json!({"properties": properties}));
        goal.given = given.into_iter().map(|n| (format!("p{n}"), json!("given"))).collect();
        let found = plan(&goal, &offers, &Known::default());
        prop_assert_eq!(found.is_ok(), reachable(&offers, &goal.given, &wanted));
        let mut turned = offers.clone();
        if !turned.is_empty() {
            turned.rotate_left(turn.index(offers.len()));
            turned.reverse();
        }
        let again = plan(&goal, &turned, &Known::default());
        match (&found, &again) {
            (Ok(one), Ok(other)) => prop_assert_eq!(format!("{one:?}"), format!("{other:?}")),
            (Err(one), Err(other)) => {
                prop_assert!(!one.missing.is_empty());
                prop_assert_eq!(one.to_string(), other.to_string());
            }
            _ => prop_assert!(false, "the order of the team matters"),
        }
        let Ok(found) = found else { return Ok(()) };
        check(&found, &goal, &offers);

        // Waves bring every step to its turn.
        let mut known = Known::default();
        while found.result(&goal.given, &known).is_none() {
            let wave = found.next_wave(&goal.given, &known);
            prop_assert!(!wave.is_empty(), "stuck");
            for ready in wave {
                let step = found.steps.iter().find(|step| step.key == ready.key).expect("a step");
                prop_assert_eq!(ready.input.keys().collect::<BTreeSet<_>>(), step.inputs.keys().collect());
                let made = step.gives.iter().map(|name| (name.clone(), json!("made"))).collect();
                prop_assert!(known.made.insert(ready.key, made).is_none(), "a step ran twice");
            }
        }
    }

    #[test]
    fn a_ride_over_any_team_ends(offers in any_team(), wanted in 0..8_u8, broken in prop::collection::btree_set(0..14_usize, 0..4)) {
        let mut agents: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for offer in &offers {
            agents.entry(&offer.agent).or_default().push(json!({
                "name": offer.capability, "description": "", "cost_usd": offer.cost_usd, "duration_s": offer.duration_s,
                "input_schema": offer.consumes, "output_schema": offer.produces,
            }));
        }
        let team: Vec<Value> =
            agents.into_iter().map(|(name, capabilities)| json!({"name": name, "capabilities": capabilities, "available": 1})).collect();
        let keys = keys(&offers);
        let work = |key: &str, _: &Value| {
            let index = keys.iter().position(|one| one == key).expect("a key of the team");
            if broken.contains(&index) {
                return fails("permanent", "broken");
            }
            let properties = offers[index].produces["properties"].as_object().cloned().unwrap_or_default();
            let output: Map<String, Value> = properties
                .into_iter()
                .map(|(name, schema)| (name, if schema["type"] == "string" { json!("text") } else { json!([]) }))
                .collect();
            json!({"state": "completed", "output": output, "error": null})
        };
        let name = format!("p{wanted}");
        let input = json!({"produces": {"properties": {name.clone(): {"type": "string"}}}});
        let working: Vec<Offer> =
            offers.iter().enumerate().filter(|(index, _)| !broken.contains(index)).map(|(_, offer)| offer.clone()).collect();
        let possible = reachable(&working, &Map::new(), &[name]);
        for children in [Children::All, Children::LastWave] {
            let ride = ride(&team, &input, children, &work);
            prop_assert_eq!(ride.end["outcome"] == "complete", possible, "{:?}", ride);
        }
    }

    #[test]
    fn no_json_makes_the_planner_panic(mut task in any_json(), team in any_json(), resume in any_json(), input in any_json()) {
        let outcome = step(&task);
        prop_assert_eq!(&outcome["segue"], &json!(1));
        if !task.is_object() {
            task = json!({});
        }
        task["segue"] = json!(1);
        task["team"] = json!([team, {"name": "a", "capabilities": [{"name": "x", "output_schema": {"properties": {"x": {}}}}]}]);
        task["resume"] = resume;
        task["input"] = if input.is_object() { input } else { json!({}) };
        task["input"]["produces"] = json!("x");
        let outcome = step(&task);
        prop_assert!(["complete", "delegate", "fail"].contains(&outcome["outcome"].as_str().unwrap_or("")));
    }
}
