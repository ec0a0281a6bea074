//! What one accepted command changes: rows, events, letters. Data that a store keeps whole or not at all.

use crate::agent::Agent;
use crate::command::{Duty, Reply};
use crate::event::Event;
use crate::ids::TaskId;
use crate::letter::Letter;
use crate::payload::Hash;
use crate::state::StateChanges;
use crate::task::{AttemptRecord, Task};
use std::sync::Arc;

/// `task` waits for `need`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The task waited for.
    pub need: TaskId,
    /// The task that waits.
    pub task: TaskId,
    /// Only the end of `need` matters.
    pub order_only: bool,
}

/// A key under which a submit is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The key; unique in the project.
    pub key: Arc<str>,
    /// The first task of the submit.
    pub task: TaskId,
    /// Hash of the submit without its ids.
    pub body: Hash,
}

/// What one accepted command changes.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeSet {
    /// Tasks as they stand now, new ones included.
    pub tasks: Vec<Task>,
    /// New edges of the graph of needs.
    pub edges: Vec<Edge>,
    /// Attempts that ended, or whose record changed.
    pub attempts: Vec<AttemptRecord>,
    /// Agent instances as they stand now.
    pub agents: Vec<Agent>,
    /// Events in order; `run_seq` is set, the cursor is the store's to give.
    pub events: Vec<Event>,
    /// Letters to publish after the commit; their numbers are the store's to give.
    pub letters: Vec<Letter>,
    /// Letters that were published: they leave the outbox.
    pub settled: Vec<u64>,
    /// New work left behind.
    pub duties: Vec<Duty>,
    /// Work that is done: by task and word of its kind.
    pub duties_done: Vec<(TaskId, &'static str)>,
    /// New idempotency keys.
    pub idempotency: Vec<IdempotencyRecord>,
    /// Events of the project's own log so far, where that changed.
    pub project_events: Option<u64>,
    /// What changes in the state that the project shares, if anything does.
    pub state: Option<Box<StateChanges>>,
    /// The answer to whoever asked.
    pub reply: Reply,
}
