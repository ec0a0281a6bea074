//! What differs between operating systems, and all `unsafe` of this crate.
//!
//! `posix` works on any Unix. `linux` adds the subreaper, the process table and process handles;
//! `portable` stands in for it elsewhere and reaches only the process group.

mod posix;
pub(super) use posix::{
    Wake, dup_null_over_output, dup_null_over_stdin, listen_for_signals, prepare_child,
    told_to_stop, usage_of_children, wait,
};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(super) use linux::*;

// Compiled for the tests on Linux too, so that it cannot rot unseen.
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(target_os = "linux", allow(dead_code))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::*;

/// A process as the process table shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// Clock ticks since boot; 0 where the system does not tell.
    pub start_time: u64,
    pub name: String,
    /// It has ended and waits to be reaped.
    pub zombie: bool,
    /// It is stopped, and takes no signal but SIGKILL and SIGCONT.
    pub stopped: bool,
}

/// What `next_exited` found.
#[derive(Debug)]
pub(super) enum Reaped {
    /// Children live, none has ended.
    Nothing,
    /// There is no child left.
    NoChildren,
    /// This one ended and is now reaped.
    Process { pid: i32, identity: Option<Process>, exit: super::wire::Exit },
}
