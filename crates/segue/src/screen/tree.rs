//! A run as a tree of its tasks, built from its events. Pure: what it looks like at a time follows from the events alone.

use super::style::Paint;
use super::text::{count, cut, duration, line, note, padded, width};
use crate::api::event_view::{EventView, What};
use crate::api::views::time_of;
use segue_core::task::TaskState;
use segue_core::time::Time;
use std::collections::HashMap;

/// Frames of the spinner; one of the run a tenth of a second.
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Widest column of names, and of agents, in cells.
const NAME_MAX: usize = 44;
const WHO_MAX: usize = 24;
/// What elapsed times take.
const TIME_CELLS: usize = 7;

/// The tree of a run.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: HashMap<String, Node>,
    tops: Vec<String>,
    /// The cursor of the last event that was taken in.
    pub cursor: u64,
}

/// A task in the tree.
#[derive(Debug)]
pub struct Node {
    /// What people call it.
    pub name: String,
    /// Who has it, or who is to have it.
    pub who: String,
    /// Where it stands.
    pub state: TaskState,
    /// It was skipped rather than cancelled.
    pub skipped: bool,
    /// Its latest attempt.
    pub attempt: u32,
    /// When its work began.
    pub began: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
    /// Why it ended without a result.
    pub reason: Option<String>,
    retry_at: Option<Time>,
    note: String,
    children: Vec<String>,
    /// Attempts that failed or were lost.
    pub unhappy: u32,
}

/// How the tree is to be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours, or none.
    pub paint: Paint,
    /// Cells of a line.
    pub width: usize,
    /// Lines at most, where there is a limit.
    pub height: Option<usize>,
    /// Now.
    pub now: Time,
    /// Which picture of the spinner; `None` once everything is over.
    pub frame: Option<usize>,
}

impl Tree {
    /// A task of the tree.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: &EventView) {
        self.cursor = event.cursor;
        let Some(id) = &event.task else { return };
        let at = time_of(&event.at);
        if let What::Submitted { name, agent, capability, state, parent } = &event.what {
            return self.submitted(
                id,
                name,
                agent.as_ref().or(capability.as_ref()),
                *state,
                parent.as_deref(),
                at,
            );
        }
        let Some(node) = self.nodes.get_mut(id) else { return };
        match &event.what {
            What::Unblocked | What::Resumed | What::Retried => node.state = TaskState::Ready,
            What::Assigned { number, agent, .. } => {
                node.state = TaskState::Assigned;
                node.who = line(agent);
                node.attempt = *number;
                node.began = node.began.or(at);
                node.note.clear();
            }
            What::Started { .. } => node.state = TaskState::Running,
            What::Progress { note: said, .. } => node.note = note(said),
            What::AttemptFailed { message, retry_at, .. } => {
                node.unhappy += 1;
                node.note = line(message);
                if let Some(retry_at) = retry_at {
                    node.state = TaskState::Retrying;
                    node.retry_at = time_of(retry_at);
                }
            }
            What::AttemptLost { reason, .. } => {
                node.unhappy += 1;
                node.state = TaskState::Ready;
                node.note = line(reason);
            }
            What::Waiting { .. } => {
                node.state = TaskState::Waiting;
                node.began = node.began.or(at);
            }
            What::Requeued => {
                node.state = TaskState::Ready;
                (node.ended, node.reason, node.skipped) = (None, None, false);
            }
            What::Completed { .. } => node.end(TaskState::Completed, at, None),
            What::Failed { message, .. } => node.end(TaskState::Failed, at, Some(message)),
            What::Cancelled { reason } => node.end(TaskState::Cancelled, at, Some(reason)),
            What::Skipped { reason } => {
                node.end(TaskState::Cancelled, at, Some(reason));
                node.skipped = true;
            }
            What::Submitted { .. }
            | What::ProcessesEnded { .. }
            | What::LateOutcome { .. }
            | What::AgentRegistered { .. }
            | What::AgentDrained { .. }
            | What::AgentGone { .. } => {}
        }
    }

    fn submitted(
        &mut self,
        id: &str,
        name: &str,
        who: Option<&String>,
        state: TaskState,
        parent: Option<&str>,
        at: Option<Time>,
    ) {
        let known = parent.and_then(|parent| self.nodes.get_mut(parent));
        match known {
            Some(parent) => parent.children.push(id.to_owned()),
            None => self.tops.push(id.to_owned()),
        }
        let node = Node {
            name: line(name),
            who: who.map(|who| line(who)).unwrap_or_default(),
            state,
            skipped: false,
            attempt: 0,
            // A group works from the start: by its children.
            began: at.filter(|_| who.is_none()),
            ended: None,
            reason: None,
            retry_at: None,
            note: String::new(),
            children: Vec::new(),
            unhappy: 0,
        };
        self.nodes.insert(id.to_owned(), node);
    }

    /// Whether a task and everything below it has ended.
    pub fn is_over(&self, top: &str) -> bool {
        let mut open = vec![top];
        while let Some(id) = open.pop() {
            match self.nodes.get(id) {
                Some(node) if node.state.is_terminal() => {
                    open.extend(node.children.iter().map(String::as_str));
                }
                Some(_) | None => return false,
            }
        }
        true
    }

    /// The lines of the tree below `top`, or of everything.
    pub fn lines(&self, top: Option<&str>, look: &Look) -> Vec<String> {
        let mut rows = Vec::new();
        let mut hidden = Vec::new();
        let tops: Vec<&str> = match top {
            Some(top) => vec![top],
            None => self.tops.iter().map(String::as_str).collect(),
        };
        for top in tops {
            self.rows(top, String::new(), String::new(), &mut rows);
        }
        if let Some(height) = look.height
            && rows.len() > height
        {
            hidden = thin_out(&mut rows, height.saturating_sub(1));
        }
        let mut lines = draw(&rows, look);
        if !hidden.is_empty() {
            lines.push(look.paint.dim(cut(&format!("  … and {}", tally(&hidden)), look.width)));
        }
        lines
    }

    fn rows<'a>(&'a self, id: &str, guide: String, below: String, rows: &mut Vec<Row<'a>>) {
        let Some(node) = self.nodes.get(id) else { return };
        rows.push(Row { guide, node, depth: below.chars().count() });
        for (place, child) in node.children.iter().enumerate() {
            let last = place + 1 == node.children.len();
            let (guide, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.rows(child, format!("{below}{guide}"), format!("{below}{rest}"), rows);
        }
    }

    /// How the whole ended, in one line: `5 tasks, 6 attempts, 1 failed`.
    pub fn summary(&self) -> String {
        let nodes: Vec<&Node> = self.nodes.values().collect();
        let work: Vec<&&Node> = nodes.iter().filter(|node| !node.is_group()).collect();
        let attempts: u32 = nodes.iter().map(|node| node.attempt).sum();
        let mut parts = vec![count(work.len(), "task"), count(attempts as usize, "attempt")];
        let unhappy: u32 = nodes.iter().map(|node| node.unhappy).sum();
        if unhappy > 0 {
            parts.push(format!("{unhappy} of them failed or lost"));
        }
        let number = |wanted: fn(&Node) -> bool| work.iter().filter(|node| wanted(node)).count();
        let failed = number(|node| node.state == TaskState::Failed);
        if failed > 0 {
            parts.push(format!("{} failed", count(failed, "task")));
        }
        let skipped = number(|node| node.skipped);
        if skipped > 0 {
            parts.push(format!("{skipped} skipped"));
        }
        let cancelled = number(|node| node.state == TaskState::Cancelled && !node.skipped);
        if cancelled > 0 {
            parts.push(format!("{cancelled} cancelled"));
        }
        parts.join(", ")
    }
}

impl Node {
    fn end(&mut self, state: TaskState, at: Option<Time>, reason: Option<&String>) {
        self.state = state;
        self.ended = at;
        self.reason = reason.map(|reason| line(reason));
    }

    /// It stands for its children and does nothing itself.
    fn is_group(&self) -> bool {
        self.who.is_empty() || (self.attempt == 0 && !self.children.is_empty())
    }

    /// How long it has worked, or did.
    pub fn elapsed_ms(&self, now: Time) -> Option<u64> {
        Some(self.ended.unwrap_or(now).since_ms(self.began?))
    }

    fn is_lively(&self) -> bool {
        self.state.holds_slot() || self.state == TaskState::Retrying
    }

    fn glyph(&self, look: &Look) -> String {
        let spinner = look.frame.map(|frame| SPINNER[frame % SPINNER.len()]);
        match self.state {
            TaskState::Completed => look.paint.green("✓"),
            TaskState::Failed => look.paint.red("✗"),
            TaskState::Cancelled => look.paint.dim("–"),
            TaskState::Assigned | TaskState::Running => look.paint.cyan(spinner.unwrap_or("▸")),
            TaskState::Waiting => look.paint.dim(spinner.unwrap_or("▸")),
            TaskState::Retrying => look.paint.yellow("↻"),
            TaskState::Ready => "○".to_owned(),
            TaskState::Blocked => look.paint.dim("·"),
        }
    }

    fn word(&self) -> &'static str {
        if self.skipped { "skipped" } else { self.state.as_str() }
    }

    /// What else there is to say.
    fn remark(&self, look: &Look) -> String {
        let mut parts = Vec::new();
        // A resume is a new attempt as well, and nothing to worry about.
        if self.unhappy > 0 && self.attempt > 1 {
            parts.push(format!("attempt {}", self.attempt));
        }
        if self.state == TaskState::Retrying
            && let Some(at) = self.retry_at
        {
            parts.push(format!("again in {}", duration(at.since_ms(look.now))));
        }
        match &self.reason {
            Some(reason) => parts.push(reason.clone()),
            None if self.state != TaskState::Completed && !self.note.is_empty() => {
                parts.push(self.note.clone());
            }
            None => {}
        }
        parts.join(" · ")
    }
}

struct Row<'a> {
    guide: String,
    node: &'a Node,
    depth: usize,
}

/// Keeps the rows that matter most now, in their order; gives back the others.
fn thin_out<'a>(rows: &mut Vec<Row<'a>>, room: usize) -> Vec<&'a Node> {
    let mut keep = vec![false; rows.len()];
    let mut kept = 0;
    let mut mark = |place: usize, kept: &mut usize| {
        if *kept < room && !keep[place] {
            keep[place] = true;
            *kept += 1;
        }
    };
    mark(0, &mut kept);
    let lively: Vec<usize> = (0..rows.len())
        .filter(|place| {
            rows[*place].node.is_lively() || rows[*place].node.state == TaskState::Failed
        })
        .collect();
    for place in lively {
        // Its parents first, so that it does not hang in the air.
        let mut depth = rows[place].depth;
        let mut chain = vec![place];
        for above in (0..place).rev() {
            if rows[above].depth < depth {
                depth = rows[above].depth;
                chain.push(above);
            }
        }
        if kept + chain.len() <= room {
            chain.into_iter().rev().for_each(|place| mark(place, &mut kept));
        }
    }
    // What is to come next, and what has ended, fill the rest; of that the larger pieces first, and the latest of them.
    let (mut done, open): (Vec<usize>, Vec<usize>) =
        (0..rows.len()).partition(|place| rows[*place].node.state.is_terminal());
    done.reverse();
    done.sort_by_key(|place| rows[*place].depth);
    for place in open.into_iter().chain(done) {
        mark(place, &mut kept);
    }
    let mut hidden = Vec::new();
    let mut place = 0;
    rows.retain(|row| {
        place += 1;
        if !keep[place - 1] {
            hidden.push(row.node);
        }
        keep[place - 1]
    });
    hidden
}

/// `12 completed, 3 blocked`.
fn tally(nodes: &[&Node]) -> String {
    let of = |state: TaskState| nodes.iter().filter(|node| node.state == state).count();
    let parts: Vec<String> = TaskState::ALL
        .into_iter()
        .filter(|state| of(*state) > 0)
        .map(|state| format!("{} {state}", of(state)))
        .collect();
    parts.join(", ")
}

fn draw(rows: &[Row<'_>], look: &Look) -> Vec<String> {
    let paint = look.paint;
    // A terminal of unknown width is not cut to.
    let name_max = NAME_MAX.min(look.width / 2);
    let label = |row: &Row<'_>| width(&row.guide) + 2 + width(&row.node.name);
    let label_cells = rows.iter().map(label).max().unwrap_or(0).min(name_max.max(NAME_MAX / 2));
    let is_telling = rows.iter().any(|row| !row.node.is_group() && row.node.who != row.node.name);
    let who_cells = if is_telling {
        rows.iter().map(|row| width(&row.node.who)).max().unwrap_or(0).min(WHO_MAX)
    } else {
        0
    };
    let word_cells = rows.iter().map(|row| row.node.word().len()).max().unwrap_or(0);
    rows.iter()
        .map(|row| {
            let node = row.node;
            let name_cells = label_cells.saturating_sub(width(&row.guide) + 2);
            let name = padded(&cut(&node.name, name_cells), name_cells);
            let name = match node.state {
                TaskState::Blocked | TaskState::Cancelled => paint.dim(name),
                _ => name,
            };
            let mut text = format!("{}{} {name}", paint.dim(&row.guide), node.glyph(look));
            if who_cells > 0 {
                text.push_str("  ");
                text.push_str(&paint.dim(padded(&cut(&node.who, who_cells), who_cells)));
            }
            text.push_str("  ");
            text.push_str(&paint.state(node.state, padded(node.word(), word_cells)));
            let elapsed = node.elapsed_ms(look.now).map(duration).unwrap_or_default();
            text.push_str(&paint.dim(format!("{elapsed:>TIME_CELLS$}")));
            let remark = node.remark(look);
            if !remark.is_empty() {
                text.push_str("  ");
                text.push_str(&match node.state {
                    TaskState::Failed => paint.red(remark),
                    TaskState::Retrying => paint.yellow(remark),
                    _ => paint.dim(remark),
                });
            }
            cut(text.trim_end(), look.width)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::at;

    const ROOT: &str = "00000000-0000-0000-0000-000000000001";

    fn id(number: u32) -> String {
        format!("00000000-0000-0000-0000-{number:012}")
    }

    fn event(task: &str, ms: i64, what: What) -> EventView {
        EventView {
            cursor: 1,
            run: Some(ROOT.into()),
            seq: 1,
            task: Some(task.into()),
            at: at(Time(ms)),
            what,
        }
    }

    fn submitted(
        tree: &mut Tree,
        task: &str,
        name: &str,
        agent: Option<&str>,
        parent: Option<&str>,
    ) {
        let what = What::Submitted {
            name: name.into(),
            agent: agent.map(Into::into),
            capability: None,
            state: TaskState::Blocked,
            parent: parent.map(Into::into),
        };
        tree.apply(&event(task, 0, what));
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        submitted(&mut tree, ROOT, "demo", None, None);
        for (number, name) in [(2, "fetch"), (3, "count"), (4, "report")] {
            submitted(&mut tree, &id(number), name, Some("worker"), Some(ROOT));
        }
        tree.apply(&event(ROOT, 0, What::Waiting { number: 0, children: 3 }));
        let assigned = |number| What::Assigned {
            attempt: id(9),
            number,
            agent: "worker".into(),
            instance: id(8),
            traceparent: None,
        };
        tree.apply(&event(&id(2), 100, assigned(1)));
        tree.apply(&event(&id(2), 1_300, What::Completed { number: 1, output_bytes: 2 }));
        let lost = What::AttemptLost { number: 1, reason: "its host ended".into() };
        tree.apply(&event(&id(3), 1_350, lost));
        tree.apply(&event(&id(3), 1_400, assigned(2)));
        tree.apply(&event(&id(3), 1_500, What::Progress { number: 2, note: "half\nway".into() }));
        tree
    }

    fn look(height: Option<usize>) -> Look {
        Look { paint: Paint::new(false), width: 80, height, now: Time(2_400), frame: Some(0) }
    }

    #[test]
    fn a_run_is_a_tree_with_states_times_and_what_was_said() {
        let lines = tree().lines(None, &look(None));
        let expected = [
            "⠋ demo               waiting     2.4s",
            "├─ ✓ fetch   worker  completed   1.2s",
            "├─ ⠋ count   worker  assigned    1.0s  attempt 2 · half way",
            "└─ · report  worker  blocked",
        ];
        assert_eq!(lines, expected);
        assert_eq!(tree().summary(), "3 tasks, 3 attempts, 1 of them failed or lost");
    }

    #[test]
    fn failures_say_why_and_are_counted() {
        let mut tree = tree();
        let failed = What::Failed {
            class: segue_core::task::ErrorClass::Permanent,
            message: "exit code 1: no such file".into(),
        };
        tree.apply(&event(&id(3), 2_000, failed));
        tree.apply(&event(&id(4), 2_000, What::Skipped { reason: "not needed".into() }));
        let lines = tree.lines(None, &look(None));
        assert!(lines[2].starts_with("├─ ✗ count   worker  failed"), "{lines:#?}");
        assert!(lines[2].ends_with("attempt 2 · exit code 1: no such file"), "{lines:#?}");
        assert!(lines[3].contains("– report  worker  skipped"), "{lines:#?}");
        assert_eq!(
            tree.summary(),
            "3 tasks, 3 attempts, 1 of them failed or lost, 1 task failed, 1 skipped"
        );
        assert!(tree.is_over(&id(3)) && !tree.is_over(ROOT));
        tree.apply(&event(ROOT, 2_100, What::Completed { number: 0, output_bytes: 2 }));
        assert!(tree.is_over(ROOT));
    }

    #[test]
    fn a_low_terminal_shows_what_goes_on_and_counts_the_rest() {
        let mut tree = tree();
        for number in 10..100 {
            submitted(&mut tree, &id(number), "more", Some("worker"), Some(ROOT));
        }
        let lines = tree.lines(None, &look(Some(5)));
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[0].contains("demo") && lines[1].contains("count"), "{lines:#?}");
        assert_eq!(lines[4], "  … and 89 blocked, 1 completed");
    }

    #[test]
    fn a_narrow_terminal_gets_no_line_that_wraps() {
        let look = Look { width: 30, ..look(None) };
        assert!(tree().lines(None, &look).iter().all(|line| width(line) <= 30));
        let one = tree().lines(Some(&id(3)), &look);
        assert_eq!(one.len(), 1);
    }
}
