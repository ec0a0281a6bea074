//! The contract with programs: the task they read, and the outcome they may print. Version 1.
//!
//! `docs/command-agents.md` is its text for authors of agents in any language.

use crate::runner::{End, Job};
use segue_core::outcome::Delegated;
use segue_core::payload::Payload;
use segue_core::retry::RetryPolicy;
use segue_core::state::{Expect, KeyPut, Policy};
use segue_core::task::{
    ErrorClass, OnFailure, Priority, Route, TaskError, Timeouts, WorkspaceKind,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The version of the contract.
pub const CONTRACT_VERSION: u64 = 1;

/// The task as a program reads it: one JSON object.
pub fn task_json(job: &Job, project_id: &str, project_dir: &Path, input: &Value) -> Value {
    let mut task = json!({
        "segue": CONTRACT_VERSION,
        "project": { "id": project_id, "dir": project_dir.to_string_lossy() },
        "task": {
            "id": job.task.to_string(),
            "run": job.run.to_string(),
            "name": job.name,
            "capability": job.capability,
            "attempt": { "id": job.attempt, "number": job.number },
        },
        "input": input,
        "resume": resume_json(job),
    });
    if let Some(state) = state_json(job) {
        task["state"] = state;
    }
    if !job.team.is_empty() {
        task["team"] = job
            .team
            .iter()
            .map(|member| {
                let mut value = json!({
                    "name": member.name,
                    "kind": member.kind.as_str(),
                    "description": member.description,
                    "available": member.available,
                });
                // Plain data with string keys serializes.
                value["capabilities"] =
                    serde_json::to_value(&member.capabilities).unwrap_or_default();
                value
            })
            .collect();
    }
    task
}

/// What of shared state a task may use, as a program reads it; nothing where it may use none.
pub fn state_json(job: &Job) -> Option<Value> {
    let state = job.state.as_deref()?;
    let values: Map<String, Value> = state
        .values
        .iter()
        .map(|given| {
            let value: Value = given
                .value
                .text()
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default();
            (given.key.to_string(), json!({ "version": given.version, "value": value }))
        })
        .collect();
    Some(json!({ "keys": state.keys, "values": values, "more": state.more }))
}

/// What a resumed task gets, as a program reads it; null where this is no resume.
pub fn resume_json(job: &Job) -> Value {
    let Some(resume) = &job.resume else { return Value::Null };
    let value = |payload: &Option<Payload>| {
        payload
            .as_ref()
            .and_then(Payload::text)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or(Value::Null)
    };
    let children: Vec<Value> = resume
        .children
        .iter()
        .map(|child| {
            let (agent, capability) = match &child.route {
                Route::Agent(name) => (Some(name), None),
                Route::Capability(name) => (None, Some(name)),
                Route::Group => (None, None),
            };
            json!({
                "id": child.id.to_string(),
                "key": child.key,
                "name": child.name,
                "agent": agent,
                "capability": capability,
                "state": child.state.as_str(),
                "output": value(&child.output),
                "error": child.error.as_ref().map(|error| {
                    json!({ "class": error.class.as_str(), "message": error.message })
                }),
            })
        })
        .collect();
    json!({ "continuation": value(&resume.continuation), "children": children })
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    Complete {
        #[serde(rename = "segue")]
        _segue: u64,
        #[serde(default)]
        output: Value,
        #[serde(default)]
        state: SaidState,
    },
    Fail {
        #[serde(rename = "segue")]
        _segue: u64,
        #[serde(default = "permanent")]
        class: FailClass,
        message: String,
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    Delegate {
        #[serde(rename = "segue")]
        _segue: u64,
        tasks: Vec<SaidTask>,
        #[serde(default)]
        resume: bool,
        #[serde(default)]
        continuation: Option<Value>,
        #[serde(default)]
        state: SaidState,
    },
}

/// What an outcome writes into shared state.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SaidState {
    put: Vec<SaidPut>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidPut {
    key: String,
    value: Value,
    #[serde(default)]
    expect: Expect,
    #[serde(default)]
    policy: Option<Policy>,
}

/// What an outcome says.
#[derive(Debug)]
pub struct Told {
    /// How the attempt ended.
    pub end: End,
    /// What it writes into shared state.
    pub state: Vec<(KeyPut, String)>,
}

impl From<End> for Told {
    fn from(end: End) -> Told {
        Told { end, state: Vec::new() }
    }
}

impl SaidState {
    fn told(self, end: End) -> Told {
        let put = |SaidPut { key, value, expect, policy }: SaidPut| {
            let put = KeyPut { key: key.into(), value: Payload::null(), expect, policy };
            (put, value.to_string())
        };
        Told { end, state: self.put.into_iter().map(put).collect() }
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum FailClass {
    Transient,
    Permanent,
    RateLimited,
    Timeout,
    InvalidOutput,
}

fn permanent() -> FailClass {
    FailClass::Permanent
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidTask {
    key: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    capability: Option<String>,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    template: bool,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    priority: Option<Priority>,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default)]
    retry: Option<SaidRetry>,
    #[serde(default)]
    timeout_s: Option<f64>,
    #[serde(default)]
    workspace: Option<WorkspaceKind>,
    #[serde(default)]
    state_keys: Vec<String>,
}

/// A retry policy as a program says it: as [`RetryPolicy`], but a misspelt field is no default.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SaidRetry {
    attempts: u32,
    base_ms: u64,
    cap_ms: u64,
    factor_percent: u32,
    jitter: bool,
    lost_max: u32,
}

impl Default for SaidRetry {
    fn default() -> SaidRetry {
        let RetryPolicy { attempts, base_ms, cap_ms, factor_percent, jitter, lost_max } =
            RetryPolicy::default();
        SaidRetry { attempts, base_ms, cap_ms, factor_percent, jitter, lost_max }
    }
}

/// Whether a value is an outcome of this contract rather than a plain output.
pub fn is_outcome(value: &Value) -> bool {
    value.get("segue").is_some_and(Value::is_u64) && value.get("outcome").is_some()
}

/// What an outcome says.
///
/// # Errors
/// `invalid_output` says which part of the outcome is wrong.
pub fn outcome(value: Value) -> Result<Told, TaskError> {
    let wrong = |message: String| TaskError::new(ErrorClass::InvalidOutput, message);
    if value.get("segue").is_none() {
        return Err(wrong(format!(
            "the outcome names no version of the contract: it begins {{\"segue\": {CONTRACT_VERSION}, \"outcome\": .."
        )));
    }
    if value["segue"] != json!(CONTRACT_VERSION) {
        return Err(wrong(format!(
            "the outcome is of version {} of the contract; this is version {CONTRACT_VERSION}",
            value["segue"]
        )));
    }
    let said: Said = serde_json::from_value(value)
        .map_err(|error| wrong(format!("the outcome cannot be understood: {error}")))?;
    Ok(match said {
        Said::Complete { output, state, .. } => state.told(End::Complete(output.to_string())),
        Said::Fail { class, message, retry_after_ms, .. } => {
            let class = match class {
                FailClass::Transient => ErrorClass::Transient,
                FailClass::Permanent => ErrorClass::Permanent,
                FailClass::RateLimited => ErrorClass::RateLimited,
                FailClass::Timeout => ErrorClass::Timeout,
                FailClass::InvalidOutput => ErrorClass::InvalidOutput,
            };
            let message = match message.trim() {
                "" => "it gave no reason".to_owned(),
                _ => message,
            };
            End::Fail { error: TaskError::new(class, message), retry_after_ms }.into()
        }
        Said::Delegate { tasks, resume, continuation, state, .. } => {
            let tasks =
                tasks.into_iter().map(delegated).collect::<Result<_, _>>().map_err(wrong)?;
            let continuation = continuation.map(|value| value.to_string());
            state.told(End::Delegate { tasks, resume, continuation })
        }
    })
}

fn delegated(task: SaidTask) -> Result<(Delegated, String), String> {
    let key = task.key;
    let route = match (task.agent, task.capability) {
        (Some(agent), None) => Route::agent(&agent),
        (None, Some(capability)) => Route::capability(&capability),
        (Some(_), Some(_)) | (None, None) => {
            return Err(format!(
                "the delegated task `{key}` has to name either an `agent` or a `capability`"
            ));
        }
    };
    let run_ms = match task.timeout_s {
        None => None,
        // What is shorter than the clock can tell is the shortest that it can.
        Some(seconds) if seconds > 0.0 && seconds < 1e9 => Some(((seconds * 1000.0) as u64).max(1)),
        Some(seconds) => {
            return Err(format!(
                "`timeout_s` of the delegated task `{key}` is {seconds}: give seconds above 0"
            ));
        }
    };
    let retry = match task.retry {
        None => RetryPolicy::default(),
        Some(SaidRetry { attempts: 0, .. }) => {
            return Err(format!(
                "`attempts` of the delegated task `{key}` is 0: it is tried at least once"
            ));
        }
        Some(SaidRetry { attempts, base_ms, cap_ms, factor_percent, jitter, lost_max }) => {
            RetryPolicy { attempts, base_ms, cap_ms, factor_percent, jitter, lost_max }
        }
    };
    let delegated = Delegated {
        key: key.as_str().into(),
        name: task.name.map(Into::into),
        route,
        input: Payload::null(),
        needs: task.needs.into_iter().map(Into::into).collect(),
        priority: task.priority,
        on_failure: task.on_failure,
        retry,
        timeouts: Timeouts { run_ms, ..Timeouts::default() },
        workspace: task.workspace,
        template: task.template,
        state_keys: task.state_keys.into_iter().map(Into::into).collect(),
    };
    Ok((delegated, task.input.to_string()))
}

/// The text that a model is prompted with: the input itself where it is a text, its `prompt` or `goal` with the rest as JSON, or all of it as JSON.
pub fn prompt_of(input: &Value) -> String {
    match input {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let lead = ["prompt", "goal", "task", "text"]
                .into_iter()
                .find_map(|key| Some((key, fields.get(key)?.as_str()?)));
            let Some((key, lead)) = lead else { return pretty(input) };
            let rest: Map<String, Value> = fields
                .iter()
                .filter(|(name, _)| *name != key)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if rest.is_empty() {
                lead.to_owned()
            } else {
                format!("{lead}\n\nInput:\n{}", pretty(&Value::Object(rest)))
            }
        }
        other => pretty(other),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegation_names_one_taker_per_task() {
        let value = json!({"segue": 1, "outcome": "delegate", "resume": true, "continuation": {"n": 1},
            "tasks": [{"key": "a", "capability": "count", "input": {"x": 1}, "timeout_s": 1.5}]});
        assert!(is_outcome(&value));
        match outcome(value).map(|told| told.end) {
            Ok(End::Delegate { tasks, resume: true, continuation: Some(continuation) }) => {
                assert_eq!(tasks[0].0.route, Route::capability("count"));
                assert_eq!(tasks[0].0.timeouts.run_ms, Some(1_500));
                assert_eq!(tasks[0].1, r#"{"x":1}"#);
                assert_eq!(continuation, r#"{"n":1}"#);
            }
            other => panic!("{other:?}"),
        }
        let both = json!({"segue": 1, "outcome": "delegate", "tasks": [{"key": "a", "agent": "x", "capability": "y"}]});
        assert!(outcome(both).unwrap_err().message.contains("either an `agent` or a `capability`"));
    }

    #[test]
    fn another_version_or_an_unknown_field_is_refused_with_its_name() {
        let other = json!({"segue": 2, "outcome": "complete"});
        assert!(outcome(other).unwrap_err().message.contains("version 2"));
        let typo = json!({"segue": 1, "outcome": "fail", "mesage": "x"});
        assert!(outcome(typo).unwrap_err().message.contains("mesage"));
    }

    #[test]
    fn an_outcome_may_write_shared_state_with_an_expectation_and_a_policy() {
        let put = json!([
            {"key": "plan/api", "value": {"a": 1}, "expect": 7, "policy": "merge"},
            {"key": "done", "value": null, "expect": "absent"},
        ]);
        let value = json!({"segue": 1, "outcome": "complete", "output": 1, "state": {"put": put}});
        let told = outcome(value).unwrap();
        assert!(matches!(&told.end, End::Complete(output) if output == "1"));
        let (first, text) = &told.state[0];
        assert_eq!((&*first.key, text.as_str()), ("plan/api", r#"{"a":1}"#));
        assert_eq!((first.expect, first.policy), (Expect::Version(7), Some(Policy::Merge)));
        let (second, text) = &told.state[1];
        assert_eq!((second.expect, second.policy, text.as_str()), (Expect::Absent, None, "null"));
    }

    #[test]
    fn a_prompt_is_the_goal_with_the_rest_beside_it() {
        assert_eq!(prompt_of(&json!("do it")), "do it");
        assert_eq!(prompt_of(&json!({"goal": "do it"})), "do it");
        assert!(prompt_of(&json!({"goal": "do it", "n": 3})).starts_with("do it\n\nInput:\n{"));
    }
}
