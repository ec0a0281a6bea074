//! What every keeper of gate counters is asked, whichever adapter stands behind it: `gate_suite::ask_all(|| a_rig(&server)).await`.

use crate::keeper_rig::KeeperOf;
use crate::questions::ask_each;
use futures_util::future::join_all;
use segue_core::ports::{Admission, GATE_MS_MAX, GateKey, GateReading, Gates, SoftError};

/// A window that does not end while a question is asked.
const LONG_MS: u64 = 600_000;
/// One that its rig lets end. Long enough for what is asked before, also on a busy machine.
const SHORT_MS: u64 = 60_000;

/// A keeper of gates that has counted nothing, and the ways around the port that a suite needs.
pub trait GateRig: KeeperOf<dyn Gates> {}

impl<R: KeeperOf<dyn Gates>> GateRig for R {}

/// Asks every question in one test, each on a rig of its own that `make` makes.
///
/// # Panics
/// At the end, naming every question that was answered wrongly.
pub async fn ask_all<R: GateRig, F: Future<Output = R>>(
    make: impl Fn() -> F + Send + Sync + 'static,
) {
    ask_each!(make:
        a_window_lets_through_what_it_holds,
        of_many_at_once_as_many_pass_as_may,
        a_window_that_ended_begins_anew,
        a_pause_lets_nobody_pass_and_the_longest_counts,
        gates_of_other_keys_are_other_gates,
        a_gate_that_was_forgotten_is_open,
        what_never_passes_is_refused,
    );
}

fn key(provider: &str, account: &str, model: &str) -> GateKey {
    GateKey { provider: provider.into(), account: account.into(), model: model.into() }
}

fn some_key() -> GateKey {
    key("anthropic", "main", "large")
}

fn waits(admission: Admission, at_most: u64) {
    match admission {
        Admission::Wait { ms } => assert!((1..=at_most).contains(&ms), "{ms} of {at_most} ms"),
        Admission::Admitted { .. } => panic!("it has to wait"),
    }
}

/// Costs add up, over every node, until one does not fit.
pub async fn a_window_lets_through_what_it_holds(rig: &dyn GateRig) {
    let (here, there, key) = (rig.connect().await, rig.connect().await, some_key());
    assert_eq!(here.read(&key).await.unwrap(), GateReading::default());
    assert_eq!(here.admit(&key, 3, 10, LONG_MS).await.unwrap(), Admission::Admitted { left: 7 });
    assert_eq!(there.admit(&key, 5, 10, LONG_MS).await.unwrap(), Admission::Admitted { left: 2 });
    waits(here.admit(&key, 3, 10, LONG_MS).await.unwrap(), LONG_MS);
    assert_eq!(here.admit(&key, 2, 10, LONG_MS).await.unwrap(), Admission::Admitted { left: 0 });
    waits(there.admit(&key, 1, 10, LONG_MS).await.unwrap(), LONG_MS);
    let reading = there.read(&key).await.unwrap();
    assert_eq!((reading.used, reading.paused_ms), (10, 0));
    assert!((1..=LONG_MS).contains(&reading.window_ms));
    // A limit that was raised meanwhile counts at once.
    assert_eq!(there.admit(&key, 1, 12, LONG_MS).await.unwrap(), Admission::Admitted { left: 1 });
    let unlimited = there.admit(&key, 1, u64::MAX, LONG_MS).await.unwrap();
    assert!(matches!(unlimited, Admission::Admitted { .. }));
}

/// Never one too many.
pub async fn of_many_at_once_as_many_pass_as_may(rig: &dyn GateRig) {
    let askers = (0..40).map(|_| async {
        let gates = rig.connect().await;
        gates.admit(&some_key(), 1, 17, LONG_MS).await.unwrap()
    });
    let passed = join_all(askers).await;
    let passed = passed.iter().filter(|answer| matches!(answer, Admission::Admitted { .. }));
    assert_eq!(passed.count(), 17);
}

/// A window opens with the first that is counted.
pub async fn a_window_that_ended_begins_anew(rig: &dyn GateRig) {
    let (gates, key) = (rig.connect().await, some_key());
    gates.admit(&key, 2, 2, SHORT_MS).await.unwrap();
    rig.pass(SHORT_MS + 1).await;
    assert_eq!(gates.read(&key).await.unwrap(), GateReading::default());
    assert_eq!(gates.admit(&key, 2, 2, LONG_MS).await.unwrap(), Admission::Admitted { left: 0 });
    waits(gates.admit(&key, 1, 2, LONG_MS).await.unwrap(), LONG_MS);
}

/// A provider that said 429 is left alone by everybody.
pub async fn a_pause_lets_nobody_pass_and_the_longest_counts(rig: &dyn GateRig) {
    let (here, there, key) = (rig.connect().await, rig.connect().await, some_key());
    here.admit(&key, 1, 10, LONG_MS).await.unwrap();
    there.pause(&key, SHORT_MS * 2).await.unwrap();
    here.pause(&key, 1).await.unwrap();
    waits(here.admit(&key, 1, 10, LONG_MS).await.unwrap(), SHORT_MS * 2);
    let reading = there.read(&key).await.unwrap();
    assert_eq!(reading.used, 1);
    assert!((SHORT_MS..=SHORT_MS * 2).contains(&reading.paused_ms), "{reading:?}");
    rig.pass(SHORT_MS * 2 + 1).await;
    assert_eq!(there.read(&key).await.unwrap().paused_ms, 0);
    // The window is the same: a pause forgets nothing that was counted.
    assert_eq!(here.admit(&key, 1, 10, LONG_MS).await.unwrap(), Admission::Admitted { left: 8 });
}

/// Each provider, account and model has its own.
pub async fn gates_of_other_keys_are_other_gates(rig: &dyn GateRig) {
    let gates = rig.connect().await;
    let keys = [
        key("a", "b", "c"),
        key("a:b", "", "c"),
        key("a", "b:c", ""),
        key("", "a:b", "c"),
        key("a", "", "b:c"),
        key("ü", "{}", "*"),
        key("", "", ""),
    ];
    for key in &keys {
        let admitted = gates.admit(key, 1, 1, LONG_MS).await.unwrap();
        assert_eq!(admitted, Admission::Admitted { left: 0 }, "{key:?}");
    }
    gates.pause(&keys[0], LONG_MS).await.unwrap();
    assert_eq!(gates.read(&keys[1]).await.unwrap().paused_ms, 0);
}

/// Soft: a keeper that forgot lets pass, and the provider's next 429 closes the gate again.
pub async fn a_gate_that_was_forgotten_is_open(rig: &dyn GateRig) {
    let (gates, key) = (rig.connect().await, some_key());
    gates.admit(&key, 1, 1, LONG_MS).await.unwrap();
    gates.pause(&key, LONG_MS).await.unwrap();
    rig.forget().await;
    assert_eq!(gates.read(&key).await.unwrap(), GateReading::default());
    assert_eq!(gates.admit(&key, 1, 1, LONG_MS).await.unwrap(), Admission::Admitted { left: 0 });
}

/// Instead of waiting for ever.
pub async fn what_never_passes_is_refused(rig: &dyn GateRig) {
    let (gates, key) = (rig.connect().await, some_key());
    for refused in [
        gates.admit(&key, 2, 1, LONG_MS).await.map(|_| ()),
        gates.admit(&key, 1, 1, GATE_MS_MAX + 1).await.map(|_| ()),
        gates.pause(&key, GATE_MS_MAX + 1).await,
    ] {
        assert!(matches!(refused, Err(SoftError::Invalid(_))), "{refused:?}");
    }
}
