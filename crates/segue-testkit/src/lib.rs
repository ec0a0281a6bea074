//! The same questions asked of every backend

pub mod memory;
pub mod store_suite;
