//! The work of a run, and chance: the very plan of `segue chaos`, so that one machine and many are asked the same.

#[cfg_attr(not(test), expect(dead_code, reason = "what one machine draws besides"))]
#[path = "../../../segue/src/chaos/dice.rs"]
pub mod dice;
#[path = "../../../segue/src/chaos/work.rs"]
pub mod work;

/// What the plan has to know of the feed.
pub mod feed {
    /// Requests that are on their way at a time, at most.
    pub const PORTION_MAX: usize = 6;
}

pub use dice::Dice;
pub use work::Load;
