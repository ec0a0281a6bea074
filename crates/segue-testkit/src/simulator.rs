//! The parts of a simulation that know neither an engine nor an adapter: a clock that jumps, random work, and what must hold when all
//! is over. The rig that runs them is in the tests of `segue-engine`.

mod clock;
mod history;
mod rows;
mod work;

pub use clock::SimClock;
pub use history::{Brought, Seen, check_end};
pub use rows::{ended, explain, world_of};
pub use work::{Planned, Writer};
