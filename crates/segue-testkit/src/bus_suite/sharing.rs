//! Who gets a letter: one of those who share a queue, everybody, or whoever asked.

use super::{
    BusRig, PATIENCE, ack, consume, letter, numbers, publish, some_agent, some_host, take, within,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use segue_core::letter::{Address, Letter};
use segue_core::ports::{BusError, Consumer, WorkBus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// Who got which letter, and how often each came.
#[derive(Default)]
struct Tally {
    by_letter: BTreeMap<u64, (u32, bool)>,
    by_consumer: BTreeSet<usize>,
}

/// Several consumers of a queue that take until this many letters have come.
struct Takers {
    tally: Mutex<Tally>,
    everybody_has_some: watch::Sender<bool>,
    done: watch::Sender<bool>,
    consumers: usize,
    letters: usize,
}

impl Takers {
    fn new(consumers: usize, letters: usize) -> Arc<Takers> {
        Arc::new(Takers {
            tally: Mutex::default(),
            everybody_has_some: watch::Sender::new(false),
            done: watch::Sender::new(false),
            consumers,
            letters,
        })
    }

    /// Takes a few at a time, in a `select!`, until everybody together has everything. Whoever has some lets the others go first.
    async fn run(self: Arc<Self>, number: usize, mut consumer: Box<dyn Consumer>) {
        let mut done = self.done.subscribe();
        loop {
            let batch = tokio::select! {
                batch = consumer.next(3) => batch.expect("letters come"),
                _ = done.wait_for(|done| *done) => return,
            };
            {
                let mut tally = self.tally.lock();
                tally.by_consumer.insert(number);
                for delivery in &batch {
                    let times = tally.by_letter.entry(delivery.letter.seq).or_default();
                    times.0 += 1;
                    times.1 |= delivery.redelivered;
                }
                if tally.by_consumer.len() == self.consumers {
                    self.everybody_has_some.send_replace(true);
                }
                if tally.by_letter.len() == self.letters {
                    self.done.send_replace(true);
                }
            }
            ack(&mut *consumer, &batch).await;
            let mut some = self.everybody_has_some.subscribe();
            let _ = within("letters for the other consumers", some.wait_for(|some| *some)).await;
        }
    }
}

async fn share(
    rig: &dyn BusRig,
    queue: &Address,
    publishers: u64,
    each: u64,
    consumers: usize,
) -> Tally {
    let takers = Takers::new(consumers, (publishers * each) as usize);
    let mut running = Vec::new();
    for number in 0..consumers {
        let bus = rig.connect().await;
        let consumer = consume(&bus, queue).await;
        running.push(tokio::spawn(takers.clone().run(number, consumer)));
    }
    for publisher in 0..publishers {
        let bus = rig.connect().await;
        let queue = queue.clone();
        running.push(tokio::spawn(async move {
            for n in (publisher * each..(publisher + 1) * each).step_by(5) {
                let end = (n + 5).min((publisher + 1) * each);
                publish(&bus, &queue, n..end).await;
            }
        }));
    }
    for ended in within("everything to be shared out", join_all(running)).await {
        ended.expect("no part of it failed");
    }
    std::mem::take(&mut takers.tally.lock())
}

/// Checks that everything came, and nothing twice but what says so.
fn covered(tally: &Tally, letters: u64) {
    assert_eq!(tally.by_letter.len() as u64, letters);
    for (n, (times, redelivered)) in &tally.by_letter {
        assert!(*times == 1 || *redelivered, "letter {n} came {times} times and does not say so");
    }
}

/// Each letter of a queue goes to one of its consumers, and none of those who wait is passed over.
pub async fn consumers_share_a_queue(rig: &dyn BusRig) {
    let tally = share(rig, &some_agent(), 1, 60, 2).await;
    covered(&tally, 60);
}

/// 1,000 letters of 8 publishers to 4 consumers: nothing is lost, nothing comes twice.
pub async fn a_thousand_letters_of_eight_find_four(rig: &dyn BusRig) {
    let tally = share(rig, &some_host(), 8, 125, 4).await;
    covered(&tally, 1_000);
}

/// What goes to all comes once to each consumer that is there, to none that has gone, and later ones do not get it.
pub async fn a_broadcast_reaches_everybody_once(rig: &dyn BusRig) {
    let sender = rig.connect().await;
    publish(&sender, &Address::All, [1]).await;

    let mut listeners = Vec::new();
    for _ in 0..3 {
        let bus = rig.connect().await;
        listeners.push(consume(&bus, &Address::All).await);
    }
    publish(&sender, &Address::All, [2, 3]).await;
    for listener in &mut listeners {
        let deliveries = take(&mut **listener, 2).await;
        assert_eq!(numbers(&deliveries), [2, 3]);
        ack(&mut **listener, &deliveries).await;
    }

    drop(listeners.pop());
    let bus = rig.connect().await;
    listeners.push(consume(&bus, &Address::All).await);
    // More than a queue holds: whoever has gone must not hold up the rest.
    let end = 4 + rig.queue_max() as u64 + 3;
    let all = async {
        for n in 4..end {
            sender.publish(vec![letter(&Address::All, n)]).await.expect("letters are taken");
        }
    };
    let hear = join_all(listeners.iter_mut().map(|listener| async move {
        let mut came = Vec::new();
        while came.len() < (end - 4) as usize {
            let deliveries = take(&mut **listener, 1).await;
            came.extend(numbers(&deliveries));
            ack(&mut **listener, &deliveries).await;
        }
        came
    }));
    let ((), heard) = within("everybody to hear", async { tokio::join!(all, hear) }).await;
    for came in heard {
        assert_eq!(came, (4..end).collect::<Vec<_>>());
    }
}

/// An answer goes to the queue that its question names, and brings the correlation id back.
pub async fn an_answer_finds_its_question(rig: &dyn BusRig) {
    let (asking, answering) = (rig.connect().await, rig.connect().await);
    let expert = some_agent();
    let mut questions = consume(&answering, &expert).await;
    let askers = [Address::Reply(Uuid::new_v4()), Address::Reply(Uuid::new_v4())];
    let mut answers = [consume(&asking, &askers[0]).await, consume(&asking, &askers[1]).await];
    for (asker, correlation) in askers.iter().zip([11, u128::MAX]) {
        let question = Letter {
            reply_to: Some(asker.clone()),
            correlation: Some(correlation),
            ..letter(&expert, 1)
        };
        within("publish", asking.publish(vec![question])).await.expect("the question is taken");
    }
    let asked = take(&mut *questions, 2).await;
    for delivery in asked.iter().rev() {
        let answer = Letter {
            to: delivery.letter.reply_to.clone().expect("it says where the answer goes"),
            correlation: delivery.letter.correlation,
            ..letter(&expert, 2)
        };
        within("publish", answering.publish(vec![answer])).await.expect("the answer is taken");
    }
    ack(&mut *questions, &asked).await;
    for (consumer, correlation) in answers.iter_mut().zip([11, u128::MAX]) {
        let came = take(&mut **consumer, 1).await;
        assert_eq!(came[0].letter.correlation, Some(correlation));
        ack(&mut **consumer, &came).await;
    }
}

/// A queue for answers is there as long as whoever asks, and then leaves nothing behind.
pub async fn a_queue_for_answers_ends_with_its_asker(rig: &dyn BusRig) {
    let bus = rig.connect().await;
    let asker = Address::Reply(Uuid::new_v4());
    let consumer = consume(&bus, &asker).await;
    publish(&bus, &asker, [1]).await;
    drop(consumer);
    within("the queue to end", until_unroutable(&bus, &asker)).await;
    // Somebody else under the same address starts anew.
    let mut consumer = consume(&bus, &asker).await;
    publish(&bus, &asker, [5]).await;
    let came = take(&mut *consumer, 1).await;
    assert_eq!(numbers(&came), [5]);
    ack(&mut *consumer, &came).await;
}

/// A broker may take a moment to notice that a consumer has gone.
async fn until_unroutable(bus: &Arc<dyn WorkBus>, to: &Address) {
    loop {
        match bus.publish(vec![letter(to, 2)]).await {
            Err(BusError::Unroutable { addresses, letters }) => {
                assert_eq!((addresses, letters), (vec![to.to_string()], vec![2]));
                return;
            }
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}, within {PATIENCE:?}"),
        }
    }
}
