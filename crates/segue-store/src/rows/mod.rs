//! Rows and values: how every backend spells them.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod letters;

use crate::failure::Failure;
use segue_core::changes::ChangeSet;
use segue_core::command::Command;
use segue_core::payload::Payload;
use segue_core::ports::Pruned;

/// A row that was read, whatever the driver: its columns by place.
pub(crate) trait Cells {
    /// The name of a column, for errors.
    fn name(&self, column: usize) -> &str;
    /// Whether the column is NULL.
    fn is_null(&self, column: usize) -> Result<bool, Failure>;
    /// A number; a truth value is 0 or 1.
    fn integer(&self, column: usize) -> Result<Option<i64>, Failure>;
    /// A text.
    fn text(&self, column: usize) -> Result<Option<&str>, Failure>;
    /// So many bytes.
    fn bytes<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Failure>;
    /// A payload: its text, or a reference to it.
    fn payload(&self, column: usize) -> Result<Option<Payload>, Failure>;
}

/// How much of a transaction a batch takes.
pub(crate) fn weight(batch: &[Command]) -> usize {
    let of = |command: &Command| match command {
        Command::Submit(submit) => submit.tasks.len().max(1),
        _ => 1,
    };
    batch.iter().map(of).sum::<usize>().max(1)
}

/// Whether an accepted command has anything to write.
pub(crate) fn changes_anything(changes: &ChangeSet) -> bool {
    let ChangeSet {
        tasks,
        edges,
        attempts,
        agents,
        events,
        letters,
        settled,
        duties,
        duties_done,
        idempotency,
        project_events,
        reply: _,
    } = changes;
    !(tasks.is_empty()
        && edges.is_empty()
        && attempts.is_empty()
        && agents.is_empty()
        && events.is_empty()
        && letters.is_empty()
        && settled.is_empty()
        && duties.is_empty()
        && duties_done.is_empty()
        && idempotency.is_empty()
        && project_events.is_none())
}

/// Commands of one transaction, a submit counted by its tasks: more would save little and keep others waiting. A batch of one
/// caller is never cut.
pub(crate) const WEIGHT_MAX: usize = 2_048;

/// Adds what one step of a prune removed.
pub(crate) fn add(total: &mut Pruned, step: Pruned) {
    total.runs += step.runs;
    total.tasks += step.tasks;
    total.events += step.events;
    total.payloads += step.payloads;
    total.bytes += step.bytes;
}
