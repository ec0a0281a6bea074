//! Chaos on a whole cluster: private servers, nodes and workers as processes of their own, a load, faults by a seeded schedule, and a
//! verdict from the database alone.
//!
//! `cargo xtask chaos --cluster` runs it (the program `segue-rig`), and a test of the `segue` crate in short form.

mod course;
mod door;
mod faults;
mod feed;
mod measure;
mod member;
mod place;
mod plan;
mod report;
mod team;
mod verdict;

pub use course::chaos;
pub use faults::{Fault, Kind};
pub use measure::bench;
pub use report::{Finding, Report};
pub use verdict::{recount, restore};

use std::path::PathBuf;
use std::time::Duration;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `segue` program.
    pub binary: PathBuf,
    /// An empty folder for the run.
    pub dir: PathBuf,
    /// From what the work and the faults are drawn.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Workers.
    pub workers: usize,
    /// Tasks in all, those that agents delegate included.
    pub tasks: u32,
    /// How long faults come. The work is spread over this time.
    pub lasts: Duration,
    /// The kinds of faults to choose from; all where empty.
    pub faults: Vec<Kind>,
    /// Whether PostgreSQL has a synchronous standby.
    pub standby: bool,
    /// Nodes of the RabbitMQ cluster.
    pub brokers: usize,
    /// Whether to tell on standard error how far it is.
    pub talks: bool,
}
