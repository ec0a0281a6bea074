//! What every bus is asked, whichever adapter stands behind it.
//!
//! An adapter's tests give a rig and get one test a question:
//!
//! ```ignore
//! segue_testkit::bus_suite!(MyRig::start().await);
//! segue_testkit::bus_restart_suite!(MyRig::start().await);
//! ```
//!
//! An adapter with a broker starts one in one test, and has every question asked there: `bus_suite::ask_all(|| a_rig(&broker)).await`.
//!
//! Each question has a rig of its own, so a rig of an adapter with a broker brings its own project (vhost, prefix). Nothing here waits for
//! time: [`within`] only says what is missing when it does not come.

mod bounds;
mod delivery;
mod flaky;
mod hints;
mod restart;
mod samples;
mod sharing;

pub use bounds::{
    a_full_queue_makes_publish_wait_and_loses_nothing,
    a_full_queue_stops_nobody_who_writes_to_another, a_letter_of_one_mebibyte_arrives,
    a_letter_to_nobody_is_an_error_that_names_it, a_poison_letter_is_isolated,
    a_publish_that_is_given_up_leaves_room, close_ends_everything,
};
pub use delivery::{
    a_next_that_is_given_up_takes_nothing, a_queue_outlives_its_consumers,
    acknowledgements_of_what_is_not_open_do_nothing, letters_arrive_whole,
    order_is_kept_in_each_queue, rejected_letters_come_back_or_die,
    what_is_not_acknowledged_comes_back_and_says_so,
};
pub use flaky::FlakyBus;
pub(crate) use flaky::consume as consume_either;
pub use hints::{
    hints_are_heard_and_count_once, hints_are_never_needed, others_are_told_and_nobody_here,
};
pub use restart::{
    a_restart_in_the_middle_loses_nothing, what_was_not_acknowledged_comes_again_after_a_restart,
    what_was_taken_survives_a_restart,
};
pub use samples::{letter, one_of_each};
pub use sharing::{
    a_broadcast_reaches_everybody_once, a_queue_for_answers_ends_with_its_asker,
    a_thousand_letters_of_eight_find_four, an_answer_finds_its_question, consumers_share_a_queue,
};

use crate::questions::AT_ONCE;
use segue_core::ids::HostId;
use segue_core::letter::Address;
use segue_core::ports::{BusError, Consumer, Delivery, Fut, Signals, WorkBus};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// After this long something is taken not to come at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A letter that was refused, as far as its adapter can still read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its number in the outbox; zero where it cannot be read.
    pub seq: u64,
    /// Why it was refused.
    pub reason: String,
}

/// A bus with nothing in it, and the ways around the port that a suite needs.
pub trait BusRig: Send + Sync {
    /// A connection: another one each time, as another process has, where the adapter has connections at all.
    fn connect(&self) -> Fut<'_, Arc<dyn WorkBus>>;

    /// The same for hints.
    fn signals(&self) -> Fut<'_, Arc<dyn Signals>>;

    /// Letters that a queue of this rig holds before `publish` waits. Best a small number.
    fn queue_max(&self) -> usize;

    /// Letters beyond these that a queue may take before `publish` waits for sure: a broker learns that a queue is full once it is. With so many
    /// more it is full, exactly.
    fn queue_slack(&self) -> usize {
        0
    }

    /// The letters that were refused, oldest first.
    fn dead_letters(&self) -> Fut<'_, Vec<Dead>>;

    /// Closes every connection that was given out.
    fn close(&self) -> Fut<'_, ()>;
}

/// A rig whose adapter has something that can go away and come back: a broker.
pub trait RestartRig: BusRig {
    /// Ends it without a word, starts it again, and returns once it takes connections.
    fn restart(&self) -> Fut<'_, ()>;
}

/// One test a question, on the rig that the expression makes. It may wait (`.await`). [`ask_all`](crate::bus_suite::ask_all) asks the same
/// questions within one test.
#[macro_export]
macro_rules! bus_suite {
    ($rig:expr) => {
        $crate::bus_suite! { @questions tests $rig }
    };
    // The one list of questions: whoever needs them all has it passed on.
    (@questions $arm:ident $($arguments:tt)*) => {
        $crate::bus_questions! { @$arm [$($arguments)*]
            letters_arrive_whole,
            order_is_kept_in_each_queue,
            a_queue_outlives_its_consumers,
            what_is_not_acknowledged_comes_back_and_says_so,
            rejected_letters_come_back_or_die,
            acknowledgements_of_what_is_not_open_do_nothing,
            a_next_that_is_given_up_takes_nothing,
            consumers_share_a_queue,
            a_thousand_letters_of_eight_find_four,
            a_broadcast_reaches_everybody_once,
            an_answer_finds_its_question,
            a_queue_for_answers_ends_with_its_asker,
            a_full_queue_makes_publish_wait_and_loses_nothing,
            a_full_queue_stops_nobody_who_writes_to_another,
            a_publish_that_is_given_up_leaves_room,
            a_letter_to_nobody_is_an_error_that_names_it,
            a_letter_of_one_mebibyte_arrives,
            a_poison_letter_is_isolated,
            close_ends_everything,
            hints_are_heard_and_count_once,
            hints_are_never_needed,
        }
    };
}

/// One test a question about what happens when the broker goes away, on the [`RestartRig`](crate::bus_suite::RestartRig) that the expression
/// makes. [`ask_all_of_restarts`](crate::bus_suite::ask_all_of_restarts) asks the same questions within one test.
#[macro_export]
macro_rules! bus_restart_suite {
    ($rig:expr) => {
        $crate::bus_restart_suite! { @questions tests $rig }
    };
    (@questions $arm:ident $($arguments:tt)*) => {
        $crate::bus_questions! { @$arm [$($arguments)*]
            what_was_taken_survives_a_restart,
            what_was_not_acknowledged_comes_again_after_a_restart,
            a_restart_in_the_middle_loses_nothing,
        }
    };
}

/// What becomes of each of these questions.
#[doc(hidden)]
#[macro_export]
macro_rules! bus_questions {
    (@tests [$rig:expr] $($question:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $question() {
                let rig = $rig;
                $crate::bus_suite::$question(&rig).await;
            }
        )+
    };
    (@to_ask [$make:expr] $($question:ident),+ $(,)?) => {
        vec![$({
            let make = $make.clone();
            $crate::questions::Question::new(stringify!($question), 2, async move || {
                $crate::bus_suite::$question(&make().await).await;
            })
        }),+]
    };
}

/// Asks every question in one test, each on a rig of its own that `make` makes, [`AT_ONCE`] at a time: for an adapter whose rigs share a
/// broker, which one test starts.
///
/// # Panics
/// At the end, naming every question that was answered wrongly.
pub async fn ask_all<R: BusRig, F: Future<Output = R>>(
    make: impl Fn() -> F + Send + Sync + 'static,
) {
    ask_all_by(AT_ONCE, make).await;
}

/// The same, so many questions at a time.
///
/// # Panics
/// As [`ask_all`] does.
pub async fn ask_all_by<R: BusRig, F: Future<Output = R>>(
    at_once: usize,
    make: impl Fn() -> F + Send + Sync + 'static,
) {
    let make = Arc::new(make);
    crate::questions::ask(crate::bus_suite! { @questions to_ask make }, at_once).await;
}

/// Asks every question about restarts in one test, one after the other, since their rigs may share the broker that is restarted.
///
/// # Panics
/// As [`ask_all`] does.
pub async fn ask_all_of_restarts<R: RestartRig, F: Future<Output = R>>(
    make: impl Fn() -> F + Send + Sync + 'static,
) {
    let make = Arc::new(make);
    crate::questions::ask(crate::bus_restart_suite! { @questions to_ask make }, 1).await;
}

/// The dead letters that this bus has left to be looked at, as a rig answers for them.
///
/// # Panics
/// When they cannot be read.
pub async fn dead_letters(bus: &dyn WorkBus) -> Vec<Dead> {
    let dead = bus.look_at_dead(1_000).await.expect("dead letters can be looked at");
    let seq = |letter: &segue_core::letter::Letter| letter.seq;
    dead.into_iter()
        .map(|dead| Dead { seq: dead.letter.as_ref().map_or(0, seq), reason: dead.reason })
        .collect()
}

/// What comes, or a failure that says what did not.
///
/// # Panics
/// When it does not come.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(came) => came,
        Err(_) => panic!("in vain waited for: {what}"),
    }
}

/// A host that nobody else writes to.
fn some_host() -> Address {
    Address::Host(HostId(Uuid::new_v4()))
}

/// An agent that nobody else writes to.
fn some_agent() -> Address {
    Address::Agent(format!("agent-{}", Uuid::new_v4().simple()).into())
}

async fn publish(bus: &Arc<dyn WorkBus>, to: &Address, numbers: impl IntoIterator<Item = u64>) {
    let letters = numbers.into_iter().map(|n| letter(to, n)).collect();
    within("publish to take letters", bus.publish(letters)).await.expect("letters are taken");
}

async fn consume(bus: &Arc<dyn WorkBus>, queue: &Address) -> Box<dyn Consumer> {
    within("a consumer", bus.consume(queue.clone())).await.expect("a queue opens")
}

/// Exactly so many deliveries.
async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let what = format!("letter {} of {count}", taken.len() + 1);
        let batch = within(&what, consumer.next(count - taken.len())).await.expect("letters come");
        assert!(!batch.is_empty(), "next returns at least one letter");
        taken.extend(batch);
    }
    assert_eq!(taken.len(), count, "next returns no more letters than it was asked for");
    taken
}

async fn ack(consumer: &mut dyn Consumer, deliveries: &[Delivery]) {
    let tokens = deliveries.iter().map(|delivery| delivery.token).collect();
    within("an acknowledgement", consumer.ack(tokens)).await.expect("letters are acknowledged");
}

async fn reject(consumer: &mut dyn Consumer, delivery: &Delivery, dead: Option<&str>) {
    let rejected = consumer.reject(delivery.token, dead.map(str::to_owned));
    within("a rejection", rejected).await.expect("a letter is rejected");
}

fn numbers(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.letter.seq).collect()
}

/// Takes and acknowledges until each of these numbers has come. Connections that break meanwhile are waited for.
async fn gather(consumer: &mut dyn Consumer, expected: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut missing: BTreeSet<u64> = expected.collect();
    let mut came = Vec::new();
    while !missing.is_empty() {
        match within(&format!("letters {missing:?}"), consumer.next(16)).await {
            Ok(batch) => {
                let tokens = batch.iter().map(|delivery| delivery.token).collect();
                // What is not acknowledged, because the connection broke, comes again.
                let _ = consumer.ack(tokens).await;
                for delivery in batch {
                    missing.remove(&delivery.letter.seq);
                    came.push(delivery);
                }
            }
            Err(BusError::Away(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}, while {missing:?} are missing"),
        }
    }
    came
}

/// Polls a future often, giving everybody else the turn between. True when it never gets ready.
async fn keeps_waiting<F: Future + Unpin>(future: &mut F) -> bool {
    for _ in 0..200 {
        if futures_util::FutureExt::now_or_never(&mut *future).is_some() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}
