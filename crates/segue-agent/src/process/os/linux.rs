//! Linux: the subreaper, the process table under `/proc`, and process handles (pidfd).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setsid};

use super::{Process, Reaped};

/// Orphans of the tree become children of the supervisor, so that no children means no tree.
pub(in crate::process) const REAPS_ORPHANS: bool = true;
/// Processes can be looked up by id, with their start times.
pub(in crate::process) const SEES_PROCESSES: bool = true;

/// How far beyond the newest id of a listing to look for processes that were born since.
const FRONTIER: i32 = 16;

/// Makes the calling process a supervisor: no file descriptor but 0, 1 and 2, a session of its own
/// (so the program has no terminal to ask at), and the parent of every orphan below it.
pub(in crate::process) fn become_supervisor() -> io::Result<()> {
    // SAFETY: nothing in this process has opened a file descriptor above 2 yet that it would miss.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if closed != 0 {
        close_listed()?;
    }
    // Fails only for the leader of a group, who was then started by hand and not by a node.
    let _ = setsid();
    prctl::set_child_subreaper(true)?;
    let _ = prctl::set_name(c"segue-supervise");
    Ok(())
}

/// `close_range` for kernels before 5.9.
fn close_listed() -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: as above; the listing's own descriptor is closed already and gives a harmless EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Asks the kernel to kill the calling process when its parent dies, and makes sure that it has not yet.
pub(super) fn die_with_parent(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// A file in memory.
pub(in crate::process) fn anonymous_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?))
}

/// Reaps one child that ended; reads who it was first, because a zombie still has its name.
pub(in crate::process) fn next_exited() -> Reaped {
    // __WALL: a child made by clone() need not send SIGCHLD, and would otherwise not be seen.
    let look = libc::__WALL | libc::WNOHANG | libc::WEXITED | libc::WNOWAIT;
    // SAFETY: an all-zero siginfo is a valid one, and waitid fills it in; without a child that has
    // ended it leaves the zero, and `si_pid` reads the field that waitid sets.
    let (result, pid) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &raw mut info, look);
        (Errno::result(result), info.si_pid())
    };
    match result {
        Err(Errno::ECHILD) => return Reaped::NoChildren,
        Err(_) => return Reaped::Nothing,
        Ok(_) if pid == 0 => return Reaped::Nothing,
        Ok(_) => {}
    }
    let identity = process(pid);
    super::posix::reap(pid, libc::__WALL).map_or(Reaped::Nothing, |(pid, exit)| Reaped::Process {
        pid,
        identity,
        exit,
    })
}

/// The process ids of the table, newest first.
fn pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids
}

/// The whole process table.
pub(in crate::process) fn processes() -> Vec<Process> {
    pids().into_iter().filter_map(process).collect()
}

/// One process, if it exists.
pub(in crate::process) fn process(pid: i32) -> Option<Process> {
    let mut buffer = [0_u8; 1024];
    let mut file = File::open(format!("/proc/{pid}/stat")).ok()?;
    let length = file.read(&mut buffer).ok()?;
    parse_stat(&buffer[..length])
}

/// Reads `PID (NAME) STATE PPID PGRP SESSION ...`, where the name may contain anything, `)` too.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|b| *b == b'(')?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
        name: String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned(),
        zombie: matches!(state, "Z" | "X" | "x"),
        stopped: matches!(state, "T" | "t"),
    })
}

/// Kills the children of `parent` (the calling process), each at the moment it is seen.
///
/// Looks at the newest first and a little beyond: a process that forks and exits in a circle has
/// a new id every 100 microseconds, and would be gone by the time a list of all is complete. A
/// child's id cannot be used again before it is reaped, so a plain kill is safe here.
pub(in crate::process) fn kill_children(parent: i32, mut killed: impl FnMut(Process)) {
    let pids = pids();
    let newest = pids.first().copied().unwrap_or(0);
    let born_since = (newest + 1..=newest.saturating_add(FRONTIER)).rev();
    for pid in born_since.chain(pids) {
        let Some(child) = process(pid).filter(|p| p.parent == parent && !p.zombie) else {
            continue;
        };
        if nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
            killed(child);
        }
    }
}

/// Sends `signal` to exactly this process: never to one that got its id later.
///
/// The handle is opened first and the start time compared after, so the process behind the handle
/// is the one that was compared.
pub(in crate::process) fn signal_exact(target: &Process, signal: i32) -> bool {
    let handle = pidfd_open(target.pid);
    let same =
        process(target.pid).is_some_and(|now| now.start_time == target.start_time && !now.zombie);
    if !same {
        return false;
    }
    match handle {
        Ok(handle) => pidfd_signal(&handle, signal),
        // Before Linux 5.3: the moment between the look and the kill remains.
        Err(Errno::ENOSYS) => Signal::try_from(signal)
            .is_ok_and(|s| nix::sys::signal::kill(Pid::from_raw(target.pid), s).is_ok()),
        Err(_) => false,
    }
}

/// Sends `signal` to a process group that was seen to have members a moment ago.
pub(in crate::process) fn signal_group(group: i32, signal: i32) -> bool {
    super::posix::signal_group_raw(group, signal)
}

fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes a pid and flags, and returns a new descriptor (close-on-exec) or -1.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0_u32) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pidfd_signal(handle: &OwnedFd, signal: i32) -> bool {
    use std::os::fd::AsRawFd;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the handle is open, and a null siginfo asks for that of a plain kill().
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal, no_info, 0_u32) == 0
    }
}

/// Waits until this process has ended, at most `timeout`; says whether it has.
pub(in crate::process) fn wait_gone(pid: i32, start_time: u64, timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    loop {
        let handle = pidfd_open(pid);
        if !process(pid).is_some_and(|now| now.start_time == start_time && !now.zombie) {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match handle {
            Ok(handle) => {
                let left = PollTimeout::try_from(left + Duration::from_millis(1))
                    .unwrap_or(PollTimeout::MAX);
                let _ = poll(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], left);
            }
            Err(_) => std::thread::sleep(left.min(Duration::from_millis(5))),
        }
    }
}

/// The value of a variable in the environment that a process was started with.
///
/// The kernel shows it to the same user and to root.
pub(in crate::process) fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// An id of this boot of the machine: process ids and start times mean nothing after another one.
pub(in crate::process) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_parentheses_blanks_and_wrong_utf8() {
        let tail = b" S 41 42 43 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        for name in [&b"sh"[..], b"a) R 1 (b", b"", b"\xff\n"] {
            let line = [b"77 (", name, b")", tail].concat();
            let process = parse_stat(&line).expect("parses");
            assert_eq!(
                (process.pid, process.parent, process.group, process.session),
                (77, 41, 42, 43)
            );
            assert_eq!(process.start_time, 987_654);
            assert_eq!(process.name, String::from_utf8_lossy(name));
            assert!(!process.zombie && !process.stopped);
        }
    }

    #[test]
    fn a_broken_line_is_no_process() {
        for line in [&b""[..], b"1", b"1 (x", b"1 (x)", b"x (y) S 1 2 3", b"1 (x) S 1 2 3 4", b")("]
        {
            assert_eq!(parse_stat(line), None);
        }
    }

    #[test]
    fn the_table_holds_this_process() {
        let me = i32::try_from(std::process::id()).expect("fits");
        let seen = processes().into_iter().find(|p| p.pid == me).expect("listed");
        assert_eq!(Some(seen), process(me));
        assert!(boot_id().len() >= 32);
    }

    #[test]
    fn a_process_with_another_start_time_gets_no_signal() {
        let mut child =
            std::process::Command::new("tail").args(["-f", "/dev/null"]).spawn().expect("starts");
        let pid = i32::try_from(child.id()).expect("fits");
        let real = process(pid).expect("listed");
        let recycled = Process { start_time: real.start_time + 1, ..real.clone() };
        assert!(!signal_exact(&recycled, libc::SIGKILL));
        assert!(
            wait_gone(pid, recycled.start_time, Duration::ZERO),
            "somebody else with that id is not it"
        );
        assert!(!wait_gone(pid, real.start_time, Duration::ZERO));
        assert!(signal_exact(&real, libc::SIGKILL));
        assert!(wait_gone(pid, real.start_time, Duration::from_secs(30)));
        assert!(!child.wait().expect("ends").success());
    }
}
