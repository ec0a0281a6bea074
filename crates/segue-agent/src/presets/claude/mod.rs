//! Claude Code: `claude -p`.
//!
//! Facts observed on 2.1.330; what is read is documented in `docs/agents-cli.md`.

mod account;
mod command;
mod lines;
mod read;
mod watch;

pub(super) use command::{RESERVED, STDIN_BYTES_MAX, command};
pub(super) use read::read;
pub(super) use watch::Watch;
