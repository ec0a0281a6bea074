//! The planning agent as one pure function over the JSON that a `command` agent reads and prints.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::fit::properties;
use super::{Goal, Known, Offer, Plan, Ready, Source, Who, best_match, keys, plan};

/// A fact up to this size is carried along whether or not it will be needed; a larger one only when it will.
const SMALL_BYTES: usize = 16 * 1024;

/// One turn of the planning agent: reads a task and answers with an outcome.
///
/// The task is the JSON a `command` agent with `delegates = true` gets on its standard input. Of its input, `goal` says
/// in words what is wanted and `produces` says it exactly: a list of property names, a string of such names with
/// commas between them, or a JSON Schema. Without `produces` the capability that best matches the words is wanted.
/// All other properties of the input, and `goal` itself, are facts at hand.
///
/// The outcome is `delegate` with the steps that can start now, `complete` with the wanted properties, or `fail`
/// (`permanent` when there is no plan; the child's own class when a child failed that nobody else can replace).
pub fn step(task: &Value) -> Value {
    turn(task).unwrap_or_else(|failure| failure.outcome())
}

/// Why the goal is given up.
struct Failure {
    class: String,
    message: String,
    retry_after_ms: Option<u64>,
}

impl Failure {
    fn permanent(message: impl Into<String>) -> Self {
        Self { class: "permanent".to_owned(), message: message.into(), retry_after_ms: None }
    }

    /// What a child's `error` says.
    fn of_child(state: &str, error: &Value) -> Self {
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let otherwise = if state == "cancelled" { "it was cancelled" } else { "it gave no reason" };
        Self {
            class: text("class").unwrap_or("permanent").to_owned(),
            message: text("message").unwrap_or(otherwise).to_owned(),
            retry_after_ms: error.get("retry_after_ms").and_then(Value::as_u64),
        }
    }

    fn outcome(self) -> Value {
        let mut outcome =
            json!({"segue": 1, "outcome": "fail", "class": self.class, "message": self.message});
        if let Some(wait) = self.retry_after_ms {
            outcome["retry_after_ms"] = json!(wait);
        }
        outcome
    }
}

fn turn(task: &Value) -> Result<Value, Failure> {
    if let Some(version) = task.get("segue").filter(|version| *version != &json!(1)) {
        return Err(Failure::permanent(format!(
            "this task speaks version {version} of the protocol, and I speak 1"
        )));
    }
    let offers = offers(task)?;
    let mut memory = Memory::read(task, &offers)?;
    let goal = match memory.goal.take() {
        Some(goal) => Goal { given: given(task), ..goal },
        None => goal(task, &offers)?,
    };
    let found = match plan(&goal, &offers, &memory.known) {
        Ok(found) => found,
        Err(why) => return Err(memory.give_up(&why.to_string())),
    };
    if let Some(output) = found.result(&goal.given, &memory.known) {
        return Ok(json!({"segue": 1, "outcome": "complete", "output": output}));
    }
    let wave = found.next_wave(&goal.given, &memory.known);
    if wave.is_empty() {
        return Err(too_large(&found, &memory.known));
    }
    Ok(json!({
        "segue": 1,
        "outcome": "delegate",
        "tasks": tasks(&offers, &found, &wave),
        "resume": true,
        "continuation": memory.write(&goal, &found, &wave),
    }))
}

/// Everybody's work is done, and yet what is wanted is not in hand.
fn too_large(found: &Plan, known: &Known) -> Failure {
    let mut names = Vec::new();
    for (property, source) in &found.goal {
        if let Source::Step(key) = source
            && known.too_large.contains(key)
        {
            names.push(format!("`{property}` by `{key}`"));
        }
    }
    Failure::permanent(format!(
        "{} was made, but the output it is part of is too large to be handed to a task that waits for it",
        names.join(", ")
    ))
}

/// A wave as the tasks of a delegation. Finished steps to whose outputs an input refers stand there once more: by
/// their keys they are found, not done again.
fn tasks(offers: &[Offer], found: &Plan, wave: &[Ready]) -> Vec<Value> {
    let capabilities: BTreeMap<&str, BTreeSet<&str>> =
        offers.iter().fold(BTreeMap::new(), |mut all, offer| {
            all.entry(offer.agent.as_str()).or_default().insert(offer.capability.as_str());
            all
        });
    // A task goes to an agent or to a capability; the name of an agent that has several would not say which one.
    let address = |task: &mut Value, agent: &str, capability: &str| {
        if capabilities.get(agent).is_some_and(|names| names.len() > 1) {
            task["capability"] = json!(capability);
        } else {
            task["agent"] = json!(agent);
        }
    };
    let mut tasks = Vec::new();
    let needed: BTreeSet<&String> = wave.iter().flat_map(|ready| &ready.needs).collect();
    for key in needed {
        let mut task = json!({"key": key, "input": {}});
        match keys(offers).iter().position(|one| one == key) {
            Some(index) => address(&mut task, &offers[index].agent, &offers[index].capability),
            None => task["agent"] = json!(key),
        }
        tasks.push(task);
    }
    for ready in wave {
        let gives = found.steps.iter().find(|step| step.key == ready.key).map(|step| &step.gives);
        let names: Vec<&str> = gives.into_iter().flatten().map(String::as_str).collect();
        let mut task = json!({
            "key": ready.key,
            "description": format!("{}: {}", ready.capability, names.join(", ")),
            "input": ready.input,
        });
        if !ready.needs.is_empty() {
            task["needs"] = json!(ready.needs);
            task["template"] = json!(true);
        }
        address(&mut task, &ready.agent, &ready.capability);
        tasks.push(task);
    }
    tasks
}

/// The offers of the team, without the capability this very task asks of this very agent: a planner that
/// delegated to itself would not come nearer to anything.
fn offers(task: &Value) -> Result<Vec<Offer>, Failure> {
    let Some(team) = task.get("team").and_then(Value::as_array) else {
        return Err(Failure::permanent(
            "the task does not say who is in the team; give this agent `delegates = true`",
        ));
    };
    let own = task.pointer("/task/capability").and_then(Value::as_str);
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let mut offers = Vec::new();
    for agent in team {
        let name = text(agent, "name");
        for capability in agent.get("capabilities").and_then(Value::as_array).into_iter().flatten()
        {
            let called = text(capability, "name");
            if name.is_empty() || called.is_empty() || Some(called.as_str()) == own {
                continue;
            }
            offers.push(Offer {
                agent: name.clone(),
                capability: called,
                description: format!(
                    "{} {}",
                    text(agent, "description"),
                    text(capability, "description")
                ),
                consumes: capability.get("input_schema").cloned().unwrap_or_default(),
                produces: capability.get("output_schema").cloned().unwrap_or_default(),
                cost_usd: number(capability, "cost_usd"),
                duration_s: number(capability, "duration_s"),
                available: agent
                    .get("available")
                    .and_then(Value::as_u64)
                    .map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            });
        }
    }
    Ok(offers)
}

/// The facts at hand: the task's input but for `produces`.
fn given(task: &Value) -> Map<String, Value> {
    let mut facts = task.get("input").and_then(Value::as_object).cloned().unwrap_or_default();
    facts.remove("produces");
    facts
}

/// The goal of a first turn.
fn goal(task: &Value, offers: &[Offer]) -> Result<Goal, Failure> {
    let input = task.get("input");
    let asked =
        |name: &str| input.and_then(|input| input.get(name)).filter(|value| !value.is_null());
    if let Some(produces) = asked("produces") {
        return Ok(Goal { produces: wanted(produces)?, given: given(task), by: None });
    }
    let Some(text) = asked("goal").and_then(Value::as_str) else {
        return Err(Failure::permanent(
            "the input says neither `goal` (what is wanted, in words) nor `produces` (the names of the wanted properties)",
        ));
    };
    let Some(best) = best_match(text, offers) else {
        let mut names: Vec<String> = offers.iter().map(|offer| offer.who().to_string()).collect();
        names.sort();
        names.truncate(20);
        return Err(Failure::permanent(format!(
            "no word of the goal `{}` matches a capability that says what it produces; say what you want in `produces`. There is: {}",
            text.chars().take(200).collect::<String>(),
            if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
        )));
    };
    let offer = &offers[best];
    Ok(Goal { produces: offer.produces.clone(), given: given(task), by: Some(offer.who()) })
}

/// `produces` in any of its three forms, as a schema.
fn wanted(produces: &Value) -> Result<Value, Failure> {
    let names: Vec<String> = match produces {
        Value::String(text) => text
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(schema)
            if !properties(produces).is_empty() || schema.contains_key("required") =>
        {
            return Ok(produces.clone());
        }
        _ => Vec::new(),
    };
    if names.is_empty() {
        return Err(Failure::permanent(
            "`produces` names no property; it is a list of names, or a JSON Schema with `properties` or `required`",
        ));
    }
    Ok(json!({"type": "object", "required": names}))
}

/// What is kept from turn to turn, in the `continuation` of a `delegate` outcome.
struct Memory {
    goal: Option<Goal>,
    known: Known,
    /// The names of all properties that each finished step brought, kept or not.
    brought: BTreeMap<String, BTreeSet<String>>,
    /// What failed steps said, the latest last.
    failures: Vec<(String, Value)>,
}

impl Memory {
    fn read(task: &Value, offers: &[Offer]) -> Result<Self, Failure> {
        let mut memory = Self {
            goal: None,
            known: Known::default(),
            brought: BTreeMap::new(),
            failures: Vec::new(),
        };
        let Some(resume) = task.get("resume").filter(|resume| !resume.is_null()) else {
            return Ok(memory);
        };
        let kept = resume.get("continuation").unwrap_or(&Value::Null);
        memory.goal = kept.get("goal").and_then(|goal| {
            let by = goal.get("by").and_then(|by| {
                let text = |name: &str| by.get(name).and_then(Value::as_str).map(str::to_owned);
                Some(Who { agent: text("agent")?, capability: text("capability")? })
            });
            Some(Goal { produces: goal.get("produces")?.clone(), given: Map::new(), by })
        });
        for (key, facts) in kept.get("facts").and_then(Value::as_object).into_iter().flatten() {
            memory.known.made.insert(key.clone(), facts.as_object().cloned().unwrap_or_default());
        }
        for (key, names) in kept.get("brought").and_then(Value::as_object).into_iter().flatten() {
            let names =
                names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            memory.brought.insert(key.clone(), names.collect());
            memory.known.made.entry(key.clone()).or_default();
        }
        let too_large = kept.get("too_large").and_then(Value::as_array).into_iter().flatten();
        memory.known.too_large.extend(too_large.filter_map(Value::as_str).map(str::to_owned));
        for failure in kept.get("failed").and_then(Value::as_array).into_iter().flatten() {
            if let Some(key) = failure.get("key").and_then(Value::as_str) {
                memory.fail(key, failure.clone());
            }
        }
        memory.hear(resume)?;
        let ours: BTreeSet<String> = keys(offers).into_iter().collect();
        for (key, names) in &memory.brought {
            let at_hand = memory.known.made.get(key);
            if ours.contains(key)
                && !names.iter().all(|name| at_hand.is_some_and(|facts| facts.contains_key(name)))
            {
                memory.known.not_kept.insert(key.clone());
            }
        }
        Ok(memory)
    }

    /// Takes in what the children brought.
    fn hear(&mut self, resume: &Value) -> Result<(), Failure> {
        for child in resume.get("children").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| child.get(name).and_then(Value::as_str).unwrap_or_default();
            let key = text("key");
            match text("state") {
                "completed" => {
                    let output =
                        child.get("output").and_then(Value::as_object).cloned().unwrap_or_default();
                    let output = if is_omitted(&output) {
                        self.known.too_large.insert(key.to_owned());
                        Map::new()
                    } else {
                        output
                    };
                    self.brought.insert(key.to_owned(), output.keys().cloned().collect());
                    self.known.made.insert(key.to_owned(), output);
                }
                state @ ("failed" | "cancelled") => {
                    let failure =
                        Failure::of_child(state, child.get("error").unwrap_or(&Value::Null));
                    let mut said =
                        json!({"key": key, "class": failure.class, "message": failure.message});
                    if let Some(wait) = failure.retry_after_ms {
                        said["retry_after_ms"] = json!(wait);
                    }
                    self.fail(key, said);
                }
                state => {
                    return Err(Failure::permanent(format!(
                        "resumed while the child `{key}` is `{state}`, which is no end"
                    )));
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, key: &str, said: Value) {
        if self.known.failed.insert(key.to_owned()) {
            self.failures.push((key.to_owned(), said));
        }
    }

    /// There is no plan: the fault of the last child that failed, if one did.
    fn give_up(self, why: &str) -> Failure {
        match self.failures.last() {
            None => Failure::permanent(why),
            Some((key, said)) => {
                let failure = Failure::of_child("failed", said);
                Failure {
                    message: format!("`{key}` failed: {}; {why}", failure.message),
                    ..failure
                }
            }
        }
    }

    /// The continuation to be resumed with: of what is at hand, the facts that steps after this wave or the goal
    /// still take, and small ones.
    fn write(&self, goal: &Goal, found: &Plan, wave: &[Ready]) -> Value {
        let later =
            found.steps.iter().filter(|step| !wave.iter().any(|ready| ready.key == step.key));
        let mut needed: BTreeSet<(&str, &str)> = BTreeSet::new();
        for (property, source) in later.flat_map(|step| &step.inputs).chain(&found.goal) {
            if let Source::Step(key) = source {
                needed.insert((key, property));
            }
        }
        let mut facts = Map::new();
        for (key, values) in &self.known.made {
            let kept: Map<String, Value> = values
                .iter()
                .filter(|(name, value)| {
                    needed.contains(&(key.as_str(), name.as_str())) || is_small(value)
                })
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            facts.insert(key.clone(), Value::Object(kept));
        }
        json!({
            "goal": {
                "produces": goal.produces,
                "by": goal.by.as_ref().map(|who| json!({"agent": who.agent, "capability": who.capability})),
            },
            "facts": facts,
            "brought": self.brought,
            "too_large": self.known.too_large,
            "failed": self.failures.iter().map(|(_, said)| said).collect::<Vec<_>>(),
        })
    }
}

/// Whether this stands for an output that is too large for a resumed task.
fn is_omitted(output: &Map<String, Value>) -> bool {
    output.get("segue_omitted").is_some_and(Value::is_string)
        && output.keys().all(|name| name == "segue_omitted" || name == "sha256")
}

/// Whether a value is at most [`SMALL_BYTES`] long, without writing all of a large one.
fn is_small(value: &Value) -> bool {
    fn left(value: &Value, mut budget: usize) -> Option<usize> {
        budget = budget.checked_sub(8)?;
        match value {
            Value::String(text) => budget.checked_sub(text.len()),
            Value::Array(list) => list.iter().try_fold(budget, |budget, one| left(one, budget)),
            Value::Object(map) => map
                .iter()
                .try_fold(budget, |budget, (name, one)| left(one, budget.checked_sub(name.len())?)),
            Value::Null | Value::Bool(_) | Value::Number(_) => Some(budget),
        }
    }
    left(value, SMALL_BYTES).is_some()
}
