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
pub use model::{
    Checked, ForEach, InputField, InputType, OnFailure, Retry, Target, Task, Timeouts, Workflow,
    Workspace,
};
pub use read::parse;
pub use suggest::{did_you_mean, quote};

/// Most bytes of a workflow file.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Most tasks in a workflow file.
pub const MAX_TASKS: usize = 10_000;
/// Deepest nesting of lists and maps in a workflow file, aliases followed.
pub const MAX_DEPTH: usize = 64;
/// About how many bytes a file may have once its aliases are followed.
pub const MAX_EXPANDED_BYTES: usize = 32 * 1024 * 1024;
/// Most errors that are kept, and most warnings; further ones are only counted.
pub const MAX_DIAGNOSTICS: usize = 100;
/// Longest name of a task or an input, in characters.
pub const MAX_NAME_CHARS: usize = 64;
