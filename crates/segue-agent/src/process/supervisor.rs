//! The supervisor: one small process an attempt, with one thread, that is the parent of the whole tree.
//!
//! It starts the program, adopts every orphan below it, and does not end before the tree has. The
//! control socket is its file descriptor 0: its end means that the node is dead, and the tree goes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::control::Control;
use super::os::{self, Process, Reaped, Wake};
use super::start::{Cgroup, start};
use super::wire::{EndedProcess, Exit, Order, Report, Spec, TreeEnd};

/// The argument that makes the binary a supervisor.
pub const SUPERVISE_ARG: &str = "__supervise";

/// How long the supervisor tries to kill what does not die before it reports survivors.
pub(super) const HARD_MS_MAX: u64 = 10_000;
/// The longest wait at a time; some systems refuse a very long one.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// The pause between two rounds of killing.
const HARD_PAUSE: Duration = Duration::from_millis(5);
/// How many ended processes are reported one by one; the rest is counted.
const ENDED_MAX: usize = 1_000;
/// Rounds of SIGTERM, so that a child forked during the first round is asked too.
const POLITE_ROUNDS: usize = 3;
/// How many are reaped in one go: a tree that makes zombies as fast as they can be reaped must not
/// keep the supervisor from looking at the clock.
const REAP_MAX: usize = 256;
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
    /// Whoever outlived the program was asked to end.
    leftovers_asked: bool,
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
            leftovers_asked: false,
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
            if self.main_ended && !self.leftovers_asked {
                self.ask_leftovers();
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
        let timeout = timeout.map(|timeout| timeout.min(WAIT_MAX));
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

    /// Asks whoever outlived the program.
    ///
    /// Also if they were asked together with it: a shell that is just starting a child may have
    /// taken the signal in the child's place, and then the child does not know of it.
    fn ask_leftovers(&mut self) {
        self.leftovers_asked = true;
        match self.ending {
            Ending::NotAsked => self.end_politely(self.grace),
            Ending::Polite { deadline } => self.terminate_all(deadline),
            Ending::Hard { .. } => {}
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
