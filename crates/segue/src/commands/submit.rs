//! `segue submit`: one task.

use super::attend::attended;
use super::follow::Show;
use super::input;
use super::run::{allow_missing_hint, warn};
use crate::api::submit::TaskBody;
use crate::api::views::SubmittedView;
use crate::args::SubmitArgs;
use crate::client::{Client, Marks};
use crate::context::{Context, block_on};
use crate::failure::{Exit, Outcome};
use crate::project::Project;
use crate::screen::live::say;
use crate::screen::text::short;
use segue_core::retry::RetryPolicy;
use std::time::Duration;

/// `segue submit`
///
/// # Errors
/// What the API refuses; with `--wait`, why the task failed.
pub fn submit(cx: &Context, args: &SubmitArgs) -> Outcome {
    let body = body(args)?;
    let project = cx.project()?;
    if !args.wait {
        return block_on(leave(cx, args, &project, &body));
    }
    let show = Show::of(cx, args.quiet);
    block_on(attended(cx, &project, args.team.as_deref(), show, async |client: &Client| {
        Ok(send(cx, args, client, &body).await?.id)
    }))
}

fn body(args: &SubmitArgs) -> Outcome<TaskBody> {
    let retry =
        args.retry_attempts.map(|attempts| RetryPolicy { attempts, ..RetryPolicy::default() });
    Ok(TaskBody {
        agent: args.agent.clone(),
        capability: args.capability.clone(),
        name: args.name.clone(),
        input: input::value(&args.input)?,
        needs: args.needs.clone(),
        state_keys: args.state_key.clone(),
        priority: args.priority,
        retry,
        timeout_ms: args.timeout,
        allow_missing: Some(args.allow_missing),
        ..TaskBody::default()
    })
}

async fn send(
    cx: &Context,
    args: &SubmitArgs,
    client: &Client,
    body: &TaskBody,
) -> Outcome<SubmittedView> {
    let marks = Marks {
        idempotency_key: args.idempotency_key.as_deref(),
        traceparent: args.traceparent.as_deref(),
    };
    let submitted: SubmittedView =
        client.submit("/v1/tasks", body, marks).await.map_err(allow_missing_hint)?;
    if !args.quiet {
        warn(cx, submitted.warnings.iter());
    }
    Ok(submitted)
}

async fn leave(cx: &Context, args: &SubmitArgs, project: &Project, body: &TaskBody) -> Outcome {
    let client = Client::of(project, None).await?;
    let submitted = send(cx, args, &client, body).await;
    let runs = client.has_engine();
    client.close(Duration::ZERO).await;
    let submitted = submitted?;
    if cx.json {
        cx.print_json(&submitted)?;
    } else {
        cx.print(&submitted.id)?;
    }
    if submitted.existing && !args.quiet {
        say(&cx.err.dim("it was there already, under the same key"));
    }
    if !runs && !args.quiet {
        say(&cx.err.dim(format!(
            "no node runs: it begins with the next `segue up`, and `segue watch {}` shows it",
            short(&submitted.id)
        )));
    }
    Ok(Exit::Done)
}
