//! Letters that give out work, made again from their tasks and the key.

use segue_core::decide::task_request;
use segue_core::ids::{AttemptId, HostId};
use segue_core::letter::{Address, Letter, LetterBody, WIRE_VERSION};
use segue_core::task::Task;
use segue_core::trace::Traceparent;

/// The letter that gives out this attempt, as it was when it was committed; `given` is the traceparent of its run's root.
pub(crate) fn request(
    seq: u64,
    task: &Task,
    given: Option<Traceparent>,
    attempt: AttemptId,
    host: HostId,
    key: &[u8; 32],
) -> Option<Letter> {
    let current = task.current_attempt().filter(|current| current.id == attempt)?;
    Some(Letter {
        seq,
        version: WIRE_VERSION,
        from: "segue".into(),
        to: Address::Host(host),
        task: Some(task.id()),
        reply_to: None,
        correlation: Some(attempt.0.as_u128()),
        causation: task.spec.parent.map(|parent| parent.0.as_u128()),
        traceparent: Some(Traceparent::of_attempt(task.spec.root, given, attempt)),
        hops: task.spec.hops,
        at: current.assigned_at,
        body: LetterBody::TaskRequest(Box::new(task_request(task, key)?)),
    })
}
