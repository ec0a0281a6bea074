//! A checked workflow becomes a graph of tasks under one root.

use segue_core::command::NewTask;
use segue_core::ids::TaskId;
use segue_core::payload::{BadPayload, Payload};
use segue_core::retry::RetryPolicy;
use segue_core::task::{
    Need, OnFailure, Priority, Route, TaskSpec, Template, Timeouts, WorkspaceKind,
};
use segue_core::template::is_template;
use segue_core::workflow::{self, Target, Workflow};
use serde_json::{Map, Value};
use std::collections::HashMap;
use uuid::Uuid;

/// A new task id: time-ordered, so that tasks sort by when they were submitted.
pub fn new_task_id() -> TaskId {
    TaskId(Uuid::now_v7())
}

/// The tasks of a run of this workflow: the root, which stands for the run, and one child a task. `input` is the run's input.
///
/// # Errors
/// When an input template is too large for a row.
pub fn graph(workflow: &Workflow, name: &str, input: Payload) -> Result<Vec<NewTask>, BadPayload> {
    graph_with(workflow, name, input, new_task_id)
}

/// The same, with the ids that `new_id` gives.
///
/// # Errors
/// When an input template is too large for a row.
pub fn graph_with(
    workflow: &Workflow,
    name: &str,
    input: Payload,
    mut new_id: impl FnMut() -> TaskId,
) -> Result<Vec<NewTask>, BadPayload> {
    let root = new_id();
    let ids: HashMap<&str, TaskId> =
        workflow.tasks.iter().map(|task| (task.name.as_str(), new_id())).collect();
    let mut spec = TaskSpec::new(root, workflow.name.as_deref().unwrap_or(name), Route::Group);
    spec.timeouts.whole_ms = workflow.timeout_ms;
    if let Some(output) = &workflow.output {
        let output = Some(Payload::of(output)?);
        spec.template = Some(Box::new(Template { output, ..Template::default() }));
    }
    let mut tasks = vec![NewTask { spec, input }];
    for task in &workflow.tasks {
        tasks.push(child(task, root, &ids)?);
    }
    Ok(tasks)
}

fn child(
    task: &workflow::Task,
    root: TaskId,
    ids: &HashMap<&str, TaskId>,
) -> Result<NewTask, BadPayload> {
    let route = match &task.target {
        Target::Agent(name) => Route::agent(name),
        Target::Capability(name) => Route::capability(name),
    };
    let input = input_of(task);
    let mut spec = TaskSpec::new(ids[task.name.as_str()], &task.name, route);
    spec.root = root;
    spec.parent = Some(root);
    spec.key = Some(task.name.as_str().into());
    spec.needs = task
        .needs
        .iter()
        .filter_map(|name| {
            let need = *ids.get(name.as_str())?;
            Some(Need { task: need, name: Some(name.as_str().into()), order_only: false })
        })
        .collect();
    spec.priority = Priority::new(task.priority).unwrap_or_default();
    spec.on_failure = match task.on_failure {
        workflow::OnFailure::Fail => OnFailure::Fail,
        workflow::OnFailure::Skip => OnFailure::Skip,
        workflow::OnFailure::Continue => OnFailure::Continue,
    };
    if let Some(retry) = &task.retry {
        spec.retry = RetryPolicy {
            attempts: retry.attempts,
            base_ms: retry.base_ms,
            cap_ms: retry.cap_ms,
            // The reader bounds the factor; what is beyond the type is its largest value.
            factor_percent: (retry.factor * 100.0) as u32,
            jitter: retry.jitter,
            ..RetryPolicy::default()
        };
    }
    spec.timeouts =
        Timeouts { queue_ms: task.timeout.queue_ms, run_ms: task.timeout.run_ms, whole_ms: None };
    spec.workspace = task.workspace.map(|workspace| match workspace {
        workflow::Workspace::Own => WorkspaceKind::Own,
        workflow::Workspace::Worktree => WorkspaceKind::Worktree,
        workflow::Workspace::Project => WorkspaceKind::Project,
    });
    spec.state_keys = task.state_keys.iter().map(|key| key.as_str().into()).collect();
    let template = Template {
        input: holds_templates(&input),
        when: task.when.as_deref().map(Into::into),
        for_each: task.for_each.as_ref().map(|each| each.list.as_str().into()),
        max_parallel: task.for_each.as_ref().and_then(|each| each.max_parallel),
        output: None,
    };
    if template != Template::default() {
        spec.template = Some(Box::new(template));
    }
    Ok(NewTask { spec, input: Payload::of(&input)? })
}

/// The input as written, with the prompt beside it.
fn input_of(task: &workflow::Task) -> Value {
    let Some(prompt) = &task.prompt else { return task.input.clone() };
    let mut fields = match &task.input {
        Value::Object(fields) => fields.clone(),
        Value::Null => Map::new(),
        other => Map::from_iter([("input".to_owned(), other.clone())]),
    };
    fields.insert("prompt".to_owned(), Value::String(prompt.clone()));
    Value::Object(fields)
}

fn holds_templates(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(holds_templates),
        Value::Object(fields) => fields.values().any(holds_templates),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
