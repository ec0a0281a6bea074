//! What a look at the process table, or at the ended children, shows.

use crate::process::wire::Exit;

/// A process as the process table shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::process) struct Process {
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
pub(in crate::process) enum Reaped {
    /// Children live, none has ended.
    Nothing,
    /// There is no child left.
    NoChildren,
    /// This one ended and is now reaped.
    Process { pid: i32, identity: Option<Process>, exit: Exit },
}
