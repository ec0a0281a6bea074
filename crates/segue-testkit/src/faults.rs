//! What may go wrong, by chance and on demand: a bus and a store that fail within what their ports promise, and processes that die.
//!
//! Everything is drawn from one seed and waits on the timer of tokio, so that under a paused clock, on one thread, the same seed
//! is the same run.

mod bus;
mod chance;
mod life;
mod store;

pub use bus::FaultyBus;
pub use chance::{Dice, Rates, Trouble};
pub use life::Life;
pub use store::FaultyStore;
