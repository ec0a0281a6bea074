//! The runner of agents that are coding agent CLIs.

use crate::claude::{AgentFile, to_agents_json};
use crate::command::{
    CommandAgent, evidence, exit_failed, fail, failed, not_started, permanent, process_ref, usage,
    wait,
};
use crate::contract::{self, Told};
use crate::place::{Folders, Place, read_bounded};
use crate::presets::{
    CommandLine, FailureClass, Invocation, LineWatcher, Output, Parsed, PermissionMode, Preset,
    Progress, command_line, parse,
};
use crate::process::{
    Capture, Cause, Ended, Launcher, LogFile, Spawn, Stdin, Stream, scrubbed_env,
};
use crate::runner::{Control, End, Job, Ran, Runner, Said};
use segue_core::agent::{AgentKind, Capability};
use segue_core::ports::Fut;
use segue_core::task::{ErrorClass, TaskError, Usage};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How often the CLI itself retries a request: Segue has retries of its own.
const API_RETRIES: u8 = 2;

/// An agent that is a coding agent CLI.
#[derive(Clone, Debug)]
pub struct PresetAgent {
    /// What it has in common with any program. Its `command` holds the program only, or nothing.
    pub base: CommandAgent,
    /// Which CLI.
    pub kind: AgentKind,
    /// The model.
    pub model: Option<String>,
    /// Instructions above the prompt.
    pub instructions: Option<String>,
    /// Further arguments, as they are.
    pub args: Vec<String>,
    /// What it may do without being asked.
    pub permission_mode: Option<PermissionMode>,
    /// Tools that need no permission.
    pub allowed_tools: Vec<String>,
    /// Tools that are forbidden.
    pub disallowed_tools: Vec<String>,
    /// The most model turns.
    pub max_turns: Option<u64>,
    /// The most that one attempt may cost, in USD.
    pub max_budget_usd: Option<f64>,
    /// The file of `.claude/agents` that defines it.
    pub file: Option<Arc<AgentFile>>,
    /// What it can do; the output schema of the capability that a task asks for is told to the CLI.
    pub capabilities: Arc<[Capability]>,
}

impl PresetAgent {
    /// The agent of a file of `.claude/agents`. Its hooks and MCP servers, which start programs of the file's choosing, are
    /// left out unless the user trusts them: the flag that hands the agent over asks nobody.
    #[must_use]
    pub fn with_file(mut self, file: &AgentFile, trusted: bool) -> PresetAgent {
        let mut file = file.clone();
        if !trusted {
            file.hooks = Value::Null;
            file.mcp_servers = Value::Null;
        }
        self.file = Some(Arc::new(file));
        self
    }

    fn output_schema(&self, job: &Job) -> Option<&Value> {
        let capability = match &job.capability {
            Some(name) => self.capabilities.iter().find(|known| known.name == *name)?,
            None if self.capabilities.len() == 1 => &self.capabilities[0],
            None => return None,
        };
        capability.output_schema.as_deref()
    }
}

/// Runs a coding agent CLI as an agent.
#[derive(Debug)]
pub struct PresetRunner {
    agent: PresetAgent,
    folders: Folders,
    launcher: Launcher,
}

impl PresetRunner {
    /// A runner of this agent.
    pub fn new(agent: PresetAgent, folders: Folders, launcher: Launcher) -> PresetRunner {
        PresetRunner { agent, folders, launcher }
    }

    async fn attempt(&self, mut job: Job) -> Ran {
        let Some(preset) = preset_of(self.agent.kind) else {
            return permanent(format!("`{}` is no coding agent CLI", self.agent.kind));
        };
        let input: Value = match serde_json::from_str(&job.input) {
            Ok(input) => input,
            Err(error) => return permanent(format!("its input is no JSON: {error}")),
        };
        let place = match Place::make(&self.folders, self.agent.base.workspace, &job, &input).await
        {
            Ok(place) => place,
            Err(error) => return error.into_ran(),
        };
        let ran = self.in_place(preset, &mut job, &input, &place).await;
        place.forget();
        ran
    }

    async fn in_place(&self, preset: Preset, job: &mut Job, input: &Value, place: &Place) -> Ran {
        let line = match self.line(preset, job, input, place) {
            Ok(line) => line,
            Err(message) => return permanent(message),
        };
        let spawn = match self.spawn(preset, &line, job, place) {
            Ok(spawn) => spawn,
            Err(error) => return failed(ErrorClass::Transient, error),
        };
        let mut running = match self.launcher.spawn(spawn).await {
            Ok(running) => running,
            Err(error) => return not_started(&error),
        };
        let process = process_ref(running.started());
        place.record(job, running.started());
        job.control.started(process);
        let grace_ms = self.agent.base.grace_ms;
        let (ended, cancelled) = wait(&mut running, &mut job.control, grace_ms).await;
        let parsed = self.parse(preset, &line, &ended);
        note_oddities(&job.control, &parsed);
        let gave_up = cancelled && ended.cause == Cause::Cancelled && parsed.result.is_err();
        let Told { end, state } =
            if gave_up { End::Cancelled.into() } else { self.end(job, &ended, &parsed) };
        Ran {
            end,
            state,
            usage: Some(Usage {
                input_tokens: parsed.usage.input_tokens,
                cached_input_tokens: parsed.usage.cached_input_tokens,
                output_tokens: parsed.usage.output_tokens,
                cost_usd: parsed.usage.cost_usd,
                ..ended.usage.as_ref().map(usage).unwrap_or_default()
            }),
            process,
            ended: ended.ended.iter().map(evidence).collect(),
        }
    }

    fn line(
        &self,
        preset: Preset,
        job: &Job,
        input: &Value,
        place: &Place,
    ) -> Result<CommandLine, String> {
        let agent = &self.agent;
        let prompt = prompt(job, input);
        let file = agent.file.as_deref();
        let agents = file.map(|file| to_agents_json(std::slice::from_ref(file)).to_string());
        let invocation = Invocation {
            prompt: &prompt,
            program: agent.base.command.first().map(String::as_str),
            agent_json: agents.as_deref(),
            agent_name: file.map(|file| file.name.as_str()),
            system_prompt: agent.instructions.as_deref(),
            model: agent.model.as_deref(),
            output_schema: agent.output_schema(job),
            scratch_dir: Some(&place.scratch),
            permission_mode: agent.permission_mode,
            allowed_tools: &agent.allowed_tools,
            disallowed_tools: &agent.disallowed_tools,
            max_turns: agent.max_turns.and_then(|turns| u32::try_from(turns).ok()),
            max_budget_usd: agent.max_budget_usd,
            working_dir: Some(&place.cwd),
            api_retries: Some(API_RETRIES),
            extra_args: &agent.args,
            ..Invocation::default()
        };
        let line = command_line(preset, &invocation).map_err(|error| error.to_string())?;
        for warning in &line.warnings {
            tracing::warn!(agent = %agent.base.name, "{warning}");
        }
        Ok(line)
    }

    fn spawn(
        &self,
        preset: Preset,
        line: &CommandLine,
        job: &Job,
        place: &Place,
    ) -> Result<Spawn, String> {
        let agent = &self.agent.base;
        for file in &line.files {
            std::fs::write(&file.path, &file.contents)
                .map_err(|error| format!("cannot write {}: {error}", file.path.display()))?;
        }
        let mut allow = agent.env_allow.clone();
        allow.extend(preset.env_allow().harmless.iter().map(|name| (*name).to_owned()));
        let mut set = agent.env_set.clone();
        set.extend(place.variables(&self.folders, job));
        let mut spawn = Spawn::new(&line.program, &place.cwd);
        spawn.args.clone_from(&line.args);
        spawn.env = scrubbed_env(&allow, &set)
            .map_err(|error| format!("the environment of agent `{}`: {error}", agent.name))?;
        spawn.env.extend(line.env.iter().map(|(name, value)| (name.into(), value.clone())));
        spawn.stdin = line.stdin.clone().map_or(Stdin::Null, Stdin::Bytes);
        spawn.grace = Duration::from_millis(agent.grace_ms);
        spawn.timeout = job.run_ms.or(agent.run_ms).map(Duration::from_millis);
        spawn.attempt = Some(job.attempt.clone());
        spawn.last_words = Some(place.last_words.clone());
        let mut watcher = LineWatcher::new(preset);
        let said = job.control.said.clone();
        spawn.capture = Capture {
            stdout_bytes_max: agent.output_bytes_max,
            log: Some(LogFile { path: place.log.clone(), bytes_max: agent.log_bytes_max }),
            on_line: Some(Box::new(move |line| {
                if line.stream != Stream::Stdout || line.cut {
                    return;
                }
                for progress in watcher.line(line.bytes) {
                    // How much was written is evidence of life, and too much for the log of a run.
                    if is_for_the_log(&progress)
                        && let Ok(note) = serde_json::to_string(&progress)
                    {
                        let _ = said.send(Said::Progress(note));
                    }
                }
            })),
            ..Capture::default()
        };
        Ok(spawn)
    }

    fn parse(&self, preset: Preset, line: &CommandLine, ended: &Ended) -> Parsed {
        let result_file = line.result_file.as_deref().and_then(|path| {
            read_bounded(path, "its result file", self.agent.base.output_bytes_max).ok().flatten()
        });
        let exit =
            ended.exit.map(|exit| crate::presets::Exit { code: exit.code, signal: exit.signal });
        let output = Output {
            stdout: &ended.stdout,
            stderr: &ended.stderr,
            exit: exit.unwrap_or_default(),
            result_file: result_file.as_deref(),
        };
        parse(preset, &output)
    }

    fn end(&self, job: &Job, ended: &Ended, parsed: &Parsed) -> Told {
        match &parsed.result {
            // Finished work counts, however the process ended afterwards.
            Ok(success) => {
                let output =
                    success.structured.clone().unwrap_or_else(|| json!({ "text": success.text }));
                if contract::is_outcome(&output) {
                    return contract::outcome(output)
                        .unwrap_or_else(|error| End::Fail { error, retry_after_ms: None }.into());
                }
                End::Complete(output.to_string()).into()
            }
            Err(_) if ended.cause == Cause::TimedOut => {
                let limit = job.run_ms.or(self.agent.base.run_ms).unwrap_or_default();
                fail(
                    ErrorClass::Timeout,
                    format!("it ran longer than {limit} ms, its limit; its processes were ended"),
                )
                .into()
            }
            Err(failure) if failure.message.is_empty() => exit_failed(ended).into(),
            Err(failure) => End::Fail {
                error: TaskError::new(class_of(failure.class), failure.message.clone()),
                retry_after_ms: failure.retry_after_ms,
            }
            .into(),
        }
    }
}

impl Runner for PresetRunner {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        Box::pin(self.attempt(job))
    }
}

/// A "done" with denials or oddities deserves a second look: they go into the log of the run.
fn note_oddities(control: &Control, parsed: &Parsed) {
    for denial in &parsed.denials {
        control.progress(&json!({ "kind": "denied", "tool": denial.tool, "input": denial.input }));
    }
    for note in &parsed.notes {
        control.progress(&json!({ "kind": "note", "text": note }));
    }
}

/// The prompt; a resumed agent is told how those fared to whom it delegated.
fn prompt(job: &Job, input: &Value) -> String {
    let mut prompt = contract::prompt_of(input);
    let resume = contract::resume_json(job);
    if !resume.is_null() {
        prompt.push_str("\n\nYou delegated parts of this task. Their results:\n");
        prompt.push_str(&resume.to_string());
    }
    if let Some(state) = contract::state_json(job) {
        prompt.push_str("\n\nWhat the team knows in common, as far as this task may use it:\n");
        prompt.push_str(&state.to_string());
    }
    prompt
}

/// Whether a fact is one for the log of the run, not just evidence of life.
fn is_for_the_log(progress: &Progress) -> bool {
    !matches!(progress, Progress::Text { .. } | Progress::Thinking { .. })
}

fn preset_of(kind: AgentKind) -> Option<Preset> {
    match kind {
        AgentKind::Claude => Some(Preset::Claude),
        AgentKind::Codex => Some(Preset::Codex),
        AgentKind::Gemini => Some(Preset::Gemini),
        AgentKind::Opencode => Some(Preset::Opencode),
        AgentKind::Command | AgentKind::Builtin => None,
    }
}

fn class_of(class: FailureClass) -> ErrorClass {
    match class {
        FailureClass::Transient => ErrorClass::Transient,
        FailureClass::Permanent => ErrorClass::Permanent,
        FailureClass::RateLimited => ErrorClass::RateLimited,
        FailureClass::Timeout => ErrorClass::Timeout,
        FailureClass::InvalidOutput => ErrorClass::InvalidOutput,
    }
}
