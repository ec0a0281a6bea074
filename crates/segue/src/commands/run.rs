//! `segue run`: a workflow file or a goal, shown live to its end.

use super::attend::attended;
use super::follow::Show;
use super::input;
use crate::api::runs::RunBody;
use crate::api::views::{SubmittedView, WarningView};
use crate::args::RunArgs;
use crate::client::{Client, Marks};
use crate::context::{Context, block_on};
use crate::failure::{Exit, Failure, Outcome};
use crate::project::Project;
use crate::screen::live::say;
use crate::screen::text::short;
use segue_core::workflow::{self, MAX_FILE_BYTES};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Runs a workflow or a goal.
///
/// # Errors
/// What is wrong with the file or its input; why the run failed; why the node cannot work.
pub fn run(cx: &Context, args: &RunArgs) -> Outcome {
    let body = body(cx, args)?;
    let project = cx.project_or_new()?;
    if args.detach {
        return block_on(detach(cx, args, &project, &body));
    }
    let show = Show::of(cx, args.quiet);
    block_on(attended(cx, &project, args.team.as_deref(), show, async |client: &Client| {
        Ok(submit(cx, args, client, &body).await?.id)
    }))
}

async fn submit(
    cx: &Context,
    args: &RunArgs,
    client: &Client,
    body: &RunBody,
) -> Outcome<SubmittedView> {
    let marks = Marks {
        idempotency_key: args.idempotency_key.as_deref(),
        traceparent: args.traceparent.as_deref(),
    };
    let submitted: SubmittedView =
        client.submit("/v1/runs", body, marks).await.map_err(allow_missing_hint)?;
    if !args.quiet {
        // What is doubtful about a file was said when it was read.
        warn(cx, submitted.warnings.iter().filter(|warning| warning.line.is_none()));
    }
    Ok(submitted)
}

/// Says that work for somebody who comes later can be submitted all the same.
pub fn allow_missing_hint(failure: Failure) -> Failure {
    let missing = failure.exit == Exit::Usage
        && (failure.message.contains("there is no agent `")
            || failure.message.contains("no agent has the capability `"));
    if !missing {
        return failure;
    }
    let hint = failure.hint.clone().unwrap_or_default();
    failure.hint(format!("{hint}\n--allow-missing submits it all the same"))
}

/// Says what is doubtful.
pub fn warn<'a>(cx: &Context, warnings: impl Iterator<Item = &'a WarningView>) {
    for warning in warnings {
        say(&format!("{} {}", cx.err.yellow("warning:"), warning.message));
        if let Some(hint) = &warning.hint {
            say(&format!("  {} {hint}", cx.err.dim("hint:")));
        }
    }
}

async fn detach(cx: &Context, args: &RunArgs, project: &Project, body: &RunBody) -> Outcome {
    let client = Client::of(project, args.team.as_deref()).await?;
    let submitted = submit(cx, args, &client, body).await;
    let runs = client.has_engine();
    client.close(Duration::ZERO).await;
    let submitted = submitted?;
    if cx.json {
        cx.print_json(&submitted)?;
    } else {
        cx.print(&submitted.id)?;
    }
    if !args.quiet {
        let id = short(&submitted.id);
        say(&cx.err.dim(if runs {
            format!("`segue watch {id}` shows it")
        } else {
            format!(
                "no node runs: it begins with the next `segue up`, and `segue watch {id}` shows it"
            )
        }));
    }
    Ok(Exit::Done)
}

/// The run as the API takes it. What is wrong with a workflow file is found here, before anything is started.
fn body(cx: &Context, args: &RunArgs) -> Outcome<RunBody> {
    let common = RunBody {
        timeout_ms: args.timeout,
        allow_missing: Some(args.allow_missing),
        ..RunBody::default()
    };
    if let Some(path) = &args.workflow {
        return of_workflow(cx, args, path, common);
    }
    Ok(RunBody {
        goal: args.goal.clone(),
        agent: Some(args.agent.clone()),
        state_keys: args.state_key.clone(),
        input: input::object(&args.input, &input::json_or_text)?,
        ..common
    })
}

fn of_workflow(cx: &Context, args: &RunArgs, path: &Path, common: RunBody) -> Outcome<RunBody> {
    let file = path.display().to_string();
    let bytes = read_workflow(path)?;
    let checked = workflow::parse(&bytes).map_err(|wrong| {
        Failure::report(Exit::Usage, wrong.render(&file, &bytes, cx.err.is_on()))
    })?;
    if !checked.warnings.is_empty() && !args.quiet {
        say(checked.warnings.render(&file, &bytes, cx.err.is_on()).trim_end());
    }
    let workflow = checked.workflow;
    let given = input::object(&args.input, &input::typed(&workflow))?;
    if let Err(wrong) = workflow.bind_input(given.clone()) {
        return Err(input_report(cx, &file, &wrong));
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(RunBody {
        // The parser refuses what is not UTF-8.
        workflow: Some(String::from_utf8_lossy(&bytes).into_owned()),
        name: stem,
        input: given,
        ..common
    })
}

fn read_workflow(path: &Path) -> Outcome<Vec<u8>> {
    let refused = |error: std::io::Error| {
        let failure = Failure::usage(format!("{} cannot be read: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::NotFound => failure.hint("`segue init` writes an example workflow"),
            _ => failure,
        }
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(refused)?;
    // One byte more than may be: the parser says that it is too much.
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
    Ok(bytes)
}

fn input_report(cx: &Context, file: &str, wrong: &[workflow::InputError]) -> Failure {
    let mut report = String::new();
    for error in wrong {
        report.push_str(&format!("{} {}\n", cx.err.error("error:"), error.message));
        if let Some(hint) = &error.hint {
            report.push_str(&format!("  {} {hint}\n", cx.err.dim("hint:")));
        }
    }
    report.push_str(&cx.err.dim(format!("inputs of {file} are given with --input NAME=VALUE")));
    Failure::report(Exit::Usage, report)
}
