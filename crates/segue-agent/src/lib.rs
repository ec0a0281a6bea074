//! Lets a process be an agent: loads agent definitions, hosts agents, runs their attempts.

mod attempts;
pub mod claude;
pub mod command;
pub mod contract;
pub mod host;
pub mod place;
pub mod preset_runner;
pub mod presets;
pub mod process;
mod reporter;
pub mod runner;
pub mod schema;
mod slots;
pub mod spool;
pub mod worker;
pub mod workspace;
