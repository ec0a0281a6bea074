//! `segue events` and `segue watch`: what happens, as lines or as a tree.

use super::attend::watched;
use super::follow::{Show, Target};
use crate::api::event_view::EventView;
use crate::api::views::TaskDetail;
use crate::args::{EventsArgs, WatchArgs};
use crate::client::{Client, encoded, with_params};
use crate::context::{Context, block_on};
use crate::failure::{Exit, Failure, Outcome};
use crate::screen::live::say;
use crate::screen::text::{line, short};
use crate::signals::Signals;
use serde_json::Value;
use std::time::Duration;

/// `segue events`
///
/// # Errors
/// What the API refuses; no project, no node; a reader that has gone.
pub fn events(cx: &Context, args: &EventsArgs) -> Outcome {
    let project = cx.project()?;
    block_on(async {
        let client = Client::of(&project, None).await?;
        let result = print_events(cx, args, &client).await;
        client.close(Duration::ZERO).await;
        result
    })
}

async fn print_events(cx: &Context, args: &EventsArgs, client: &Client) -> Outcome {
    let follow = args.follow && client.has_engine();
    let (mut run, mut task) = (None, None);
    if let Some(id) = &args.id {
        let detail: TaskDetail = client.get(&format!("/v1/tasks/{}", encoded(id))).await?;
        match detail.task.run == detail.task.id {
            true => run = Some(detail.task.run),
            false => task = Some(detail.task.id),
        }
    }
    let mut signals = Signals::listen()?;
    let mut after = args.after;
    loop {
        let params = [
            ("run", run.clone()),
            ("task", task.clone()),
            ("after", Some(after.to_string())),
            ("follow", follow.then(|| "1".to_owned())),
        ];
        let mut lines = client.lines(&with_params("/v1/events", &params)).await?;
        let before = after;
        loop {
            let next = tokio::select! {
                next = lines.next() => next?,
                exit = signals.first() => return Err(Failure::silent(exit)),
            };
            let Some(text) = next else { break };
            let Ok(event) = serde_json::from_str::<EventView>(&text) else { continue };
            after = event.cursor;
            if cx.json { cx.print(&text)? } else { cx.print(event_text(cx, &event, &text))? }
        }
        // A page that was not empty may not have been the last one.
        if follow || after == before {
            break;
        }
    }
    if args.follow && !follow && !cx.json {
        say(&cx.err.dim("no node runs, so nothing more will happen"));
    }
    Ok(Exit::Done)
}

/// An event in one line: when, which task, what, and its fields.
fn event_text(cx: &Context, event: &EventView, text: &str) -> String {
    let fields: Value = serde_json::from_str(text).unwrap_or_default();
    let mut said = Vec::new();
    for (name, value) in fields.as_object().into_iter().flatten() {
        let is_known =
            ["cursor", "run", "seq", "task", "at", "event", "instance"].contains(&name.as_str());
        if is_known || value.is_null() {
            continue;
        }
        let value = match value {
            Value::String(text) if text.len() == 36 && name != "message" => short(text).to_owned(),
            Value::String(text) => line(text),
            other => line(&other.to_string()),
        };
        said.push(format!("{}{value}", cx.out.dim(format!("{name}="))));
    }
    let task = event.task.as_deref().map_or("project", short);
    let name = fields["event"].as_str().unwrap_or_default();
    let name = match name {
        "completed" => cx.out.green(name),
        "failed" => cx.out.red(name),
        "attempt_failed" | "attempt_lost" | "cancelled" => cx.out.yellow(name),
        _ => cx.out.bold(name),
    };
    format!("{}  {}  {name}  {}", cx.out.dim(&event.at), cx.out.cyan(task), said.join("  "))
        .trim_end()
        .to_owned()
}

/// `segue watch`
///
/// # Errors
/// What the API refuses; no project, no node; why the task failed.
pub fn watch(cx: &Context, args: &WatchArgs) -> Outcome {
    let project = cx.project()?;
    block_on(async {
        let client = Client::of(&project, None).await?;
        let found: Outcome<TaskDetail> =
            client.get(&format!("/v1/tasks/{}", encoded(&args.id))).await;
        let (task, idle) = match found {
            Ok(detail) => (detail.task, !client.has_engine()),
            Err(failure) => {
                client.close(Duration::ZERO).await;
                return Err(failure);
            }
        };
        if idle && !task.state.is_terminal() {
            client.close(Duration::ZERO).await;
            let message = format!("no node runs, so task {} stays {}", task.id, task.state);
            return Err(Failure::node(message).hint("start one with `segue up`"));
        }
        let target = Target { task: task.id, run: task.run, own: false };
        watched(cx, &project, client, &target, Show::of(cx, args.quiet)).await
    })
}
