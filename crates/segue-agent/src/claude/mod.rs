//! Loader for `.claude/agents/**/*.md`.
//!
//! The rules are those of Claude Code 2.1.330, most of them undocumented and observed from the
//! program itself: what it loads, [`load`] loads; what it leaves out without a word, [`load`]
//! leaves out with a [`Notice`] that names the file, the line and the remedy.
//!
//! | stop | file |
//! |---|---|
//! | folders: project up to the repository root, then the user's | `tree`: [`roots`], [`load`] |
//! | bytes -> front matter and body | `front` |
//! | front matter -> YAML, with the lenient second try | `yaml`, `dialect` |
//! | YAML -> [`AgentFile`] | `fields`, `values`, `tools`, `servers` |
//! | [`AgentFile`] -> the command line's `--agents` | [`to_agents_json`] |
//! | a change on disk -> a new set | [`Watcher`] |

mod dialect;
mod fields;
mod front;
mod json;
mod model;
mod notices;
mod servers;
mod tools;
mod tree;
mod values;
mod watch;
mod yaml;

pub use fields::parse;
pub use json::to_agents_json;
pub use model::{AgentFile, Effort, Loaded, Notice, Scope, Severity};
pub use tree::{FILE_BYTES_MAX, Root, TREE_FILES_MAX, load, load_roots, load_tree, roots};
pub use watch::{Changes, Reload, WatchError, Watcher};
