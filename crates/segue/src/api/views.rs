//! What the API shows: its own types, so that what is kept can change without what is promised.
//!
//! Times are RFC 3339 in UTC with milliseconds; ids are UUIDs; lengths are bytes.

use super::trace::RunTrace;
use segue_core::agent::{Agent, AgentKind, AgentSpec};
use segue_core::payload::Payload;
use segue_core::ports::Pruned;
use segue_core::task::{
    Attempt, AttemptEnd, AttemptRecord, ErrorClass, OnFailure, ProcessRef, Route, Task, TaskError,
    TaskState, Usage, WaitFor,
};
use segue_core::time::Time;
use segue_store::sqlite::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A time as the API writes it.
pub fn at(time: Time) -> String {
    match jiff::Timestamp::from_millisecond(time.0) {
        Ok(stamp) => format!("{stamp:.3}"),
        Err(_) => time.0.to_string(),
    }
}

/// The reverse of [`at`]; `None` for anything else.
pub fn time_of(text: &str) -> Option<Time> {
    text.parse::<jiff::Timestamp>().ok().map(|stamp| Time(stamp.as_millisecond()))
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// The root of its run.
    pub run: String,
    /// The task that delegated it.
    pub parent: Option<String>,
    /// What people call it.
    pub name: String,
    /// Its key among its siblings.
    pub key: Option<String>,
    /// The agent it is for, where it names one.
    pub agent: Option<String>,
    /// The capability it asks for, where it names one.
    pub capability: Option<String>,
    /// The agent that has, or had, its latest attempt.
    pub taken_by: Option<String>,
    /// Where it stands.
    pub state: TaskState,
    /// In `waiting`: whether a new attempt gets the children's results, or their outputs are its output.
    pub waits_for: Option<WaitFor>,
    /// 1 to 10.
    pub priority: u8,
    /// What its failure does to those that need it.
    pub on_failure: OnFailure,
    /// Ids of tasks that it waits for.
    pub needs: Vec<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// Children ever made under it.
    pub children: u32,
    /// Children that have not ended.
    pub open_children: u32,
    /// When it was submitted.
    pub created_at: String,
    /// When its latest attempt was given to an agent.
    pub assigned_at: Option<String>,
    /// When the agent said that it began.
    pub started_at: Option<String>,
    /// In `retrying`: when the next attempt is due.
    pub retry_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Why it, or its latest attempt, ended without a result.
    pub error: Option<ErrorView>,
}

impl TaskView {
    /// The view of a task; `names` are the agents' names by instance.
    pub fn of(task: &Task, names: &Names) -> TaskView {
        let spec = &task.spec;
        let (agent, capability) = match &spec.route {
            Route::Agent(name) => (Some(name.to_string()), None),
            Route::Capability(name) => (None, Some(name.to_string())),
            Route::Group => (None, None),
        };
        TaskView {
            id: task.id().to_string(),
            run: spec.root.to_string(),
            parent: spec.parent.map(|parent| parent.to_string()),
            name: spec.name.to_string(),
            key: spec.key.as_ref().map(ToString::to_string),
            agent,
            capability,
            taken_by: task.attempt.as_ref().and_then(|attempt| names.of(attempt)),
            state: task.state,
            waits_for: task.wait_for,
            priority: spec.priority.number(),
            on_failure: spec.on_failure,
            needs: spec.needs.iter().map(|need| need.task.to_string()).collect(),
            attempts: task.attempts,
            children: task.children,
            open_children: task.open_children,
            created_at: at(task.created_at),
            assigned_at: task.attempt.as_ref().map(|attempt| at(attempt.assigned_at)),
            started_at: task.attempt.as_ref().and_then(|attempt| attempt.started_at).map(at),
            retry_at: task.retry_at.map(at),
            finished_at: task.finished_at.map(at),
            error: task.error.as_ref().map(ErrorView::of),
        }
    }
}

/// Names of agents by instance.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<segue_core::ids::InstanceId, String>);

impl Names {
    /// The names of these agents.
    pub fn new(agents: &[Agent]) -> Names {
        Names(
            agents.iter().map(|agent| (agent.spec.instance, agent.spec.name.to_string())).collect(),
        )
    }

    /// The agent of an attempt, while the store knows it.
    pub fn of(&self, attempt: &Attempt) -> Option<String> {
        self.0.get(&attempt.instance).cloned()
    }
}

/// Why something ended without a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What kind of failure.
    pub class: ErrorClass,
    /// What happened.
    pub message: String,
}

impl ErrorView {
    fn of(error: &TaskError) -> ErrorView {
        ErrorView { class: error.class, message: error.message.clone() }
    }
}

/// A page of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TasksView {
    /// The tasks, newest first.
    pub tasks: Vec<TaskView>,
    /// What `before` has to be for the next page; null on the last one.
    pub next: Option<String>,
}

/// A task with everything about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskDetail {
    /// The task.
    pub task: TaskView,
    /// The trace that its run belongs to: 32 hexadecimal digits.
    pub trace: String,
    /// The span in which somebody else asked for the run, as they named it.
    pub traceparent: Option<String>,
    /// Its attempts, oldest first; the last may still run.
    pub attempts: Vec<AttemptView>,
    /// Its children, oldest first; at most [`CHILDREN_MAX`].
    pub children: Vec<TaskView>,
    /// Its input.
    pub input: BodyView,
    /// Its output, once completed.
    pub output: Option<BodyView>,
}

/// Children that a [`TaskDetail`] holds at most.
pub const CHILDREN_MAX: usize = 1_000;

/// A JSON body, or how large it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BodyView {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it.
    pub sha256: String,
    /// It is not here because it is large: ask for it with `full=1`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub omitted: bool,
    /// The body.
    pub value: Value,
}

impl BodyView {
    /// The view of a payload whose text is at hand, or that is left out.
    pub fn of(payload: &Payload, text: Option<&str>) -> BodyView {
        BodyView {
            bytes: payload.size(),
            sha256: payload.hash().hex(),
            omitted: text.is_none(),
            value: text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
        }
    }
}

/// One try at a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Its id.
    pub id: String,
    /// 1, 2, 3 .. within the task.
    pub number: u32,
    /// Its span, as its letters and its program carry it.
    pub traceparent: String,
    /// Who got it.
    pub agent: Option<String>,
    /// Which instance.
    pub instance: String,
    /// When it was assigned.
    pub assigned_at: String,
    /// When the agent began.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How it ended.
    pub end: Option<AttemptEnd>,
    /// Its process, where it has one.
    pub process: Option<ProcessRef>,
    /// Its error, if it had one.
    pub error: Option<ErrorView>,
    /// What it used.
    pub usage: Option<Usage>,
}

impl AttemptView {
    /// The view of an attempt that may still run.
    pub fn of(attempt: &Attempt, trace: &RunTrace, names: &Names) -> AttemptView {
        AttemptView {
            id: attempt.id.to_string(),
            number: attempt.number,
            traceparent: trace.span_of(attempt).to_string(),
            agent: names.of(attempt),
            instance: attempt.instance.to_string(),
            assigned_at: at(attempt.assigned_at),
            started_at: attempt.started_at.map(at),
            ended_at: attempt.ended_at.map(at),
            end: attempt.end,
            process: attempt.process,
            error: None,
            usage: None,
        }
    }

    /// The view of an attempt that has ended.
    pub fn ended(record: &AttemptRecord, trace: &RunTrace, names: &Names) -> AttemptView {
        AttemptView {
            error: record.error.as_ref().map(ErrorView::of),
            usage: record.usage.clone(),
            ..AttemptView::of(&record.attempt, trace, names)
        }
    }
}

/// What a submit came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmittedView {
    /// The task; of a graph, its root.
    pub id: String,
    /// The ids of the tasks of a graph by their keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, String>,
    /// It was there already: the same key was used for the same body before.
    pub existing: bool,
    /// What is doubtful about it.
    #[serde(default)]
    pub warnings: Vec<WarningView>,
}

/// Something doubtful.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarningView {
    /// What it is.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line of the workflow file that it is about, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// Whether a command changed anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangedView {
    /// What it was about: a task's id, or an agent's name.
    pub id: String,
    /// Whether anything changed.
    pub changed: bool,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub kind: AgentKind,
    /// `available`, `busy`, `offline` or `maintenance`.
    pub status: String,
    /// Attempts that it has.
    pub slots_used: u32,
    /// Attempts that it takes at a time.
    pub slots: u32,
    /// 0 (sick) to 1 (well); null where no node knows it.
    pub health: Option<f32>,
    /// Load of its host, 0 to 1; null where no node knows it.
    pub load: Option<f32>,
    /// Milliseconds since it was last heard of; null where no node knows it.
    pub silent_ms: Option<u64>,
    /// Whether it is told who else there is, so that it can delegate.
    pub delegates: bool,
    /// When to hand it work, in words.
    pub description: String,
    /// What it can do.
    pub capabilities: Vec<CapabilityView>,
    /// The file that defines it.
    pub source: Option<String>,
    /// The instance.
    pub instance: String,
    /// The node or worker that hosts it, by name where that is known; null where no node runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Nodes and workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodesView {
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// A node or a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name; its host id where nobody told it.
    pub name: String,
    /// What it does: `node` or `worker`; empty where nobody told.
    pub roles: Vec<String>,
    /// `up`, `draining`, `silent` (its lease still holds) or `gone`.
    pub status: String,
    /// The name of its machine.
    pub machine: Option<String>,
    /// Its version of Segue.
    pub version: Option<String>,
    /// The names of its agents.
    pub agents: Vec<String>,
    /// Attempts that its agents have.
    pub slots_used: u32,
    /// Attempts that they take at a time.
    pub slots: u32,
    /// Milliseconds since it was last heard of; null where nobody told.
    pub silent_ms: Option<u64>,
    /// What keeps it from its work, such as a bus that takes no letters; null where nothing does, or nobody told.
    pub trouble: Option<String>,
    /// The host's id.
    pub host: String,
    /// Whether it is the node that answers.
    pub here: bool,
}

/// Something an agent can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CapabilityView {
    /// Its name.
    pub name: String,
    /// What it does, in words.
    pub description: String,
    /// JSON Schema of the input it consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// JSON Schema of the output it produces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Tools that it cannot do without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_tools: Vec<String>,
    /// Cost of one invocation in USD.
    pub cost_usd: f64,
    /// Average duration of one invocation in seconds.
    pub duration_s: f64,
}

impl AgentView {
    /// The view of an agent that no node knows.
    pub fn offline(spec: &AgentSpec, source: Option<String>) -> AgentView {
        AgentView {
            name: spec.name.to_string(),
            kind: spec.kind,
            status: "offline".to_owned(),
            slots_used: 0,
            slots: spec.max_concurrency,
            health: None,
            load: None,
            silent_ms: None,
            delegates: spec.delegates,
            description: spec.description.to_string(),
            capabilities: spec.capabilities.iter().map(CapabilityView::of).collect(),
            source,
            instance: spec.instance.to_string(),
            node: None,
        }
    }
}

impl CapabilityView {
    fn of(capability: &segue_core::agent::Capability) -> CapabilityView {
        let schema = |schema: &Option<std::sync::Arc<Value>>| schema.as_deref().cloned();
        CapabilityView {
            name: capability.name.to_string(),
            description: capability.description.clone(),
            input_schema: schema(&capability.input_schema),
            output_schema: schema(&capability.output_schema),
            required_tools: capability.required_tools.clone(),
            cost_usd: capability.cost_usd,
            duration_s: capability.duration_s,
        }
    }
}

/// Everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentsView {
    /// The agents, by name.
    pub agents: Vec<AgentView>,
    /// What is odd about the files that define them.
    pub notices: Vec<String>,
}

/// Agents that were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundView {
    /// Those found, best first.
    pub found: Vec<FoundAgent>,
}

/// An agent that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundAgent {
    /// How well it fits: 1 for the exact name of a capability, else above 0 and below 1.
    pub score: f64,
    /// `capability` or `text`.
    pub by: String,
    /// The words of the query that it has.
    pub matched: Vec<String>,
    /// The agent.
    pub agent: AgentView,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthView {
    /// `ok`, or why the node takes no work.
    pub status: String,
    /// Segue's version.
    pub version: String,
    /// The project's id.
    pub project: String,
    /// The project's folder.
    pub dir: String,
    /// The process.
    pub pid: u32,
    /// Whether an engine runs; without one, tasks are only taken in.
    pub engine: bool,
    /// The folder of the team that takes part, if one was named.
    pub team: Option<String>,
    /// Agents it hosts.
    pub agents: usize,
    /// Tasks by state.
    pub tasks: BTreeMap<String, u64>,
}

/// What a prune removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrunedView {
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
    /// Folders of logs and work.
    pub folders: u64,
}

impl PrunedView {
    /// The view of what the store removed.
    pub fn of(pruned: &Pruned, folders: u64) -> PrunedView {
        PrunedView {
            runs: pruned.runs,
            tasks: pruned.tasks,
            events: pruned.events,
            payloads: pruned.payloads,
            bytes: pruned.bytes,
            keys: pruned.keys,
            folders,
        }
    }
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupView {
    /// Its folder.
    pub dir: String,
    /// The project whose state it is.
    pub project: String,
    /// When it was made.
    pub made_at: String,
    /// How many files it has.
    pub files: usize,
    /// Their length in all.
    pub bytes: u64,
}

impl BackupView {
    /// The view of a backup in this folder.
    pub fn of(manifest: &Manifest, dir: &Path) -> BackupView {
        BackupView {
            dir: dir.display().to_string(),
            project: manifest.project.to_string(),
            made_at: at(manifest.made_at),
            files: manifest.files.len(),
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        }
    }
}

/// A numbered backup at a place of backups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestView {
    /// The place.
    pub url: String,
    /// Its number there.
    pub number: u64,
    /// The project whose state it is.
    pub project: String,
    /// When it was made.
    pub made_at: String,
    /// Rows of all tables.
    pub rows: u64,
    /// Objects that it refers to.
    pub objects: u64,
    /// Their length in all.
    pub bytes: u64,
    /// Objects that had to be written for it.
    pub written_objects: u64,
    /// Their length in all.
    pub written_bytes: u64,
    /// Whether retention has given it up, so that it goes soon.
    pub given_up: bool,
}

impl ManifestView {
    /// The view of a backup at this place.
    pub fn of(manifest: &segue_store::backup::Manifest, url: &str) -> ManifestView {
        let (objects, bytes) = manifest.size();
        ManifestView {
            url: url.to_owned(),
            number: manifest.number,
            project: manifest.project.to_string(),
            made_at: at(manifest.made_at),
            rows: manifest.rows(),
            objects,
            bytes,
            written_objects: manifest.written.objects,
            written_bytes: manifest.written.bytes,
            given_up: manifest.retired,
        }
    }
}

/// Whether the database is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditView {
    /// What is wrong with it, a sentence each.
    pub findings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_milliseconds_and_read_back() {
        assert_eq!(at(Time(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(Time(1_763_800_000_120)), "2025-11-22T08:26:40.120Z");
        assert_eq!(time_of(&at(Time(1_763_800_000_120))), Some(Time(1_763_800_000_120)));
        assert_eq!(time_of("yesterday"), None);
    }
}
