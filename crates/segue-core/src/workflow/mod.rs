//! Workflow files: YAML in, checked tasks out.
//!
//! [`parse`] reads a file and reports **every** mistake in it at once, each with line, column, the
//! stretch of source it is about, and a hint ([`Diagnostics::render`] shows them). What it gives back
//! is plain data ([`Workflow`]): tasks in file order, every name resolved, every duration in
//! milliseconds, templates still as text (see [`crate::template`]). The format is described for users
//! in `docs/workflow.md`, and for editors by [`json_schema`].
//!
//! The way through: `node` composes the YAML events into a tree that knows where everything stands
//! (no recursion, aliases by reference, expansion bounded); `read` turns it into tasks, pushing a
//! diagnostic and going on wherever something is wrong; `graph` resolves the names between tasks and
//! refuses cycles. `fields` is the one table of keys, for the reader and the schema alike.

mod diagnostic;
mod duration;
mod fields;
mod graph;
mod input;
mod limits;
mod model;
mod names;
mod node;
mod read;
mod source;
pub(crate) mod suggest;
mod task;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use duration::parse_duration_ms;
pub use fields::json_schema;
pub use input::InputError;
pub use limits::{
    MAX_DEPTH, MAX_DIAGNOSTICS, MAX_EXPANDED_BYTES, MAX_FILE_BYTES, MAX_NAME_CHARS, MAX_TASKS,
};
pub use model::{
    Checked, ForEach, InputField, InputType, OnFailure, Retry, Target, Task, Timeouts, Workflow,
    Workspace,
};
pub use read::parse;
pub use suggest::{did_you_mean, quote};
