//! The runner of agents that are programs: any command, or one of the known coding agent CLIs.

use crate::contract::{self, Told};
use crate::place::{Folders, Place, json_of, quote, utf8_of};
use crate::process::{
    Capture, Cause, Ended, Launcher, LogFile, Running, Spawn, SpawnError, Started, Stdin,
    scrubbed_env,
};
use crate::runner::{Control, End, Job, Ran, Runner};
use segue_core::letter::EndedProcess;
use segue_core::ports::Fut;
use segue_core::task::{ErrorClass, ProcessRef, TaskError, Usage, WorkspaceKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Exit codes of `sysexits.h` that say that the same call fails the same way every time.
const PERMANENT_EXITS: [i32; 8] = [64, 65, 66, 67, 68, 76, 77, 78];
/// Bytes of standard error that are quoted in an error.
const QUOTE_MAX: usize = 600;
/// What becomes of a program's standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultFrom {
    /// It is a JSON value: the output, or an outcome of the contract. The default.
    #[default]
    Json,
    /// It is text: the output is `{"text": ..}`.
    Text,
    /// The files in the folder `SEGUE_OUT` are the properties of the output.
    Files,
    /// It is an outcome of the contract, nothing else.
    Outcome,
}

/// An agent that is a program.
#[derive(Clone, Debug)]
pub struct CommandAgent {
    /// The agent's name.
    pub name: Arc<str>,
    /// The program and its arguments; `{segue}`, `{project}`, `{team}` and `{prompt}` are replaced within each argument.
    pub command: Vec<String>,
    /// The folder of the file that defines the agent, for `{team}`.
    pub team: PathBuf,
    /// What becomes of its standard output.
    pub result: ResultFrom,
    /// Names of variables that it gets from the node's environment, beyond the default ones.
    pub env_allow: Vec<String>,
    /// Variables that it gets besides.
    pub env_set: Vec<(String, String)>,
    /// Where it works unless the task says otherwise.
    pub workspace: WorkspaceKind,
    /// Limit of an attempt in milliseconds, where the task has none.
    pub run_ms: Option<u64>,
    /// What its tree has between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Bytes of standard output that it may write.
    pub output_bytes_max: usize,
    /// Bytes of its log that are kept.
    pub log_bytes_max: u64,
}

/// Runs a program as an agent.
#[derive(Debug)]
pub struct CommandRunner {
    agent: CommandAgent,
    folders: Folders,
    launcher: Launcher,
}

impl CommandRunner {
    /// A runner of this agent.
    pub fn new(agent: CommandAgent, folders: Folders, launcher: Launcher) -> CommandRunner {
        CommandRunner { agent, folders, launcher }
    }

    async fn attempt(&self, mut job: Job) -> Ran {
        let input: Value = match serde_json::from_str(&job.input) {
            Ok(input) => input,
            Err(error) => {
                return permanent(format!("its input is no JSON: {error}"));
            }
        };
        let place = match Place::make(&self.folders, self.agent.workspace, &job, &input).await {
            Ok(place) => place,
            Err(error) => return error.into_ran(),
        };
        let ran = self.in_place(&mut job, &input, &place).await;
        place.forget();
        ran
    }

    async fn in_place(&self, job: &mut Job, input: &Value, place: &Place) -> Ran {
        let spawn = match self.spawn(job, input, place) {
            Ok(spawn) => spawn,
            Err(message) => return permanent(message),
        };
        let mut running = match self.launcher.spawn(spawn).await {
            Ok(running) => running,
            Err(error) => return not_started(&error),
        };
        let process = process_ref(running.started());
        place.record(job, running.started());
        job.control.started(process);
        let (ended, cancelled) = wait(&mut running, &mut job.control, self.agent.grace_ms).await;
        let Told { end, state } = if cancelled && ended.cause == Cause::Cancelled {
            End::Cancelled.into()
        } else {
            self.end(job, place, &ended)
        };
        Ran {
            end,
            state,
            usage: ended.usage.as_ref().map(usage),
            process,
            ended: ended.ended.iter().map(evidence).collect(),
        }
    }

    fn spawn(&self, job: &Job, input: &Value, place: &Place) -> Result<Spawn, String> {
        let agent = &self.agent;
        let prompt = contract::prompt_of(input);
        let fill = |argument: &String| {
            argument
                .replace("{segue}", &self.folders.segue.to_string_lossy())
                .replace("{project}", &self.folders.project.to_string_lossy())
                .replace("{team}", &agent.team.to_string_lossy())
                .replace("{prompt}", &prompt)
        };
        let mut words = agent.command.iter().map(fill);
        let program =
            words.next().ok_or_else(|| format!("agent `{}` has an empty `command`", agent.name))?;
        let mut spawn = Spawn::new(program, &place.cwd);
        spawn.args = words.map(Into::into).collect();
        spawn.env = scrubbed_env(&agent.env_allow, &self.variables(job, place))
            .map_err(|error| format!("the environment of agent `{}`: {error}", agent.name))?;
        let task = contract::task_json(job, &self.folders.project_id, &self.folders.project, input);
        spawn.stdin = Stdin::Bytes(task.to_string().into_bytes());
        spawn.grace = Duration::from_millis(agent.grace_ms);
        spawn.timeout = job.run_ms.or(agent.run_ms).map(Duration::from_millis);
        spawn.attempt = Some(job.attempt.clone());
        spawn.last_words = Some(place.last_words.clone());
        spawn.capture = Capture {
            stdout_bytes_max: agent.output_bytes_max,
            log: Some(LogFile { path: place.log.clone(), bytes_max: agent.log_bytes_max }),
            ..Capture::default()
        };
        Ok(spawn)
    }

    fn variables(&self, job: &Job, place: &Place) -> Vec<(String, String)> {
        let mut variables = self.agent.env_set.clone();
        variables.extend(place.variables(&self.folders, job));
        variables
    }

    /// What the end of the program means.
    fn end(&self, job: &Job, place: &Place, ended: &Ended) -> Told {
        let limit = job.run_ms.or(self.agent.run_ms).unwrap_or_default();
        match ended.cause {
            Cause::Exited => {}
            Cause::Cancelled => return End::Cancelled.into(),
            Cause::TimedOut => {
                let message =
                    format!("it ran longer than {limit} ms, its limit; its processes were ended");
                return fail(ErrorClass::Timeout, message).into();
            }
            Cause::OutputTooLarge => {
                let message = format!(
                    "it wrote more than {} bytes to standard output; it was ended. Write large results to files, or raise `output_max`",
                    self.agent.output_bytes_max
                );
                return fail(ErrorClass::Permanent, message).into();
            }
            Cause::SupervisorLost => {
                let message = "its supervisor process was killed".to_owned();
                return fail(ErrorClass::Transient, message).into();
            }
        }
        match self.result(place, ended) {
            // Whoever says how it went is believed, whatever the exit code.
            Ok(Some(told)) => told,
            Ok(None) | Err(_) if !ended.exit.is_some_and(|exit| exit.success()) => exit_failed(ended).into(),
            Ok(None) => fail(ErrorClass::InvalidOutput, "it printed nothing where a JSON value was expected (set `result` to \"text\" or \"files\" if that is meant)".into()).into(),
            Err(error) => End::Fail { error, retry_after_ms: None }.into(),
        }
    }

    /// The outcome that the program reported, or its output; `None` where it said nothing.
    fn result(&self, place: &Place, ended: &Ended) -> Result<Option<Told>, TaskError> {
        if let Some(bytes) = place.read_outcome(self.agent.output_bytes_max)? {
            let value = json_of(&bytes, "the file SEGUE_OUTCOME")?;
            return contract::outcome(value).map(Some);
        }
        let succeeded = ended.exit.is_some_and(|exit| exit.success());
        if let Ok(value) = serde_json::from_slice::<Value>(&ended.stdout)
            && contract::is_outcome(&value)
        {
            return contract::outcome(value).map(Some);
        }
        if !succeeded {
            return Ok(None);
        }
        match self.agent.result {
            ResultFrom::Outcome => Err(TaskError::new(
                ErrorClass::InvalidOutput,
                format!(
                    "it printed no outcome of the contract; its standard output begins {}",
                    quote(&ended.stdout)
                ),
            )),
            ResultFrom::Json if ended.stdout.iter().all(u8::is_ascii_whitespace) => Ok(None),
            ResultFrom::Json => {
                let value = json_of(&ended.stdout, "its standard output").map_err(|error| {
                    let message = format!(
                        "{} (set `result` to \"text\" or \"files\" if it is no JSON on purpose)",
                        error.message
                    );
                    TaskError::new(error.class, message)
                })?;
                Ok(Some(End::Complete(value.to_string()).into()))
            }
            ResultFrom::Text => {
                let text = utf8_of(&ended.stdout, "its standard output")?;
                Ok(Some(End::Complete(json!({ "text": text.trim_end() }).to_string()).into()))
            }
            ResultFrom::Files => {
                let output = place.read_files(self.agent.output_bytes_max)?;
                Ok(Some(End::Complete(Value::Object(output).to_string()).into()))
            }
        }
    }
}

impl Runner for CommandRunner {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        Box::pin(self.attempt(job))
    }
}

/// Waits for the end; says whether it was cancelled meanwhile.
pub(crate) async fn wait(
    running: &mut Running,
    control: &mut Control,
    grace_ms: u64,
) -> (Ended, bool) {
    let canceller = running.canceller();
    let end = running.wait();
    tokio::pin!(end);
    tokio::select! {
        ended = &mut end => return (ended, false),
        _ = control.cancelled() => canceller.cancel(Duration::from_millis(grace_ms)),
    }
    (end.await, true)
}

/// The program ended with an exit code or by a signal, and said nothing else.
pub(crate) fn exit_failed(ended: &Ended) -> End {
    let Some(exit) = ended.exit else {
        return fail(ErrorClass::Transient, "it ended, and nobody saw how".to_owned());
    };
    let class = match exit.code {
        Some(code) if PERMANENT_EXITS.contains(&code) => ErrorClass::Permanent,
        Some(126 | 127) => ErrorClass::Permanent,
        Some(_) | None => ErrorClass::Transient,
    };
    let tail = String::from_utf8_lossy(&ended.stderr);
    let tail = tail.trim();
    let mut from = tail.len().saturating_sub(QUOTE_MAX);
    while !tail.is_char_boundary(from) {
        from += 1;
    }
    let said = if tail.is_empty() { "it wrote nothing to standard error" } else { &tail[from..] };
    fail(class, format!("{exit}: {said}"))
}

pub(crate) fn fail(class: ErrorClass, message: String) -> End {
    End::Fail { error: TaskError::new(class, message), retry_after_ms: None }
}

pub(crate) fn failed(class: ErrorClass, message: String) -> Ran {
    Ran::plain(fail(class, message))
}

pub(crate) fn permanent(message: String) -> Ran {
    failed(ErrorClass::Permanent, message)
}

pub(crate) fn not_started(error: &SpawnError) -> Ran {
    let class = if error.is_permanent() { ErrorClass::Permanent } else { ErrorClass::Transient };
    failed(class, error.to_string())
}

pub(crate) fn process_ref(started: &Started) -> Option<ProcessRef> {
    Some(ProcessRef { pid: u32::try_from(started.pid).ok()?, start_time: started.start_time })
}

/// A process that was ended, in the words of the core.
pub fn evidence(process: &crate::process::EndedProcess) -> EndedProcess {
    EndedProcess {
        process: ProcessRef {
            pid: u32::try_from(process.pid).unwrap_or_default(),
            start_time: process.start_time,
        },
        name: process.name.clone(),
        signal: (process.signal != 0).then_some(process.signal),
    }
}

pub(crate) fn usage(used: &crate::process::Usage) -> Usage {
    Usage {
        cpu_ms: (used.user_us + used.system_us) / 1_000,
        rss_kib_max: used.rss_bytes_max / 1_024,
        ..Usage::default()
    }
}
