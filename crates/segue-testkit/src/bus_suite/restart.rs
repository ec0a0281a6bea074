//! What becomes of letters when the broker goes away and comes back.

use super::{RestartRig, consume, gather, letter, numbers, publish, some_host, take, within};
use segue_core::letter::Address;
use segue_core::ports::{BusError, WorkBus};
use std::sync::Arc;

/// What `publish` answered for is there afterwards, for a consumer that was there before and for a new one.
pub async fn what_was_taken_survives_a_restart(rig: &dyn RestartRig) {
    let bus = rig.connect().await;
    let hosts = [some_host(), some_host()];
    let mut before = consume(&bus, &hosts[0]).await;
    drop(consume(&bus, &hosts[1]).await);
    for host in &hosts {
        publish(&bus, host, 1..=5).await;
    }
    within("a restart", rig.restart()).await;
    assert_eq!(numbers(&gather(&mut *before, 1..6).await), [1, 2, 3, 4, 5]);
    let bus = rig.connect().await;
    let mut after = consume(&bus, &hosts[1]).await;
    assert_eq!(numbers(&gather(&mut *after, 1..6).await), [1, 2, 3, 4, 5]);
}

/// The consumer goes on by itself; what it had not acknowledged comes again, marked, and an acknowledgement from before is none.
pub async fn what_was_not_acknowledged_comes_again_after_a_restart(rig: &dyn RestartRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    publish(&bus, &host, 1..=4).await;
    let before = take(&mut *consumer, 3).await;
    within("an acknowledgement", consumer.ack(vec![before[0].token])).await.expect("it is open");
    within("a restart", rig.restart()).await;
    // The connection over which these came is gone: this may be an error, and must not be a success.
    let _ = consumer.ack(vec![before[1].token, before[2].token]).await;

    let again = gather(&mut *consumer, 2..5).await;
    for delivery in &again {
        // Number one was acknowledged; a broker that lost the acknowledgement may bring it again, and says so.
        let handed_over = delivery.letter.seq < 4;
        assert!(!handed_over || delivery.redelivered, "letter {}", delivery.letter.seq);
    }
}

/// A sender that repeats what was refused while the broker was away loses nothing.
pub async fn a_restart_in_the_middle_loses_nothing(rig: &dyn RestartRig) {
    let sender = rig.connect().await;
    let taker = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&taker, &host).await;
    let send = async {
        for n in 0..200 {
            until_taken(&sender, &host, n).await;
        }
    };
    let restarts = async {
        for _ in 0..2 {
            tokio::task::yield_now().await;
            rig.restart().await;
        }
    };
    let work = async { tokio::join!(send, restarts, gather(&mut *consumer, 0..200)) };
    let ((), (), came) = within("everything", work).await;
    let mut seen = std::collections::BTreeSet::new();
    for delivery in came {
        let n = delivery.letter.seq;
        // Letters that were published again because their confirmation was lost are new letters to the bus.
        seen.insert(n);
    }
    assert_eq!(seen.len(), 200);
}

async fn until_taken(bus: &Arc<dyn WorkBus>, to: &Address, n: u64) {
    loop {
        match bus.publish(vec![letter(to, n)]).await {
            Ok(()) => return,
            Err(BusError::Away(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("letter {n}: {error}"),
        }
    }
}
