//! Other Unixes, with what POSIX has: the process group is ended, and no more is promised.
//!
//! There is no subreaper, no signal at the parent's death and no portable process table, so a child
//! that leaves the group escapes, and processes carry no start time.

use std::fs::{File, OpenOptions};
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Pid, setsid};

use super::{Process, Reaped};

pub(in crate::process) const REAPS_ORPHANS: bool = false;
pub(in crate::process) const SEES_PROCESSES: bool = false;

pub(in crate::process) fn become_supervisor() -> io::Result<()> {
    let _ = setsid();
    Ok(())
}

pub(super) fn die_with_parent(_parent: Pid) -> io::Result<()> {
    Ok(())
}

/// A file that has no name any more.
pub(in crate::process) fn anonymous_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("segue-stdin-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

pub(in crate::process) fn next_exited() -> Reaped {
    match super::posix::reap(-1, 0) {
        Ok((0, _)) => Reaped::Nothing,
        Ok((pid, exit)) => Reaped::Process { pid, identity: None, exit },
        Err(Errno::ECHILD) => Reaped::NoChildren,
        Err(_) => Reaped::Nothing,
    }
}

pub(in crate::process) fn processes() -> Vec<Process> {
    Vec::new()
}

pub(in crate::process) fn process(_pid: i32) -> Option<Process> {
    None
}

pub(in crate::process) fn kill_children(_parent: i32, _killed: impl FnMut(Process)) {}

pub(in crate::process) fn signal_exact(_target: &Process, _signal: i32) -> bool {
    false
}

pub(in crate::process) fn signal_group(group: i32, signal: i32) -> bool {
    super::posix::signal_group_raw(group, signal)
}

pub(in crate::process) fn wait_gone(_pid: i32, _start_time: u64, _timeout: Duration) -> bool {
    false
}

pub(in crate::process) fn variable(_pid: i32, _name: &str) -> Option<String> {
    None
}

pub(in crate::process) fn boot_id() -> String {
    String::new()
}
