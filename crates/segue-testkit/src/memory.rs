//! A store in memory: the plainest one that keeps the promises of the port.
//!
//! It is the reference that other stores are compared with, and the ground on which `decide` itself
//! is tested: nothing is clever here, so that what goes wrong is the rules' fault.

pub mod invariants;
pub mod store;
pub mod world;

pub use store::MemoryStore;
pub use world::World;
