//! The commands, one file each or a few that belong together. Each speaks to the API and to nothing below it.

pub mod follow;
pub mod input;
pub mod quick;
pub mod result;
pub mod run;
