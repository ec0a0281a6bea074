//! `segue.toml`: the agents of a project or a team.

use crate::backups::BackupConfig;
use anyhow::{Context, Result, bail};
use segue_agent::command::ResultFrom;
use segue_agent::process::scrubbed_env;
use segue_core::agent::{AgentKind, Capability};
use segue_core::task::WorkspaceKind;
use segue_core::workflow::parse_duration_ms;
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
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
    /// Where backups go, how often, and how many are kept.
    #[serde(default)]
    pub backup: Option<BackupConfig>,
    /// How S3 is reached, for backups.
    #[serde(default)]
    pub objects: segue_store::objects::Options,
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

/// Reads a duration, in milliseconds.
struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration: a text such as \"90s\" or \"2h\", or whole seconds")
    }

    fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<u64, E> {
        match u64::try_from(seconds) {
            Ok(seconds) => Ok(seconds.saturating_mul(1_000)),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(seconds), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
        parse_duration_ms(text).map_err(E::custom)
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(DurationText)
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
        Config::read(&text).with_context(|| format!("{} is wrong", path.display()))
    }

    /// Reads the text of a `segue.toml`.
    fn read(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.claude.max_concurrency == 0 {
            bail!("`max_concurrency` of [claude] is 0; it has to be at least 1");
        }
        if self.claude.timeout == 0 {
            bail!("`timeout` of [claude] is 0: no attempt could end in time");
        }
        check_environment("of [claude]", &self.claude.env_allow, &BTreeMap::new())?;
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
            agent.check()?;
        }
        Ok(())
    }
}

/// Whether an environment can be made of this, before an attempt finds out.
fn check_environment(whose: &str, allow: &[String], set: &BTreeMap<String, String>) -> Result<()> {
    let set: Vec<_> = set.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    scrubbed_env(allow, &set).with_context(|| format!("the environment {whose}"))?;
    Ok(())
}

/// Whether this is an amount of something: neither negative nor endless.
fn is_amount(number: f64) -> bool {
    number.is_finite() && number >= 0.0
}

impl AgentConfig {
    /// What is wrong with this agent by itself, its name apart.
    fn check(&self) -> Result<()> {
        let name = &self.name;
        if self.timeout == Some(0) {
            bail!(
                "agent `{name}`: `timeout` is 0, so no attempt could end in time; leave it out for no limit"
            );
        }
        if self.output_max == 0 {
            bail!("agent `{name}`: `output_max` is 0, so it could not say anything");
        }
        if let Some(budget) = self.max_budget_usd
            && !(is_amount(budget) && budget > 0.0)
        {
            bail!("agent `{name}`: `max_budget_usd` is {budget}; it is an amount above 0");
        }
        check_environment(&format!("of agent `{name}`"), &self.env_allow, &self.env)?;
        let mut names = BTreeSet::new();
        for capability in &self.capabilities {
            if !names.insert(&capability.name) {
                bail!("agent `{name}`: capability `{}` stands there twice", capability.name);
            }
            capability.build(name)?;
        }
        Ok(())
    }

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
        for (what, number) in [("cost_usd", self.cost_usd), ("duration_s", self.duration_s)] {
            if !is_amount(number) {
                bail!(
                    "agent `{agent}`: `{what}` of capability `{}` is {number}; it is a number from 0 on",
                    self.name
                );
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SAMPLES: [&str; 2] = [
        include_str!("../../../examples/repo-report/segue.toml"),
        include_str!("../templates/segue.toml"),
    ];

    /// Everything that a file can say.
    const FULL: &str = r#"
[backup]
to = "s3://bucket/prefix"
every = "1h"
keep = { last = 24, hourly = 48, daily = 7, weekly = 5 }

[objects]
endpoint = "https://s3.example.org:9000"
region = "eu-central-1"
access_key_id = "id"
secret_access_key = "hidden"
session_token = "hidden"
path_style = true
ca_file = "ca.pem"
allow_http = false
instance_role = false

[claude]
enabled = false
max_concurrency = 2
timeout = 90
env_allow = ["KEY"]
workspace = "own"
program = "claude-next"
trust_hooks = true

[[agent]]
name = "one"
kind = "claude"
command = ["claude"]
result = "text"
timeout = "1h30m"
grace = 0
delegates = true
workspace = "project"
env = { A = "b" }
output_max = 1000
log_max = 0
model = "m"
instructions = "i"
args = ["--x"]
permission_mode = "plan"
allowed_tools = ["Read"]
disallowed_tools = ["Bash"]
max_turns = 3
max_budget_usd = 0.5

[[agent.capability]]
name = "c"
description = "d"
input_schema = "{}"
output_schema = "true"
required_tools = ["git"]
cost_usd = 0.01
duration_s = 60
"#;

    #[test]
    fn what_the_manual_names_is_read() {
        let config = Config::read(FULL).unwrap();
        assert_eq!((config.claude.timeout, config.claude.max_concurrency), (90_000, 2));
        assert!(!format!("{config:?}").contains("hidden"), "no secret is printed");
        let backup = config.backup.as_ref().unwrap();
        assert_eq!((backup.every, backup.keep.hourly), (Some(3_600_000), 48));
        let one = &config.agents[0];
        assert_eq!((one.timeout, one.grace, one.output_max), (Some(5_400_000), 0, 1_000));
        assert_eq!(one.capabilities().unwrap()[0].cost_usd, 0.01);
        for sample in SAMPLES {
            assert!(!Config::read(sample).unwrap().agents.is_empty());
        }
    }

    /// Each mistake is named, with the line where the file's grammar can tell.
    #[test]
    fn mistakes_are_named() {
        let agent = |more: &str| format!("[[agent]]\nname = \"a\"\ncommand = [\"x\"]\n{more}\n");
        let capability = |more: &str| agent(&format!("[[agent.capability]]\nname = \"c\"\n{more}"));
        let duration = r#"a duration: a text such as "90s""#;
        let cases = [
            (agent("timeout = -5"), "line 4, column 11", duration),
            (agent("timeout = 1.5"), "line 4, column 11", duration),
            (agent("timeout = true"), "line 4, column 11", "or whole seconds"),
            (agent("timeout = '5 parsecs'"), "line 4, column 11", "parsecs"),
            (agent("timeout = 0"), "agent `a`", "`timeout` is 0"),
            ("[backup]\nto = 'x'\nevery = '5s'".into(), "line 3", "once a minute"),
            ("[backup]\nevery = '1h'".into(), "line 1", "`to`"),
            ("[backup]\nto = 'x'\nkeep = { lost = 1 }".into(), "line 3", "`lost`"),
            ("[objects]\nsecret = 'x'".into(), "line 2", "`secret`"),
            (agent("max_concurrency = 0"), "agent `a`", "at least 1"),
            (agent("max_concurrency = -1"), "line 4", "-1"),
            (agent("output_max = 0"), "agent `a`", "`output_max` is 0"),
            (agent("comand = []"), "line 4, column 1", "unknown field `comand`"),
            (agent("kind = 'robot'"), "line 4, column 8", "`robot`"),
            (agent("kind = 'builtin'"), "agent `a`", "use `command`"),
            (agent("max_budget_usd = nan"), "agent `a`", "an amount above 0"),
            (agent("env = { 'A=B' = 'x' }"), "the environment of agent `a`", "A=B"),
            (agent("env_allow = ['']"), "the environment of agent `a`", "env_allow"),
            (agent("[[agent]]\nname = 'a'\ncommand = ['x']"), "agent `a`", "twice"),
            (agent("[[agent]]\nname = 'b'"), "agent `b`", "no `command`"),
            (agent("[[agent]]\nname = '-b'\ncommand = ['x']"), "`-b`", "name of an agent"),
            (capability("cost_usd = nan"), "capability `c`", "`cost_usd`"),
            (capability("duration_s = -1.0"), "capability `c`", "`duration_s`"),
            (capability("cost_usd = inf"), "capability `c`", "`cost_usd`"),
            (capability("input_schema = '{'"), "`input_schema` of capability `c`", "no JSON"),
            (capability("[[agent.capability]]\nname = 'c'"), "agent `a`", "`c` stands there twice"),
            (capability("[[agent.capability]]\nname = ''"), "agent `a`", "name of a capability"),
            ("[claude]\nmax_concurrency = 0\n".into(), "[claude]", "at least 1"),
            ("[claude]\ntimeout = 0\n".into(), "[claude]", "`timeout`"),
            ("[claude]\ntimeout = '0s'\n".into(), "line 2, column 11", "at least one millisecond"),
            ("[[agent]\n".into(), "line 1", "]"),
            ("agent = 3\n".into(), "line 1, column 9", "sequence"),
        ];
        for (text, place, what) in cases {
            let error = Config::read(&text).map(|_| ()).expect_err(&text);
            let said = format!("{error:#}");
            let is_named = said.contains(place) && said.contains(what);
            assert!(is_named, "{place:?} and {what:?}:\n{text}\n{said}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_none_is_no_mistake() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Config::load(folder.path()).unwrap().agents.is_empty());
        let path = folder.path().join(crate::project::CONFIG_FILE);
        std::fs::write(&path, b"name = \"\xff\"").unwrap();
        let error = format!("{:#}", Config::load(folder.path()).unwrap_err());
        assert!(error.contains("segue.toml") && error.contains("UTF-8"), "{error}");
        std::fs::write(&path, "agent = 3").unwrap();
        let error = format!("{:#}", Config::load(folder.path()).unwrap_err());
        assert!(error.contains("segue.toml is wrong") && error.contains("line 1"), "{error}");
    }

    /// Nothing panics, and a refusal says where: at a line, or at an agent or a section by name.
    fn check(text: &str) {
        match Config::read(text) {
            Ok(config) => {
                for agent in &config.agents {
                    assert!(agent.max_concurrency > 0 && !agent.name.is_empty());
                    agent.capabilities().unwrap();
                }
            }
            Err(error) => {
                let said = format!("{error:#}");
                let says_where = ["line ", "agent `", "[claude]", "name of an agent"];
                assert!(says_where.iter().any(|part| said.contains(part)), "{said:?}\n{text}");
            }
        }
    }

    fn mutated() -> impl Strategy<Value = String> {
        let cut = (any::<prop::sample::Index>(), 0..40_usize, "[\\PC\n]{0,12}");
        let texts = prop::sample::select(vec![SAMPLES[0], SAMPLES[1], FULL]);
        (texts, vec(cut, 1..4)).prop_map(|(text, cuts)| {
            let mut chars: Vec<char> = text.chars().collect();
            for (at, length, new) in cuts {
                let at = at.index(chars.len() + 1);
                let end = (at + length).min(chars.len());
                chars.splice(at..end, new.chars());
            }
            chars.into_iter().collect()
        })
    }

    /// Keys of the file with values of every type.
    fn soup() -> impl Strategy<Value = String> {
        let keys = "name kind command result timeout grace env env_allow output_max log_max max_turns \
            max_budget_usd input_schema cost_usd max_concurrency workspace enabled x";
        let values = r#""a"|""|0|-1|9223372036854775807|1e400|nan|-inf|true|[]|["a"]|{}|{ A = "b" }|1979-05-27|"1h"|"own"|"{}"|"\u0000"|'''x'''|"files""#;
        let keys = prop::sample::select(keys.split_whitespace().collect::<Vec<_>>());
        let values = prop::sample::select(values.split('|').collect::<Vec<_>>());
        let headers = ["[[agent]]", "[[agent.capability]]", "[claude]", "[agent]", ""];
        let section = (prop::sample::select(headers.to_vec()), vec((keys, values), 0..6));
        let section = section.prop_map(|(header, pairs)| {
            let pairs = pairs.into_iter().map(|(key, value)| format!("{key} = {value}\n"));
            format!("{header}\n{}", pairs.collect::<String>())
        });
        vec(section, 0..4).prop_map(|sections| sections.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 500, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
            check(&text);
        }

        #[test]
        fn any_settings_are_read_or_refused(text in soup()) {
            check(&text);
        }

        #[test]
        fn broken_files_are_read_or_refused(text in mutated()) {
            check(&text);
        }
    }
}
