//! Command lines and output parsers of known coding agent CLIs.
//!
//! Three pure steps around a process that somebody else starts: [`command_line`] says what to run,
//! [`LineWatcher`] reads its output while it comes, [`parse`] tells what became of it. Nothing here
//! starts, reads or writes anything. What each preset runs and reads, and how failures are classed,
//! is described in `docs/agents-cli.md`.

mod classify;
mod claude;
mod codex;
mod command;
mod env;
mod gemini;
mod json;
mod objects;
mod opencode;
mod output;
mod preset;
mod reading;
mod usage;
mod watch;

pub use command::{
    CommandLine, CommandLineError, FileToWrite, Invocation, PermissionMode, command_line,
};
pub use env::EnvAllow;
pub use output::{Denial, Exit, Failure, FailureClass, Output, Parsed, Success, parse};
pub use preset::{Preset, UnknownPreset};
pub use usage::{ModelUsage, Usage};
pub use watch::{LineWatcher, Progress};
