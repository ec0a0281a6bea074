//! When a failed task is tried again.

use serde::{Deserialize, Serialize};

/// How often and when a task is tried again.
///
/// The delay before attempt n+1 is drawn uniformly from `0 ..= min(cap_ms, base_ms * factor^(n-1))`:
/// exponential backoff with full jitter, as in Brooker, "Exponential Backoff And Jitter" (2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Attempts in all that may end in an error. At least 1.
    pub attempts: u32,
    /// First backoff in milliseconds.
    pub base_ms: u64,
    /// Longest backoff in milliseconds. What a provider asks for by `retry_after` may be longer.
    pub cap_ms: u64,
    /// What each backoff is multiplied by to give the next, in hundredths; 200 doubles.
    pub factor_percent: u32,
    /// Whether the delay is drawn from zero to the backoff, so that tasks do not come back together.
    pub jitter: bool,
    /// Attempts that may be lost with their host, counted apart.
    pub lost_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 3,
            base_ms: 1_000,
            cap_ms: 60_000,
            factor_percent: 200,
            jitter: true,
            lost_max: 10,
        }
    }
}

impl RetryPolicy {
    /// The delay in milliseconds after the `tried`-th failed attempt (from 1), for `chance` in `0 ..= u64::MAX`.
    pub fn delay_ms(&self, tried: u32, retry_after_ms: Option<u64>, chance: u64) -> u64 {
        let factor = f64::from(self.factor_percent.max(100)) / 100.0;
        let steps = i32::try_from(tried.saturating_sub(1)).unwrap_or(i32::MAX);
        // A float that is too large for the type becomes its largest value, which the cap then bounds.
        let ceiling = ((self.base_ms as f64 * factor.powi(steps)) as u64).min(self.cap_ms);
        if !self.jitter {
            return ceiling.max(retry_after_ms.unwrap_or(0));
        }
        // The high half of a 128-bit product maps `chance` evenly onto 0..=ceiling without a modulo's bias.
        let jittered = ((u128::from(chance) * (u128::from(ceiling) + 1)) >> 64) as u64;
        jittered.max(retry_after_ms.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_extremes_of_chance_are_the_ends_of_the_range() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay_ms(1, None, 0), 0);
        assert_eq!(policy.delay_ms(1, None, u64::MAX), 1_000);
        assert_eq!(policy.delay_ms(3, None, u64::MAX), 4_000);
        assert_eq!(policy.delay_ms(60, None, u64::MAX), 60_000);
    }

    proptest! {
        #[test]
        fn a_delay_is_never_sooner_than_asked_nor_later_than_the_cap(
            tried in 0_u32..1_000, after in proptest::option::of(0_u64..1_000_000), chance: u64,
        ) {
            let policy = RetryPolicy::default();
            let delay = policy.delay_ms(tried, after, chance);
            prop_assert!(delay >= after.unwrap_or(0));
            prop_assert!(delay <= policy.cap_ms.max(after.unwrap_or(0)));
        }
    }
}
