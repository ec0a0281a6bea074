//! One process tree an attempt: started, watched and ended whole.
//!
//! A node does not start an agent's program itself. It starts a *supervisor*, which is the same
//! binary with the argument [`SUPERVISE_ARG`], has one thread and an empty environment, and is the
//! parent of everything the program starts, double-forked and `setsid` processes included. It ends
//! the tree when the node asks for it, when the node dies, and when the program leaves something behind.
//!
//! `docs/processes.md` describes the whole, and what can still escape.

mod capture;
mod cgroup;
mod control;
mod env;
mod leftover;
mod os;
mod running;
mod spawn;
mod start;
mod supervisor;
mod wire;

pub use capture::{Capture, Line, LogFile, LogKept, OnLine, Stream};
pub use env::{ATTEMPT_VARIABLE, DEFAULT_ALLOW, EnvError, scrub, scrubbed_env};
pub use leftover::{
    Leftover, LeftoverError, attempts_before_me, end_leftover, end_leftovers, kill_leftover,
    kill_marked, wait_gone,
};
pub use running::{Canceller, Cause, Ended, Running};
pub use spawn::{Launcher, Spawn, SpawnError, Started, Stdin};
pub use supervisor::{SUPERVISE_ARG, supervise_if_asked, supervisor_main};
pub use wire::{EndedProcess, Exit, Limits, Usage};
