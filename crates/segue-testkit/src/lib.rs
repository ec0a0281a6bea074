//! The same questions asked of every backend

pub mod bus_suite;
pub mod memory;
pub mod store_suite;
