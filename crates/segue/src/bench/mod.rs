//! `segue bench`: what this machine does with this build, as figures that can be repeated.

mod probe;
mod processes;
mod report;
mod rig;
mod suite;
mod workloads;

pub use suite::{BenchArgs, run};
