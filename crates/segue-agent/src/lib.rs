//! Lets a process be an agent: loads agent definitions, hosts agents, runs their attempts.

pub mod claude;
pub mod host;
pub mod presets;
pub mod process;
pub mod runner;
pub mod schema;
pub mod workspace;
