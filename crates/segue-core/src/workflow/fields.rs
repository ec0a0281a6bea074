//! The keys of a workflow file: the one table for the reader and the JSON Schema.

use serde_json::{Map, Value, json};

use super::model::{InputType, OnFailure, PRIORITIES, Workspace};
use super::{MAX_NAME_CHARS, MAX_TASKS};
use crate::state::{KEY_MAX, STATE_KEYS_MAX};

/// A key of a map in the file.
pub(super) struct Field {
    pub(super) name: &'static str,
    doc: &'static str,
    schema: fn() -> Value,
}

const fn field(name: &'static str, doc: &'static str, schema: fn() -> Value) -> Field {
    Field { name, doc, schema }
}

/// Keys of the file.
pub(super) const WORKFLOW: &[Field] = &[
    field("name", "What the workflow is called.", text),
    field("description", "What the workflow is for.", text),
    field("input", "What a run is given, by name. Templates read it as `input.NAME`.", inputs),
    field(
        "output",
        "Template of the run's output. Without it: the outputs of the last tasks, by name.",
        any,
    ),
    field("timeout", "How long the whole run may take.", duration),
    field("max_parallel", "How many tasks of a run may run at a time.", count),
    field("tasks", "The tasks, by name.", tasks),
];

/// Keys of one input.
pub(super) const INPUT: &[Field] = &[
    field("type", "What it may be; anything when it is missing.", input_type),
    field("description", "What it is for.", text),
    field("required", "It must be given. True unless it has a default.", boolean),
    field("default", "What it is when it is not given.", any),
    field("enum", "The only values it may have.", list_of_any),
];

/// Keys of a task.
pub(super) const TASK: &[Field] = &[
    field("agent", "The agent that does it. A task has either `agent` or `capability`.", text),
    field(
        "capability",
        "What an agent must be able to do; any agent with it may do the task.",
        text,
    ),
    field("description", "What the task is for, for people. Not a template.", text),
    field("prompt", "Template of the text for an agent that reads text.", text),
    field(
        "input",
        "Template of its input: any value, in which texts may hold `{{ expressions }}`.",
        any,
    ),
    field(
        "needs",
        "Tasks that must end before it: a list of names, or one. Tasks that its templates name are added.",
        needs,
    ),
    field("when", "Expression; the task is skipped when it is false.", condition),
    field(
        "for_each",
        "Expression that gives a list; the task is done once for each `item`, with `index` from 0.",
        expression,
    ),
    field("max_parallel", "How many items of `for_each` may be worked on at a time.", count),
    field("retry", "How it is tried again when it fails; a number is the attempts.", retry),
    field("timeout", "How long an attempt may take, or a map of `queue` and `run`.", timeout),
    field("priority", "Which ready task goes first.", priority),
    field("on_failure", "What its failure means for the tasks that need it.", on_failure),
    field("workspace", "Where it works.", workspace),
    field(
        "state_keys",
        "Keys of shared state that its agent is given and may write: a list of keys, or prefixes and `*`, or one.",
        state_keys,
    ),
];

/// Keys of `retry`.
pub(super) const RETRY: &[Field] = &[
    field("attempts", "How often it is tried in all. Default 3.", attempts),
    field("base", "The first wait. Default 1s.", duration),
    field("factor", "What each wait is multiplied by to give the next. Default 2.", factor),
    field("cap", "The longest wait. Default 1m.", duration),
    field(
        "jitter",
        "`full`: each wait is drawn from 0 to its length. `none`: it is exact. Default full.",
        jitter,
    ),
];

/// Keys of `timeout`.
pub(super) const TIMEOUT: &[Field] = &[
    field("queue", "From ready until an agent starts it.", duration),
    field("run", "From the start of an attempt until its end.", duration),
];

/// Values of `jitter`.
pub(super) const JITTER: &[(&str, bool)] = &[("full", true), ("none", false)];
/// Most attempts of a task.
pub(super) const MAX_ATTEMPTS: u64 = 100;
/// Most tasks or items at a time.
pub(super) const MAX_PARALLEL: u64 = 100_000;
/// Largest factor between two waits.
pub(super) const MAX_FACTOR: f64 = 100.0;

fn text() -> Value {
    json!({"type": "string"})
}

fn any() -> Value {
    json!({})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn list_of_any() -> Value {
    json!({"type": "array", "minItems": 1})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": MAX_PARALLEL})
}

fn attempts() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS})
}

fn factor() -> Value {
    json!({"type": "number", "minimum": 1, "maximum": MAX_FACTOR})
}

fn expression() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn condition() -> Value {
    json!({"type": ["string", "boolean"]})
}

fn needs() -> Value {
    json!({"anyOf": [
        reference("name"),
        {"type": "array", "items": reference("name")},
    ]})
}

fn state_keys() -> Value {
    let key = json!({"type": "string", "minLength": 1, "maxLength": KEY_MAX});
    json!({"anyOf": [key.clone(), {"type": "array", "items": key, "maxItems": STATE_KEYS_MAX}]})
}

fn words<T>(values: &[(&str, T)]) -> Value {
    json!({"enum": values.iter().map(|(word, _)| *word).collect::<Vec<_>>()})
}

fn priority() -> Value {
    let mut values: Vec<Value> = PRIORITIES.iter().map(|(word, _)| json!(word)).collect();
    values.extend(PRIORITIES.iter().map(|(_, number)| json!(number)));
    json!({"enum": values, "default": "medium"})
}

fn on_failure() -> Value {
    let mut schema = words(OnFailure::ALL);
    schema["default"] = json!("fail");
    schema
}

fn workspace() -> Value {
    words(Workspace::ALL)
}

fn jitter() -> Value {
    words(JITTER)
}

fn input_type() -> Value {
    words(InputType::ALL)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn duration() -> Value {
    reference("duration")
}

fn retry() -> Value {
    json!({"anyOf": [attempts(), reference("retry")]})
}

fn timeout() -> Value {
    json!({"anyOf": [duration(), reference("timeout")]})
}

fn inputs() -> Value {
    json!({
        "type": "object",
        "propertyNames": reference("name"),
        "additionalProperties": {"anyOf": [input_type(), reference("input"), {"type": "null"}]},
    })
}

fn tasks() -> Value {
    json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": MAX_TASKS,
        "propertyNames": reference("name"),
        "additionalProperties": reference("task"),
    })
}

/// An object with the keys of a table and no others.
fn object(fields: &[Field], doc: &str) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| {
            let mut schema = Map::new();
            schema.insert("description".to_owned(), json!(field.doc));
            if let Value::Object(rest) = (field.schema)() {
                schema.extend(rest);
            }
            (field.name.to_owned(), Value::Object(schema))
        })
        .collect();
    json!({
        "description": doc,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// The JSON Schema (draft 2020-12) of a workflow file, with descriptions.
///
/// It says what an editor can check. The reader checks more: names, templates, cycles.
pub fn json_schema() -> Value {
    let mut workflow =
        object(WORKFLOW, "A Segue workflow: tasks for agents, and what they wait for.");
    workflow["required"] = json!(["tasks"]);
    workflow["patternProperties"] = json!({
        "^x-": {"description": "Ignored; a place for values that are used by alias."},
    });
    let mut task = object(TASK, "One piece of work for one agent.");
    task["oneOf"] = json!([{"required": ["agent"]}, {"required": ["capability"]}]);
    task["dependentRequired"] = json!({"max_parallel": ["for_each"]});
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Segue workflow",
    });
    if let (Value::Object(schema), Value::Object(workflow)) = (&mut schema, workflow) {
        schema.extend(workflow);
    }
    schema["$defs"] = json!({
        "task": task,
        "input": object(INPUT, "One value that a run is given."),
        "retry": object(RETRY, "How a task that failed is tried again."),
        "timeout": object(TIMEOUT, "How long a task may take."),
        "name": {
            "type": "string",
            "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$",
            "maxLength": MAX_NAME_CHARS,
        },
        "duration": {
            "description": "`90s`, `5m`, `1h30m`, `250ms`, or a number of seconds.",
            "anyOf": [
                {"type": "string", "pattern": "^([0-9.]+(ms|d|h|m|s) *)+$|^[0-9.]+$"},
                {"type": "number", "exclusiveMinimum": 0},
            ],
        },
    });
    schema
}
