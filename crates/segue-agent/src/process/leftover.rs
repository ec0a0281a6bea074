//! Ending what a dead node, or a dead supervisor, left behind.
//!
//! These functions block; call them from a thread that may.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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
    end_all(|table| family(table, &mut known, |process| process.group == pid))
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
    end_all(|table| {
        let marked = |process: &&Process| {
            !process.zombie
                && os::variable(process.pid, ATTEMPT_VARIABLE).is_some_and(|mark| mark == attempt)
        };
        table.iter().filter(marked).cloned().collect()
    })
}

/// An attempt of a node that is dead.
#[derive(Clone, Debug, Default)]
pub struct Leftover {
    /// By which value of `SEGUE_ATTEMPT` its processes are known.
    pub attempt: Option<String>,
    /// Its processes as they were started, where that was recorded.
    pub started: Option<Started>,
    /// The file of [`super::Spawn::last_words`]; it is read and removed.
    pub last_words: Option<PathBuf>,
}

/// The attempts of processes that were started with `variable=value`, and before the calling process was: what earlier
/// nodes left, whether or not it was recorded. Each with the value of `also` that its processes were started with.
#[must_use]
pub fn attempts_before_me(
    variable: &str,
    value: &str,
    also: &str,
) -> BTreeMap<String, Option<String>> {
    let table = os::processes();
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let Some(born) = table.iter().find(|process| process.pid == me).map(|me| me.start_time) else {
        return BTreeMap::new();
    };
    let earlier = |process: &&Process| {
        process.start_time < born
            && !process.zombie
            && os::variable(process.pid, variable).is_some_and(|found| found == value)
    };
    let marks = table.iter().filter(earlier).filter_map(|process| {
        Some((os::variable(process.pid, ATTEMPT_VARIABLE)?, os::variable(process.pid, also)))
    });
    marks.collect()
}

/// [`end_leftovers`] of one attempt.
///
/// # Errors
/// [`LeftoverError`].
pub fn end_leftover(
    started: &Started,
    attempt: Option<&str>,
    last_words: Option<&Path>,
) -> Result<Vec<EndedProcess>, LeftoverError> {
    let left = Leftover {
        attempt: attempt.map(str::to_owned),
        started: Some(started.clone()),
        last_words: last_words.map(Path::to_path_buf),
    };
    Ok(end_leftovers(&[left])?.pop().unwrap_or_default())
}

/// Makes sure that nothing of these attempts of dead nodes is left, and returns the evidence of each.
///
/// Whatever is in a program's group, in its supervisor's session, or marked with the attempt, is killed, in
/// one sweep for all of them. Supervisors that are still at it end their trees by themselves and are waited for, but
/// not by those whose supervisor is dead: nobody else ends these.
///
/// # Errors
/// [`LeftoverError`].
pub fn end_leftovers(left: &[Leftover]) -> Result<Vec<Vec<EndedProcess>>, LeftoverError> {
    let mut all = vec![Vec::new(); left.len()];
    // After a reboot the ids are other processes', though the files may still tell.
    let boot = os::boot_id();
    let here = |left: &Leftover| left.started.as_ref().is_none_or(|it| it.boot_id == boot);
    let places: Vec<usize> = (0..left.len()).filter(|place| here(&left[*place])).collect();
    if !places.is_empty() {
        if !os::SEES_PROCESSES {
            return Err(LeftoverError::Unsupported);
        }
        let supervisor = |place: usize| {
            let started = left[place].started.as_ref()?;
            Some((started.supervisor_pid, started.supervisor_start_time))
        };
        let (alone, attended): (Vec<usize>, Vec<usize>) = places.into_iter().partition(|place| {
            supervisor(*place).is_none_or(|(pid, start)| os::wait_gone(pid, start, Duration::ZERO))
        });
        sweep(left, &alone, &mut all)?;
        let until = Instant::now() + Duration::from_millis(HARD_MS_MAX + SUPERVISOR_SLACK_MS);
        for (pid, start) in attended.iter().filter_map(|place| supervisor(*place)) {
            os::wait_gone(pid, start, until.saturating_duration_since(Instant::now()));
        }
        sweep(left, &attended, &mut all)?;
    }
    for (left, evidence) in left.iter().zip(&mut all) {
        if let Some(end) = left.last_words.as_deref().and_then(TreeEnd::take_from) {
            evidence.extend(end.ended);
        }
        evidence.sort();
        evidence.dedup();
    }
    Ok(all)
}

/// Kills what is left of the attempts at these places.
fn sweep(
    left: &[Leftover],
    places: &[usize],
    all: &mut [Vec<EndedProcess>],
) -> Result<(), LeftoverError> {
    if places.is_empty() {
        return Ok(());
    }
    let mut traces: Vec<Trace<'_>> = places.iter().map(|place| Trace::of(&left[*place])).collect();
    let mut owner = BTreeMap::new();
    let killed = end_all(|table| {
        let marks: BTreeMap<i32, String> = table
            .iter()
            .filter(|process| !process.zombie)
            .filter_map(|process| Some((process.pid, os::variable(process.pid, ATTEMPT_VARIABLE)?)))
            .collect();
        let mut found: BTreeMap<(u64, i32), Process> = BTreeMap::new();
        for (trace, place) in traces.iter_mut().zip(places) {
            for process in trace.family(table, &marks) {
                let key = (process.start_time, process.pid);
                owner.entry(key).or_insert(*place);
                found.insert(key, process);
            }
        }
        found.into_values().collect()
    })?;
    for process in killed {
        if let Some(place) = owner.get(&(process.start_time, process.pid)) {
            all[*place].push(process);
        }
    }
    Ok(())
}

/// By what the processes of an attempt are known.
struct Trace<'a> {
    attempt: Option<&'a str>,
    /// The program's group, if the program lives.
    group: Option<i32>,
    /// The session that the supervisor made for its tree, and since when.
    session: Option<(i32, u64)>,
    known: BTreeSet<(i32, u64)>,
}

impl<'a> Trace<'a> {
    fn of(left: &'a Leftover) -> Self {
        let mut trace = Trace {
            attempt: left.attempt.as_deref(),
            group: None,
            session: None,
            known: BTreeSet::new(),
        };
        let Some(started) = &left.started else { return trace };
        if os::process(started.pid).is_some_and(|p| p.start_time == started.start_time) {
            trace.group = Some(started.pid);
            trace.known.insert((started.pid, started.start_time));
        }
        // The kernel does not give a session's number to a new process while somebody is in the session,
        // so if the number belongs to a process now, that process and its session are strangers.
        let session = started.supervisor_pid;
        let stranger =
            os::process(session).is_some_and(|p| p.start_time != started.supervisor_start_time);
        if !stranger && session > 1 {
            trace.session = Some((session, started.supervisor_start_time));
        }
        trace
    }

    fn family(&mut self, table: &[Process], marks: &BTreeMap<i32, String>) -> Vec<Process> {
        let (attempt, group, session) = (self.attempt, self.group, self.session);
        family(table, &mut self.known, |p| {
            let marked = attempt.is_some() && marks.get(&p.pid).map(String::as_str) == attempt;
            let grouped = group.is_some_and(|group| p.group == group);
            // Started later than the supervisor, as everything in its session was.
            let inside =
                session.is_some_and(|(id, since)| p.session == id && p.start_time >= since);
            marked || grouped || inside
        })
    }
}

/// The processes that are known or pass `is_member`, and everything below them; they are known from now on.
fn family(
    table: &[Process],
    known: &mut BTreeSet<(i32, u64)>,
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
    let family: Vec<Process> =
        table.iter().filter(|p| pids.contains(&p.pid) && !p.zombie).cloned().collect();
    known.extend(family.iter().map(|p| (p.pid, p.start_time)));
    family
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
