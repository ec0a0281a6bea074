//! Ending what a dead node, or a dead supervisor, left behind.
//!
//! These functions block; call them from a thread that may.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use super::env::ATTEMPT_VARIABLE;
use super::os::{self, Process};
use super::spawn::Started;
use super::supervisor::{HARD_MS_MAX, ended};
use super::wire::{EndedProcess, TreeEnd};

/// How long to go on killing.
const KILL_MS_MAX: u64 = 10_000;
/// How long to wait for one process that was just killed before looking again.
const LOOK_MS: u64 = 100;
/// What a supervisor may take longer than its own bound, on a machine that is busy.
const SUPERVISOR_SLACK_MS: u64 = 5_000;

/// Why leftovers could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The operating system does not show which processes there are.
    #[error(
        "this operating system does not show processes with their start times, so nothing was killed; end leftovers by hand"
    )]
    Unsupported,
    /// Some processes do not die: they belong to another user, or hang in the kernel.
    #[error("{} processes do not end after SIGKILL: {}", .0.len(), list(.0))]
    StillAlive(Vec<EndedProcess>),
}

fn list(processes: &[EndedProcess]) -> String {
    let names: Vec<String> =
        processes.iter().take(10).map(|p| format!("{} ({})", p.pid, p.name)).collect();
    names.join(", ")
}

/// Kills the process `pid`, its process group and its descendants, if it is still the process that
/// started at `start_time`; otherwise does nothing, for the id is somebody else's now.
///
/// Returns those it ended: none if the process is gone.
///
/// # Errors
/// [`LeftoverError`].
pub fn kill_leftover(pid: i32, start_time: u64) -> Result<Vec<EndedProcess>, LeftoverError> {
    if !os::SEES_PROCESSES {
        return Err(LeftoverError::Unsupported);
    }
    if os::process(pid).is_none_or(|process| process.start_time != start_time) {
        return Ok(Vec::new());
    }
    let mut known = BTreeSet::from([(pid, start_time)]);
    end_all(|table| {
        let family = family(table, &known, |process| process.group == pid);
        known.extend(family.iter().map(|p| (p.pid, p.start_time)));
        family
    })
}

/// Kills every process that was started with the environment variable `SEGUE_ATTEMPT=attempt`: what
/// is left of an attempt whose supervisor was killed, wherever it moved itself to.
///
/// Reaches processes of the same user (root reaches all) that did not replace their environment.
///
/// # Errors
/// [`LeftoverError`].
pub fn kill_marked(attempt: &str) -> Result<Vec<EndedProcess>, LeftoverError> {
    if !os::SEES_PROCESSES {
        return Err(LeftoverError::Unsupported);
    }
    let variable = format!("{ATTEMPT_VARIABLE}={attempt}");
    end_all(|table| {
        let marked = |process: &&Process| {
            !process.zombie && os::started_with(process.pid, variable.as_bytes())
        };
        table.iter().filter(marked).cloned().collect()
    })
}

/// Makes sure that nothing of an attempt of a dead node is left, and returns the evidence.
///
/// A supervisor that is still at it is waited for, since it ends the tree by itself; then
/// whatever is in the program's group, in its supervisor's session, or marked with `attempt`, is
/// killed. `last_words` is the file of [`super::Spawn::last_words`]; it is read and removed.
///
/// # Errors
/// [`LeftoverError`].
pub fn end_leftover(
    started: &Started,
    attempt: Option<&str>,
    last_words: Option<&Path>,
) -> Result<Vec<EndedProcess>, LeftoverError> {
    let mut all = Vec::new();
    // After a reboot the ids are other processes', though the file may still tell.
    if started.boot_id == os::boot_id() {
        if !os::SEES_PROCESSES {
            return Err(LeftoverError::Unsupported);
        }
        let patience = Duration::from_millis(HARD_MS_MAX + SUPERVISOR_SLACK_MS);
        let supervisor = (started.supervisor_pid, started.supervisor_start_time);
        os::wait_gone(supervisor.0, supervisor.1, patience);
        all.extend(kill_leftover(started.pid, started.start_time)?);
        all.extend(kill_session(started)?);
        if let Some(attempt) = attempt {
            all.extend(kill_marked(attempt)?);
        }
    }
    if let Some(end) = last_words.and_then(TreeEnd::take_from) {
        all.extend(end.ended);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Kills what is left in the session that the supervisor made for its tree.
///
/// The kernel does not give a session's number to a new process while somebody is in the session,
/// so if the number belongs to a process now, that process and its session are strangers.
fn kill_session(started: &Started) -> Result<Vec<EndedProcess>, LeftoverError> {
    let session = started.supervisor_pid;
    let stranger =
        os::process(session).is_some_and(|p| p.start_time != started.supervisor_start_time);
    if stranger || session <= 1 {
        return Ok(Vec::new());
    }
    let mut known = BTreeSet::new();
    end_all(|table| {
        // Started later than the supervisor, as everything in its session was.
        let inside =
            |p: &Process| p.session == session && p.start_time >= started.supervisor_start_time;
        let family = family(table, &known, inside);
        known.extend(family.iter().map(|p| (p.pid, p.start_time)));
        family
    })
}

/// The processes that are known or pass `is_member`, and everything below them.
fn family(
    table: &[Process],
    known: &BTreeSet<(i32, u64)>,
    is_member: impl Fn(&Process) -> bool,
) -> Vec<Process> {
    let mut pids: BTreeSet<i32> = table
        .iter()
        .filter(|p| known.contains(&(p.pid, p.start_time)) || is_member(p))
        .map(|p| p.pid)
        .collect();
    loop {
        let before = pids.len();
        let below: Vec<i32> =
            table.iter().filter(|p| pids.contains(&p.parent)).map(|p| p.pid).collect();
        pids.extend(below);
        if pids.len() == before {
            break;
        }
    }
    table.iter().filter(|p| pids.contains(&p.pid) && !p.zombie).cloned().collect()
}

/// Kills whatever `find` finds in the process table until it finds nothing more.
fn end_all(
    mut find: impl FnMut(&[Process]) -> Vec<Process>,
) -> Result<Vec<EndedProcess>, LeftoverError> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let until = Instant::now() + Duration::from_millis(KILL_MS_MAX);
    let mut killed = BTreeMap::new();
    loop {
        let mut found = find(&os::processes());
        found.retain(|process| process.pid != me && process.pid > 1);
        if found.is_empty() {
            return Ok(killed.into_values().collect());
        }
        if Instant::now() > until {
            let alive = found.iter().map(|process| ended(process, libc::SIGKILL)).collect();
            return Err(LeftoverError::StillAlive(alive));
        }
        for process in &found {
            if os::signal_exact(process, libc::SIGKILL) {
                killed.insert((process.start_time, process.pid), ended(process, libc::SIGKILL));
            }
        }
        for process in &found {
            os::wait_gone(process.pid, process.start_time, Duration::from_millis(LOOK_MS));
        }
    }
}

/// Waits until the process `pid` that started at `start_time` has ended; says whether it has, after `timeout` at most.
///
/// Where the operating system shows no start times this is always false.
#[must_use]
pub fn wait_gone(pid: i32, start_time: u64, timeout: Duration) -> bool {
    os::wait_gone(pid, start_time, timeout)
}
