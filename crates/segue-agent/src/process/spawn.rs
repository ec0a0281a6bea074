//! Starting an attempt's program through a supervisor.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedWriteHalf, pipe};

use super::capture::Capture;
use super::cgroup::{self, NodeCgroup, TreeCgroup};
use super::env::ATTEMPT_VARIABLE;
use super::os;
use super::running::{Driver, Reports, Running};
use super::supervisor::SUPERVISE_ARG;
use super::wire::{EndedProcess, Input, Limits, Report, Spec, StartFailure, StartStep, Text};

/// How long a supervisor may take to start the program; a folder on a dead network disk takes for ever.
const START_MS_MAX: u64 = 30_000;
/// How long a tree has between SIGTERM and SIGKILL unless the spec says otherwise.
const GRACE_MS: u64 = 5_000;

/// What to start, and how.
#[derive(Debug)]
pub struct Spawn {
    /// A path, or a name that is looked for in the `PATH` of `env`. A relative path is relative to `cwd`.
    pub program: OsString,
    /// Its arguments, without the program itself.
    pub args: Vec<OsString>,
    /// Its whole environment; [`super::scrubbed_env`] makes one.
    pub env: Vec<(OsString, OsString)>,
    /// The folder it starts in; an absolute path.
    pub cwd: PathBuf,
    /// Its standard input.
    pub stdin: Stdin,
    /// Limits of the operating system.
    pub limits: Limits,
    /// What a tree has between SIGTERM and SIGKILL, where nobody says otherwise: at a timeout, after
    /// too much output, and for what the program leaves behind.
    pub grace: Duration,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// What becomes of its output.
    pub capture: Capture,
    /// The attempt's id: it marks every process of the tree as `SEGUE_ATTEMPT` in the environment,
    /// by which [`super::kill_marked`] finds what survived its supervisor.
    pub attempt: Option<String>,
    /// A file that the supervisor writes the evidence of the end to if its node is dead by then; an
    /// absolute path. It has to be there, and empty: [`super::end_leftover`] reads and removes it, and a supervisor
    /// that comes too late for that leaves nothing.
    pub last_words: Option<PathBuf>,
}

impl Spawn {
    /// A program without arguments, environment, input, limits or timeout, that has 5 s to end
    /// after SIGTERM, and whose output is kept as [`Capture::default`] says.
    pub fn new(program: impl Into<OsString>, cwd: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: cwd.into(),
            stdin: Stdin::Null,
            limits: Limits::default(),
            grace: Duration::from_millis(GRACE_MS),
            timeout: None,
            capture: Capture::default(),
            attempt: None,
            last_words: None,
        }
    }
}

/// Where a program's standard input comes from. None of them can keep it waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// A regular file; an absolute path.
    File(PathBuf),
    /// These bytes, as a file without a name.
    Bytes(Vec<u8>),
}

/// The processes of an attempt, as to be recorded: enough to find it again after the node died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The program, which leads a process group of the same number.
    pub pid: i32,
    /// When the program started, in clock ticks since boot.
    pub start_time: u64,
    /// Its supervisor, which leads a session of the same number.
    pub supervisor_pid: i32,
    /// When the supervisor started, in clock ticks since boot.
    pub supervisor_start_time: u64,
    /// The boot of the machine that all this is true for.
    pub boot_id: String,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Something in the [`Spawn`] cannot be handed to an operating system.
    #[error("{what} cannot be used: {why}")]
    BadSpec {
        /// Which part.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The program does not exist, or its interpreter does not.
    #[error(
        "`{program}` cannot be started: {why}; install it, or give its full path as the agent's `command`, \
         where `{{team}}` is the folder of its segue.toml"
    )]
    NotFound {
        /// The program.
        program: String,
        /// What was looked for, and where.
        why: String,
    },
    /// The program exists and may not be run.
    #[error("`{program}` cannot be started: {why}")]
    NotExecutable {
        /// The program.
        program: String,
        /// Why not.
        why: String,
    },
    /// The working folder cannot be entered.
    #[error("the working folder {} cannot be entered: {why}", path.display())]
    Cwd {
        /// The folder.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The file for standard input cannot be read.
    #[error("the standard input {path} cannot be opened: {why}")]
    Stdin {
        /// The file.
        path: String,
        /// Why not.
        why: String,
    },
    /// The operating system refused to run the program.
    #[error("`{program}` cannot be started: {why}")]
    Exec {
        /// The program.
        program: String,
        /// Why not.
        why: String,
        /// Trying again later may help: memory or processes were short.
        transient: bool,
    },
    /// The supervisor could not be started, or ended before it started the program.
    #[error("the supervisor process of `{program}` failed: {why}")]
    Supervisor {
        /// The program.
        program: String,
        /// What happened.
        why: String,
    },
}

impl SpawnError {
    /// Whether the same [`Spawn`] will fail in the same way each time, until somebody changes something.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::BadSpec { .. } | Self::NotFound { .. } | Self::NotExecutable { .. } => true,
            Self::Cwd { .. } | Self::Stdin { .. } => true,
            Self::Exec { transient, .. } => !transient,
            Self::Supervisor { .. } => false,
        }
    }
}

/// Starts programs, each with its supervisor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Launcher {
    exe: PathBuf,
    env: Vec<(OsString, OsString)>,
    /// The node's cgroup, made at the first start; none where the system has none for us.
    cgroup: Option<Arc<OnceLock<Option<Arc<NodeCgroup>>>>>,
}

impl Launcher {
    /// Uses the binary that runs now as supervisor, also if its file has been replaced since. Its
    /// `main` must begin with [`super::supervise_if_asked`].
    #[must_use]
    pub fn this_binary() -> Self {
        let exe = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe().unwrap_or_else(|_| PathBuf::from("segue"))
        };
        Self::new(exe)
    }

    /// Uses the binary at `exe`, an absolute path, as supervisor.
    pub fn new(exe: impl Into<PathBuf>) -> Self {
        Self { exe: exe.into(), env: Vec::new(), cgroup: Some(Arc::default()) }
    }

    /// Gives the supervisor, not the program, an environment variable. It has none otherwise.
    #[must_use]
    pub fn supervisor_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Makes no cgroups, even where it could.
    #[must_use]
    pub fn without_cgroup(mut self) -> Self {
        self.cgroup = None;
        self
    }

    /// Whether each tree is put into a cgroup of its own. The first call makes the node's.
    #[must_use]
    pub fn has_cgroup(&self) -> bool {
        self.next_cgroup().is_some()
    }

    /// Kills what dead nodes left in their cgroups, and removes those. Blocks; call it at a node's start.
    pub fn end_stale_cgroups(&self) -> Vec<EndedProcess> {
        if self.cgroup.is_some() { cgroup::end_stale() } else { Vec::new() }
    }

    fn next_cgroup(&self) -> Option<TreeCgroup> {
        let node = self.cgroup.as_ref()?.get_or_init(|| NodeCgroup::make().map(Arc::new));
        node.as_ref().map(NodeCgroup::next)
    }

    /// Starts a program and returns once it runs. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SpawnError`]; then nothing was left running.
    pub async fn spawn(&self, mut spawn: Spawn) -> Result<Running, SpawnError> {
        if let Some(attempt) = &spawn.attempt {
            spawn.env.retain(|(name, _)| name != ATTEMPT_VARIABLE);
            spawn.env.push((ATTEMPT_VARIABLE.into(), attempt.into()));
        }
        check(&spawn)?;
        let attempt = spawn.attempt.clone();
        let started = self.start(spawn).await;
        if let (Err(SpawnError::Supervisor { .. }), Some(attempt)) = (&started, attempt) {
            // It may have been killed between the start of the program and the word about it. The program died
            // with it; what that had started by then did not.
            let _ = tokio::task::spawn_blocking(move || super::kill_marked(&attempt)).await;
        }
        started
    }

    async fn start(&self, mut spawn: Spawn) -> Result<Running, SpawnError> {
        let program = spawn.program.to_string_lossy().into_owned();
        let failed = |why: String| SpawnError::Supervisor { program: program.clone(), why };
        let launcher = self.clone();
        // To start a process stops the thread that does it for a moment, which others should not feel.
        let born = tokio::task::spawn_blocking(move || launcher.start_supervisor()).await;
        let (born, control) =
            born.map_err(io::Error::other).flatten().map_err(|error| failed(error.to_string()))?;
        let spec =
            spec_line(&spawn, born.cgroup.as_ref()).map_err(|error| failed(error.to_string()))?;
        let input = match &mut spawn.stdin {
            Stdin::Bytes(bytes) => std::mem::take(bytes),
            Stdin::Null | Stdin::File(_) => Vec::new(),
        };
        let begun = begin(control, spec, input);
        let (orders, reports, first) =
            tokio::time::timeout(Duration::from_millis(START_MS_MAX), begun)
                .await
                .map_err(|_| {
                    failed(format!(
                        "it did not start the program within {} s",
                        START_MS_MAX / 1_000
                    ))
                })?
                .map_err(|error| failed(error.to_string()))?;
        let (pid, start_time) = match first {
            Some(Report::Started { pid, start_time }) => (pid, start_time),
            Some(Report::FailedToStart(failure)) => return Err(start_error(&spawn, failure)),
            _ => return Err(failed(last_error(born.stderr))),
        };
        let (supervisor_pid, supervisor_start_time) = (born.pid, born.start_time);
        let started =
            Started { pid, start_time, supervisor_pid, supervisor_start_time, boot_id: boot_id() };
        Ok(Driver::new(born, orders, reports, spawn).launch(started))
    }

    fn start_supervisor(&self) -> io::Result<(Born, StdUnixStream)> {
        let (control, theirs) = StdUnixStream::pair()?;
        control.set_nonblocking(true)?;
        let (stdout, stdout_writer) = io::pipe()?;
        let (stderr, stderr_writer) = io::pipe()?;
        // No working folder, no group, no closure: so the standard library can start it without fork,
        // which would copy the page tables of a node with much memory.
        let child = tokio::process::Command::new(&self.exe)
            .arg(SUPERVISE_ARG)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout_writer)
            .stderr(stderr_writer)
            .spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let born = Born {
            start_time: os::process(pid).map_or(0, |process| process.start_time),
            pid,
            child,
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
            cgroup: self.next_cgroup(),
        };
        Ok((born, control))
    }
}

/// A supervisor that waits for its spec.
pub(super) struct Born {
    pub child: tokio::process::Child,
    pub pid: i32,
    pub start_time: u64,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
    pub cgroup: Option<TreeCgroup>,
}

fn boot_id() -> String {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(os::boot_id).clone()
}

/// Finds what no operating system would take, before anything is started.
fn check(spawn: &Spawn) -> Result<(), SpawnError> {
    let bad = |what: String, why| Err(SpawnError::BadSpec { what, why });
    let has_nul = |text: &OsStr| text.as_bytes().contains(&0);
    let nul = "it contains a NUL byte";
    if spawn.program.is_empty() {
        return bad("the program".into(), "it is empty; set the agent's `command`");
    }
    if has_nul(&spawn.program) {
        return bad(format!("the program {:?}", spawn.program), nul);
    }
    if let Some(index) = spawn.args.iter().position(|arg| has_nul(arg)) {
        return bad(format!("argument {}", index + 1), nul);
    }
    for (name, value) in &spawn.env {
        if name.is_empty() || name.as_bytes().contains(&b'=') || has_nul(name) {
            return bad(
                format!("the environment variable {name:?}"),
                "a name has no `=` and no NUL, and is not empty",
            );
        }
        if has_nul(value) {
            return bad(format!("the value of the environment variable {name:?}"), nul);
        }
    }
    let stdin = if let Stdin::File(path) = &spawn.stdin { Some(path) } else { None };
    let paths = [
        ("the working folder", Some(&spawn.cwd)),
        ("the standard input", stdin),
        ("the file for last words", spawn.last_words.as_ref()),
    ];
    for (what, path) in paths {
        let Some(path) = path else { continue };
        if has_nul(path.as_os_str()) {
            return bad(format!("{what} {path:?}"), nul);
        }
        if !path.is_absolute() {
            return bad(format!("{what} {path:?}"), "it must be an absolute path");
        }
    }
    Ok(())
}

/// Tells a supervisor what to start, and hears whether it did.
async fn begin(
    control: StdUnixStream,
    spec: Vec<u8>,
    input: Vec<u8>,
) -> io::Result<(OwnedWriteHalf, Reports, Option<Report>)> {
    let (read, mut orders) = UnixStream::from_std(control)?.into_split();
    // An error here means that it ended already, which the reports tell better.
    if orders.write_all(&spec).await.is_ok() {
        let _ = orders.write_all(&input).await;
    }
    let mut reports = Reports::new(read);
    let first = reports.next().await;
    Ok((orders, reports, first))
}

/// The line that tells a supervisor what to start.
fn spec_line(spawn: &Spawn, cgroup: Option<&TreeCgroup>) -> io::Result<Vec<u8>> {
    let text = |text: &OsStr| Text::from(text);
    let spec = Spec {
        program: text(&spawn.program),
        args: spawn.args.iter().map(|arg| text(arg)).collect(),
        env: spawn.env.iter().map(|(name, value)| (text(name), text(value))).collect(),
        cwd: text(spawn.cwd.as_os_str()),
        stdin: match &spawn.stdin {
            Stdin::Null => Input::Null,
            Stdin::File(path) => Input::File(text(path.as_os_str())),
            Stdin::Bytes(bytes) => Input::Bytes(bytes.len() as u64),
        },
        limits: spawn.limits,
        grace_ms: u64::try_from(spawn.grace.as_millis()).unwrap_or(u64::MAX),
        cgroup: cgroup.map(|cgroup| text(cgroup.path.as_os_str())),
        last_words: spawn.last_words.as_ref().map(|path| text(path.as_os_str())),
    };
    let mut line = serde_json::to_vec(&spec)?;
    line.push(b'\n');
    Ok(line)
}

fn start_error(spawn: &Spawn, failure: StartFailure) -> SpawnError {
    let program = spawn.program.to_string_lossy().into_owned();
    let why = failure.text;
    match (failure.step, failure.errno) {
        (StartStep::Cwd, _) => SpawnError::Cwd { path: spawn.cwd.clone(), why },
        (StartStep::Stdin, _) => {
            let path = match &spawn.stdin {
                Stdin::File(path) => path.display().to_string(),
                Stdin::Null => "/dev/null".into(),
                Stdin::Bytes(_) => "in memory".into(),
            };
            SpawnError::Stdin { path, why }
        }
        (StartStep::Exec, Some(libc::ENOENT)) => SpawnError::NotFound { program, why },
        (StartStep::Exec, Some(libc::EACCES | libc::ENOEXEC | libc::ENOTDIR)) => {
            SpawnError::NotExecutable { program, why }
        }
        (StartStep::Exec, errno) => {
            let short =
                [libc::EAGAIN, libc::ENOMEM, libc::ENFILE, libc::EMFILE, libc::ETXTBSY, libc::EIO];
            SpawnError::Exec {
                program,
                why,
                transient: errno.is_some_and(|errno| short.contains(&errno)),
            }
        }
    }
}

/// What a supervisor that ended too early wrote, if anything.
fn last_error(stderr: pipe::Receiver) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(fd) = stderr.into_nonblocking_fd() {
        // Ends at the end of the pipe, or where it would wait.
        let _ = std::fs::File::from(fd).take(4_096).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if text.is_empty() { "it ended before it started the program".into() } else { text }
}
