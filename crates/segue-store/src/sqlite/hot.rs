//! Tasks that were touched lately, so that a report about one needs no query.

use rustc_hash::FxHashMap;
use segue_core::ids::TaskId;
use segue_core::task::Task;
use std::sync::Arc;

/// A task as the store has it, with its place in the table.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) n: i64,
    pub(super) task: Arc<Task>,
}

/// A bounded map in two generations: what is found in the old one moves to the young one, and when the young one is
/// full, the old one is dropped. So it costs no list of who was used when.
#[derive(Debug)]
pub(super) struct Hot {
    young: FxHashMap<TaskId, Stored>,
    old: FxHashMap<TaskId, Stored>,
    generation_max: usize,
}

impl Hot {
    /// Room for about so many tasks.
    pub(super) fn new(tasks_max: usize) -> Hot {
        Hot {
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            generation_max: (tasks_max / 2).max(1),
        }
    }

    pub(super) fn get(&mut self, id: TaskId) -> Option<Stored> {
        if let Some(found) = self.young.get(&id) {
            return Some(found.clone());
        }
        let found = self.old.remove(&id)?;
        self.put(id, found.clone());
        Some(found)
    }

    /// Keeps a task as the store has it now. One that has ended is let go: nobody asks for it soon.
    pub(super) fn keep(&mut self, stored: Stored) {
        let id = stored.task.id();
        if stored.task.state.is_terminal() {
            self.remove(id);
        } else {
            self.old.remove(&id);
            self.put(id, stored);
        }
    }

    fn put(&mut self, id: TaskId, stored: Stored) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, stored);
    }

    pub(super) fn remove(&mut self, id: TaskId) {
        self.young.remove(&id);
        self.old.remove(&id);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use segue_core::payload::Payload;
    use segue_core::task::{Route, TaskSpec, TaskState};
    use segue_core::time::Time;
    use uuid::Uuid;

    fn stored(number: u128, state: TaskState) -> Stored {
        let id = TaskId(Uuid::from_u128(number));
        let task = Task {
            spec: Arc::new(TaskSpec::new(id, "t", Route::agent("a"))),
            state,
            unmet: 0,
            rank: 0,
            input: Payload::null(),
            attempts: 0,
            tried: 0,
            lost: 0,
            attempt: None,
            open_children: 0,
            children: 0,
            dependents: 0,
            wait_for: None,
            continuation: None,
            prefer: None,
            created_at: Time(0),
            ready_at: None,
            retry_at: None,
            finished_at: None,
            output: None,
            error: None,
            run_events: 0,
        };
        Stored { n: 1, task: Arc::new(task) }
    }

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let mut hot = Hot::new(20);
        let used = stored(1, TaskState::Running);
        hot.keep(used.clone());
        for number in 2..1_000 {
            hot.keep(stored(number, TaskState::Ready));
            assert!(hot.get(used.task.id()).is_some(), "lost after {number}");
            assert!(hot.young.len() + hot.old.len() <= 20);
        }
    }

    #[test]
    fn a_task_that_ended_is_let_go() {
        let mut hot = Hot::new(20);
        hot.keep(stored(1, TaskState::Running));
        hot.keep(stored(1, TaskState::Completed));
        assert!(hot.get(TaskId(Uuid::from_u128(1))).is_none());
    }
}
