//! `segue chaos`: kills the node again and again while it works, and counts afterwards whether anything was lost.
//!
//! What is promised and how the report is read: `docs/chaos.md`. Nothing here knows the engine or the store: the work goes in
//! over the socket, and what came of it is counted by the SQL of `docs/chaos-check.sql`, from a journal that the agents write by
//! themselves, and from the process table.

mod census;
mod check;
mod dice;
mod door;
mod feed;
mod journal;
mod life;
mod progress;
mod report;
mod run;
mod team;
mod work;

pub use run::{ChaosArgs, chaos};
