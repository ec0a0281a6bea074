//! The house rules, as small checks over the files that git knows.
//!
//! `tree` reads the files, `lex` and `rust` take Rust sources apart, `rules` names the rules, and the
//! other modules hold the checks, each a function from the tree to findings. `allow` lets a
//! comment make an exception, with a reason.

mod allow;
mod banned;
mod docs;
mod lex;
mod manifest;
mod pure;
mod report;
mod rules;
mod rust;
mod sizes;
mod sql;
mod text;
mod tree;

pub use report::{list_rules, run};
