//! What becomes of a letter: it comes, in order, until somebody says that it is done.

use super::samples::one_of_each;
use super::{
    BusRig, ack, consume, keeps_waiting, letter, numbers, publish, reject, some_agent, some_host,
    take, within,
};
use futures_util::FutureExt;

/// Every kind of letter arrives with everything that was in it.
pub async fn letters_arrive_whole(rig: &dyn BusRig) {
    let (sender, taker) = (rig.connect().await, rig.connect().await);
    let host = some_host();
    let mut consumer = consume(&taker, &host).await;
    let letters = one_of_each(&host);
    within("publish", sender.publish(letters.clone())).await.expect("letters are taken");
    let deliveries = take(&mut *consumer, letters.len()).await;
    for (delivery, sent) in deliveries.iter().zip(&letters) {
        assert_eq!(delivery.letter, *sent);
        assert!(!delivery.redelivered);
    }
    ack(&mut *consumer, &deliveries).await;
}

/// Letters of one sender come in their order in each queue, however they were put into calls.
pub async fn order_is_kept_in_each_queue(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let queues = [some_host(), some_agent()];
    let mut consumers = [consume(&bus, &queues[0]).await, consume(&bus, &queues[1]).await];
    let most = (rig.queue_max() as u64).min(60);
    let mut next = 0;
    for size in (1..).map(|i| i % 7) {
        let end = (next + size).min(most);
        // Letters of one call alternate between the queues.
        let letters =
            (next..end).flat_map(|n| queues.iter().map(move |queue| letter(queue, n))).collect();
        within("publish", bus.publish(letters)).await.expect("letters are taken");
        next = end;
        if next == most {
            break;
        }
    }
    for consumer in &mut consumers {
        let deliveries = take(&mut **consumer, most as usize).await;
        assert_eq!(numbers(&deliveries), (0..most).collect::<Vec<_>>());
        ack(&mut **consumer, &deliveries).await;
    }
}

/// A queue that somebody has had keeps letters for the next one.
pub async fn a_queue_outlives_its_consumers(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let queues = [some_host(), some_agent()];
    for queue in &queues {
        drop(consume(&bus, queue).await);
        publish(&bus, queue, 1..=3).await;
        let mut consumer = consume(&bus, queue).await;
        let deliveries = take(&mut *consumer, 3).await;
        assert_eq!(numbers(&deliveries), [1, 2, 3]);
        ack(&mut *consumer, &deliveries).await;
    }
}

/// What a consumer did not acknowledge comes to the next one, marked; what it did does not.
pub async fn what_is_not_acknowledged_comes_back_and_says_so(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    publish(&bus, &host, 1..=6).await;
    let deliveries = take(&mut *consumer, 4).await;
    assert_eq!(numbers(&deliveries), [1, 2, 3, 4]);
    // Not in the order in which they came.
    ack(&mut *consumer, &[deliveries[2].clone(), deliveries[0].clone()]).await;
    drop(consumer);

    let mut consumer = consume(&bus, &host).await;
    let deliveries = take(&mut *consumer, 4).await;
    let mut came = numbers(&deliveries);
    came.sort_unstable();
    assert_eq!(came, [2, 4, 5, 6]);
    for delivery in deliveries.iter().filter(|delivery| delivery.letter.seq < 5) {
        assert!(delivery.redelivered, "letter {} was handed over before", delivery.letter.seq);
    }
    ack(&mut *consumer, &deliveries).await;
    drop(consumer);

    // Everything is done: the next letter is the first that comes.
    let mut consumer = consume(&bus, &host).await;
    publish(&bus, &host, [7]).await;
    let deliveries = take(&mut *consumer, 1).await;
    assert_eq!(numbers(&deliveries), [7]);
    assert!(!deliveries[0].redelivered);
    ack(&mut *consumer, &deliveries).await;
}

/// A letter that was rejected comes back, marked; with a reason it is among the dead letters and does not.
pub async fn rejected_letters_come_back_or_die(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    publish(&bus, &host, [1, 2]).await;
    let deliveries = take(&mut *consumer, 2).await;
    reject(&mut *consumer, &deliveries[1], Some("two is not wanted")).await;
    reject(&mut *consumer, &deliveries[0], None).await;

    let again = take(&mut *consumer, 1).await;
    assert_eq!(numbers(&again), [1]);
    assert!(again[0].redelivered);
    ack(&mut *consumer, &again).await;

    publish(&bus, &host, [3]).await;
    let last = take(&mut *consumer, 1).await;
    assert_eq!(numbers(&last), [3]);
    ack(&mut *consumer, &last).await;

    let dead = within("dead letters", rig.dead_letters()).await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!((dead[0].seq, dead[0].reason.as_str()), (2, "two is not wanted"));
}

/// Acknowledging twice, after a rejection, or what never was, changes nothing.
pub async fn acknowledgements_of_what_is_not_open_do_nothing(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    publish(&bus, &host, [1, 2]).await;
    let first = take(&mut *consumer, 1).await;
    ack(&mut *consumer, &first).await;
    ack(&mut *consumer, &first).await;
    reject(&mut *consumer, &first[0], Some("too late")).await;
    within("an acknowledgement", consumer.ack(vec![u64::MAX, 0])).await.expect("no error");

    let second = take(&mut *consumer, 1).await;
    assert_eq!(numbers(&second), [2]);
    reject(&mut *consumer, &second[0], None).await;
    ack(&mut *consumer, &second).await;
    // It was handed over anew, so the acknowledgement of the first time is not its own.
    let again = take(&mut *consumer, 1).await;
    assert_eq!(numbers(&again), [2]);
    ack(&mut *consumer, &second).await;
    drop(consumer);

    let mut consumer = consume(&bus, &host).await;
    let again = take(&mut *consumer, 1).await;
    assert_eq!(numbers(&again), [2]);
    ack(&mut *consumer, &again).await;
    assert!(within("dead letters", rig.dead_letters()).await.is_empty());
}

/// `next` stands in `select!`: when another branch wins, no letter is lost, held back or marked.
pub async fn a_next_that_is_given_up_takes_nothing(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let host = some_host();
    let mut consumer = consume(&bus, &host).await;
    for n in 1..=30 {
        // Given up before the letter is there, ..
        assert!(keeps_waiting(&mut consumer.next(8)).await);
        let mut deliveries = {
            let mut waiting = consumer.next(8);
            assert!((&mut waiting).now_or_never().is_none(), "nothing was published yet");
            publish(&bus, &host, [n]).await;
            // .. and after the letter has woken it; on the way too, if it takes more than one step.
            let steps = (0..n % 3).find_map(|_| (&mut waiting).now_or_never());
            steps.map_or(Vec::new(), |batch| batch.expect("letters come"))
        };
        if deliveries.is_empty() {
            deliveries = take(&mut *consumer, 1).await;
        }
        assert_eq!(numbers(&deliveries), [n]);
        assert!(!deliveries[0].redelivered);
        ack(&mut *consumer, &deliveries).await;
    }

    // The same in a race: a branch that is always about to win against letters that keep coming.
    let publishing = async {
        for n in 0..300 {
            publish(&bus, &host, [n]).await;
            tokio::task::yield_now().await;
        }
    };
    let taking = async {
        let mut came = Vec::new();
        while came.len() < 300 {
            let batch = tokio::select! {
                biased;
                batch = consumer.next(2) => batch.expect("letters come"),
                () = tokio::task::yield_now() => continue,
            };
            came.extend(numbers(&batch));
            ack(&mut *consumer, &batch).await;
        }
        came
    };
    let ((), came) = within("letters in a race", async { tokio::join!(publishing, taking) }).await;
    assert_eq!(came, (0..300).collect::<Vec<_>>());
}
