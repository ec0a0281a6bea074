//! Loader for `.claude/agents/**/*.md`.
