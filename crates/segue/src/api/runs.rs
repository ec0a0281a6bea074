//! `POST /v1/runs`: a workflow file with its input, or a goal for an agent.

use super::error::ApiError;
use super::extract::{IdempotencyKey, Json, Trace};
use super::state::{Api, Shared};
use super::submit::{status, take_in};
use super::views::{SubmittedView, WarningView};
use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use segue_core::command::NewTask;
use segue_core::payload::Payload;
use segue_core::task::{Route, TaskSpec};
use segue_core::workflow;
use segue_engine::workflow::{graph, new_task_id};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A run as a request describes it: `workflow`, or `goal` with `agent`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunBody {
    /// The text of a workflow file.
    pub workflow: Option<String>,
    /// What to call the run where the file has no name.
    pub name: Option<String>,
    /// What is wanted, in words.
    pub goal: Option<String>,
    /// The agent that is given the goal; `orchestrator` where absent.
    pub agent: Option<String>,
    /// Keys of shared state that this agent may use, or prefixes and `*`. A workflow says it task by task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state_keys: Vec<String>,
    /// The input: an object.
    pub input: Map<String, Value>,
    /// Limit of the whole run.
    pub timeout_ms: Option<u64>,
    /// Whether it is taken in even if nobody can take some of it now.
    pub allow_missing: Option<bool>,
}

/// The agent that is given a goal where none is named.
pub const ORCHESTRATOR: &str = "orchestrator";

/// `POST /v1/runs`
pub async fn run(
    State(api): State<Shared>,
    IdempotencyKey(key): IdempotencyKey,
    Trace(traceparent): Trace,
    Json(body): Json<RunBody>,
) -> Result<(StatusCode, Answer<SubmittedView>), ApiError> {
    let allow_missing = body.allow_missing.unwrap_or(true);
    let timeout_ms = body.timeout_ms;
    if body.workflow.is_some() && !body.state_keys.is_empty() {
        let message = "`state_keys` belongs to a goal: in a workflow each task has its own";
        return Err(ApiError::invalid(message));
    }
    let (mut tasks, doubts) = match (&body.workflow, &body.goal) {
        (Some(_), None) => of_workflow(&api, body).await?,
        (None, Some(_)) => (of_goal(&api, body).await?, Vec::new()),
        (Some(_), Some(_)) | (None, None) => {
            return Err(ApiError::invalid("a run has either a `workflow` or a `goal`"));
        }
    };
    if let Some(root) = tasks.first_mut() {
        root.spec.idempotency_key = key.map(Into::into);
        root.spec.traceparent = traceparent;
        root.spec.timeouts.whole_ms = timeout_ms.or(root.spec.timeouts.whole_ms);
    }
    let mut view = take_in(&api, tasks, allow_missing).await?;
    view.warnings.splice(0..0, doubts);
    Ok((status(&view), Answer(view)))
}

async fn of_workflow(
    api: &Api,
    body: RunBody,
) -> Result<(Vec<NewTask>, Vec<WarningView>), ApiError> {
    let text = body.workflow.unwrap_or_default();
    let checked = workflow::parse(text.as_bytes()).map_err(|wrong| ApiError::workflow(&wrong))?;
    let input = checked.workflow.bind_input(body.input).map_err(|wrong| {
        let messages: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        ApiError::invalid(messages.join("; "))
    })?;
    let input = api.payload(input.to_string()).await?;
    let name = body.name.as_deref().unwrap_or("workflow");
    let tasks = graph(&checked.workflow, name, input)
        .map_err(|error| ApiError::invalid(format!("an input of the workflow is {error}")))?;
    let doubts = checked
        .warnings
        .iter()
        .map(|item| WarningView {
            message: item.message.clone(),
            hint: item.hint.clone(),
            line: Some(item.line),
        })
        .collect();
    Ok((tasks, doubts))
}

async fn of_goal(api: &Api, body: RunBody) -> Result<Vec<NewTask>, ApiError> {
    let goal = body.goal.unwrap_or_default();
    if goal.trim().is_empty() {
        return Err(ApiError::invalid("the goal is empty: say in words what is wanted"));
    }
    let agent = body.agent.as_deref().unwrap_or(ORCHESTRATOR);
    let name = body.name.unwrap_or_else(|| title(&goal));
    let mut spec = TaskSpec::new(new_task_id(), &name, Route::agent(agent));
    spec.state_keys = body.state_keys.iter().map(|key| key.as_str().into()).collect();
    let mut input = Map::new();
    input.insert("goal".to_owned(), Value::String(goal));
    input.extend(body.input);
    let input: Payload = api.payload(Value::Object(input).to_string()).await?;
    Ok(vec![NewTask { spec, input }])
}

/// The first line of a goal, short enough for the name of a task.
fn title(goal: &str) -> String {
    const CHARS_MAX: usize = 60;
    let line = goal.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("goal");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    if line.chars().count() <= CHARS_MAX {
        return line;
    }
    let cut: String = line.chars().take(CHARS_MAX - 1).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_run_is_the_first_line_of_its_goal() {
        assert_eq!(title("\n  a report\non it"), "a report");
        assert_eq!(title(&"word ".repeat(100)).chars().count(), 60);
        assert_eq!(title("tab\tand\u{1b}[31m"), "taband[31m");
    }
}
