//! The trace of a run, as the API tells it.

use segue_core::ids::{AttemptId, TaskId};
use segue_core::task::{Attempt, Task};
use segue_core::trace::Traceparent;

/// The trace of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunTrace {
    root: TaskId,
    given: Option<Traceparent>,
}

impl RunTrace {
    /// That of the run with this root.
    pub fn of(root: &Task) -> RunTrace {
        RunTrace { root: root.id(), given: root.spec.traceparent }
    }

    /// The span in which somebody else asked for the run.
    pub fn given(&self) -> Option<String> {
        self.given.map(|given| given.to_string())
    }

    /// Its id.
    pub fn id(&self) -> String {
        // Whatever the attempt: its span alone hangs on it.
        let any = AttemptId(self.root.0);
        Traceparent::of_attempt(self.root, self.given, any).trace_id()
    }

    /// The span of one of its attempts.
    pub fn span_of(&self, attempt: &Attempt) -> Traceparent {
        Traceparent::of_attempt(self.root, self.given, attempt.id)
    }
}
