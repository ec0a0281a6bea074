//! What a loaded agent file is, and what is said about files that are odd.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// Where an agent file was found. Of two files that name the same agent in different scopes,
/// the earlier scope wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// An administrator's folder, such as `/etc/claude-code/.claude/agents`.
    Managed,
    /// `.claude/agents` of the project, or of a folder between it and the repository root.
    Project,
    /// `~/.claude/agents`.
    User,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Managed => "managed",
            Self::Project => "project",
            Self::User => "user",
        })
    }
}

/// How hard the model should think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// One of `low`, `medium`, `high`, `xhigh`, `max`.
    Level(&'static str),
    /// A number, whose scale only Claude Code knows.
    Number(i64),
}

/// One agent definition, as Claude Code would use it: values that Claude Code ignores are
/// already gone (a [`Notice`] says so).
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFile {
    /// The agent's only identity; the file's name does not count. Never empty, never starts
    /// with `-`, holds no `:`; anything else is allowed, spaces and capitals included.
    pub name: String,
    /// When to delegate to this agent. Never empty. A literal `\n` has become a line break,
    /// as Claude Code does it.
    pub description: String,
    /// The body of the file, trimmed: the agent's whole system prompt. May be empty.
    pub prompt: String,
    /// The tools it may use. `None`: all of its parent's. `Some` of an empty list: none at all.
    /// Entries may carry arguments, as in `Agent(a, b)` or `Bash(git *)`.
    pub tools: Option<Vec<String>>,
    /// Tools taken away before `tools` is read.
    pub disallowed_tools: Vec<String>,
    /// An alias (`sonnet`, `opus`, `haiku`, ..), a full model id, or `inherit`; as written.
    pub model: Option<String>,
    /// One of `default`, `manual`, `acceptEdits`, `auto`, `dontAsk`, `bypassPermissions`, `plan`.
    pub permission_mode: Option<String>,
    /// The most turns of one run, 1 or more.
    pub max_turns: Option<u64>,
    /// Skills whose text is put before the agent at its start.
    pub skills: Vec<String>,
    /// A list of server names and of one-key maps `{name: config}`; `Null` if there are none.
    /// Such a config names a program to start: see the caution at [`to_agents_json`](super::to_agents_json).
    pub mcp_servers: Value,
    /// Event name -> matchers, as in `settings.json`; `Null` if there are none.
    /// Hooks run programs: see the caution at [`to_agents_json`](super::to_agents_json).
    pub hooks: Value,
    /// `user`, `project` or `local`: which memory folder the agent keeps.
    pub memory: Option<String>,
    /// Whether it always runs in the background.
    pub background: Option<bool>,
    /// How hard the model should think.
    pub effort: Option<Effort>,
    /// `worktree` or `remote`.
    pub isolation: Option<String>,
    /// One of red, blue, green, yellow, purple, orange, pink, cyan.
    pub color: Option<String>,
    /// The first user turn when it runs as the main agent.
    pub initial_prompt: Option<String>,
    /// Every other key of the front matter, as parsed.
    pub extra: BTreeMap<String, Value>,
    /// The file.
    pub path: PathBuf,
    /// Which kind of folder the file was found in.
    pub scope: Scope,
}

/// How much a [`Notice`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong: documentation beside agents, or an agent hidden by a nearer one.
    Note,
    /// The agent is loaded, but something in its file is not used, or not as it reads.
    Warning,
    /// The file, or the folder, is not loaded.
    Skipped,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Skipped => "skipped",
        })
    }
}

/// Something a person should know about an agent file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// The file or folder.
    pub path: PathBuf,
    /// The line, from 1, where there is one to point at.
    pub line: Option<usize>,
    /// What is the matter.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {} ({})", self.message, self.remedy)
    }
}

/// What a look at the folders brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The agents, one per name, by name.
    pub agents: Vec<AgentFile>,
    /// What is odd, by path and line.
    pub notices: Vec<Notice>,
}

impl Loaded {
    /// The agent of this name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&AgentFile> {
        self.agents
            .binary_search_by(|agent| agent.name.as_str().cmp(name))
            .ok()
            .and_then(|at| self.agents.get(at))
    }
}
