//! The supervisor: one small process an attempt, with one thread, that is the parent of the whole tree.
//!
//! It starts the program, adopts every orphan below it, and does not end before the tree has. The
//! control socket is its file descriptor 0: its end means that the node is dead, and the tree goes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::os::{self, Process, Reaped, Wake};
use super::wire::{
    EndedProcess, Exit, Input, Order, Report, Spec, StartFailure, StartStep, TreeEnd,
};

/// The argument that makes the binary a supervisor.
pub const SUPERVISE_ARG: &str = "__supervise";

/// How long the supervisor tries to kill what does not die before it reports survivors.
pub(super) const HARD_MS_MAX: u64 = 10_000;
/// The pause between two rounds of killing.
const HARD_PAUSE: Duration = Duration::from_millis(5);
/// How many ended processes are reported one by one; the rest is counted.
const ENDED_MAX: usize = 1_000;
/// Rounds of SIGTERM, so that a child forked during the first round is asked too.
const POLITE_ROUNDS: usize = 3;
/// How many are reaped in one go: a tree that makes zombies as fast as they can be reaped must not
/// keep the supervisor from looking at the clock.
const REAP_MAX: usize = 256;
/// How often an executable that is open for writing is tried again, 5 ms apart: another thread of
/// the node may have forked while it held the file that it wrote.
const BUSY_TRIES: u32 = 40;

/// Becomes a supervisor, and never returns, if the first argument asks for it.
///
/// Call this first thing in `main`: the start of an attempt waits for it.
pub fn supervise_if_asked() {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(SUPERVISE_ARG)) {
        supervisor_main()
    }
}

/// The `main` of a supervisor. Exits with 0 once the tree has ended, and 2 if no node is at the other end.
pub fn supervisor_main() -> ! {
    std::process::exit(match run() {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "segue {SUPERVISE_ARG}: {error}");
            2
        }
    })
}

fn run() -> io::Result<()> {
    os::become_supervisor()?;
    let mut control = Control::take()?;
    os::listen_for_signals()?;
    // A node that died before it said what to start leaves nothing to do.
    let Some(spec) = control.line()? else {
        return Ok(());
    };
    let spec: Spec = serde_json::from_str(&spec)?;
    let cgroup =
        spec.cgroup.clone().and_then(|path| Cgroup::make(PathBuf::from(OsString::from(path))));
    let grace = Duration::from_millis(spec.grace_ms);
    let last_words = spec.last_words.clone().map(|path| PathBuf::from(OsString::from(path)));
    match start(spec, &mut control, cgroup.as_ref()) {
        Ok(main) => {
            os::dup_null_over_output()?;
            let start_time = os::process(main).map_or(0, |process| process.start_time);
            control.report(&Report::Started { pid: main, start_time });
            let mut tree = Tree::new(main, grace, control, cgroup);
            tree.attend()?;
            tree.report_end(last_words.as_deref());
        }
        Err(failure) => control.report(&Report::FailedToStart(failure)),
    }
    Ok(())
}

/// The socket to the node.
struct Control {
    socket: UnixStream,
    unread: Vec<u8>,
    /// The node is there, as far as is known.
    open: bool,
}

impl Control {
    /// Moves the socket away from descriptor 0, which the program must not inherit it as.
    fn take() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let kind = File::from(socket.try_clone()?).metadata()?.file_type();
        if !kind.is_socket() {
            return Err(io::Error::other(
                "this command is for Segue's own use: it waits for a node at the other end of its standard input",
            ));
        }
        os::dup_null_over_stdin()?;
        Ok(Self { socket: UnixStream::from(socket), unread: Vec::new(), open: true })
    }

    /// The next line, waiting for it; nothing at the end of the stream.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut from = 0;
        loop {
            if let Some(line) = self.buffered_line(from) {
                return Ok(Some(line));
            }
            from = self.unread.len();
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn buffered_line(&mut self, from: usize) -> Option<String> {
        let end = from + self.unread[from..].iter().position(|byte| *byte == b'\n')?;
        let rest = self.unread.split_off(end + 1);
        let line = std::mem::replace(&mut self.unread, rest);
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads once; says whether anything came. An error is the same as the end: nobody is there.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0_u8; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    self.unread.extend_from_slice(&buffer[..length]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.open = false;
                    return Ok(false);
                }
            }
        }
    }

    /// Moves `length` bytes that follow the last line into a file without a name.
    fn bytes(&mut self, length: u64) -> io::Result<File> {
        let mut file = os::anonymous_file()?;
        let buffered = usize::try_from(length).unwrap_or(usize::MAX).min(self.unread.len());
        file.write_all(&self.unread[..buffered])?;
        self.unread.drain(..buffered);
        let missing = length - buffered as u64;
        if io::copy(&mut (&self.socket).take(missing), &mut file)? != missing {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.rewind()?;
        Ok(file)
    }

    /// Tells the node; a node that is gone need not know.
    fn report(&mut self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            let _ = self.socket.write_all(&line);
        }
    }
}

/// A cgroup of this tree alone: one write kills everything in it, whatever its parents.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn make(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    fn procs(&self) -> Option<OwnedFd> {
        std::fs::OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"))
            .ok()
            .map(OwnedFd::from)
    }

    fn kill(&self) {
        let _ = std::fs::write(self.path.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Starts the program and returns its process id.
fn start(spec: Spec, control: &mut Control, cgroup: Option<&Cgroup>) -> Result<i32, StartFailure> {
    let stdin =
        open_input(spec.stdin, control).map_err(|error| failure(StartStep::Stdin, &error, None))?;
    let cwd = PathBuf::from(OsString::from(spec.cwd));
    std::env::set_current_dir(&cwd).map_err(|error| failure(StartStep::Cwd, &error, None))?;
    let program = OsString::from(spec.program);
    let mut command = Command::new(&program);
    command
        .args(spec.args.into_iter().map(OsString::from))
        .env_clear()
        .envs(
            spec.env
                .iter()
                .map(|(name, value)| (OsString::from(name.clone()), OsString::from(value.clone()))),
        )
        .stdin(stdin);
    os::prepare_child(&mut command, spec.limits, cgroup.and_then(Cgroup::procs));
    let path = spec.env.into_iter().find(|(name, _)| *name == OsStr::new("PATH").into());
    let path = path.map(|(_, value)| OsString::from(value));
    let child = spawn_when_free(&mut command).map_err(|error| {
        failure(StartStep::Exec, &error, why_not(&program, path.as_deref(), &error))
    })?;
    // The folder must not be kept from being removed or unmounted by a supervisor that sits in it.
    let _ = std::env::set_current_dir("/");
    i32::try_from(child.id())
        .map_err(|_| failure(StartStep::Exec, &io::ErrorKind::InvalidData.into(), None))
}

fn spawn_when_free(command: &mut Command) -> io::Result<std::process::Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
            {
                tries += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn open_input(input: Input, control: &mut Control) -> io::Result<Stdio> {
    match input {
        Input::Null => Ok(Stdio::null()),
        Input::Bytes(length) => Ok(control.bytes(length)?.into()),
        Input::File(path) => {
            let path = PathBuf::from(OsString::from(path));
            // To open a FIFO would wait for its writer, with nobody to end the wait.
            if !std::fs::metadata(&path)?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            Ok(File::open(&path)?.into())
        }
    }
}

fn failure(step: StartStep, error: &io::Error, text: Option<String>) -> StartFailure {
    StartFailure {
        step,
        errno: error.raw_os_error(),
        text: text.unwrap_or_else(|| error.to_string()),
    }
}

/// Says more than the error number does: which of the several causes of ENOENT and EACCES it was.
fn why_not(program: &OsStr, path: Option<&OsStr>, error: &io::Error) -> Option<String> {
    let name = program.to_string_lossy();
    let file = Path::new(program);
    match error.kind() {
        io::ErrorKind::NotFound if !name.contains('/') => Some(match path {
            Some(path) => format!("no program of that name in PATH ({})", path.to_string_lossy()),
            None => {
                "PATH is not set, and no program of that name is in the system's default folders"
                    .to_owned()
            }
        }),
        io::ErrorKind::NotFound if file.exists() => Some(
            "the file is there, but the interpreter that its first line names is not".to_owned(),
        ),
        io::ErrorKind::NotFound => Some("no such file".to_owned()),
        io::ErrorKind::PermissionDenied if file.is_dir() => Some("it is a folder".to_owned()),
        io::ErrorKind::PermissionDenied if name.contains('/') => {
            Some("the file may not be executed (chmod +x makes it executable)".to_owned())
        }
        io::ErrorKind::ArgumentListTooLong => Some(
            "its arguments and environment are too long; give the text by standard input or a file"
                .to_owned(),
        ),
        _ => None,
    }
}

/// How far the end of the tree has come.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The program may run.
    NotAsked,
    /// SIGTERM was sent; SIGKILL follows at the deadline.
    Polite { deadline: Instant },
    /// SIGKILL, round after round.
    Hard { since: Instant },
}

/// What reaping came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reap {
    /// Nobody else has ended.
    Quiet,
    /// There may be more to reap, for which no signal will come again.
    More,
    /// Nothing is left of the tree.
    Gone,
}

impl Reap {
    /// How long to wait for news.
    fn patience(self, otherwise: Option<Duration>) -> Option<Duration> {
        if self == Self::More { Some(Duration::ZERO) } else { otherwise }
    }
}

/// A process that was sent a signal or reaped while the tree was being ended.
struct Evidence {
    name: String,
    signal: i32,
}

/// The tree of one attempt.
struct Tree {
    me: i32,
    main: i32,
    grace: Duration,
    control: Control,
    cgroup: Option<Cgroup>,
    ending: Ending,
    main_ended: bool,
    /// By start time and id.
    evidence: BTreeMap<(u64, i32), Evidence>,
    survivors: Vec<EndedProcess>,
}

impl Tree {
    fn new(main: i32, grace: Duration, control: Control, cgroup: Option<Cgroup>) -> Self {
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        Self {
            me,
            main,
            grace,
            control,
            cgroup,
            ending: Ending::NotAsked,
            main_ended: false,
            evidence: BTreeMap::new(),
            survivors: Vec::new(),
        }
    }

    /// Stays until nothing of the tree is left.
    fn attend(&mut self) -> io::Result<()> {
        loop {
            let reaped = self.reap();
            if reaped == Reap::Gone {
                return Ok(());
            }
            if self.main_ended && matches!(self.ending, Ending::NotAsked) {
                self.end_politely(self.grace);
            }
            let now = Instant::now();
            match self.ending {
                Ending::NotAsked => self.listen(reaped.patience(None))?,
                Ending::Polite { deadline } if now < deadline => {
                    self.listen(reaped.patience(Some(deadline - now)))?;
                }
                Ending::Polite { .. } => self.ending = Ending::Hard { since: now },
                Ending::Hard { since } if now - since > Duration::from_millis(HARD_MS_MAX) => {
                    self.survivors = self
                        .descendants()
                        .iter()
                        .map(|process| ended(process, libc::SIGKILL))
                        .collect();
                    return Ok(());
                }
                Ending::Hard { .. } => {
                    self.kill_round();
                    if self.rest(HARD_PAUSE)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits for an order, a signal or the time, and takes in what came.
    fn listen(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let socket = self.control.open.then(|| self.control.socket.as_fd());
        if os::wait(socket, timeout)? == Wake::Control {
            self.control.fill()?;
        }
        while let Some(line) = self.control.buffered_line(0) {
            if let Ok(Order::Cancel { grace_ms }) = serde_json::from_str(&line) {
                self.end_politely(Duration::from_millis(grace_ms));
            }
        }
        if !self.control.open && !matches!(self.ending, Ending::Hard { .. }) {
            self.ending = Ending::Hard { since: Instant::now() };
        }
        if os::told_to_stop() {
            self.end_politely(self.grace);
        }
        Ok(())
    }

    /// Lets the killed die for `pause`; says whether the tree is gone.
    fn rest(&mut self, pause: Duration) -> io::Result<bool> {
        let until = Instant::now() + pause;
        loop {
            let reaped = self.reap();
            let left = until.saturating_duration_since(Instant::now());
            if reaped == Reap::Gone || left.is_zero() {
                return Ok(reaped == Reap::Gone);
            }
            os::wait(None, reaped.patience(Some(left)))?;
        }
    }

    /// Reaps what has ended.
    ///
    /// A process's children become the supervisor's before the process itself can be reaped, so
    /// at the moment there is no child, there is no descendant either.
    fn reap(&mut self) -> Reap {
        for _ in 0..REAP_MAX {
            match os::next_exited() {
                Reaped::Nothing => return Reap::Quiet,
                Reaped::NoChildren if os::REAPS_ORPHANS => return Reap::Gone,
                Reaped::NoChildren if os::signal_group(self.main, 0) => return Reap::Quiet,
                Reaped::NoChildren => return Reap::Gone,
                Reaped::Process { pid, identity, exit } => self.note_reaped(pid, identity, exit),
            }
        }
        Reap::More
    }

    /// Keeps how a process ended that was asked to, or that died of a signal meanwhile, and tells
    /// of the end of the program itself.
    fn note_reaped(&mut self, pid: i32, identity: Option<Process>, exit: Exit) {
        let asked = !matches!(self.ending, Ending::NotAsked);
        if let (true, Some(process), Some(signal)) = (asked, identity, exit.signal) {
            self.note(&process, signal);
        }
        if pid == self.main && !self.main_ended {
            self.main_ended = true;
            self.control.report(&Report::Exited { exit, asked });
        }
    }

    fn note(&mut self, process: &Process, signal: i32) {
        let name = || process.name.clone();
        let key = (process.start_time, process.pid);
        self.evidence
            .entry(key)
            .and_modify(|known| known.signal = signal)
            .or_insert_with(|| Evidence { name: name(), signal });
    }

    /// Sends SIGTERM to everybody, once each, and sets the time for SIGKILL; a later, shorter time wins.
    fn end_politely(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        match &mut self.ending {
            Ending::Hard { .. } => {}
            Ending::Polite { deadline: before } => *before = deadline.min(*before),
            Ending::NotAsked if grace.is_zero() => {
                self.ending = Ending::Hard { since: Instant::now() }
            }
            Ending::NotAsked => {
                self.ending = Ending::Polite { deadline };
                self.terminate_all(deadline);
            }
        }
    }

    fn terminate_all(&mut self, deadline: Instant) {
        if !os::SEES_PROCESSES {
            os::signal_group(self.main, libc::SIGTERM);
        }
        let mut asked = BTreeSet::new();
        for _ in 0..POLITE_ROUNDS {
            let unasked: Vec<Process> = self
                .descendants()
                .into_iter()
                .filter(|p| asked.insert((p.start_time, p.pid)))
                .collect();
            if unasked.is_empty() {
                return;
            }
            for process in unasked {
                // There may be very many, and their time runs.
                if Instant::now() > deadline {
                    return;
                }
                if os::signal_exact(&process, libc::SIGTERM) {
                    self.note(&process, libc::SIGTERM);
                    if process.stopped {
                        os::signal_exact(&process, libc::SIGCONT);
                    }
                }
            }
        }
    }

    /// One round of SIGKILL: the cgroup, own children at sight, whole groups, then everybody else.
    ///
    /// A group is killed in one step that no fork slips through, which is what stops a fork bomb.
    fn kill_round(&mut self) {
        if self.cgroup.is_some() {
            // The evidence comes first: after the write there is nobody left to look at.
            for process in self.descendants() {
                self.note(&process, libc::SIGKILL);
            }
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if !os::SEES_PROCESSES {
            os::signal_group(self.main, libc::SIGKILL);
        }
        let mut killed = Vec::new();
        os::kill_children(self.me, |process| killed.push(process));
        let rest = self.descendants();
        let groups: BTreeSet<i32> =
            rest.iter().map(|p| p.group).filter(|group| *group != self.me).collect();
        let reached: BTreeSet<i32> =
            groups.into_iter().filter(|group| os::signal_group(*group, libc::SIGKILL)).collect();
        for process in rest {
            if os::signal_exact(&process, libc::SIGKILL) || reached.contains(&process.group) {
                killed.push(process);
            }
        }
        for process in &killed {
            self.note(process, libc::SIGKILL);
        }
    }

    /// Everybody below this process who has not ended, as far as one look at the table shows: a
    /// parent that ends during the look hides its children until the next one, unless they are in
    /// this session.
    fn descendants(&self) -> Vec<Process> {
        let table = os::processes();
        let mut family = BTreeSet::from([self.me]);
        loop {
            let before = family.len();
            family.extend(
                table
                    .iter()
                    .filter(|p| family.contains(&p.parent))
                    .map(|p| p.pid)
                    .collect::<Vec<_>>(),
            );
            if family.len() == before {
                break;
            }
        }
        table
            .into_iter()
            .filter(|p| {
                p.pid != self.me && !p.zombie && (family.contains(&p.pid) || p.session == self.me)
            })
            .collect()
    }

    /// Tells the node what was ended; if there is no node any more, leaves the report in a file for the next one.
    fn report_end(mut self, last_words: Option<&Path>) {
        // The cgroup's folder is removed before the report: who hears of the end may count on it.
        self.cgroup = None;
        for survivor in &self.survivors {
            self.evidence.remove(&(survivor.start_time, survivor.pid));
        }
        let ended_more = self.evidence.len().saturating_sub(ENDED_MAX) as u64;
        let ended = std::mem::take(&mut self.evidence).into_iter().take(ENDED_MAX);
        let end = TreeEnd {
            ended: ended
                .map(|((start_time, pid), Evidence { name, signal })| EndedProcess {
                    start_time,
                    pid,
                    name,
                    signal,
                })
                .collect(),
            ended_more,
            survivors: std::mem::take(&mut self.survivors),
            usage: os::usage_of_children(),
        };
        if let (false, Some(path)) = (self.control.open, last_words) {
            end.leave_in(path);
        }
        self.control.report(&Report::Ended(end));
    }
}

/// The evidence for one process.
pub(super) fn ended(process: &Process, signal: i32) -> EndedProcess {
    EndedProcess {
        start_time: process.start_time,
        pid: process.pid,
        name: process.name.clone(),
        signal,
    }
}
