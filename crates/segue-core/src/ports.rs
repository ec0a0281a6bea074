//! Ports: what the rest of Segue asks of a store, a bus and a clock, and what it may rely on.
//!
//! Nothing above these traits may learn which adapter it stands on.

use crate::agent::Agent;
use crate::changes::ChangeSet;
use crate::command::{Command, Duty, Reject, Reply};
use crate::event::Event;
use crate::ids::{AttemptId, HostId, InstanceId, TaskId};
use crate::letter::{Address, Letter};
use crate::payload::{Hash, Payload};
use crate::state::{Lock, Policy, StateVersion};
use crate::task::{AttemptRecord, Task, TaskState};
use crate::time::Time;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

mod soft;

pub use soft::{
    Admission, Beat, Everybody, FOUND_MAX, Fence, GATE_MS_MAX, GateKey, GateReading, Gates, Held,
    INSTANCES_MAX, InstanceBeat, LOCK_TTL_MS_MAX, LockError, Locks, NODES_MAX, NodeBeat, Presence,
    SOFT_NAME_MAX, SeenInstance, SeenNode, SoftError, check_gate, check_lock,
};

/// A future that a port returns.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the time comes from. A store never lets it run behind the last time that it committed.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Time;
}

/// What an accepted command led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Effects {
    /// The answer.
    pub reply: Reply,
    /// Letters that are committed and have to be published now.
    pub letters: Vec<Letter>,
    /// Work that was left behind in the same commit.
    pub duties: Vec<Duty>,
    /// When a timer has to look, at the latest, on account of this command.
    pub next_due: Option<Time>,
    /// Whether a task became ready or a slot free, so that assigning may help.
    pub may_assign: bool,
    /// Somebody else held what this assignment could have used, so that assigning again soon may help.
    pub look_again: bool,
    /// Tasks that are terminal now, as they were committed.
    pub ended: Vec<Arc<Task>>,
    /// Attempts that ended, and the instances that had them.
    pub attempts: Vec<(AttemptId, InstanceId)>,
    /// Whether shared state or a lock changed.
    pub state_changed: bool,
}

impl Effects {
    /// What this ChangeSet means for those who act after the commit. The letters have their numbers already.
    pub fn of(changes: &ChangeSet) -> Effects {
        let ready = changes.tasks.iter().any(|task| task.state == TaskState::Ready);
        Effects {
            reply: changes.reply.clone(),
            letters: changes.letters.clone(),
            duties: changes.duties.clone(),
            next_due: changes.tasks.iter().filter_map(Task::due_at).min(),
            may_assign: ready || !changes.agents.is_empty(),
            look_again: false,
            ended: changes
                .tasks
                .iter()
                .filter(|task| task.state.is_terminal())
                .map(|task| Arc::new(task.clone()))
                .collect(),
            attempts: changes
                .attempts
                .iter()
                .map(|record| (record.attempt.id, record.attempt.instance))
                .collect(),
            state_changed: changes.state.is_some(),
        }
    }
}

/// The answer to one command of a batch.
pub type Decision = Result<Effects, Reject>;

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only those in one of these states; all where empty.
    pub states: Vec<TaskState>,
    /// Only those of this run.
    pub run: Option<TaskId>,
    /// Only the children of this task.
    pub parent: Option<TaskId>,
    /// Only those before this id (newest first), for paging.
    pub before: Option<TaskId>,
    /// At most so many.
    pub limit: usize,
}

/// Which events to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those after this cursor.
    pub after: u64,
    /// Only those of this run.
    pub run: Option<TaskId>,
    /// Only those of this task.
    pub task: Option<TaskId>,
    /// At most so many.
    pub limit: usize,
}

/// What a prune removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Runs.
    pub runs: u64,
    /// Tasks.
    pub tasks: u64,
    /// Events.
    pub events: u64,
    /// Payloads.
    pub payloads: u64,
    /// Bytes of payloads outside the database.
    pub bytes: u64,
    /// Keys of shared state.
    pub keys: u64,
}

/// Keeps the state of one project.
///
/// Commands are decided by [`decide`](crate::decide::decide) alone, one after another; a store loads, locks and writes.
/// What `apply` has answered is durable: written and synced. A crash loses nothing that was answered, and leaves
/// no part of a command behind. Reads see every commit that was answered before they began.
pub trait Store: Send + Sync {
    /// Decides these commands in order (`Assign` last) and commits what was accepted as one whole. A refused command leaves the others
    /// untouched. Concurrent callers may share a commit. The decisions stand in the order of the commands.
    ///
    /// # Errors
    /// A [`StoreError`] means that nothing of the batch was written, or, where the error says so, that this is not known.
    fn apply(&self, batch: Vec<Command>) -> Fut<'_, Result<Vec<Decision>, StoreError>>;

    /// Now, by the store's clock.
    fn now(&self) -> Time;

    /// The task, if there is one.
    fn task(&self, id: TaskId) -> Fut<'_, Result<Option<Arc<Task>>, StoreError>>;

    /// These tasks, those that exist, in no particular order.
    fn tasks_by_id(&self, ids: Vec<TaskId>) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>>;

    /// Tasks, newest first; the children of a task oldest first.
    fn tasks(&self, filter: TaskFilter) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>>;

    /// How many tasks are in each state.
    fn counts(&self) -> Fut<'_, Result<BTreeMap<TaskState, u64>, StoreError>>;

    /// The attempts at a task that have ended, by number.
    fn attempts(&self, task: TaskId) -> Fut<'_, Result<Vec<AttemptRecord>, StoreError>>;

    /// Every agent instance of the project.
    fn agents(&self) -> Fut<'_, Result<Vec<Agent>, StoreError>>;

    /// The instances of one host. A store over a network reads no others for it: each host asks at every beat.
    fn agents_of(&self, host: HostId) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        Box::pin(async move {
            let mut agents = self.agents().await?;
            agents.retain(|agent| agent.host == host);
            Ok(agents)
        })
    }

    /// The instances of which something became known after this version of the fleet: that they are there, what they are, that they are drained or
    /// have gone; and the version to ask with the next time. Slots and leases have no version. A store that counts none tells of everybody each
    /// time, and of version 0: whoever asks replaces what it knew then.
    fn agents_since(&self, version: u64) -> Fut<'_, Result<(u64, Vec<Agent>), StoreError>> {
        let _ = version;
        Box::pin(async move { Ok((0, self.agents().await?)) })
    }

    /// Until when the leases of the instances last that have not gone.
    fn leases(&self) -> Fut<'_, Result<Vec<(InstanceId, Time)>, StoreError>> {
        Box::pin(async move {
            let mut agents = self.agents().await?;
            agents.retain(|agent| !agent.gone);
            Ok(agents.iter().map(|agent| (agent.spec.instance, agent.lease_until)).collect())
        })
    }

    /// Events in the order of their cursors.
    fn events(&self, filter: EventFilter) -> Fut<'_, Result<Vec<Event>, StoreError>>;

    /// Letters that are committed and not settled, oldest first, after this number.
    fn unsent(&self, after: u64, limit: usize) -> Fut<'_, Result<Vec<Letter>, StoreError>>;

    /// Work that was left behind and is not done.
    fn duties(&self, limit: usize) -> Fut<'_, Result<Vec<Duty>, StoreError>>;

    /// When the next task is due for a timer; leases apart.
    fn next_due(&self) -> Fut<'_, Result<Option<Time>, StoreError>>;

    /// The current version of a key of shared state, or the one of this number; `None` where there is no such key, or the version is not kept.
    fn state_get(
        &self,
        key: Arc<str>,
        version: Option<u64>,
    ) -> Fut<'_, Result<Option<StateVersion>, StoreError>>;

    /// The current versions of the keys that begin with this prefix and sort after `after`, in the order of the keys' bytes.
    fn state_list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>>;

    /// The versions of a key that are kept, deletions among them, newest first; those before this number.
    fn state_history(
        &self,
        key: Arc<str>,
        before: Option<u64>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>>;

    /// The versions after this number of the keys that begin with this prefix, deletions among them, rising. Who has read up to a version misses none
    /// below it, unless it is not kept any more.
    fn state_changes(
        &self,
        prefix: Arc<str>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>>;

    /// The last stamp that was issued: nothing that is read later is older and new.
    fn state_stamp(&self) -> Fut<'_, Result<u64, StoreError>>;

    /// Every policy, by its pattern.
    fn state_policies(&self) -> Fut<'_, Result<BTreeMap<Arc<str>, Policy>, StoreError>>;

    /// Locks by name, those among them whose time is up until they are pruned; after this name.
    fn locks(
        &self,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Lock>, StoreError>>;

    /// The lock of this name, if there is a row of it; its time may be up.
    fn lock_of(&self, name: Arc<str>) -> Fut<'_, Result<Option<Lock>, StoreError>>;

    /// Removes runs that ended before this time, with everything that belongs to them; keys of shared state that were deleted before it; and locks
    /// that have been free since before it.
    fn prune(&self, before: Time) -> Fut<'_, Result<Pruned, StoreError>>;

    /// Whether the store takes writes. After a fatal error it does not, until it is opened again; an error that
    /// [passes](Passing::is_passing) goes by itself.
    fn health(&self) -> Result<(), StoreError>;
}

/// Keeps bodies that are too large for a row. Written once, by hash, never changed.
pub trait Blobs: Send + Sync {
    /// Keeps these bytes, durably before it returns. The same bytes twice are kept once.
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>>;

    /// The bytes under this hash, checked against it.
    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>>;
}

/// Why a store cannot do what it was asked. Sorted by what the caller must do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. Nothing of the batch was written.
    #[error("the disk is full: {0}. Nothing was written; make room and start again")]
    Full(String),
    /// The file is damaged.
    #[error("the database is damaged: {0}. Restore a backup with `segue restore`")]
    Corrupt(String),
    /// Another process holds the database.
    #[error("the database is locked by another process: {0}")]
    Locked(String),
    /// The file or folder cannot be written.
    #[error("the database cannot be written: {0}. Check the owner and mode of the folder .segue")]
    ReadOnly(String),
    /// The file was made by another version.
    #[error("{0}")]
    Version(String),
    /// The database cannot be reached for now. It is tried again by itself; the message says what is known of the batch.
    #[error("the database is away: {0}")]
    Away(String),
    /// A payload is not there.
    #[error("payload {0} is missing")]
    MissingPayload(String),
    /// Where something was to be made anew there is something already.
    #[error("{0}")]
    NotEmpty(String),
    /// Anything else that the system reports.
    #[error("the database could not do that: {0}")]
    Io(String),
    /// The store was closed, or has stopped after an earlier error.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

/// An error of a port.
pub trait Passing {
    /// Whether it passes by itself, so that whoever asked may simply ask again a little later. The adapter tells in the log that its server is away;
    /// whoever asked need not do so as well.
    fn is_passing(&self) -> bool;
}

impl Passing for StoreError {
    fn is_passing(&self) -> bool {
        match self {
            StoreError::Away(_) => true,
            StoreError::Full(_)
            | StoreError::Corrupt(_)
            | StoreError::Locked(_)
            | StoreError::ReadOnly(_)
            | StoreError::Version(_)
            | StoreError::MissingPayload(_)
            | StoreError::NotEmpty(_)
            | StoreError::Io(_)
            | StoreError::Stopped(_) => false,
        }
    }
}

/// Something a bus hands over.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What an acknowledgement names.
    pub token: u64,
    /// The letter.
    pub letter: Letter,
    /// Whether it may have been handed over before.
    pub redelivered: bool,
    /// Why it is among the dead letters, where it comes from there.
    pub dead: Option<String>,
}

/// A letter that nobody takes any more, left to be looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The letter, as far as it can be read.
    pub letter: Option<Letter>,
    /// The beginning of what came, where it is no letter.
    pub excerpt: Option<String>,
    /// Why it was refused.
    pub reason: String,
}

/// Carries letters, at least once, in order per queue unless redelivered.
pub trait WorkBus: Send + Sync {
    /// Hands letters over. When it returns, the bus answers for them as far as its adapter promises: in-process to the end of the process,
    /// a broker beyond. It waits while a queue is full.
    ///
    /// # Errors
    /// [`BusError::Unroutable`] names letters that nobody would ever take; the others were taken.
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>>;

    /// Takes letters from a queue. Several consumers of a queue share it; everybody gets what goes to all.
    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>>;

    /// Takes dead letters that brought work, whoever refused them: an attempt hangs on each, and must not end without a word. Each says
    /// why in [`Delivery::dead`]. One that is rejected with a reason is left to be looked at.
    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>>;

    /// Looks at the dead letters that are left, oldest first, at most so many, and leaves them where they are. A bus keeps a bounded number;
    /// the oldest go first.
    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>>;

    /// How often the bus was lost and found again so far; nothing while it is away, or takes no letters. In-process it never is.
    fn comebacks(&self) -> Option<u64>;

    /// Why it carries no letters now: it is away, or takes none for want of room. Nothing while it does, as in-process it always does.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// One who takes letters from a queue. What it does not acknowledge goes back to the queue when it is dropped.
pub trait Consumer: Send {
    /// Waits for at least one letter, and returns at most `max`.
    fn next(&mut self, max: usize) -> Fut<'_, Result<Vec<Delivery>, BusError>>;

    /// The letters of these tokens are done.
    fn ack(&mut self, tokens: Vec<u64>) -> Fut<'_, Result<(), BusError>>;

    /// The letter of this token goes back to the queue, or, where `dead` gives a reason, to the dead letters.
    fn reject(&mut self, token: u64, dead: Option<String>) -> Fut<'_, Result<(), BusError>>;
}

/// A host in the process of an engine: letters reach it without a bus between.
pub trait OwnHost: Send + Sync {
    /// Which one: its address on the bus.
    fn id(&self) -> HostId;

    /// Takes letters as if they had come over the bus and been acknowledged. It gives back those that it does not take: the bus carries them, to
    /// where they are refused with a reason.
    fn take(self: Arc<Self>, letters: Vec<Letter>) -> Vec<Letter>;
}

/// Why a bus cannot do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Nobody takes letters there.
    #[error("nobody takes letters for {}", addresses.join(", "))]
    Unroutable {
        /// Where they should have gone.
        addresses: Vec<String>,
        /// Their numbers in the outbox.
        letters: Vec<u64>,
    },
    /// The bus is away for now.
    #[error("the bus is away: {0}")]
    Away(String),
    /// The bus was closed.
    #[error("the bus was closed")]
    Closed,
}

impl Passing for BusError {
    fn is_passing(&self) -> bool {
        match self {
            BusError::Away(_) => true,
            BusError::Unroutable { .. } | BusError::Closed => false,
        }
    }
}

/// What a hint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A task became ready or a slot free.
    Ready,
    /// A timer may be due sooner than thought.
    Due,
    /// There are new events.
    Events,
    /// There is work left behind.
    Duties,
    /// Letters wait to be published.
    Letters,
    /// Shared state or a lock changed.
    State,
    /// Tasks have ended. Told to others only: whoever commits it knows which.
    Ended,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Topic; 7] = [
        Topic::Ready,
        Topic::Due,
        Topic::Events,
        Topic::Duties,
        Topic::Letters,
        Topic::State,
        Topic::Ended,
    ];

    /// The word by which nodes tell each other.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Ready => "ready",
            Topic::Due => "due",
            Topic::Events => "events",
            Topic::Duties => "duties",
            Topic::Letters => "letters",
            Topic::State => "state",
            Topic::Ended => "ended",
        }
    }

    /// The topic of this word. A node of a later version may have more of them.
    pub fn named(word: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.as_str() == word)
    }
}

/// Best-effort hints to look again. They may be lost or doubled: the tables are the truth, and are read on a slow beat as well.
pub trait Signals: Send + Sync {
    /// Tells everybody who listens.
    fn hint(&self, topic: Topic);

    /// Tells only those who listen in other processes: nobody, where there are none.
    fn tell_others(&self, topic: Topic);

    /// Listens from now on.
    fn listen(&self) -> Box<dyn Listener>;
}

/// One who listens for hints.
pub trait Listener: Send {
    /// Waits for the next hint of one of these topics. Hints that came while nobody waited count once.
    fn next<'a>(&'a mut self, topics: &'a [Topic]) -> Fut<'a, Topic>;
}
