//! Hints: heard with luck, counted once, and never needed.

use super::{BusRig, ack, consume, numbers, publish, some_host, take, within};
use segue_core::ports::{Listener, Signals, Topic};
use std::sync::Arc;

/// Hints until it is heard: one hint alone may be lost.
async fn hint_until_heard(signals: &Arc<dyn Signals>, topic: Topic, listener: &mut dyn Listener) {
    say_until_heard(&|| signals.hint(topic), topic, listener).await;
}

async fn say_until_heard(
    say: &(dyn Fn() + Sync + Send),
    topic: Topic,
    listener: &mut dyn Listener,
) {
    let topics = [topic];
    let mut heard = listener.next(&topics);
    let hint_again = async {
        loop {
            say();
            tokio::task::yield_now().await;
        }
    };
    within("a hint", async {
        tokio::select! {
            heard = &mut heard => assert_eq!(heard, topic),
            () = hint_again => {}
        }
    })
    .await;
}

/// Everybody who listens hears a hint, of the topics asked for, and many hints count as few.
pub async fn hints_are_heard_and_count_once(rig: &dyn BusRig) {
    let (here, there) = (rig.signals().await, rig.signals().await);
    // Nobody listens yet: no harm done.
    here.hint(Topic::Ready);
    let mut listeners = [here.listen(), there.listen(), there.listen()];
    drop(there.listen());
    for listener in &mut listeners {
        hint_until_heard(&here, Topic::Events, &mut **listener).await;
        hint_until_heard(&there, Topic::Letters, &mut **listener).await;
    }

    let [mut listener, ..] = listeners;
    for _ in 0..1_000 {
        here.hint(Topic::Ready);
    }
    let mut heard = 0;
    loop {
        let topics = [Topic::Ready, Topic::Due];
        let next = async {
            loop {
                // The end of the row, given again in case it is lost.
                here.hint(Topic::Due);
                tokio::select! {
                    biased;
                    topic = listener.next(&topics) => return topic,
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        match within("hints", next).await {
            Topic::Ready => heard += 1,
            _ => break,
        }
    }
    assert!(heard < 100, "1,000 hints in a row were told {heard} times");
}

/// What is told to others is heard by them, and not by those who listen where it is told. Both must hear what others hint already.
pub async fn others_are_told_and_nobody_here(here: Arc<dyn Signals>, there: Arc<dyn Signals>) {
    let (mut own, mut others) = (here.listen(), there.listen());
    say_until_heard(&|| here.tell_others(Topic::Ended), Topic::Ended, &mut *others).await;
    // A hint that is given afterwards comes first, and is heard at once.
    here.hint(Topic::Due);
    let heard = within("its own hint", own.next(&[Topic::Ended, Topic::Due])).await;
    assert_eq!(heard, Topic::Due);
}

/// Letters come although nobody hints and nobody listens: hints only make things quicker.
pub async fn hints_are_never_needed(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let signals = rig.signals().await;
    let deaf = signals.listen();
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    publish(&bus, &host, 1..=3).await;
    drop(deaf);
    signals.hint(Topic::Letters);
    let came = take(&mut *consumer, 3).await;
    assert_eq!(numbers(&came), [1, 2, 3]);
    ack(&mut *consumer, &came).await;
}
