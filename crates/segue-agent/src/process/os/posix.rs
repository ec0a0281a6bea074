//! What every Unix has.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::select::{FdSet, pselect};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::unistd::{Pid, getpid};

use crate::process::wire::{Exit, Limits, Usage};

/// Set by SIGTERM, SIGINT and SIGHUP.
static TOLD_TO_STOP: AtomicBool = AtomicBool::new(false);

/// Wakes `pselect`; a signal without a handler would not.
extern "C" fn on_child(_: libc::c_int) {}

extern "C" fn on_stop(_: libc::c_int) {
    TOLD_TO_STOP.store(true, Ordering::Relaxed);
}

/// Whether somebody asked this process to end by a signal since the last call.
pub(in crate::process) fn told_to_stop() -> bool {
    TOLD_TO_STOP.swap(false, Ordering::Relaxed)
}

/// Blocks the signals a supervisor cares for, so that they come in only during [`wait`].
pub(in crate::process) fn listen_for_signals() -> nix::Result<()> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_set_mask()?;
    let child = SigAction::new(SigHandler::Handler(on_child), SaFlags::empty(), SigSet::empty());
    let stop = SigAction::new(SigHandler::Handler(on_stop), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers do nothing, or store to an atomic: both are allowed in a signal handler.
    unsafe {
        sigaction(Signal::SIGCHLD, &child)?;
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            sigaction(signal, &stop)?;
        }
    }
    Ok(())
}

/// Why [`wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Wake {
    /// The control socket has something to read, or is at its end.
    Control,
    /// A signal came, or the time is over.
    Other,
}

/// Waits for the control socket, a signal, or the end of `timeout`.
///
/// `pselect` lets the signals in for just this call, so none is lost between a look and the wait.
pub(in crate::process) fn wait(
    control: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> nix::Result<Wake> {
    let mut readable = FdSet::new();
    if let Some(control) = control {
        readable.insert(control);
    }
    let timeout = timeout.map(TimeSpec::from);
    match pselect(None, &mut readable, None, None, timeout.as_ref(), &SigSet::empty()) {
        Ok(ready) if ready > 0 => Ok(Wake::Control),
        Ok(_) | Err(Errno::EINTR) => Ok(Wake::Other),
        Err(errno) => Err(errno),
    }
}

/// Makes `command` start in its own process group, with default signals and the limits given,
/// and die with the calling process where the system can do that.
///
/// `cgroup_procs` is an open `cgroup.procs`, into which the child writes itself before it becomes the program.
pub(in crate::process) fn prepare_child(
    command: &mut Command,
    limits: Limits,
    cgroup_procs: Option<OwnedFd>,
) {
    let supervisor = getpid();
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec of a process that has one thread, so no lock
    // can be held by a thread that is gone; it only makes system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            super::die_with_parent(supervisor)?;
            SigSet::empty().thread_set_mask()?;
            if let Some(procs) = &cgroup_procs {
                // Going without the cgroup is allowed: the supervisor does not rely on it.
                let _ = nix::unistd::write(procs, b"0");
            }
            set_limits(limits)
        });
    }
}

fn set_limits(limits: Limits) -> io::Result<()> {
    lower(Resource::RLIMIT_FSIZE, limits.file_bytes_max)?;
    lower(Resource::RLIMIT_NOFILE, limits.open_files_max)?;
    lower(Resource::RLIMIT_NPROC, limits.processes_max)
}

fn lower(resource: Resource, limit: Option<u64>) -> io::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let (_, hard) = getrlimit(resource)?;
    let limit = hard.min(limit);
    Ok(setrlimit(resource, limit, limit)?)
}

/// Opens `/dev/null` over standard input.
pub(in crate::process) fn dup_null_over_stdin() -> io::Result<()> {
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdin(&null)?)
}

/// Opens `/dev/null` over standard output and error, so that the reader of the pipes there sees
/// their end as soon as the program's tree has ended.
pub(in crate::process) fn dup_null_over_output() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(nix::unistd::dup2_stderr(&null)?)
}

/// Reaps the child `pid`, or any if that is -1, without waiting; the id is 0 if none has ended.
///
/// Not by the library's `waitpid`: that fails for a child that a real-time signal ended, and leaves it reaped.
pub(super) fn reap(pid: i32, flags: i32) -> nix::Result<(i32, Exit)> {
    let mut status = 0;
    // SAFETY: waitpid writes one integer to where the pointer leads.
    let pid = Errno::result(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | flags) })?;
    let exit = Exit {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
    };
    Ok((pid, exit))
}

/// What the reaped children, and theirs, used.
pub(in crate::process) fn usage_of_children() -> Usage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return Usage::default();
    };
    let micros = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000
            + u64::try_from(time.tv_usec()).unwrap_or(0)
    };
    // Linux counts the resident set in KiB, the BSDs' descendants in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Usage {
        user_us: micros(usage.user_time()),
        system_us: micros(usage.system_time()),
        rss_bytes_max: u64::try_from(usage.max_rss()).unwrap_or(0) * unit,
    }
}

/// Sends `signal` to a process group, and says whether anybody was in it.
pub(super) fn signal_group_raw(group: i32, signal: i32) -> bool {
    Signal::try_from(signal).is_ok_and(|signal| {
        group > 1 && nix::sys::signal::killpg(Pid::from_raw(group), signal).is_ok()
    })
}
