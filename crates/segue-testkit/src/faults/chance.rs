//! Chance from a seed, and how much of it there is.

use parking_lot::Mutex;
use segue_core::decide::Chance;
use std::sync::Arc;
use std::time::Duration;

/// Numbers from one seed.
#[derive(Debug)]
pub struct Dice(Chance);

impl Dice {
    /// The dice of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(Chance::new(seed))
    }

    /// Dice of their own, which begin where these stand: what rolls them leaves these alone.
    pub fn fork(&mut self) -> Dice {
        Dice::new(self.0.next_u64())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `sides`; zero where there is none.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0.next_u64() % sides.max(1)
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.roll(most.saturating_sub(least) + 1)
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.roll(1_000) < chance
    }

    /// Puts these into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.roll(last as u64 + 1) as usize);
        }
    }

    /// One of these; `None` where there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.roll(items.len() as u64) as usize)
    }
}

/// How often something goes wrong, in calls of a thousand, and how long it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// A call of a port takes up to this long before it does anything, and once more before it answers, in milliseconds.
    pub latency_ms_max: u64,
    /// Calls of a port that take long.
    pub slow: u64,
    /// How long those take at most, in milliseconds.
    pub slow_ms_max: u64,
    /// `publish` finds the bus away: nothing was taken.
    pub bus_away: u64,
    /// `publish` loses the bus on the way: a part was taken, or all, and nobody knows.
    pub bus_half: u64,
    /// `publish` hands over the same letters twice.
    pub bus_double: u64,
    /// The connection of a consumer breaks: what it had not acknowledged comes again.
    pub bus_broken: u64,
    /// `next` finds the bus away.
    pub bus_deaf: u64,
    /// `apply` fails before anything is written; the next one goes well.
    pub store_fails: u64,
    /// `apply` commits, and the answer is lost; the next one goes well.
    pub store_mute: u64,
    /// `apply` fails, and the store takes no more writes until it is opened again. In half of the cases the batch was kept.
    pub store_breaks: u64,
    /// The disk is full from now on, for a while.
    pub store_full: u64,
    /// How long it stays full at most, in milliseconds.
    pub store_full_ms_max: u64,
    /// A read fails.
    pub read_fails: u64,
}

/// What goes wrong at the moment, and the dice for it. Shared by everything that may fail, so that all of it can be mended at once.
#[derive(Debug)]
pub struct Trouble {
    dice: Mutex<Dice>,
    rates: Mutex<Rates>,
}

impl Trouble {
    /// Trouble of this kind.
    pub fn new(dice: Dice, rates: Rates) -> Arc<Trouble> {
        Arc::new(Trouble { dice: Mutex::new(dice), rates: Mutex::new(rates) })
    }

    /// From now on it is like this; all zero is no trouble at all.
    pub fn set(&self, rates: Rates) {
        *self.rates.lock() = rates;
    }

    /// How it is now.
    pub fn rates(&self) -> Rates {
        *self.rates.lock()
    }

    /// Whether this happens now.
    pub(super) fn strikes(&self, of: impl Fn(&Rates) -> u64) -> bool {
        let chance = of(&self.rates.lock());
        // Without a chance nothing is drawn: a run without one kind of trouble is that of the others.
        chance > 0 && self.dice.lock().per_mille(chance)
    }

    /// A number below `sides`.
    pub(super) fn roll(&self, sides: u64) -> u64 {
        self.dice.lock().roll(sides)
    }

    /// The time that a call takes.
    pub(super) async fn delay(&self) {
        let rates = self.rates();
        let most =
            if self.strikes(|rates| rates.slow) { rates.slow_ms_max } else { rates.latency_ms_max };
        if most > 0 {
            let ms = self.roll(most + 1);
            if ms > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
        }
    }
}
