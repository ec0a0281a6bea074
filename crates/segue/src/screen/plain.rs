//! A run as plain lines, one an event that a person wants to know: for logs, and where there is no terminal.

use super::style::Paint;
use super::text::{count, duration, line, note, padded, short};
use super::tree::Tree;
use crate::api::event_view::{EventView, What};
use crate::api::views::time_of;
use segue_core::task::TaskState;
use segue_core::time::Time;

/// Narrowest column of names.
const NAME_CELLS: usize = 20;

/// The line for an event, told after the tree has taken it in; nothing for events that only machines care about.
pub fn event_line(tree: &Tree, event: &EventView, since: Time, paint: Paint) -> Option<String> {
    let at = time_of(&event.at)?;
    let node = event.task.as_deref().and_then(|id| tree.node(id))?;
    let took = node.elapsed_ms(at).map(|ms| format!(" in {}", duration(ms))).unwrap_or_default();
    let is_run = event.task == event.run;
    let said = match &event.what {
        What::Submitted { .. } if is_run => {
            format!("run {}", short(event.run.as_deref().unwrap_or_default()))
        }
        What::Assigned { number, agent, .. } if node.unhappy > 0 => {
            format!("given to {} (attempt {number})", line(agent))
        }
        What::Assigned { agent, .. } => format!("given to {}", line(agent)),
        What::Progress { note: text, .. } => note(text),
        What::Completed { .. } => paint.green(format!("completed{took}")),
        What::AttemptFailed { number, message, retry_at, .. } => {
            let again = retry_at.as_deref().and_then(time_of).map_or_else(String::new, |next| {
                format!("; again in {}", duration(next.since_ms(at)))
            });
            paint.yellow(format!("attempt {number} failed: {}{again}", line(message)))
        }
        What::AttemptLost { number, reason } => {
            paint.yellow(format!("attempt {number} was lost: {}", line(reason)))
        }
        What::Failed { message, .. } => paint.red(format!("failed{took}: {}", line(message))),
        What::Waiting { children, .. } => {
            format!("waits for {}", count(*children as usize, "task"))
        }
        What::Resumed => "resumed with the results".to_owned(),
        What::Cancelled { reason } => paint.yellow(format!("cancelled: {}", line(reason))),
        What::Skipped { reason } => paint.dim(format!("skipped: {}", line(reason))),
        What::Requeued => "put back into the queue".to_owned(),
        What::ProcessesEnded { processes, .. } => {
            let killed = processes.iter().filter(|process| process.signal.is_some()).count();
            if killed == 0 {
                return None;
            }
            format!(
                "{} ended with it",
                if killed == 1 {
                    "1 process was".into()
                } else {
                    format!("{killed} processes were")
                }
            )
        }
        What::LateOutcome { outcome, .. } => {
            format!("a late outcome ({outcome}) came and was kept")
        }
        What::Submitted { .. }
        | What::Unblocked
        | What::Started { .. }
        | What::Retried
        | What::AgentRegistered { .. }
        | What::AgentDrained { .. }
        | What::AgentGone { .. } => return None,
    };
    let name = padded(&node.name, NAME_CELLS);
    let name = if is_run { paint.bold(name) } else { name };
    let elapsed = format!("{:>7}", duration(at.since_ms(since)));
    Some(format!("{}  {name}  {said}", paint.dim(elapsed)))
}

/// The last line: how it ended.
pub fn summary_line(tree: &Tree, top: &str, state: TaskState, now: Time, paint: Paint) -> String {
    let node = tree.node(top);
    let name = node.map(|node| node.name.clone()).unwrap_or_default();
    let elapsed = node.and_then(|node| node.elapsed_ms(now)).map(duration).unwrap_or_default();
    let (mark, word) = match state {
        TaskState::Completed => (paint.green("✓"), paint.green("completed")),
        TaskState::Failed => (paint.red("✗"), paint.red("failed")),
        TaskState::Cancelled => (paint.yellow("–"), paint.yellow("cancelled")),
        other => ("…".to_owned(), other.to_string()),
    };
    let rest = paint.dim(format!("· {}", tree.summary()));
    let elapsed = if elapsed.is_empty() { elapsed } else { format!(" in {elapsed}") };
    format!("{mark} {} {word}{elapsed} {rest}", paint.bold(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::at;

    #[test]
    fn an_event_is_one_line_and_what_only_machines_want_is_none() {
        let mut tree = Tree::default();
        let told = |tree: &mut Tree, ms: i64, what: What| {
            let event = EventView {
                cursor: 1,
                run: Some("a".into()),
                seq: 1,
                task: Some("b".into()),
                at: at(Time(ms)),
                what,
            };
            tree.apply(&event);
            event_line(tree, &event, Time(0), Paint::new(false))
        };
        let submitted = What::Submitted {
            name: "fetch".into(),
            agent: Some("w".into()),
            capability: None,
            state: TaskState::Ready,
            parent: None,
        };
        assert_eq!(told(&mut tree, 0, submitted), None);
        let lost = What::AttemptLost { number: 1, reason: "its host ended".into() };
        assert_eq!(
            told(&mut tree, 900, lost).unwrap(),
            "  900ms  fetch                 attempt 1 was lost: its host ended"
        );
        let assigned = What::Assigned {
            attempt: "x".into(),
            number: 2,
            agent: "w".into(),
            instance: "i".into(),
            traceparent: None,
        };
        assert_eq!(
            told(&mut tree, 1_000, assigned).unwrap(),
            "   1.0s  fetch                 given to w (attempt 2)"
        );
        let failed = What::AttemptFailed {
            number: 2,
            class: segue_core::task::ErrorClass::Transient,
            message: "no\nluck".into(),
            retry_at: Some(at(Time(3_500))),
        };
        assert_eq!(
            told(&mut tree, 1_500, failed).unwrap(),
            "   1.5s  fetch                 attempt 2 failed: no luck; again in 2.0s"
        );
        let done = What::Completed { number: 3, output_bytes: 1 };
        assert_eq!(
            told(&mut tree, 4_000, done).unwrap(),
            "   4.0s  fetch                 completed in 3.0s"
        );
        let end = summary_line(&tree, "b", TaskState::Completed, Time(9_000), Paint::new(false));
        assert_eq!(end, "✓ fetch completed in 3.0s · 1 task, 2 attempts, 2 of them failed or lost");
    }
}
