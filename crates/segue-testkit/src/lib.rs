//! The same questions asked of every backend

pub mod bus_suite;
pub mod faults;
pub mod memory;
pub mod questions;
pub mod rig;
pub mod servers;
pub mod simulator;
pub mod store_suite;
