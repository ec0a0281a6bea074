//! The folder an attempt works in: its own folder, or a git worktree of the project.
