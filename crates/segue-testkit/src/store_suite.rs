//! The questions that every store has to answer alike.
//!
//! A backend calls [`store_suite!`](crate::store_suite!) with an expression that makes a [`Place`], and gets one test a question:
//!
//! ```ignore
//! segue_testkit::store_suite!(a_place());
//! ```
//!
//! A backend on a server starts one in one test, and has every question asked there: `store_suite::ask_all(|| a_place(&server)).await`.
//!
//! Every question gets a place of its own. Nothing here knows what kind of store it asks.

mod batches;
mod differential;
mod durable;
mod fleets;
mod graphs;
mod outcomes;
mod payloads;
mod place;
mod pruning;
mod queues;
mod reads;
mod state;

pub use batches::*;
pub use differential::*;
pub use durable::*;
pub use fleets::*;
pub use graphs::*;
pub use outcomes::*;
pub use payloads::*;
pub use place::*;
pub use pruning::*;
pub use queues::*;
pub use reads::*;
pub use state::*;

use crate::questions::AT_ONCE;
use std::sync::Arc;

/// One test for each question, each in a place of its own. [`ask_all`] asks the same questions within one test.
#[macro_export]
macro_rules! store_suite {
    ($place:expr) => {
        $crate::store_suite! { @questions tests $place }
    };
    // The one list of questions: whoever needs them all has it passed on to an arm of its own.
    (@questions $arm:ident $($arguments:tt)*) => {
        $crate::store_suite! { @$arm [$($arguments)*]
            an_accepted_batch_is_kept_and_a_refused_command_leaves_the_others,
            commands_are_decided_in_order_and_assign_comes_last,
            concurrent_callers_each_get_their_own_answer,
            the_same_submit_twice_is_one,
            a_graph_is_taken_in_whole_or_not_at_all,
            effects_say_what_to_do_next,
            a_queue_is_served_by_rank_with_aging,
            nothing_jumps_the_queue_within_a_batch,
            slots_are_never_exceeded,
            an_assignment_goes_on_where_the_last_one_stopped,
            what_a_batch_takes_out_of_a_queue_hides_nobody,
            many_idle_routes_stand_beside_a_busy_one,
            needs_unblock_one_after_another,
            a_wide_fan_out_and_fan_in_go_on_by_duties,
            a_parent_waits_without_a_slot_and_is_resumed,
            a_delegation_made_again_finds_its_children,
            cancelling_reaches_the_whole_tree,
            a_list_becomes_children,
            duties_stay_until_they_are_done,
            a_lease_that_ends_gives_its_tasks_back,
            a_new_life_of_a_host_ends_the_old_one,
            late_outcomes_are_kept_and_change_nothing,
            a_report_without_the_secret_is_refused,
            timers_find_what_is_due,
            a_drained_agent_gets_nothing_new,
            what_is_new_of_the_fleet_is_told_by_its_version,
            reopening_finds_everything,
            unsent_letters_come_again_after_a_crash,
            numbers_are_never_issued_twice,
            the_clock_never_goes_back,
            tasks_are_filtered_and_paged,
            events_are_filtered_and_paged,
            the_log_of_a_run_has_no_gap,
            payloads_of_every_size_come_back,
            the_same_body_twice_is_kept_once,
            pruning_takes_whole_runs_that_ended,
            pruning_leaves_what_others_need,
            a_key_is_read_as_it_was_written,
            a_write_is_refused_where_it_takes_for_granted_what_is_not_so,
            concurrent_writers_lose_nothing,
            changes_of_different_members_are_merged,
            policies_are_kept,
            keys_are_listed_by_prefix_and_page,
            what_changed_after_a_version_is_read,
            the_history_of_a_key_is_bounded,
            bodies_of_state_are_kept_as_long_as_they_are_referred_to,
            pruning_takes_deleted_keys,
            a_lock_is_held_by_one_until_its_time_is_up,
            a_lost_lock_writes_nothing,
            state_is_told_apart_from_events,
            an_outcome_writes_state_in_its_own_commit,
            an_outcome_whose_writes_are_refused_writes_nothing_and_fails,
            outcomes_that_write_the_same_key_at_once_lose_nothing,
            random_commands_give_what_the_reference_gives,
        }
    };
    (@tests [$place:expr] $($question:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $question() {
                $crate::store_suite::$question(&$place).await;
            }
        )+
    };
    (@to_ask [$make:expr] $($question:ident),+ $(,)?) => {
        vec![$({
            let make = $make.clone();
            $crate::questions::Question::new(stringify!($question), 0, async move || {
                $crate::store_suite::$question(&make().await).await;
            })
        }),+]
    };
}

/// Asks every question in one test, each in a place of its own that `make` makes, [`AT_ONCE`] at a time: for a backend whose places share a
/// server, which one test starts.
///
/// # Panics
/// At the end, naming every question that was answered wrongly.
pub async fn ask_all<F: Future<Output = Place>>(make: impl Fn() -> F + Send + Sync + 'static) {
    ask_all_by(AT_ONCE, make).await;
}

/// The same, so many questions at a time.
///
/// # Panics
/// As [`ask_all`] does.
pub async fn ask_all_by<F: Future<Output = Place>>(
    at_once: usize,
    make: impl Fn() -> F + Send + Sync + 'static,
) {
    let make = Arc::new(make);
    crate::questions::ask(crate::store_suite! { @questions to_ask make }, at_once).await;
}

#[cfg(test)]
mod of_the_reference {
    use crate::memory::MemoryStore;
    use crate::store_suite::{KEY, Opened, Place, SEED, TestClock};
    use segue_core::ports::Fut;
    use std::sync::Arc;

    /// It cannot be closed: opening it again finds the same one.
    fn a_place() -> Place {
        let clock = TestClock::new();
        let store = Arc::new(MemoryStore::new(clock.clone(), SEED, KEY));
        let open = move || -> Fut<'static, Opened> {
            Box::pin(std::future::ready(Opened { store: store.clone(), blobs: None }))
        };
        Place::new(clock, Box::new(open), ())
    }

    crate::store_suite!(a_place());

    #[tokio::test]
    async fn all_questions_are_answered_in_one_test() {
        crate::store_suite::ask_all(async || a_place()).await;
    }
}
