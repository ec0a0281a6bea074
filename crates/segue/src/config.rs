//! `segue.toml`: the agents of a project or a team.

use anyhow::{Context, Result, bail};
use segue_agent::command::ResultFrom;
use segue_core::agent::{AgentKind, Capability};
use segue_core::task::WorkspaceKind;
use segue_core::workflow::parse_duration_ms;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What `segue.toml` holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Agents that are programs.
    #[serde(default, rename = "agent")]
    pub agents: Vec<AgentConfig>,
    /// How agents of `.claude/agents` are run.
    #[serde(default)]
    pub claude: ClaudeConfig,
}

/// How agents of `.claude/agents` are run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaudeConfig {
    /// Whether they are loaded.
    pub enabled: bool,
    /// Attempts that each takes at a time.
    pub max_concurrency: u32,
    /// Limit of an attempt.
    #[serde(deserialize_with = "duration")]
    pub timeout: u64,
    /// Names of variables that they get from the node's environment.
    pub env_allow: Vec<String>,
    /// Where they work.
    pub workspace: WorkspaceKind,
    /// The program.
    pub program: Option<String>,
    /// Whether the hooks and MCP servers that their files name are started.
    pub trust_hooks: bool,
}

impl Default for ClaudeConfig {
    fn default() -> Self {
        ClaudeConfig {
            enabled: true,
            max_concurrency: 1,
            timeout: 60 * 60 * 1_000,
            env_allow: Vec::new(),
            workspace: WorkspaceKind::Worktree,
            program: None,
            trust_hooks: false,
        }
    }
}

/// An agent in `segue.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Its name.
    pub name: String,
    /// How it is reached.
    #[serde(default = "command_kind")]
    pub kind: AgentKind,
    /// When to hand it work.
    #[serde(default)]
    pub description: String,
    /// The program and its arguments. For a CLI: the program only, if it is not on the path.
    #[serde(default)]
    pub command: Vec<String>,
    /// What becomes of its standard output.
    #[serde(default)]
    pub result: ResultFrom,
    /// Attempts that it takes at a time.
    #[serde(default = "one")]
    pub max_concurrency: u32,
    /// Limit of an attempt in milliseconds.
    #[serde(default, deserialize_with = "optional_duration")]
    pub timeout: Option<u64>,
    /// Time between SIGTERM and SIGKILL in milliseconds.
    #[serde(default = "grace", deserialize_with = "duration")]
    pub grace: u64,
    /// Whether it is told who else there is.
    #[serde(default)]
    pub delegates: bool,
    /// Where it works.
    #[serde(default = "own")]
    pub workspace: WorkspaceKind,
    /// Names of variables that it gets from the node's environment.
    #[serde(default)]
    pub env_allow: Vec<String>,
    /// Variables that it gets besides.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Bytes of standard output that it may write.
    #[serde(default = "output_max")]
    pub output_max: usize,
    /// Bytes of its log that are kept.
    #[serde(default = "log_max")]
    pub log_max: u64,
    /// Of a CLI: the model.
    #[serde(default)]
    pub model: Option<String>,
    /// Of a CLI: instructions above the prompt.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Of a CLI: further arguments, as they are.
    #[serde(default)]
    pub args: Vec<String>,
    /// Of Claude Code: what it may do without being asked.
    #[serde(default)]
    pub permission_mode: Option<segue_agent::presets::PermissionMode>,
    /// Of Claude Code: tools that need no permission.
    #[serde(default)]
    pub allowed_tools: Vec<String>,
    /// Of Claude Code: tools that are forbidden.
    #[serde(default)]
    pub disallowed_tools: Vec<String>,
    /// Of Claude Code: the most model turns.
    #[serde(default)]
    pub max_turns: Option<u64>,
    /// Of Claude Code: the most that one attempt may cost, in USD.
    #[serde(default)]
    pub max_budget_usd: Option<f64>,
    /// What it can do.
    #[serde(default, rename = "capability")]
    pub capabilities: Vec<CapabilityConfig>,
}

/// A capability in `segue.toml`. Schemas are JSON texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityConfig {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    input_schema: Option<String>,
    #[serde(default)]
    output_schema: Option<String>,
    #[serde(default)]
    required_tools: Vec<String>,
    #[serde(default)]
    cost_usd: f64,
    #[serde(default)]
    duration_s: f64,
}

fn command_kind() -> AgentKind {
    AgentKind::Command
}
fn one() -> u32 {
    1
}
fn own() -> WorkspaceKind {
    WorkspaceKind::Own
}
fn grace() -> u64 {
    5_000
}
fn output_max() -> usize {
    16 << 20
}
fn log_max() -> u64 {
    16 << 20
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DurationText {
    Seconds(u64),
    Text(String),
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match DurationText::deserialize(deserializer)? {
        DurationText::Seconds(seconds) => Ok(seconds.saturating_mul(1_000)),
        DurationText::Text(text) => parse_duration_ms(&text).map_err(serde::de::Error::custom),
    }
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    duration(deserializer).map(Some)
}

impl Config {
    /// Reads `segue.toml` in `dir`; a folder without one has no agents of its own.
    ///
    /// # Errors
    /// What is wrong, with file, line and column.
    pub fn load(dir: &Path) -> Result<Config> {
        let path = dir.join(crate::project::CONFIG_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Config::default());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let config: Config =
            toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        config.check().with_context(|| format!("{} is wrong", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for agent in &self.agents {
            let name = &agent.name;
            if name.is_empty()
                || name.len() > 200
                || name.contains([':', '/'])
                || name.starts_with('-')
            {
                bail!(
                    "`{name}` cannot be the name of an agent: it has 1 to 200 bytes, no `:` or `/`, and does not begin with `-`"
                );
            }
            if !names.insert(name) {
                bail!("agent `{name}` stands there twice: names are unique in a file");
            }
            if agent.max_concurrency == 0 {
                bail!("agent `{name}`: `max_concurrency` is 0; it has to be at least 1");
            }
            if agent.kind == AgentKind::Builtin {
                bail!("agent `{name}`: the kind `builtin` is for Segue itself; use `command`");
            }
            if agent.kind == AgentKind::Command && agent.command.is_empty() {
                bail!(
                    "agent `{name}` has no `command`: give the program and its arguments as a list"
                );
            }
            for capability in &agent.capabilities {
                capability.build(name)?;
            }
        }
        Ok(())
    }
}

impl AgentConfig {
    /// Its capabilities.
    ///
    /// # Errors
    /// A schema that is no JSON.
    pub fn capabilities(&self) -> Result<Arc<[Capability]>> {
        self.capabilities.iter().map(|capability| capability.build(&self.name)).collect()
    }
}

impl CapabilityConfig {
    fn build(&self, agent: &str) -> Result<Capability> {
        let schema = |text: &Option<String>, what: &str| -> Result<Option<Arc<Value>>> {
            let Some(text) = text else { return Ok(None) };
            let value: Value = serde_json::from_str(text).with_context(|| {
                format!("agent `{agent}`: `{what}` of capability `{}` is no JSON", self.name)
            })?;
            Ok(Some(Arc::new(value)))
        };
        if self.name.is_empty() || self.name.contains(':') {
            bail!(
                "agent `{agent}`: `{}` cannot be the name of a capability: it is not empty and has no `:`",
                self.name
            );
        }
        Ok(Capability {
            name: self.name.as_str().into(),
            description: self.description.clone(),
            input_schema: schema(&self.input_schema, "input_schema")?,
            output_schema: schema(&self.output_schema, "output_schema")?,
            required_tools: self.required_tools.clone(),
            cost_usd: self.cost_usd,
            duration_s: self.duration_s,
        })
    }
}
