//! The same questions asked of every backend

pub mod memory;
