//! Commands that need neither a node nor a runtime.

use crate::args::{Builtin, BuiltinArgs, Cli, CompletionsArgs, SchemaArgs, SchemaOf};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use clap::CommandFactory;
use segue_agent::contract::CONTRACT_VERSION;
use serde_json::{Value, json};
use std::io::Read;

/// Prints a completion script.
///
/// # Errors
/// When whoever reads it has gone.
pub fn completions(cx: &Context, args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "segue", &mut script);
    cx.write(&script)?;
    Ok(Exit::Done)
}

/// Prints a JSON Schema.
///
/// # Errors
/// When whoever reads it has gone.
pub fn schema(cx: &Context, args: &SchemaArgs) -> Outcome {
    let schema = match args.of {
        SchemaOf::Workflow => segue_core::workflow::json_schema(),
    };
    cx.print_json(&schema)?;
    Ok(Exit::Done)
}

/// Longest task that a builtin agent reads.
const TASK_MAX: u64 = 256 << 20;

/// Is an agent: reads a task from standard input and prints the outcome.
///
/// # Errors
/// When whoever reads it has gone.
pub fn agent(cx: &Context, args: &BuiltinArgs) -> Outcome {
    let outcome = match read_task() {
        Ok(task) => match args.which {
            Builtin::Planner => segue_core::plan::step(&task),
        },
        Err(failure) => json!({
            "segue": CONTRACT_VERSION, "outcome": "fail", "class": "permanent", "message": failure.message,
        }),
    };
    cx.print(outcome.to_string())?;
    Ok(Exit::Done)
}

fn read_task() -> Outcome<Value> {
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .take(TASK_MAX)
        .read_to_end(&mut text)
        .map_err(|error| Failure::usage(format!("standard input cannot be read: {error}")))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::usage(format!("standard input holds no task: {error}")))
}
