//! `POST /v1/tasks`: one task, or a graph of them.

use super::error::ApiError;
use super::extract::{IdempotencyKey, Json, Trace};
use super::ids::resolve;
use super::missing::{self, Known};
use super::state::{Api, Shared};
use super::views::SubmittedView;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use segue_core::command::{Command, NewTask, Reply, Submit};
use segue_core::ids::TaskId;
use segue_core::ports::StoreError;
use segue_core::retry::RetryPolicy;
use segue_core::task::{
    Need, OnFailure, Priority, Route, TaskSpec, Template, Timeouts, WorkspaceKind,
};
use segue_engine::workflow::new_task_id;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A task as a request describes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskBody {
    /// The agent that is to do it; this or `capability`.
    pub agent: Option<String>,
    /// What whoever does it has to be able to do.
    pub capability: Option<String>,
    /// What people call it; the key, agent or capability where absent.
    pub name: Option<String>,
    /// In a graph: by what the others know it.
    pub key: Option<String>,
    /// Its input.
    pub input: Value,
    /// The input holds templates over `tasks.KEY.output` of its needs.
    pub template: bool,
    /// Tasks that it waits for: ids, or in a graph keys.
    pub needs: Vec<String>,
    /// 1 to 10, or a word.
    pub priority: Priority,
    /// What its failure does to those that need it.
    pub on_failure: OnFailure,
    /// How often and when it is tried again.
    pub retry: Option<RetryPolicy>,
    /// Limit of one attempt.
    pub timeout_ms: Option<u64>,
    /// Limit from ready to assigned.
    pub queue_timeout_ms: Option<u64>,
    /// Limit from submit to the end.
    pub whole_timeout_ms: Option<u64>,
    /// Where it works.
    pub workspace: Option<WorkspaceKind>,
    /// Keys of shared state that its agent may use, or prefixes and `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state_keys: Vec<String>,
    /// Whether it is taken in even if nobody can take it now. Not within a graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_missing: Option<bool>,
}

/// A graph as a request describes it: the tasks run under a root of their own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphBody {
    /// What people call the run.
    #[serde(default)]
    name: Option<String>,
    /// The tasks.
    tasks: Vec<TaskBody>,
    /// Limit of the whole run.
    #[serde(default)]
    whole_timeout_ms: Option<u64>,
    /// Whether it is taken in even if nobody can take some of it now.
    #[serde(default)]
    allow_missing: Option<bool>,
}

/// `POST /v1/tasks`
pub async fn submit(
    State(api): State<Shared>,
    IdempotencyKey(key): IdempotencyKey,
    Trace(traceparent): Trace,
    Json(body): Json<Value>,
) -> Result<(StatusCode, Answer<SubmittedView>), ApiError> {
    let wrong = |error: serde_json::Error| {
        ApiError::invalid(format!("the body cannot be understood: {error}"))
    };
    let is_graph = body.get("tasks").is_some();
    let (mut tasks, keys, allow_missing) = if is_graph {
        let graph: GraphBody = serde_json::from_value(body).map_err(wrong)?;
        let allow_missing = graph.allow_missing;
        let (tasks, keys) = build_graph(&api, graph).await?;
        (tasks, keys, allow_missing)
    } else {
        let task: TaskBody = serde_json::from_value(body).map_err(wrong)?;
        let allow_missing = task.allow_missing;
        let id = new_task_id();
        let task = build(&api, task, id, &BTreeMap::new()).await?;
        (vec![task], BTreeMap::new(), allow_missing)
    };
    if let Some(first) = tasks.first_mut() {
        first.spec.idempotency_key = key.map(Into::into);
        first.spec.traceparent = traceparent;
    }
    let mut view = take_in(&api, tasks, allow_missing.unwrap_or(true)).await?;
    if !view.existing {
        view.tasks = keys.into_iter().map(|(key, id)| (key, id.to_string())).collect();
    }
    Ok((status(&view), Answer(view)))
}

/// 201 for what is new, 200 for what was there.
pub fn status(view: &SubmittedView) -> StatusCode {
    if view.existing { StatusCode::OK } else { StatusCode::CREATED }
}

/// Submits these tasks, if somebody can take them or that does not matter.
///
/// # Errors
/// When they are refused, or the store cannot.
pub async fn take_in(
    api: &Api,
    tasks: Vec<NewTask>,
    allow_missing: bool,
) -> Result<SubmittedView, ApiError> {
    let known = Known::of(api).await?;
    let mut missing = Vec::new();
    for task in &tasks {
        if let Some(warning) = known.lacks(&task.spec.route)
            && !missing.contains(&warning)
        {
            missing.push(warning);
        }
    }
    let warnings = missing::allow(missing, allow_missing)?;
    let (root, existing) = match api.command(Command::Submit(Submit { tasks })).await? {
        Reply::Submitted { root, .. } => (root, false),
        Reply::Existing { root } => (root, true),
        other => {
            let error = StoreError::Io(format!("a submit was answered by {other:?}"));
            return Err(error.into());
        }
    };
    Ok(SubmittedView { id: root.to_string(), tasks: BTreeMap::new(), existing, warnings })
}

async fn build_graph(
    api: &Api,
    graph: GraphBody,
) -> Result<(Vec<NewTask>, BTreeMap<String, TaskId>), ApiError> {
    let mut keys = BTreeMap::new();
    for (place, task) in graph.tasks.iter().enumerate() {
        let key = task.key.clone().ok_or_else(|| {
            ApiError::invalid(format!("task {} of the graph has no `key`", place + 1))
        })?;
        if keys.insert(key.clone(), new_task_id()).is_some() {
            return Err(ApiError::invalid(format!("the key `{key}` stands twice in the graph")));
        }
    }
    let root = new_task_id();
    let name = graph.name.as_deref().unwrap_or("graph");
    let mut spec = TaskSpec::new(root, name, Route::Group);
    spec.timeouts.whole_ms = graph.whole_timeout_ms;
    let mut tasks = vec![NewTask { spec, input: segue_core::payload::Payload::null() }];
    for body in graph.tasks {
        if body.allow_missing.is_some() {
            let message = "`allow_missing` stands beside `tasks`, not within a task of a graph";
            return Err(ApiError::invalid(message));
        }
        let id = body.key.as_ref().and_then(|key| keys.get(key)).copied();
        let mut task = build(api, body, id.unwrap_or_else(new_task_id), &keys).await?;
        task.spec.root = root;
        task.spec.parent = Some(root);
        tasks.push(task);
    }
    Ok((tasks, keys))
}

/// A task of this id; its needs are keys of the same graph, or ids.
async fn build(
    api: &Api,
    body: TaskBody,
    id: TaskId,
    keys: &BTreeMap<String, TaskId>,
) -> Result<NewTask, ApiError> {
    let (route, called) = match (&body.agent, &body.capability) {
        (Some(agent), None) => (Route::agent(agent), agent),
        (None, Some(capability)) => (Route::capability(capability), capability),
        (Some(_), Some(_)) | (None, None) => {
            let which = body.key.as_ref().map(|key| format!("task `{key}`"));
            return Err(ApiError::invalid(format!(
                "{} has to name either an `agent` or a `capability`",
                which.as_deref().unwrap_or("the task")
            )));
        }
    };
    let name = body.name.as_ref().or(body.key.as_ref()).unwrap_or(called);
    let mut spec = TaskSpec::new(id, name, route);
    spec.key = body.key.as_deref().map(Into::into);
    for need in &body.needs {
        let (task, name) = match keys.get(need) {
            Some(id) => (*id, need.as_str().into()),
            None => {
                let task = resolve(api, need).await?;
                (task.id(), task.spec.name.clone())
            }
        };
        spec.needs.push(Need { task, name: Some(name), order_only: false });
    }
    spec.priority = body.priority;
    spec.on_failure = body.on_failure;
    spec.retry = body.retry.unwrap_or_default();
    if !(1..=1_000).contains(&spec.retry.attempts) {
        return Err(ApiError::invalid("`attempts` of `retry` is 1 to 1000"));
    }
    spec.timeouts = Timeouts {
        queue_ms: body.queue_timeout_ms,
        run_ms: body.timeout_ms,
        whole_ms: body.whole_timeout_ms,
    };
    spec.workspace = body.workspace;
    spec.state_keys = body.state_keys.iter().map(|key| key.as_str().into()).collect();
    if body.template {
        spec.template = Some(Box::new(Template { input: true, ..Template::default() }));
    }
    let input = api.payload(body.input.to_string()).await?;
    Ok(NewTask { spec, input })
}
