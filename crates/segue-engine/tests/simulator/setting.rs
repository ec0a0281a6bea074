//! What is simulated: made from the seed alone.

use segue_testkit::faults::{Dice, Rates};

/// Which store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    Memory,
    Sqlite,
}

/// Which processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One process: engine, bus and host, which die together.
    Embedded,
    /// A broker that stays, hosts that come and go, and so many nodes.
    Spread { nodes: usize },
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub seed: u64,
    pub keeps: Keeps,
    pub shape: Shape,
    /// Tasks to submit, at least; each submit is a part of them.
    pub tasks: u64,
    /// How long things go wrong, in milliseconds.
    pub storm_ms: u64,
    /// Times a minute that something happens.
    pub blows_per_minute: u64,
    pub rates: Rates,
    pub beat_ms: u64,
    pub lease_ms: u64,
}

impl Setting {
    /// The setting of this seed.
    pub fn of(seed: u64) -> Setting {
        let mut dice = Dice::new(seed ^ 0x5e77_1e55);
        let keeps = if dice.roll(4) == 0 { Keeps::Sqlite } else { Keeps::Memory };
        let shape = match (dice.roll(6), keeps) {
            (0..=2, _) => Shape::Embedded,
            (5, Keeps::Memory) => Shape::Spread { nodes: 2 },
            _ => Shape::Spread { nodes: 1 },
        };
        // Some runs have much of one kind of trouble and none of another.
        let mut some = |most: u64| if dice.roll(3) == 0 { 0 } else { dice.roll(most + 1) };
        let rates = Rates {
            latency_ms_max: some(30),
            slow: some(20),
            slow_ms_max: some(5_000),
            bus_away: some(100),
            bus_half: some(50),
            bus_double: some(100),
            bus_broken: some(100),
            bus_deaf: some(50),
            store_fails: some(50),
            store_mute: some(30),
            store_breaks: some(3),
            store_full: some(10),
            store_full_ms_max: some(15_000),
            read_fails: some(50),
        };
        Setting {
            seed,
            keeps,
            shape,
            tasks: dice.between(20, 120),
            storm_ms: dice.between(20, 200) * 1_000,
            blows_per_minute: dice.roll(40),
            rates,
            beat_ms: [200, 2_000][dice.roll(2) as usize],
            lease_ms: [4_000, 30_000][dice.roll(2) as usize],
        }
    }

    pub fn nodes(&self) -> usize {
        match self.shape {
            Shape::Embedded => 1,
            Shape::Spread { nodes } => nodes,
        }
    }

    /// Hosts that are processes of their own.
    pub fn hosts(&self) -> usize {
        match self.shape {
            Shape::Embedded => 0,
            Shape::Spread { .. } => 3,
        }
    }
}
