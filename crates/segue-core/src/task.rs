//! Tasks.

pub use crate::attempt::{Attempt, AttemptEnd, AttemptRecord, ProcessRef, Usage};
use crate::ids::{InstanceId, TaskId};
use crate::payload::Payload;
use crate::retry::RetryPolicy;
use crate::time::Time;
use crate::trace::Traceparent;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Some of its needs have not ended, or its templates are not rendered yet.
    Blocked,
    /// It may be given to an agent. Caused by `unblocked`, `resumed`, `retried`, or at submit.
    Ready,
    /// An agent instance holds a slot for it. Caused by `assigned`.
    Assigned,
    /// The agent said that it began. Caused by `started`.
    Running,
    /// It waits for children and holds no slot. Caused by `waiting`.
    Waiting,
    /// Its last attempt ended without a result and the next one is due later. Caused by `attempt_failed` or `attempt_lost`.
    Retrying,
    /// It has its output. Terminal. Caused by `completed`.
    Completed,
    /// It is a dead letter: no attempt is left, or the error is permanent. Terminal until requeued. Caused by `failed`.
    Failed,
    /// It was cancelled or skipped. Terminal. Caused by `cancelled` or `skipped`.
    Cancelled,
}

impl TaskState {
    /// Every state, in the order of the documentation.
    pub const ALL: [TaskState; 9] = [
        TaskState::Blocked,
        TaskState::Ready,
        TaskState::Assigned,
        TaskState::Running,
        TaskState::Waiting,
        TaskState::Retrying,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Cancelled,
    ];

    /// The word used in tables, in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Blocked => "blocked",
            TaskState::Ready => "ready",
            TaskState::Assigned => "assigned",
            TaskState::Running => "running",
            TaskState::Waiting => "waiting",
            TaskState::Retrying => "retrying",
            TaskState::Completed => "completed",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
        }
    }

    /// Whether no command but `Requeue` leaves this state.
    pub fn is_terminal(self) -> bool {
        match self {
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled => true,
            TaskState::Blocked
            | TaskState::Ready
            | TaskState::Assigned
            | TaskState::Running
            | TaskState::Waiting
            | TaskState::Retrying => false,
        }
    }

    /// Whether an agent instance holds a slot for a task in this state.
    pub fn holds_slot(self) -> bool {
        matches!(self, TaskState::Assigned | TaskState::Running)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        TaskState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
            format!("`{text}` is not a state of a task; the states are {}", known.join(", "))
        })
    }
}

/// How urgent a task is: background 1, low 3, medium 5, high 7, critical 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PriorityText", into = "u8")]
pub struct Priority(u8);

#[derive(Deserialize)]
#[serde(untagged)]
enum PriorityText {
    Number(u8),
    Word(String),
}

impl TryFrom<PriorityText> for Priority {
    type Error = String;

    fn try_from(text: PriorityText) -> Result<Self, String> {
        match text {
            PriorityText::Number(number) => Priority::new(number),
            PriorityText::Word(word) => word.parse(),
        }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> u8 {
        priority.0
    }
}

impl Priority {
    /// The named priorities.
    pub const NAMED: [(&'static str, u8); 5] =
        [("background", 1), ("low", 3), ("medium", 5), ("high", 7), ("critical", 10)];
    /// The priority of a task that names none.
    pub const MEDIUM: Priority = Priority(5);

    /// A priority of 1 to 10.
    pub fn new(number: u8) -> Result<Priority, String> {
        if (1..=10).contains(&number) {
            Ok(Priority(number))
        } else {
            Err(format!(
                "priority {number} is out of range: it is a number from 1 to 10, or background, low, medium, high or critical"
            ))
        }
    }

    /// The number, 1 to 10.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Priority::MEDIUM
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, number)) = Priority::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(Priority(*number));
        }
        match text.parse() {
            Ok(number) => Priority::new(number),
            Err(_) => Err(format!(
                "`{text}` is not a priority: it is background, low, medium, high, critical, or a number from 1 to 10"
            )),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Priority::NAMED.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.pad(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Who may take a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// Any instance with this name.
    Agent(Arc<str>),
    /// Any instance that declares this capability.
    Capability(Arc<str>),
    /// Nobody: the task stands for its children (a workflow, or the items of a `for_each`).
    Group,
}

impl Route {
    /// An agent by name.
    pub fn agent(name: &str) -> Route {
        Route::Agent(name.into())
    }

    /// A capability by name.
    pub fn capability(name: &str) -> Route {
        Route::Capability(name.into())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Agent(name) => write!(f, "agent:{name}"),
            Route::Capability(name) => write!(f, "capability:{name}"),
            Route::Group => f.write_str("group"),
        }
    }
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("agent", name)) => Ok(Route::agent(name)),
            Some(("capability", name)) => Ok(Route::capability(name)),
            _ if text == "group" => Ok(Route::Group),
            _ => {
                Err(format!("`{text}` is not a route: it is agent:NAME, capability:NAME or group"))
            }
        }
    }
}

/// What the failure of a task does to the tasks that need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They fail too.
    #[default]
    Fail,
    /// They are skipped, and so are those that need them.
    Skip,
    /// They run, and see its state and error.
    Continue,
}

/// The folder an attempt works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceKind {
    /// A fresh folder of its own.
    Own,
    /// A git worktree of the project.
    Worktree,
    /// The project's own folder.
    Project,
}

/// One task that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The task waited for.
    pub task: TaskId,
    /// The name by which templates know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Only its end matters, not how it ended (used to bound parallelism).
    #[serde(default, skip_serializing_if = "is_false")]
    pub order_only: bool,
}

/// Limits in time. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timeouts {
    /// From ready to assigned, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u64>,
    /// Of one attempt, from its start, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<u64>,
    /// From submit to the end, everything under the task included, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_ms: Option<u64>,
}

/// What the engine renders once the needs of a task have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The input holds templates.
    #[serde(default, skip_serializing_if = "is_false")]
    pub input: bool,
    /// Condition: where it is false, the task is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Arc<str>>,
    /// Expression of a list: the task becomes a group with one child an item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<Arc<str>>,
    /// How many children of a `for_each` may be open at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// Of a group: the template of its output over its children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
}

/// What a task is: fixed at submit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its id, chosen by whoever submits it (UUID version 7).
    pub id: TaskId,
    /// The task that delegated it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// The root of its run; its own id where it is the root.
    pub root: TaskId,
    /// What people call it.
    pub name: Arc<str>,
    /// Its key among the children of its parent: a retried delegation finds it by this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// Who may take it.
    pub route: Route,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// What its failure does to its dependents.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// How often and when it is tried again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry: RetryPolicy,
    /// Its limits in time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// Where it works, if the agent's own setting is not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceKind>,
    /// What is rendered before it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Box<Template>>,
    /// Keys of shared state that it may use, or prefixes and `*`: it is given them, its outcomes may write them, and the templates
    /// of what it delegates may read them. None where this is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_keys: Vec<Arc<str>>,
    /// Delegations between the root and this task.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hops: u16,
    /// Of a root: the span in which somebody else asked for the run, if they said so. The run belongs to its trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Traceparent>,
    /// Key under which the same submit returns this task again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Arc<str>>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TaskSpec {
    /// A task with everything at its default.
    pub fn new(id: TaskId, name: &str, route: Route) -> TaskSpec {
        TaskSpec {
            id,
            parent: None,
            root: id,
            name: name.into(),
            key: None,
            route,
            needs: Vec::new(),
            priority: Priority::default(),
            on_failure: OnFailure::default(),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            workspace: None,
            template: None,
            state_keys: Vec::new(),
            hops: 0,
            traceparent: None,
            idempotency_key: None,
        }
    }

    /// Whether something has to be rendered before the task is ready.
    pub fn is_rendered_later(&self) -> bool {
        self.route != Route::Group
            && self
                .template
                .as_ref()
                .is_some_and(|t| t.input || t.when.is_some() || t.for_each.is_some())
    }
}

/// Why an attempt or a task ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// May go well the next time.
    Transient,
    /// Will go the same way every time: not retried.
    Permanent,
    /// Refused for now by a provider: retried no sooner than it says.
    RateLimited,
    /// Took longer than it may.
    Timeout,
    /// The output is not what the capability promises.
    InvalidOutput,
    /// Ended with the host it ran on. Counted apart from the retries.
    Lost,
    /// A task that it needs failed.
    Upstream,
    /// Skipped, by its condition or because what it needs was skipped.
    Skipped,
    /// Cancelled by somebody.
    Cancelled,
    /// A template of the task does not render.
    Template,
}

impl ErrorClass {
    /// The word used in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Transient => "transient",
            ErrorClass::Permanent => "permanent",
            ErrorClass::RateLimited => "rate_limited",
            ErrorClass::Timeout => "timeout",
            ErrorClass::InvalidOutput => "invalid_output",
            ErrorClass::Lost => "lost",
            ErrorClass::Upstream => "upstream",
            ErrorClass::Skipped => "skipped",
            ErrorClass::Cancelled => "cancelled",
            ErrorClass::Template => "template",
        }
    }

    /// Whether another attempt may help.
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorClass::Transient
            | ErrorClass::RateLimited
            | ErrorClass::Timeout
            | ErrorClass::InvalidOutput
            | ErrorClass::Lost => true,
            ErrorClass::Permanent
            | ErrorClass::Upstream
            | ErrorClass::Skipped
            | ErrorClass::Cancelled
            | ErrorClass::Template => false,
        }
    }
}

/// Longest message of a [`TaskError`] in bytes; longer ones are cut.
pub const ERROR_MESSAGE_MAX: usize = 4 * 1024;

/// Why an attempt or a task ended without a result, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// What kind of failure it is.
    pub class: ErrorClass,
    /// What happened, where, and what to do; at most [`ERROR_MESSAGE_MAX`] bytes.
    pub message: String,
}

impl TaskError {
    /// An error; the message is cut at [`ERROR_MESSAGE_MAX`].
    pub fn new(class: ErrorClass, message: impl Into<String>) -> TaskError {
        let mut message = message.into();
        if message.len() > ERROR_MESSAGE_MAX {
            let mut end = ERROR_MESSAGE_MAX - 3;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push_str("...");
        }
        TaskError { class, message }
    }
}

/// What happens to a task once the children that it waits for have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// A new attempt gets their results.
    Resume,
    /// It completes with their outputs, or fails with the first that failed.
    Collect,
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// Where it stands.
    pub state: TaskState,
    /// Needs that have not ended, plus one while its templates are not rendered.
    pub unmet: u32,
    /// Its place in the queue of its route: lower is sooner. See [`rank`](crate::route::rank).
    pub rank: i64,
    /// Its input, rendered once it is ready.
    pub input: Payload,
    /// Attempts made so far.
    pub attempts: u32,
    /// Attempts that count against the retry policy.
    pub tried: u32,
    /// Attempts lost with their host.
    pub lost: u32,
    /// Its latest attempt. Current until it has an end, superseded by the next one.
    pub attempt: Option<Attempt>,
    /// Children that have not ended, whether it waits for them or not.
    pub open_children: u32,
    /// Children ever made under it.
    pub children: u32,
    /// Tasks that need it.
    pub dependents: u32,
    /// What it waits for in `waiting`; kept where it failed or was cancelled in that state.
    pub wait_for: Option<WaitFor>,
    /// What its last attempt left for the next one.
    pub continuation: Option<Payload>,
    /// The instance that a resume prefers.
    pub prefer: Option<InstanceId>,
    /// When it was submitted.
    pub created_at: Time,
    /// When it last became ready.
    pub ready_at: Option<Time>,
    /// In `retrying`: when the next attempt is due.
    pub retry_at: Option<Time>,
    /// When it became terminal.
    pub finished_at: Option<Time>,
    /// Its output, once completed.
    pub output: Option<Payload>,
    /// Why its last attempt, or the task itself, ended without a result.
    pub error: Option<TaskError>,
    /// Of a root: events of its run so far.
    pub run_events: u64,
}

impl Task {
    /// Its id.
    pub fn id(&self) -> TaskId {
        self.spec.id
    }

    /// Whether it is the root of its run.
    pub fn is_root(&self) -> bool {
        self.spec.root == self.spec.id
    }

    /// The attempt that may still report, if there is one.
    pub fn current_attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.end.is_none())
    }

    /// Whether its next (or current) attempt goes on where an earlier one delegated.
    pub fn resumes(&self) -> bool {
        self.continuation.is_some() || self.prefer.is_some()
    }

    /// When a timer has to look at this task, if one has to.
    pub fn due_at(&self) -> Option<Time> {
        let timeouts = &self.spec.timeouts;
        let own = match self.state {
            TaskState::Ready => timeouts.queue_ms.zip(self.ready_at).map(|(ms, at)| at.plus_ms(ms)),
            TaskState::Retrying => self.retry_at,
            TaskState::Assigned | TaskState::Running => {
                timeouts.run_ms.zip(self.attempt.as_ref()).map(|(ms, attempt)| {
                    let began = attempt.started_at.unwrap_or(attempt.assigned_at);
                    began.plus_ms(ms).plus_ms(crate::command::RUN_GRACE_MS)
                })
            }
            TaskState::Blocked | TaskState::Waiting => None,
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled => return None,
        };
        let whole = timeouts.whole_ms.map(|ms| self.created_at.plus_ms(ms));
        own.into_iter().chain(whole).min()
    }
}
