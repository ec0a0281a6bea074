//! What does not fit, has nobody, is too large, or is poison; and the end.

use super::samples::{letter_with, payload};
use super::{
    BusRig, ack, consume, keeps_waiting, letter, numbers, publish, reject, some_agent, some_host,
    take, within,
};
use futures_util::future::join_all;
use segue_core::ids::HostId;
use segue_core::letter::{Address, Letter, LetterBody, WIRE_VERSION};
use segue_core::payload::Payload;
use segue_core::ports::BusError;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Letters after which the next one has to wait.
fn capacity(rig: &dyn BusRig) -> u64 {
    (rig.queue_max() + rig.queue_slack()) as u64
}

/// `publish` waits while a queue is full, and everything comes once there is room.
pub async fn a_full_queue_makes_publish_wait_and_loses_nothing(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    let max = capacity(rig);

    // One call that is larger than the queue.
    let letters: Vec<Letter> = (0..max + 3).map(|n| letter(&host, n)).collect();
    let mut publishing = bus.publish(letters);
    assert!(keeps_waiting(&mut publishing).await, "{} letters cannot fit into {max}", max + 3);
    let take_all = async {
        let mut came = Vec::new();
        while (came.len() as u64) < max + 3 {
            let deliveries = take(&mut *consumer, 1).await;
            came.extend(numbers(&deliveries));
            ack(&mut *consumer, &deliveries).await;
        }
        came
    };
    let (published, came) =
        within("all of a large call", async { tokio::join!(publishing, take_all) }).await;
    published.expect("the letters are taken");
    assert_eq!(came, (0..max + 3).collect::<Vec<_>>());

    // Many calls that wait at the same time.
    let publishers = join_all((0..4).map(|publisher| {
        let (bus, host) = (&bus, &host);
        async move {
            for n in 0..max {
                publish(bus, host, [1_000 * publisher + n]).await;
            }
        }
    }));
    let take_all = async {
        let mut came = BTreeSet::new();
        while (came.len() as u64) < 4 * max {
            let deliveries = take(&mut *consumer, 1).await;
            came.extend(numbers(&deliveries));
            ack(&mut *consumer, &deliveries).await;
        }
    };
    within("all of many calls", async { tokio::join!(publishers, take_all) }).await;
}

/// Letters for others in the same call, and in other calls, go past those that wait for room.
pub async fn a_full_queue_stops_nobody_who_writes_to_another(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let (full, free) = (some_host(), some_agent());
    let mut slow = consume(&bus, &full).await;
    let mut quick = consume(&bus, &free).await;
    let max = capacity(rig);
    publish(&bus, &full, 0..max).await;

    let mut both = bus.publish(vec![letter(&full, max), letter(&free, 1)]);
    assert!(keeps_waiting(&mut both).await);
    publish(&bus, &free, [2]).await;
    let came = take(&mut *quick, 2).await;
    assert_eq!(numbers(&came), [1, 2]);
    ack(&mut *quick, &came).await;

    let drained = async {
        let mut came = Vec::new();
        while (came.len() as u64) < max + 1 {
            let deliveries = take(&mut *slow, 1).await;
            came.extend(numbers(&deliveries));
            ack(&mut *slow, &deliveries).await;
        }
        came
    };
    let (published, came) = within("room", async { tokio::join!(both, drained) }).await;
    published.expect("the letters are taken");
    assert_eq!(came, (0..=max).collect::<Vec<_>>());
}

/// Whoever stops waiting for room holds up nobody behind.
pub async fn a_publish_that_is_given_up_leaves_room(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    let max = capacity(rig);
    publish(&bus, &host, 0..max).await;
    let mut given_up = bus.publish(vec![letter(&host, 500)]);
    assert!(keeps_waiting(&mut given_up).await);
    let mut patient = bus.publish(vec![letter(&host, 501)]);
    assert!(keeps_waiting(&mut patient).await);
    drop(given_up);

    let drained = async {
        let mut came = Vec::new();
        while came.last() != Some(&501) {
            let deliveries = take(&mut *consumer, 1).await;
            came.extend(numbers(&deliveries));
            ack(&mut *consumer, &deliveries).await;
        }
        // Whether the one that was given up had been handed over already is not promised.
        came.retain(|n| *n != 500);
        came
    };
    let (published, came) = within("room", async { tokio::join!(patient, drained) }).await;
    published.expect("the letter is taken");
    assert_eq!(came, (0..max).chain([501]).collect::<Vec<_>>());
}

/// Letters to queues that nobody ever had are named to the sender; the others of the same call are taken.
pub async fn a_letter_to_nobody_is_an_error_that_names_it(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let here = some_host();
    let mut consumer = consume(&bus, &here).await;
    let missing = HostId(Uuid::new_v4());
    let stranger = Address::Agent("nobody-has-this-name".into());
    let letters = vec![
        letter(&stranger, 1),
        letter(&here, 2),
        letter(&Address::Host(missing), 3),
        letter(&here, 4),
        letter(&stranger, 5),
    ];
    let error = within("publish", bus.publish(letters)).await.expect_err("nobody is there");
    let text = error.to_string();
    assert!(text.contains(&missing.to_string()) && text.contains("nobody-has-this-name"), "{text}");
    let BusError::Unroutable { addresses, mut letters } = error else {
        panic!("{error} is no error about an address");
    };
    letters.sort_unstable();
    assert_eq!(letters, [1, 3, 5]);
    assert_eq!(addresses.len(), 2, "each address once: {addresses:?}");

    let came = take(&mut *consumer, 2).await;
    assert_eq!(numbers(&came), [2, 4]);
    ack(&mut *consumer, &came).await;
    // As soon as somebody has the queue, letters go there.
    let mut late = consume(&bus, &stranger).await;
    publish(&bus, &stranger, [6]).await;
    let came = take(&mut *late, 1).await;
    assert_eq!(numbers(&came), [6]);
    ack(&mut *late, &came).await;
}

/// A body of one mebibyte comes whole, between small ones.
pub async fn a_letter_of_one_mebibyte_arrives(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    let text = format!("\"{}\"", "schön \u{1F600} ".repeat(1024 * 1024 / 12 + 1));
    assert!(text.len() > 1024 * 1024);
    let body = LetterBody::Query { payload: Payload::of_trusted_text(&text) };
    let letters = vec![letter(&host, 1), letter_with(&host, 2, body), letter(&host, 3)];
    within("publish", bus.publish(letters.clone())).await.expect("the letters are taken");
    let came = take(&mut *consumer, 3).await;
    for (delivery, sent) in came.iter().zip(&letters) {
        assert!(delivery.letter == *sent, "letter {} is not what was sent", sent.seq);
    }
    ack(&mut *consumer, &came).await;
}

/// A letter of another version ends among the dead letters, whether the adapter or the consumer notices, and stops nobody.
pub async fn a_poison_letter_is_isolated(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    let body = LetterBody::Query { payload: payload(&serde_json::json!("from the future")) };
    let poison = Letter { version: WIRE_VERSION + 41, ..letter_with(&host, 2, body) };
    let letters = vec![letter(&host, 1), poison, letter(&host, 3), letter(&host, 4)];
    within("publish", bus.publish(letters)).await.expect("the letters are taken");

    let mut good = Vec::new();
    while good.len() < 3 {
        for delivery in take(&mut *consumer, 1).await {
            if delivery.letter.version == WIRE_VERSION {
                good.extend(numbers(std::slice::from_ref(&delivery)));
                ack(&mut *consumer, &[delivery]).await;
            } else {
                reject(&mut *consumer, &delivery, Some("wire version 42 is unknown")).await;
            }
        }
    }
    assert_eq!(good, [1, 3, 4]);
    let dead = within("dead letters", rig.dead_letters()).await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert!(dead[0].reason.contains("version"), "{dead:?}");
}

/// After close nothing waits any more, and nothing begins.
pub async fn close_ends_everything(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let (full, empty) = (some_host(), some_agent());
    let mut idle = consume(&bus, &empty).await;
    let mut all = consume(&bus, &Address::All).await;
    let mut busy = consume(&bus, &full).await;
    publish(&bus, &full, 0..capacity(rig)).await;
    let taken = take(&mut *busy, 1).await;

    {
        let mut publishing = bus.publish(vec![letter(&full, 1), letter(&full, 2)]);
        let mut waiting = idle.next(1);
        let mut hearing = all.next(1);
        assert!(keeps_waiting(&mut publishing).await);
        assert!(keeps_waiting(&mut waiting).await);
        assert!(keeps_waiting(&mut hearing).await);
        within("the bus to close", rig.close()).await;
        assert_eq!(within("publish to end", publishing).await, Err(BusError::Closed));
        assert_eq!(within("next to end", waiting).await, Err(BusError::Closed));
        assert_eq!(within("next to end", hearing).await, Err(BusError::Closed));
    }

    assert_eq!(within("publish", bus.publish(vec![letter(&full, 3)])).await, Err(BusError::Closed));
    let consumed = within("consume", bus.consume(empty)).await;
    assert_eq!(consumed.err(), Some(BusError::Closed));
    // What a consumer had received before may still come, and then nothing.
    let closed = async {
        loop {
            if let Err(error) = busy.next(100).await {
                return error;
            }
        }
    };
    assert_eq!(within("next to end", closed).await, BusError::Closed);
    // Whether these are errors is the adapter's affair; they end.
    let _ = within("an acknowledgement", busy.ack(vec![taken[0].token])).await;
    let _ = within("a rejection", busy.reject(taken[0].token, None)).await;
    within("the bus to close again", rig.close()).await;
}
