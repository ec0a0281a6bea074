//! Tasks: listed, shown, cancelled, tried again.

use super::error::ApiError;
use super::extract::{Json, Params, flag};
use super::ids::resolve;
use super::state::{Api, Shared};
use super::trace::RunTrace;
use super::views::{
    AttemptView, BodyView, CHILDREN_MAX, ChangedView, Names, TaskDetail, TaskView, TasksView,
};
use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use segue_core::command::{Command, Reply};
use segue_core::payload::{DATABASE_MAX, Payload};
use segue_core::ports::TaskFilter;
use segue_core::task::{Route, Task, TaskState};
use serde::Deserialize;

/// Tasks on a page unless the request says otherwise.
const LIMIT: usize = 100;
/// Tasks on a page at most.
const LIMIT_MAX: usize = 10_000;
/// Tasks looked at for one page, where only some of them are wanted.
const SCAN_MAX: usize = 100_000;

/// Which tasks to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// States, with commas between them.
    state: Option<String>,
    agent: Option<String>,
    run: Option<String>,
    limit: Option<usize>,
    before: Option<String>,
}

/// `GET /v1/tasks`
pub async fn list(
    State(api): State<Shared>,
    Params(listing): Params<Listing>,
) -> Result<Answer<TasksView>, ApiError> {
    let limit = listing.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid(format!("`limit` is 1 to {LIMIT_MAX}")));
    }
    let states: Vec<TaskState> = listing
        .state
        .as_deref()
        .unwrap_or_default()
        .split(',')
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().map_err(ApiError::invalid))
        .collect::<Result<_, _>>()?;
    let run = match &listing.run {
        Some(run) => Some(resolve(&api, run).await?.spec.root),
        None => None,
    };
    let mut before = match &listing.before {
        Some(task) => Some(resolve(&api, task).await?.id()),
        None => None,
    };
    let names = api.names().await?;
    let mut tasks = Vec::new();
    let mut looked_at = 0;
    let mut more = true;
    while more && tasks.len() < limit && looked_at < SCAN_MAX {
        let page_limit = if listing.agent.is_some() { LIMIT_MAX } else { limit };
        let filter =
            TaskFilter { states: states.clone(), run, parent: None, before, limit: page_limit };
        let page = api.store().tasks(filter).await?;
        more = page.len() == page_limit;
        looked_at += page.len();
        for task in page {
            if tasks.len() == limit {
                more = true;
                break;
            }
            before = Some(task.id());
            if listing.agent.as_ref().is_none_or(|agent| is_of(&task, agent, &names)) {
                tasks.push(TaskView::of(&task, &names));
            }
        }
    }
    let next = before.filter(|_| more).map(|id| id.to_string());
    Ok(Answer(TasksView { tasks, next }))
}

/// Whether a task is for this agent, or was given to it.
fn is_of(task: &Task, agent: &str, names: &Names) -> bool {
    matches!(&task.spec.route, Route::Agent(name) if name.as_ref() == agent)
        || task.attempt.as_ref().and_then(|attempt| names.of(attempt)).as_deref() == Some(agent)
}

/// How much of a task to show.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Showing {
    #[serde(default, deserialize_with = "flag")]
    full: bool,
}

/// `GET /v1/tasks/{id}`
pub async fn detail(
    State(api): State<Shared>,
    Path(id): Path<String>,
    Params(showing): Params<Showing>,
) -> Result<Answer<TaskDetail>, ApiError> {
    let task = resolve(&api, &id).await?;
    let names = api.names().await?;
    let root = match task.is_root() {
        true => None,
        false => api.store().task(task.spec.root).await?,
    };
    let trace = RunTrace::of(root.as_deref().unwrap_or(&task));
    let mut attempts: Vec<AttemptView> = api
        .store()
        .attempts(task.id())
        .await?
        .iter()
        .map(|record| AttemptView::ended(record, &trace, &names))
        .collect();
    if let Some(latest) = &task.attempt
        && attempts.iter().all(|attempt| attempt.number != latest.number)
    {
        attempts.push(AttemptView::of(latest, &trace, &names));
    }
    let filter =
        TaskFilter { parent: Some(task.id()), limit: CHILDREN_MAX, ..TaskFilter::default() };
    let children = match task.children {
        0 => Vec::new(),
        _ => api.store().tasks(filter).await?,
    };
    Ok(Answer(TaskDetail {
        trace: trace.id(),
        traceparent: trace.given(),
        input: body(&api, &task.input, showing.full).await?,
        output: match &task.output {
            Some(output) => Some(body(&api, output, showing.full).await?),
            None => None,
        },
        children: children.iter().map(|child| TaskView::of(child, &names)).collect(),
        attempts,
        task: TaskView::of(&task, &names),
    }))
}

async fn body(api: &Api, payload: &Payload, full: bool) -> Result<BodyView, ApiError> {
    if payload.size() > DATABASE_MAX as u64 && !full {
        return Ok(BodyView::of(payload, None));
    }
    let text = api.text_of(payload).await?;
    Ok(BodyView::of(payload, Some(&text)))
}

/// `GET /v1/tasks/{id}/output`
pub async fn output(
    State(api): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let task = resolve(&api, &id).await?;
    let Some(output) = &task.output else {
        let message = format!("task {} is {} and has no output", task.id(), task.state);
        return Err(ApiError::not_found(message));
    };
    let text = api.text_of(output).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Why a task is cancelled.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancelling {
    #[serde(default)]
    reason: Option<String>,
}

/// Longest reason in bytes.
const REASON_MAX: usize = 1_000;

/// `POST /v1/tasks/{id}/cancel`
pub async fn cancel(
    State(api): State<Shared>,
    Path(id): Path<String>,
    Json(cancelling): Json<Cancelling>,
) -> Result<Answer<ChangedView>, ApiError> {
    let task = resolve(&api, &id).await?.id();
    let reason = cancelling.reason.unwrap_or_else(|| "cancelled by a user".to_owned());
    if reason.len() > REASON_MAX {
        return Err(ApiError::invalid(format!("a reason has at most {REASON_MAX} bytes")));
    }
    let reply = api.command(Command::Cancel { task, reason }).await?;
    Ok(Answer(changed(task.to_string(), &reply)))
}

/// `POST /v1/tasks/{id}/retry`
pub async fn retry(
    State(api): State<Shared>,
    Path(id): Path<String>,
) -> Result<Answer<ChangedView>, ApiError> {
    let found = resolve(&api, &id).await?;
    let task = found.id();
    let command = match found.state {
        TaskState::Failed | TaskState::Cancelled => Command::Requeue { task },
        TaskState::Blocked
        | TaskState::Ready
        | TaskState::Assigned
        | TaskState::Running
        | TaskState::Waiting
        | TaskState::Retrying
        | TaskState::Completed => Command::Retry { task },
    };
    let reply = api.command(command).await?;
    Ok(Answer(changed(task.to_string(), &reply)))
}

/// The view of what a command changed.
pub fn changed(id: String, reply: &Reply) -> ChangedView {
    ChangedView { id, changed: *reply != (Reply::Done { changed: false }) }
}
