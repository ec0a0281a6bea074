//! Bounds of a workflow file.

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
