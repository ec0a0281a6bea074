//! The same questions asked of every backend

pub mod bus_suite;
pub mod faults;
pub mod gate_suite;
pub mod keeper_rig;
pub mod lock_suite;
pub mod memory;
pub mod presence_suite;
pub mod questions;
pub mod rig;
pub mod servers;
pub mod simulator;
pub mod store_suite;
