//! What is the same for the batches and prunes of every backend.

use segue_core::changes::ChangeSet;
use segue_core::command::Command;
use segue_core::ports::Pruned;

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
        state,
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
        && project_events.is_none()
        && state.is_none())
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
    total.keys += step.keys;
}
