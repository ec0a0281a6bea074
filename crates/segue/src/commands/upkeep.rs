//! `segue prune`: what is no longer wanted goes.

use super::tasks::change;
use crate::api::views::PrunedView;
use crate::args::PruneArgs;
use crate::context::Context;
use crate::failure::{Exit, Outcome};
use crate::screen::text::{bytes, count};
use serde_json::json;

/// `segue prune`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn prune(cx: &Context, args: &PruneArgs) -> Outcome {
    let pruned: PrunedView = change(cx, "/v1/prune", &json!({ "older_than_ms": args.older_than }))?;
    if cx.json {
        cx.print_json(&pruned)?;
        return Ok(Exit::Done);
    }
    let number =
        |number: u64, word: &str| count(usize::try_from(number).unwrap_or(usize::MAX), word);
    let mut parts = vec![
        number(pruned.runs, "run"),
        number(pruned.tasks, "task"),
        number(pruned.events, "event"),
        number(pruned.payloads, "payload"),
    ];
    if pruned.bytes > 0 {
        parts.push(format!("{} of files", bytes(pruned.bytes)));
    }
    if pruned.keys > 0 {
        parts.push(number(pruned.keys, "key"));
    }
    if pruned.folders > 0 {
        parts.push(number(pruned.folders, "folder"));
    }
    cx.print(format!("removed {}", parts.join(", ")))?;
    Ok(Exit::Done)
}
