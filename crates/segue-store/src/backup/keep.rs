//! Which backups are kept. A pure function of when they were made.

use segue_core::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How many backups are kept. One that any of these keeps is kept, and the latest one always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The latest ones.
    #[serde(default)]
    pub last: u32,
    /// The latest one of each of the latest hours that have any.
    #[serde(default)]
    pub hourly: u32,
    /// The latest one of each of the latest days (UTC) that have any.
    #[serde(default)]
    pub daily: u32,
    /// The latest one of each of the latest weeks (from Monday, UTC) that have any.
    #[serde(default)]
    pub weekly: u32,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { last: 24, hourly: 0, daily: 7, weekly: 5 }
    }
}

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
const WEEK_MS: i64 = 7 * DAY_MS;
/// The first day of Unix time was a Thursday, three days after a Monday.
const MONDAY_MS: i64 = 3 * DAY_MS;

impl Keep {
    /// Whether it keeps anything but the latest one.
    pub fn is_empty(&self) -> bool {
        [self.last, self.hourly, self.daily, self.weekly] == [0; 4]
    }

    /// The numbers of those that are kept, of backups with these numbers and times in any order.
    pub fn keeps(&self, backups: &[(u64, Time)]) -> BTreeSet<u64> {
        let mut latest_first = backups.to_vec();
        // By number: it is the order in which they were made, whatever a clock says.
        latest_first.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let last = usize::try_from(self.last.max(1)).unwrap_or(usize::MAX);
        let mut kept: BTreeSet<u64> =
            latest_first.iter().take(last).map(|(number, _)| *number).collect();
        let rules =
            [(self.hourly, HOUR_MS, 0), (self.daily, DAY_MS, 0), (self.weekly, WEEK_MS, MONDAY_MS)];
        for (count, length, offset) in rules {
            let mut met = BTreeSet::new();
            for (number, time) in &latest_first {
                if met.len() as u64 >= u64::from(count) {
                    break;
                }
                if met.insert(time.0.saturating_add(offset).div_euclid(length)) {
                    kept.insert(*number);
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keep() -> impl Strategy<Value = Keep> {
        (0..6_u32, 0..6_u32, 0..6_u32, 0..6_u32).prop_map(|(last, hourly, daily, weekly)| Keep {
            last,
            hourly,
            daily,
            weekly,
        })
    }

    /// Backups whose times grow with their numbers.
    fn backups() -> impl Strategy<Value = Vec<(u64, Time)>> {
        prop::collection::vec((1..4_u64, 0..2 * DAY_MS), 0..60).prop_map(|steps| {
            let (mut number, mut time) = (0, 1_700_000_000_000);
            let mut step = |(by, ms): (u64, i64)| {
                number += by;
                time += ms;
                (number, Time(time))
            };
            steps.into_iter().map(&mut step).collect()
        })
    }

    proptest! {
        #[test]
        fn the_latest_is_kept_and_never_more_than_was_asked_for(keep in keep(), backups in backups()) {
            let kept = keep.keeps(&backups);
            let most = keep.last.max(1) + keep.hourly + keep.daily + keep.weekly;
            prop_assert!(kept.len() <= most as usize);
            prop_assert_eq!(kept.last(), backups.iter().map(|(number, _)| number).max());
            prop_assert!(kept.iter().all(|kept| backups.iter().any(|(number, _)| number == kept)));
        }

        /// What a second look would remove the first one had removed.
        #[test]
        fn what_is_kept_stays_kept_when_the_others_are_gone(keep in keep(), backups in backups()) {
            let kept = keep.keeps(&backups);
            let left: Vec<_> = backups.iter().copied().filter(|(number, _)| kept.contains(number)).collect();
            prop_assert_eq!(keep.keeps(&left), kept);
        }

        #[test]
        fn the_order_in_which_they_are_told_is_no_matter(keep in keep(), backups in backups()) {
            let mut turned = backups.clone();
            turned.reverse();
            prop_assert_eq!(keep.keeps(&turned), keep.keeps(&backups));
        }

        #[test]
        fn whoever_keeps_more_keeps_all_that_the_other_keeps(keep in keep(), more in keep(), backups in backups()) {
            let both = Keep {
                last: keep.last.max(more.last),
                hourly: keep.hourly.max(more.hourly),
                daily: keep.daily.max(more.daily),
                weekly: keep.weekly.max(more.weekly),
            };
            prop_assert!(both.keeps(&backups).is_superset(&keep.keeps(&backups)));
        }

        /// Pruning after each backup comes to the same days as pruning once, so a schedule does not eat its own history.
        #[test]
        fn a_day_that_is_among_the_kept_ones_has_a_backup(daily in 1..10_u32, backups in backups()) {
            let keep = Keep { last: 0, hourly: 0, daily, weekly: 0 };
            let mut left: Vec<(u64, Time)> = Vec::new();
            for backup in &backups {
                left.push(*backup);
                let kept = keep.keeps(&left);
                left.retain(|(number, _)| kept.contains(number));
            }
            let days = |of: &[(u64, Time)]| -> BTreeSet<i64> {
                of.iter().map(|(_, time)| time.0.div_euclid(DAY_MS)).collect()
            };
            let wanted: BTreeSet<i64> = days(&backups).into_iter().rev().take(daily as usize).collect();
            prop_assert_eq!(days(&left), wanted);
        }
    }

    #[test]
    fn a_week_begins_on_monday() {
        // Sunday 2026-11-22 23:59:59 and Monday 2026-11-23 00:00:00, UTC.
        let (sunday, monday) = (Time(1_795_391_999_000), Time(1_795_392_000_000));
        let keep = Keep { last: 0, hourly: 0, daily: 0, weekly: 2 };
        assert_eq!(keep.keeps(&[(1, sunday), (2, monday)]).len(), 2);
        assert_eq!(keep.keeps(&[(1, monday), (2, monday.plus_ms(6 * DAY_MS as u64))]).len(), 1);
    }
}
