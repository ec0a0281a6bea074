//! A workflow as plain data.

use serde::Serialize;
use serde_json::Value;

use super::Diagnostics;

/// A file that can be used, with what is doubtful about it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The workflow.
    pub workflow: Workflow,
    /// Warnings only.
    pub warnings: Diagnostics,
}

/// A checked workflow: names are resolved, the graph has no cycle, templates are well formed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Workflow {
    /// What it is called; the file's name stands in when it is missing.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What it is given, in the order of the file.
    pub input: Vec<InputField>,
    /// Template of the run's output. When it is missing, the output is a map from the name of each
    /// of the [last tasks](Workflow::last_tasks) to its output.
    pub output: Option<Value>,
    /// How long the whole run may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How many of its tasks may run at a time.
    pub max_parallel: Option<u32>,
    /// The tasks, in the order of the file.
    pub tasks: Vec<Task>,
}

impl Workflow {
    /// Names of the tasks that no other task needs, in the order of the file.
    pub fn last_tasks(&self) -> Vec<&str> {
        let needed: rustc_hash::FxHashSet<&str> =
            self.tasks.iter().flat_map(|task| task.needs.iter().map(String::as_str)).collect();
        let names = self.tasks.iter().map(|task| task.name.as_str());
        names.filter(|name| !needed.contains(name)).collect()
    }
}

/// One value that a run is given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputField {
    /// Its name behind `input.`.
    pub name: String,
    /// What it may be.
    #[serde(rename = "type")]
    pub kind: InputType,
    /// What it is for.
    pub description: Option<String>,
    /// It must be given. Never true together with `default`.
    pub required: bool,
    /// What it is when it is not given; null when this is missing too.
    pub default: Option<Value>,
    /// The only values it may have; empty when it may have any.
    #[serde(rename = "enum")]
    pub allowed: Vec<Value>,
}

/// The type of an input, in the words of JSON Schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// A text.
    String,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list.
    Array,
    /// A map.
    Object,
    /// Anything.
    #[default]
    Any,
}

impl InputType {
    /// Every type, by its word.
    pub(super) const ALL: &'static [(&'static str, InputType)] = &[
        ("string", InputType::String),
        ("number", InputType::Number),
        ("integer", InputType::Integer),
        ("boolean", InputType::Boolean),
        ("array", InputType::Array),
        ("object", InputType::Object),
        ("any", InputType::Any),
    ];

    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            InputType::String => "string",
            InputType::Number => "number",
            InputType::Integer => "integer",
            InputType::Boolean => "boolean",
            InputType::Array => "array",
            InputType::Object => "object",
            InputType::Any => "any",
        }
    }

    /// Whether a value has this type. A number such as `3.0` is an integer, as in JSON Schema.
    pub fn admits(self, value: &Value) -> bool {
        match self {
            InputType::String => value.is_string(),
            InputType::Number => value.is_number(),
            InputType::Integer => {
                value.is_i64()
                    || value.is_u64()
                    || value.as_f64().is_some_and(|float| float.fract() == 0.0)
            }
            InputType::Boolean => value.is_boolean(),
            InputType::Array => value.is_array(),
            InputType::Object => value.is_object(),
            InputType::Any => true,
        }
    }
}

/// One task of a workflow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Task {
    /// Its name, unique in the workflow.
    pub name: String,
    /// The line of the file in which it begins, from 1.
    pub line: u32,
    /// Who does it.
    #[serde(flatten)]
    pub target: Target,
    /// What it is for; not a template.
    pub description: Option<String>,
    /// Template of the text given to an agent that reads text.
    pub prompt: Option<String>,
    /// Template of its input; an empty map when the file has none.
    pub input: Value,
    /// Names of the tasks it waits for: those of `needs` first, then those its templates name.
    pub needs: Vec<String>,
    /// Expression; the task is skipped when it is false.
    pub when: Option<String>,
    /// The task is done once for each item of a list.
    pub for_each: Option<ForEach>,
    /// How it is tried again; what applies when it is missing is not decided here.
    pub retry: Option<Retry>,
    /// How long it may take.
    pub timeout: Timeouts,
    /// 1 background, 3 low, 5 medium (the default), 7 high, 10 critical.
    pub priority: u8,
    /// What its failure means for the tasks that need it.
    pub on_failure: OnFailure,
    /// Where it works; what applies when it is missing is the agent's own setting.
    pub workspace: Option<Workspace>,
    /// Keys of shared state that its agent may use, or prefixes and `*`.
    pub state_keys: Vec<String>,
}

/// Who does a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The agent of this name.
    Agent(String),
    /// Any agent that has this capability.
    Capability(String),
}

/// A task done once for each item of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForEach {
    /// Expression that gives the list; `item` and `index` stand for its elements in the templates.
    pub list: String,
    /// How many of them may run at a time.
    pub max_parallel: Option<u32>,
}

/// How a task that failed is tried again: attempt n waits between 0 and
/// `min(cap_ms, base_ms * factor^(n-1))`, or exactly that long without jitter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Retry {
    /// How often it is tried in all, at least 1.
    pub attempts: u32,
    /// The first wait, in milliseconds.
    pub base_ms: u64,
    /// What each wait is multiplied by to give the next, at least 1.
    pub factor: f64,
    /// The longest wait, in milliseconds; at least `base_ms`.
    pub cap_ms: u64,
    /// Waits are drawn from 0 to their length, so that tasks do not come back together.
    pub jitter: bool,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: 3, base_ms: 1_000, factor: 2.0, cap_ms: 60_000, jitter: true }
    }
}

/// How long a task may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// From ready until an agent starts it, in milliseconds.
    pub queue_ms: Option<u64>,
    /// From the start of an attempt until its end, in milliseconds.
    pub run_ms: Option<u64>,
}

/// What the failure of a task means for the tasks that need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They fail as well, and so does the run.
    #[default]
    Fail,
    /// They are skipped; the run goes on.
    Skip,
    /// They are done all the same; `tasks.NAME.output` is null for them.
    Continue,
}

impl OnFailure {
    pub(super) const ALL: &'static [(&'static str, OnFailure)] =
        &[("fail", OnFailure::Fail), ("skip", OnFailure::Skip), ("continue", OnFailure::Continue)];
}

/// Where a task works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workspace {
    /// A folder of its own, empty at the start.
    Own,
    /// A git worktree of the project.
    Worktree,
    /// The folder of the project itself.
    Project,
}

impl Workspace {
    pub(super) const ALL: &'static [(&'static str, Workspace)] = &[
        ("own", Workspace::Own),
        ("worktree", Workspace::Worktree),
        ("project", Workspace::Project),
    ];
}

/// Priorities by their word.
pub(super) const PRIORITIES: &[(&str, u8)] =
    &[("background", 1), ("low", 3), ("medium", 5), ("high", 7), ("critical", 10)];
/// The priority of a task that names none.
pub(super) const DEFAULT_PRIORITY: u8 = 5;
