//! What a task brought, or why it brought nothing.

use super::follow::{Ended, Show, Target, run_ended};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::screen::text::{bytes, lines, short};
use segue_core::task::TaskState;
use serde_json::Value;

/// On a terminal, texts longer than this are shortened, in characters.
const TEXT_MAX: usize = 400;
/// On a terminal, lists longer than this are shortened.
const LIST_MAX: usize = 40;

/// Prints what a run brought, and gives its exit code.
///
/// # Errors
/// When the output cannot be read; when the task failed, what is to be said about it.
pub async fn print_result(
    cx: &Context,
    client: &Client,
    target: &Target,
    ended: &Ended,
    show: Show,
) -> Outcome<Exit> {
    let output = match ended.state {
        TaskState::Completed => {
            let text = client.bytes(&format!("/v1/tasks/{}/output", target.task)).await?;
            serde_json::from_slice(&text).ok()
        }
        _ => None,
    };
    match (show, &output) {
        (Show::Json, _) => {
            let last = run_ended(&target.run, ended, output);
            match cx.print(last.to_string()) {
                // Whoever read this has gone; the exit code still tells.
                Ok(()) | Err(_) => return Ok(ended.exit()),
            }
        }
        (Show::People, Some(output)) => print_output(cx, output, &target.task)?,
        (Show::People | Show::Nothing, _) => {}
    }
    match ended.state {
        TaskState::Completed => Ok(Exit::Done),
        _ => Err(why(target, ended)),
    }
}

/// Prints an output: on a terminal for people, with long texts shortened, else whole.
///
/// # Errors
/// When whoever reads it has gone.
pub fn print_output(cx: &Context, output: &Value, task: &str) -> Outcome<()> {
    if cx.cells().is_none() {
        return cx.print_json(output);
    }
    let mut shown = output.clone();
    let is_short = shorten(&mut shown);
    cx.print_json(&shown)?;
    if is_short {
        let all = format!("shortened; `segue show {} --output` prints all of it", short(task));
        crate::screen::live::say(&cx.err.dim(all));
    }
    Ok(())
}

/// Shortens long texts and lists; true where there were any.
fn shorten(value: &mut Value) -> bool {
    match value {
        Value::String(text) => {
            let Some((end, _)) = text.char_indices().nth(TEXT_MAX) else { return false };
            *text = format!("{}… ({} in all)", &text[..end], bytes(text.len() as u64));
            true
        }
        Value::Array(items) => {
            let more = items.len().saturating_sub(LIST_MAX);
            if more > 0 {
                items.truncate(LIST_MAX);
                items.push(Value::String(format!("… and {more} more")));
            }
            items.iter_mut().fold(more > 0, |any, item| shorten(item) | any)
        }
        Value::Object(fields) => fields.values_mut().fold(false, |any, field| shorten(field) | any),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Why a task has no output, and where to look.
fn why(target: &Target, ended: &Ended) -> Failure {
    let exit = ended.exit();
    if ended.signal.is_some() {
        return Failure::silent(exit);
    }
    let message = match &ended.error {
        Some(error) => format!("{} ({})", lines(&error.message), error.class.as_str()),
        None => format!("it is {}", ended.state),
    };
    let id = short(&target.task);
    Failure::new(exit, message)
        .hint(format!("`segue show {id}` tells more, `segue logs ID` what an agent wrote"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_long_is_shortened_and_that_is_said() {
        let mut small = json!({"a": ["b", 1, null]});
        assert!(!shorten(&mut small));
        assert_eq!(small, json!({"a": ["b", 1, null]}));
        let mut large = json!({"text": "é".repeat(500), "list": vec![1; 50]});
        assert!(shorten(&mut large));
        assert!(large["text"].as_str().unwrap().ends_with("é… (1000 B in all)"));
        assert_eq!(large["list"].as_array().unwrap().len(), 41);
        assert_eq!(large["list"][40], "… and 10 more");
    }
}
