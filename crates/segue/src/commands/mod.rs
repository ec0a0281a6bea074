//! The commands, one file each or a few that belong together. Each speaks to the API and to nothing below it.

pub mod agents;
pub mod attend;
pub mod backup;
pub mod doctor;
pub mod events;
pub mod follow;
pub mod init;
pub mod input;
pub mod nodes;
pub mod quick;
pub mod result;
pub mod run;
pub mod shared;
pub mod submit;
pub mod tasks;
pub mod transfer;
pub mod up;
pub mod upkeep;
pub mod worker;
