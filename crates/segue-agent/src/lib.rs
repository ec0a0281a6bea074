//! Lets a process be an agent: loads agent definitions, hosts agents, runs their attempts.

pub mod claude;
pub mod presets;
pub mod process;
pub mod workspace;
