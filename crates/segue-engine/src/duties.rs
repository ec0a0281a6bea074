//! The side stair: work that a commit left behind. Cascades go on; templates are rendered and outputs collected here, between two
//! commits, and never under the writer's lock.

use crate::complain::complain;
use crate::engine::{Engine, EngineError};
use crate::state::{keys_in, keys_read};
use crate::submit::payload;
use segue_core::command::{Command, Duty, DutyKind, Reject, Rendered};
use segue_core::ids::TaskId;
use segue_core::payload::Payload;
use segue_core::ports::{StoreError, TaskFilter};
use segue_core::task::{ErrorClass, OnFailure, Task, TaskError, TaskState, Template};
use segue_core::template::{self, Context, EndState, TaskView};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

/// Duties handled in one batch.
const BATCH_MAX: usize = 256;
/// Beats between two looks into the table of duties.
const BEATS: u32 = 5;

/// Does what commits left behind: at once when told, and on a slow beat what an earlier life left.
pub(crate) async fn duty_loop(engine: Arc<Engine>, mut duties: mpsc::UnboundedReceiver<Duty>) {
    let mut stopping = engine.stopping();
    let beat = Duration::from_millis(engine.config.beat_ms) * BEATS;
    let mut next_beat = tokio::time::Instant::now();
    loop {
        let mut batch = Vec::new();
        let mut is_full_page = false;
        tokio::select! {
            biased;
            () = crate::engine::stopped(&mut stopping) => return,
            () = tokio::time::sleep_until(next_beat) => {
                next_beat = tokio::time::Instant::now() + beat;
                match engine.parts.store.duties(BATCH_MAX).await {
                    Ok(found) => {
                        is_full_page = found.len() == BATCH_MAX;
                        batch = found;
                    }
                    Err(error) => complain(&error, "could not read what was left behind"),
                }
            }
            duty = duties.recv() => {
                let Some(duty) = duty else { return };
                batch.push(duty);
                while batch.len() < BATCH_MAX && let Ok(duty) = duties.try_recv() {
                    batch.push(duty);
                }
            }
        }
        batch.sort_unstable();
        batch.dedup();
        match carry_out(&engine, batch).await {
            // There is more in the table than one page, and this page went well: the next one need not wait.
            Ok(done) if is_full_page && done > 0 => next_beat = tokio::time::Instant::now(),
            Ok(_) => {}
            Err(error) => {
                complain(&error, "work left behind could not be done now; it is in the table");
            }
        }
    }
}

/// Does these duties, and returns how many are done.
async fn carry_out(engine: &Engine, duties: Vec<Duty>) -> Result<usize, EngineError> {
    let mut commands = Vec::with_capacity(duties.len());
    for duty in duties {
        let rendered = match duty.kind {
            DutyKind::Propagate { .. } | DutyKind::CancelChildren { .. } => {
                commands.push(Command::Continue(duty));
                continue;
            }
            DutyKind::Render => render(engine, duty.task).await,
            DutyKind::Collect => collect(engine, duty.task).await,
        };
        // Each by itself: one that cannot be done must not hold up the others.
        match lasting(rendered) {
            Ok(Some(rendered)) => commands.push(Command::Expand { task: duty.task, rendered }),
            Ok(None) => {}
            Err(error) => {
                complain(
                    &error,
                    &format!("task {} could not be rendered now; it is tried again", duty.task),
                );
            }
        }
    }
    if commands.is_empty() {
        return Ok(0);
    }
    let mut done = 0;
    for decision in engine.apply(commands).await? {
        match decision {
            Ok(_) => done += 1,
            Err(reject) => tracing::warn!(%reject, "work left behind was refused"),
        }
    }
    Ok(done)
}

type Outcome = Result<Rendered, TaskError>;

/// An error that will be the same every time is the task's: otherwise it would be tried for ever.
fn lasting(rendered: Result<Option<Outcome>, EngineError>) -> Result<Option<Outcome>, EngineError> {
    match rendered {
        Err(
            error @ (EngineError::Store(StoreError::MissingPayload(_) | StoreError::Corrupt(_))
            | EngineError::Rejected(_)),
        ) => {
            let message = format!("what it needs cannot be read: {error}");
            Ok(Some(Err(TaskError::new(ErrorClass::Permanent, message))))
        }
        other => other,
    }
}

/// Renders what a task holds in templates. `None` where there is no such task any more.
async fn render(engine: &Engine, id: TaskId) -> Result<Option<Outcome>, EngineError> {
    let Some(task) = engine.parts.store.task(id).await? else { return Ok(None) };
    let Some(template) = task.spec.template.clone() else { return Ok(None) };
    let names: BTreeMap<TaskId, Arc<str>> =
        task.spec.needs.iter().filter_map(|need| Some((need.task, need.name.clone()?))).collect();
    let needs = engine.parts.store.tasks_by_id(names.keys().copied().collect()).await?;
    let mut views = BTreeMap::new();
    for need in needs {
        if let Some(name) = names.get(&need.id()) {
            views.insert(name.to_string(), view(engine, &need).await?);
        }
    }
    let run_input = run_input(engine, &task).await?;
    let input = engine.value_of(&task.input).await?;
    let state = match engine.state_for(&task, &keys_read(&template, &input)).await? {
        Ok(state) => state,
        Err(error) => return Ok(Some(Err(error))),
    };
    let run = task.spec.root.to_string();
    let values = blocking(move || {
        let context = Context::new(&run_input, &views).with_run(&run).with_state(&state);
        render_values(&template, &input, &context)
    })
    .await?;
    Ok(Some(match values {
        Err(error) => Err(error),
        Ok(Values::Skip(reason)) => Ok(Rendered::Skip { reason }),
        Ok(Values::Input(value)) => Ok(Rendered::Input(stored(engine, &value).await?)),
        Ok(Values::Items(items)) => {
            let mut payloads = Vec::with_capacity(items.len());
            for item in items {
                payloads.push(stored(engine, &item).await?);
            }
            Ok(Rendered::Items(payloads))
        }
    }))
}

enum Values {
    Skip(String),
    Input(Value),
    Items(Vec<Value>),
}

fn render_values(
    template: &Template,
    input: &Value,
    context: &Context,
) -> Result<Values, TaskError> {
    let wrong = |error: template::TemplateError| {
        TaskError::new(ErrorClass::Template, format!("a template does not render: {error}"))
    };
    let render = |context: &Context| {
        if template.input {
            template::render_value(input, context).map_err(wrong)
        } else {
            Ok(input.clone())
        }
    };
    if let Some(when) = &template.when
        && !template::eval_condition(when, context).map_err(wrong)?
    {
        return Ok(Values::Skip(format!("its condition is false: {when}")));
    }
    let Some(for_each) = &template.for_each else { return Ok(Values::Input(render(context)?)) };
    let items = template::eval_list(for_each, context).map_err(wrong)?;
    let inputs = items
        .iter()
        .enumerate()
        .map(|(place, item)| render(&context.with_item(item, place)))
        .collect::<Result<_, _>>()?;
    Ok(Values::Items(inputs))
}

/// Collects the outputs of the children of a group.
async fn collect(engine: &Engine, id: TaskId) -> Result<Option<Outcome>, EngineError> {
    let Some(task) = engine.parts.store.task(id).await? else { return Ok(None) };
    let filter = TaskFilter { parent: Some(id), limit: usize::MAX, ..TaskFilter::default() };
    let mut children = engine.parts.store.tasks(filter).await?;
    if let Some(error) = first_failure(&children) {
        return Ok(Some(Err(error)));
    }
    children.sort_by(|a, b| (&a.spec.key, a.id()).cmp(&(&b.spec.key, b.id())));
    let template = task.spec.template.as_deref();
    if template.is_some_and(|template| template.for_each.is_some()) {
        let mut outputs = Vec::with_capacity(children.len());
        for child in &children {
            outputs.push(output_of(engine, child).await?);
        }
        return Ok(Some(Ok(Rendered::Output(stored(engine, &Value::Array(outputs)).await?))));
    }
    if let Some(output) = template.and_then(|template| template.output.clone()) {
        return render_output(engine, &task, &children, &output).await.map(Some);
    }
    let mut outputs = Map::new();
    for child in children.iter().filter(|child| child.dependents == 0) {
        let name = child.spec.key.as_ref().unwrap_or(&child.spec.name);
        outputs.insert(name.to_string(), output_of(engine, child).await?);
    }
    Ok(Some(Ok(Rendered::Output(stored(engine, &Value::Object(outputs)).await?))))
}

async fn render_output(
    engine: &Engine,
    task: &Task,
    children: &[Arc<Task>],
    output: &Payload,
) -> Result<Outcome, EngineError> {
    let mut views = BTreeMap::new();
    for child in children {
        views.insert(child.spec.name.to_string(), view(engine, child).await?);
    }
    let input = engine.value_of(&task.input).await?;
    let output = engine.value_of(output).await?;
    let state = match engine.state_for(task, &keys_in(&output)).await? {
        Ok(state) => state,
        Err(error) => return Ok(Err(error)),
    };
    let run = task.spec.root.to_string();
    let rendered = blocking(move || {
        let context = Context::new(&input, &views).with_run(&run).with_state(&state);
        template::render_value(&output, &context)
    })
    .await?;
    match rendered {
        Ok(value) => Ok(Ok(Rendered::Output(stored(engine, &value).await?))),
        Err(error) => Ok(Err(TaskError::new(
            ErrorClass::Template,
            format!("the template of the output does not render: {error}"),
        ))),
    }
}

/// The failure that makes a group fail: the first that is not itself the consequence of another one.
fn first_failure(children: &[Arc<Task>]) -> Option<TaskError> {
    let mut failed: Vec<&Arc<Task>> = children
        .iter()
        .filter(|child| {
            let class = child.error.as_ref().map(|error| error.class);
            matches!(child.state, TaskState::Failed | TaskState::Cancelled)
                && class != Some(ErrorClass::Skipped)
                && child.spec.on_failure == OnFailure::Fail
        })
        .collect();
    failed.sort_by_key(|child| {
        let follows = child.error.as_ref().is_some_and(|error| error.class == ErrorClass::Upstream);
        (follows, child.finished_at, child.id())
    });
    let first = failed.first()?;
    let error = first.error.clone().unwrap_or_else(|| {
        TaskError::new(ErrorClass::Permanent, format!("it is {} for no known reason", first.state))
    });
    let more = match failed.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let message = format!("`{}` is {}: {}{more}", first.spec.name, first.state, error.message);
    Some(TaskError::new(error.class, message))
}

async fn view(engine: &Engine, task: &Task) -> Result<TaskView, EngineError> {
    let class = task.error.as_ref().map(|error| error.class);
    Ok(TaskView {
        state: match task.state {
            TaskState::Completed => EndState::Completed,
            TaskState::Cancelled if class == Some(ErrorClass::Skipped) => EndState::Skipped,
            TaskState::Cancelled => EndState::Cancelled,
            TaskState::Failed
            | TaskState::Blocked
            | TaskState::Ready
            | TaskState::Assigned
            | TaskState::Running
            | TaskState::Waiting
            | TaskState::Retrying => EndState::Failed,
        },
        output: output_of(engine, task).await?,
        error: task.error.as_ref().map(
            |error| serde_json::json!({ "class": error.class.as_str(), "message": error.message }),
        ),
    })
}

async fn output_of(engine: &Engine, task: &Task) -> Result<Value, EngineError> {
    match &task.output {
        Some(output) => engine.value_of(output).await,
        None => Ok(Value::Null),
    }
}

/// The input of the run, which templates know as `input`.
async fn run_input(engine: &Engine, task: &Task) -> Result<Value, EngineError> {
    if task.is_root() {
        return Ok(Value::Null);
    }
    match engine.parts.store.task(task.spec.root).await? {
        Some(root) => engine.value_of(&root.input).await,
        None => Ok(Value::Null),
    }
}

async fn stored(engine: &Engine, value: &Value) -> Result<Payload, EngineError> {
    payload(engine.parts.blobs.as_ref(), value.to_string()).await
}

/// Runs something that may take a while apart from the loops. A runtime of one thread is one that wants everything in the same
/// order each time: there it runs where it is.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        let message = format!("rendering was cut off: {error}");
        if error.is_panic() {
            EngineError::Rejected(Reject::Invalid(message))
        } else {
            EngineError::Store(StoreError::Io(message))
        }
    })
}
