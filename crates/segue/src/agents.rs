//! Everybody who works in a project: from `segue.toml`, a team's folder, and `.claude/agents`.

use crate::config::{AgentConfig, ClaudeConfig, Config};
use crate::project::Project;
use anyhow::{Context, Result, bail};
use segue_agent::claude::{self, AgentFile, Notice};
use segue_agent::command::{CommandAgent, CommandRunner};
use segue_agent::host::Hosted;
use segue_agent::place::Folders;
use segue_agent::preset_runner::{PresetAgent, PresetRunner};
use segue_agent::process::Launcher;
use segue_agent::runner::Runner;
use segue_core::agent::{AgentKind, AgentSpec};
use segue_core::worker::instance_of;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who works in a project, before anybody is started.
#[derive(Debug, Default)]
pub struct Team {
    programs: Vec<(AgentConfig, PathBuf)>,
    files: Vec<AgentFile>,
    claude: ClaudeConfig,
    /// What is odd about the files of `.claude/agents`.
    pub notices: Vec<Notice>,
}

impl Team {
    /// Loads the agents of a project and, where one is named, of a team's folder. Of two with one name the team's comes
    /// before the project's, and `segue.toml` before `.claude/agents`.
    ///
    /// # Errors
    /// When a `segue.toml` is wrong.
    pub fn load(project_dir: &Path, team_dir: Option<&Path>) -> Result<Team> {
        let mut team = Team::default();
        let mut names = BTreeSet::new();
        if let Some(dir) = team_dir {
            let dir = dir.canonicalize().with_context(|| {
                format!("the team's folder {} cannot be entered", dir.display())
            })?;
            let config = Config::load(&dir)?;
            if config.agents.is_empty() {
                bail!("{} has no `segue.toml` with agents", dir.display());
            }
            team.add(config.agents, &dir, &mut names);
        }
        let config = Config::load(project_dir)?;
        team.add(config.agents, project_dir, &mut names);
        team.claude = config.claude;
        if team.claude.enabled {
            let home = std::env::var_os("HOME").map(PathBuf::from);
            let loaded = claude::load(project_dir, home.as_deref());
            team.notices = loaded.notices;
            team.files = loaded.agents;
            team.files.retain(|file| names.insert(file.name.clone()));
        }
        Ok(team)
    }

    fn add(&mut self, agents: Vec<AgentConfig>, dir: &Path, names: &mut BTreeSet<String>) {
        for agent in agents {
            if names.insert(agent.name.clone()) {
                self.programs.push((agent, dir.to_path_buf()));
            }
        }
    }

    /// The file that defines an agent.
    pub fn source(&self, name: &str) -> Option<PathBuf> {
        let program = self.programs.iter().find(|(agent, _)| agent.name == name);
        program.map(|(_, dir)| dir.join(crate::project::CONFIG_FILE)).or_else(|| {
            self.files.iter().find(|file| file.name == name).map(|file| file.path.clone())
        })
    }

    /// Agents that are programs with a command of their own: their names, and the program as it is written.
    pub fn programs(&self) -> impl Iterator<Item = (&str, &str)> {
        let programs = self.programs.iter();
        programs
            .filter_map(|(agent, _)| Some((agent.name.as_str(), agent.command.first()?.as_str())))
    }

    /// How many agents are of this kind.
    pub fn count_of(&self, kind: AgentKind) -> usize {
        let files = if kind == AgentKind::Claude { self.files.len() } else { 0 };
        files + self.programs.iter().filter(|(agent, _)| agent.kind == kind).count()
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.programs.len() + self.files.len()
    }
}

/// The agents of a team with what runs them, for this project's host.
///
/// # Errors
/// When a capability's schema is no JSON.
pub fn hosted(team: &Team, project: &Project, launcher: &Launcher) -> Result<Vec<Hosted>> {
    let folders = Folders {
        project: project.dir.clone(),
        project_id: project.id.to_string(),
        state: project.state.clone(),
        segue: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("segue")),
    };
    let mut hosted = Vec::with_capacity(team.len());
    for (config, dir) in &team.programs {
        let runner: Arc<dyn Runner> = match config.kind {
            AgentKind::Command => {
                let agent = command_agent(config, dir);
                Arc::new(CommandRunner::new(agent, folders.clone(), launcher.clone()))
            }
            AgentKind::Claude | AgentKind::Codex | AgentKind::Gemini | AgentKind::Opencode => {
                let agent = preset_agent(config, dir)?;
                Arc::new(PresetRunner::new(agent, folders.clone(), launcher.clone()))
            }
            AgentKind::Builtin => bail!("agent `{}` cannot be of the kind `builtin`", config.name),
        };
        let spec = AgentSpec {
            instance: instance_of(project.host, &config.name),
            name: config.name.as_str().into(),
            kind: config.kind,
            description: config.description.as_str().into(),
            capabilities: config.capabilities()?,
            max_concurrency: config.max_concurrency,
            delegates: config.delegates,
        };
        hosted.push(Hosted { spec, runner });
    }
    for file in &team.files {
        hosted.push(claude_agent(file, &team.claude, project, &folders, launcher));
    }
    Ok(hosted)
}

fn command_agent(config: &AgentConfig, dir: &Path) -> CommandAgent {
    CommandAgent {
        name: config.name.as_str().into(),
        command: config.command.clone(),
        team: dir.to_path_buf(),
        result: config.result,
        env_allow: config.env_allow.clone(),
        env_set: config.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        workspace: config.workspace,
        run_ms: config.timeout,
        grace_ms: config.grace,
        output_bytes_max: config.output_max,
        log_bytes_max: config.log_max,
    }
}

fn preset_agent(config: &AgentConfig, dir: &Path) -> Result<PresetAgent> {
    Ok(PresetAgent {
        base: command_agent(config, dir),
        kind: config.kind,
        model: config.model.clone(),
        instructions: config.instructions.clone(),
        args: config.args.clone(),
        permission_mode: config.permission_mode,
        allowed_tools: config.allowed_tools.clone(),
        disallowed_tools: config.disallowed_tools.clone(),
        max_turns: config.max_turns,
        max_budget_usd: config.max_budget_usd,
        file: None,
        capabilities: config.capabilities()?,
    })
}

fn claude_agent(
    file: &AgentFile,
    config: &ClaudeConfig,
    project: &Project,
    folders: &Folders,
    launcher: &Launcher,
) -> Hosted {
    let base = CommandAgent {
        name: file.name.as_str().into(),
        command: config.program.iter().cloned().collect(),
        team: project.dir.clone(),
        result: segue_agent::command::ResultFrom::Json,
        env_allow: config.env_allow.clone(),
        env_set: Vec::new(),
        workspace: config.workspace,
        run_ms: Some(config.timeout),
        grace_ms: 10_000,
        output_bytes_max: 64 << 20,
        log_bytes_max: 64 << 20,
    };
    let agent = PresetAgent {
        base,
        kind: AgentKind::Claude,
        model: None,
        instructions: None,
        args: Vec::new(),
        permission_mode: None,
        allowed_tools: Vec::new(),
        disallowed_tools: Vec::new(),
        max_turns: file.max_turns,
        max_budget_usd: None,
        file: None,
        capabilities: Arc::from([]),
    }
    .with_file(file, config.trust_hooks);
    let spec = AgentSpec {
        instance: instance_of(project.host, &file.name),
        name: file.name.as_str().into(),
        kind: AgentKind::Claude,
        description: file.description.as_str().into(),
        capabilities: Arc::from([]),
        max_concurrency: config.max_concurrency,
        delegates: false,
    };
    let runner = PresetRunner::new(agent, folders.clone(), launcher.clone());
    Hosted { spec, runner: Arc::new(runner) }
}
