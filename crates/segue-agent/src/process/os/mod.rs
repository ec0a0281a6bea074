//! What differs between operating systems, and all `unsafe` of this crate.
//!
//! `posix` works on any Unix. `linux` adds the subreaper, the process table and process handles;
//! `portable` stands in for it elsewhere and reaches only the process group.

mod posix;
mod table;
pub(super) use posix::{
    Wake, dup_null_over_output, dup_null_over_stdin, listen_for_signals, prepare_child,
    told_to_stop, usage_of_children, wait,
};

pub(super) use table::{Process, Reaped};

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
