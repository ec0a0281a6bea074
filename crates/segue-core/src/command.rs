//! Commands: every change of state that anybody may ask for, as data.

use crate::agent::AgentSpec;
use crate::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use crate::letter::{EndedProcess, Secret, TaskResponse};
use crate::outcome::Delegated;
use crate::payload::Payload;
use crate::state::{Lock, StateCommand, StateConflict};
use crate::task::{ProcessRef, TaskError, TaskSpec};
use crate::time::Time;
use crate::worker::is_worker;
use std::sync::Arc;

/// Tasks that one [`Command::Submit`], delegation or fan-out may hold.
pub const SUBMIT_MAX: usize = 10_000;
/// Rows that one command may change by cascade; the rest is a [`Duty`] in the same commit.
pub const CASCADE_MAX: usize = 2_048;
/// Delegations that may lie between the root of a run and a task.
pub const HOPS_MAX: u16 = 32;
/// A host enforces the run limit of an attempt itself; the timer steps in this much later.
pub const RUN_GRACE_MS: u64 = 10_000;

/// A change of state that somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Take in a task or a whole graph: all of it or nothing.
    Submit(Submit),
    /// Give ready tasks to instances with free slots.
    Assign(Assign),
    /// An agent began its attempt.
    Start {
        /// Whose attempt.
        proof: Proof,
        /// When, by the clock of its host.
        at: Time,
        /// Its process, where it has one.
        process: Option<ProcessRef>,
    },
    /// An agent says how far it is.
    Progress {
        /// Whose attempt.
        proof: Proof,
        /// What it says.
        note: Payload,
    },
    /// An attempt ended: with an output, an error, or new tasks under its task.
    Finish {
        /// The task.
        task: TaskId,
        /// What its host reports.
        response: Box<TaskResponse>,
    },
    /// An agent hands out work while its attempt goes on.
    Delegate {
        /// Whose attempt.
        proof: Proof,
        /// The new tasks.
        tasks: Vec<Delegated>,
    },
    /// Processes ended after the attempt had already been given up.
    Reaped {
        /// Whose attempt.
        proof: Proof,
        /// The processes.
        ended: Vec<EndedProcess>,
    },
    /// The templates of a task are rendered, or its children's outputs collected.
    Expand {
        /// The task.
        task: TaskId,
        /// What came out.
        rendered: Result<Rendered, TaskError>,
    },
    /// Go on with a cascade that was too large for one commit.
    Continue(Duty),
    /// Let a task that waits go on now, with its children as they stand.
    Resume {
        /// The task.
        task: TaskId,
    },
    /// End a task and everything under it.
    Cancel {
        /// The task.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// Do not wait for the backoff of a task in `retrying`.
    Retry {
        /// The task.
        task: TaskId,
    },
    /// Put a dead letter or a cancelled task back into the queue, with its attempts counted anew.
    Requeue {
        /// The task.
        task: TaskId,
    },
    /// Timers: expire leases, start due retries, enforce time limits.
    Tick {
        /// Tasks to look at, at most.
        limit: usize,
        /// Whose lease does not end for now, and whose attempts do not run out of time.
        excused: Excused,
    },
    /// A host says which agents it has. Whatever it had in an earlier life has ended.
    Register {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// Its agents; those of the host that are missing here have gone.
        agents: Vec<AgentSpec>,
        /// How long its lease lasts without renewal, in milliseconds.
        lease_ms: u64,
    },
    /// A host extends the lease of all its instances.
    Renew {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// How long from now, in milliseconds.
        lease_ms: u64,
    },
    /// An agent takes no new work (or takes it again).
    Drain {
        /// Every instance with this name.
        agent: Arc<str>,
        /// Whether it is to be drained.
        drained: bool,
    },
    /// An instance has gone: its attempts are lost.
    ExpireAgent {
        /// The instance.
        instance: InstanceId,
        /// How it was noticed.
        reason: String,
    },
    /// These letters were published.
    Settle {
        /// Their numbers in the outbox.
        letters: Vec<u64>,
    },
    /// Change the state that the project shares, or a lock.
    State(Box<StateCommand>),
}

impl Command {
    /// The word for it in errors and in the state table.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Submit(_) => "submit",
            Command::Assign(_) => "assign",
            Command::Start { .. } => "start",
            Command::Progress { .. } => "progress",
            Command::Finish { .. } => "finish",
            Command::Delegate { .. } => "delegate",
            Command::Reaped { .. } => "reaped",
            Command::Expand { .. } => "expand",
            Command::Continue(_) => "continue",
            Command::Resume { .. } => "resume",
            Command::Cancel { .. } => "cancel",
            Command::Retry { .. } => "retry",
            Command::Requeue { .. } => "requeue",
            Command::Tick { .. } => "tick",
            Command::Register { .. } => "register",
            Command::Renew { .. } => "renew",
            Command::Drain { .. } => "drain",
            Command::ExpireAgent { .. } => "expire_agent",
            Command::Settle { .. } => "settle",
            Command::State(command) => command.name(),
        }
    }
}

/// Whose silence says nothing, since they could not be heard: their leases do not end for now, nor do their attempts run out of time here. Their
/// hosts end those at their limit all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excused {
    /// Everybody could be heard.
    #[default]
    Nobody,
    /// The bus was away, and workers are heard over it alone.
    Workers,
    /// The store was away, and nobody could renew a lease.
    Everybody,
}

impl Excused {
    /// Whether the agents of this host are meant.
    pub fn covers(self, host: HostId) -> bool {
        match self {
            Excused::Nobody => false,
            Excused::Workers => is_worker(host),
            Excused::Everybody => true,
        }
    }
}

/// Who reports about an attempt, and the proof that it may.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its secret.
    pub secret: Secret,
}

/// A task or a whole graph to take in.
#[derive(Clone, Debug, PartialEq)]
pub struct Submit {
    /// The tasks with their inputs. A parent stands before its children; needs may point anywhere.
    pub tasks: Vec<NewTask>,
}

/// A task to take in.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// What it is.
    pub spec: TaskSpec,
    /// Its input, or the template of it.
    pub input: Payload,
}

/// Which instances may be given work.
#[derive(Clone, Debug, PartialEq)]
pub struct Assign {
    /// Instances that the directory holds for fit, with what it knows of them. The slots are the store's.
    pub candidates: Arc<[Candidate]>,
    /// Tasks to assign, at most.
    pub limit: usize,
}

/// What the directory knows of an instance: soft, a suggestion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The instance.
    pub instance: InstanceId,
    /// 0 (sick) to 1 (well).
    pub health: f32,
    /// Load of its host as reported, 0 to 1. Slots are counted apart, by the store.
    pub load: f32,
}

/// What came out of rendering.
#[derive(Clone, Debug, PartialEq)]
pub enum Rendered {
    /// The input of the task.
    Input(Payload),
    /// Its condition is false.
    Skip {
        /// Why, in words.
        reason: String,
    },
    /// The inputs of the children of a `for_each`.
    Items(Vec<Payload>),
    /// The output of a group, over its children.
    Output(Payload),
}

/// Work that a commit left behind, recorded in the same commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duty {
    /// The task it is about.
    pub task: TaskId,
    /// What is to be done.
    pub kind: DutyKind,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DutyKind {
    /// The dependents of a task follow it, those after `after`: their needs are counted anew.
    Propagate {
        /// The last dependent that knows already.
        after: Option<TaskId>,
        /// Not in use: the parent knows at once. Always false.
        parent: bool,
    },
    /// The children of a task follow it, those after `after`: they are cancelled where it has failed or was cancelled, and
    /// come back where it is a group that was requeued.
    CancelChildren {
        /// The last child that is done.
        after: Option<TaskId>,
    },
    /// The engine renders the templates of the task.
    Render,
    /// The engine collects the outputs of the children.
    Collect,
}

impl DutyKind {
    /// The word by which the store keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            DutyKind::Propagate { .. } => "propagate",
            DutyKind::CancelChildren { .. } => "cancel_children",
            DutyKind::Render => "render",
            DutyKind::Collect => "collect",
        }
    }
}

/// What an accepted command led to, for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The tasks were taken in.
    Submitted {
        /// The first of them (the root of a graph).
        root: TaskId,
        /// How many.
        count: usize,
    },
    /// The same submit was taken in before.
    Existing {
        /// The first task of it.
        root: TaskId,
    },
    /// So many tasks were assigned.
    Assigned(usize),
    /// Done; `changed` says whether there was anything to do.
    Done {
        /// Whether anything changed.
        changed: bool,
    },
    /// The outcome completed or advanced its task.
    Accepted,
    /// The same report was accepted before.
    Duplicate,
    /// The attempt had been given up. What it brought is in the log, and changes nothing else.
    Late,
    /// New tasks, in the order asked for (existing ones under the same key included).
    Delegated(Vec<TaskId>),
    /// The key is as its writer wants it.
    Stored {
        /// Its newest version; 0 where there never was one.
        version: u64,
        /// Whether that is new. Not so where it was absent and is to be, and where merging found nothing to change.
        changed: bool,
        /// Whether it holds changes of others besides, which its writer had not read.
        merged: bool,
    },
    /// The lock is held.
    Locked {
        /// The token: greater than that of every earlier holder of any lock.
        token: u64,
        /// Until when, unless it is renewed.
        until: Time,
    },
}

/// Why a command was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// There is no such thing.
    #[error("there is no {what} {id}")]
    Unknown {
        /// Task, attempt or agent.
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The secret is not the attempt's.
    #[error("the secret is not that of attempt {0}")]
    Forbidden(AttemptId),
    /// Not in this state.
    #[error("task {task} is {state}: {command} is not possible{hint}")]
    Illegal {
        /// The task.
        task: TaskId,
        /// Its state.
        state: crate::task::TaskState,
        /// What was asked.
        command: &'static str,
        /// What would help; may be empty.
        hint: &'static str,
    },
    /// Something else holds this id or key.
    #[error("{0}")]
    Conflict(String),
    /// Tasks would wait for each other for ever.
    #[error("these tasks would wait for each other for ever: {}", path.join(" -> "))]
    Cycle {
        /// Their names in order; the first stands at the end again.
        path: Vec<String>,
    },
    /// The command itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A newer life of the host exists, or its lease has ended: register again.
    #[error("{0}")]
    Superseded(String),
    /// What the writer of a key takes for granted is not so.
    #[error("{0}")]
    StateConflict(Box<StateConflict>),
    /// Somebody holds the lock.
    #[error("the lock `{}` is held by {}, for {} s unless it is renewed", lock.name, lock.holder, *left_ms as f64 / 1_000.0)]
    Held {
        /// The lock as it is held.
        lock: Box<Lock>,
        /// How long at most, unless it is renewed, in milliseconds.
        left_ms: u64,
    },
    /// The lock is not held under this token any more.
    #[error("{0}")]
    Fenced(String),
    /// The adapter did not load what the command's scope asked for. A defect, never an answer to a user.
    #[error("{0} was not loaded: this is a defect of the store adapter")]
    NotLoaded(String),
}
