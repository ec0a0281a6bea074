//! `segue tasks`, `show`, `cancel`, `retry`, `logs`: tasks looked at and steered.

use super::result::print_output;
use crate::api::views::{
    AttemptView, BodyView, ChangedView, TaskDetail, TaskView, TasksView, time_of,
};
use crate::args::{CancelArgs, IdArgs, LogsArgs, ShowArgs, TasksArgs};
use crate::client::{Client, encoded, with_params};
use crate::context::{Context, block_on};
use crate::failure::{Exit, Outcome};
use crate::screen::live::say;
use crate::screen::style::Paint;
use crate::screen::table::Table;
use crate::screen::text::{ago, bytes, cut, duration, line, lines, now, short};
use segue_core::task::TaskState;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// Asks the node that runs, or the store, one question.
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn ask<T: DeserializeOwned>(cx: &Context, path: &str) -> Outcome<T> {
    let project = cx.project()?;
    block_on(async {
        let client = Client::of(&project, None).await?;
        let answer = client.get(path).await;
        client.close(Duration::ZERO).await;
        answer
    })
}

/// Asks the node that runs, or the store, for one change.
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn change<T: DeserializeOwned>(cx: &Context, path: &str, body: &Value) -> Outcome<T> {
    let project = cx.project()?;
    block_on(async {
        let client = Client::of(&project, None).await?;
        let answer = client.post(path, body).await;
        client.close(Duration::ZERO).await;
        answer
    })
}

/// `segue tasks`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn list(cx: &Context, args: &TasksArgs) -> Outcome {
    let states: Vec<&str> = args.state.iter().map(|state| state.as_str()).collect();
    let params = [
        ("state", (!states.is_empty()).then(|| states.join(","))),
        ("agent", args.agent.clone()),
        ("run", args.run.clone()),
        ("limit", Some(args.limit.to_string())),
        ("before", args.before.clone()),
    ];
    let page: TasksView = ask(cx, &with_params("/v1/tasks", &params))?;
    if cx.json {
        cx.print_json(&page)?;
        return Ok(Exit::Done);
    }
    if page.tasks.is_empty() {
        say(&cx.err.dim("no tasks"));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["ID", "NAME", "AGENT", "STATE", "TRIES", "AGE", "TOOK", "ERROR"])
        .give_way(&[7, 1, 2]);
    for task in &page.tasks {
        table.row(row(task, cx.out));
    }
    cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    if let Some(next) = &page.next {
        say(&cx.err.dim(format!("there are more: --before {}", short(next))));
    }
    Ok(Exit::Done)
}

fn row(task: &TaskView, paint: Paint) -> Vec<String> {
    let name = line(&task.name);
    let is_root = task.parent.is_none();
    vec![
        short(&task.id).to_owned(),
        if is_root { paint.bold(name) } else { name },
        paint.dim(line(who(task).unwrap_or_default())),
        state_word(task, paint),
        if task.attempts == 0 { String::new() } else { task.attempts.to_string() },
        age(task),
        took(task).map(duration).unwrap_or_default(),
        match (&task.error, task.state) {
            (Some(error), TaskState::Failed | TaskState::Retrying) => {
                paint.red(cut(&line(&error.message), 100))
            }
            _ => String::new(),
        },
    ]
}

fn state_word(task: &TaskView, paint: Paint) -> String {
    let is_skipped = task.state == TaskState::Cancelled
        && task.error.as_ref().is_some_and(|error| error.class.as_str() == "skipped");
    paint.state(task.state, if is_skipped { "skipped" } else { task.state.as_str() })
}

fn who(task: &TaskView) -> Option<&str> {
    let who = task.taken_by.as_ref().or(task.agent.as_ref()).or(task.capability.as_ref());
    who.map(String::as_str)
}

fn age(task: &TaskView) -> String {
    time_of(&task.created_at).map(|at| ago(now().since_ms(at))).unwrap_or_default()
}

/// From when its latest attempt was given out, or with children from submit, to its end or now.
fn took(task: &TaskView) -> Option<u64> {
    let group = task.agent.is_none() && task.capability.is_none();
    let began =
        if group || task.children > 0 { Some(&task.created_at) } else { task.assigned_at.as_ref() };
    let began = began.and_then(|at| time_of(at))?;
    let ended = task.finished_at.as_deref().and_then(time_of);
    match (ended, task.state.holds_slot() || task.state == TaskState::Waiting) {
        (Some(ended), _) => Some(ended.since_ms(began)),
        (None, true) => Some(now().since_ms(began)),
        (None, false) => None,
    }
}

/// `segue show`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn show(cx: &Context, args: &ShowArgs) -> Outcome {
    let path = format!("/v1/tasks/{}", encoded(&args.id));
    if args.output {
        let project = cx.project()?;
        let output = block_on(async {
            let client = Client::of(&project, None).await?;
            let output = client.bytes(&format!("{path}/output")).await;
            client.close(Duration::ZERO).await;
            output
        })?;
        cx.write(&output)?;
        cx.write(b"\n")?;
        return Ok(Exit::Done);
    }
    let full = args.full.then(|| "1".to_owned());
    let detail: TaskDetail = ask(cx, &with_params(&path, &[("full", full)]))?;
    if cx.json {
        cx.print_json(&detail)?;
        return Ok(Exit::Done);
    }
    cx.print_lines(&portrait(&detail, cx.out))?;
    for (name, body) in [("input", Some(&detail.input)), ("output", detail.output.as_ref())] {
        let Some(body) = body else { continue };
        print_body(cx, name, body, &detail.task.id, args.full)?;
    }
    Ok(Exit::Done)
}

fn print_body(cx: &Context, name: &str, body: &BodyView, task: &str, full: bool) -> Outcome<()> {
    let size = bytes(body.bytes);
    if body.omitted {
        return cx.print(format!("{} {size}: `--full` shows it", cx.out.bold(name)));
    }
    cx.print(format!("{} {}", cx.out.bold(name), cx.out.dim(size)))?;
    if full { cx.print_json(&body.value) } else { print_output(cx, &body.value, task) }
}

/// What there is to say about a task but its input and output.
fn portrait(detail: &TaskDetail, paint: Paint) -> Vec<String> {
    let task = &detail.task;
    let mut out = vec![format!("{}  {}", paint.bold(line(&task.name)), state_word(task, paint))];
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            out.push(format!("  {}  {value}", paint.dim(format!("{name:<10}"))));
        }
    };
    fact("id", task.id.clone());
    if task.run != task.id {
        fact("run", task.run.clone());
    }
    fact("parent", task.parent.clone().unwrap_or_default());
    fact("agent", task.agent.as_deref().map(line).unwrap_or_default());
    fact("capability", task.capability.as_deref().map(line).unwrap_or_default());
    fact("taken by", task.taken_by.as_deref().map(line).unwrap_or_default());
    fact("needs", task.needs.iter().map(|id| short(id)).collect::<Vec<_>>().join(", "));
    fact("submitted", format!("{} ({} ago)", task.created_at, age(task)));
    fact("ended", task.finished_at.clone().unwrap_or_default());
    fact("took", took(task).map(duration).unwrap_or_default());
    fact("retry at", task.retry_at.clone().unwrap_or_default());
    if task.priority != 5 {
        fact("priority", task.priority.to_string());
    }
    if let Some(error) = &task.error {
        let message = lines(&error.message).replace('\n', "\n              ");
        fact("error", paint.red(format!("{message} ({})", error.class.as_str())));
    }
    if !detail.attempts.is_empty() {
        out.push(paint.bold("attempts"));
        out.extend(attempts(&detail.attempts, paint));
    }
    if !detail.children.is_empty() {
        out.push(paint.bold("children"));
        let mut table = Table::new(&["ID", "NAME", "AGENT", "STATE", "TRIES", "TOOK"]);
        for child in &detail.children {
            let mut cells = row(child, paint);
            cells.remove(7);
            cells.remove(5);
            table.row(cells);
        }
        out.extend(table.lines(paint, None).into_iter().map(|line| format!("  {line}")));
    }
    out
}

fn attempts(attempts: &[AttemptView], paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["#", "END", "AGENT", "TOOK", "PROCESS", "USED", "ERROR"]);
    for attempt in attempts {
        let ended = attempt.ended_at.as_deref().and_then(time_of).unwrap_or_else(now);
        let took = time_of(&attempt.assigned_at).map(|began| duration(ended.since_ms(began)));
        let end = attempt.end.map_or("running", |end| end.as_str());
        let end = match end {
            "completed" | "delegated" => paint.green(end),
            "running" => paint.cyan(end),
            _ => paint.yellow(end),
        };
        table.row(vec![
            attempt.number.to_string(),
            end,
            attempt.agent.as_deref().map(line).unwrap_or_default(),
            took.unwrap_or_default(),
            attempt.process.map(|process| process.pid.to_string()).unwrap_or_default(),
            used(attempt),
            attempt.error.as_ref().map(|error| cut(&line(&error.message), 100)).unwrap_or_default(),
        ]);
    }
    table.lines(paint, None).into_iter().map(|line| format!("  {line}")).collect()
}

/// What an attempt used, as far as it is known.
fn used(attempt: &AttemptView) -> String {
    let Some(usage) = &attempt.usage else { return String::new() };
    let mut parts = Vec::new();
    if usage.input_tokens + usage.output_tokens > 0 {
        parts.push(format!("{} in, {} out", usage.input_tokens, usage.output_tokens));
    }
    if let Some(cost) = usage.cost_usd {
        parts.push(format!("${cost:.4}"));
    }
    if usage.cpu_ms > 0 {
        parts.push(format!("cpu {}", duration(usage.cpu_ms)));
    }
    if usage.rss_kib_max > 0 {
        parts.push(bytes(usage.rss_kib_max * 1_024));
    }
    parts.join(", ")
}

/// `segue cancel`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn cancel(cx: &Context, args: &CancelArgs) -> Outcome {
    let path = format!("/v1/tasks/{}/cancel", encoded(&args.id));
    let body = args.reason.as_ref().map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let changed: ChangedView = change(cx, &path, &body)?;
    tell(cx, &changed, "cancelled", "had ended already")
}

/// `segue retry`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn retry(cx: &Context, args: &IdArgs) -> Outcome {
    let path = format!("/v1/tasks/{}/retry", encoded(&args.id));
    let changed: ChangedView = change(cx, &path, &json!({}))?;
    tell(cx, &changed, "ready for another attempt", "is ready already")
}

/// Says what became of a request for a change.
///
/// # Errors
/// When whoever reads it has gone.
pub fn tell(cx: &Context, changed: &ChangedView, done: &str, before: &str) -> Outcome {
    if cx.json {
        cx.print_json(changed)?;
    } else {
        let what = if changed.changed { done } else { before };
        cx.print(format!("{} {what}", changed.id))?;
    }
    Ok(Exit::Done)
}

/// `segue logs`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn logs(cx: &Context, args: &LogsArgs) -> Outcome {
    let project = cx.project()?;
    let attempt = args.attempt.map(|number| number.to_string());
    let path =
        with_params(&format!("/v1/tasks/{}/log", encoded(&args.id)), &[("attempt", attempt)]);
    let log = block_on(async {
        let client = Client::of(&project, None).await?;
        let log = client.bytes(&path).await;
        client.close(Duration::ZERO).await;
        log
    })?;
    let text = String::from_utf8_lossy(&log);
    if cx.json {
        cx.print_json(&json!({ "log": text }))?;
    } else if text.is_empty() {
        say(&cx.err.dim("it wrote nothing"));
    } else if cx.cells().is_some() {
        // What an agent wrote must not steer the terminal.
        cx.print(lines(text.trim_end_matches('\n')))?;
    } else {
        cx.write(&log)?;
    }
    Ok(Exit::Done)
}
