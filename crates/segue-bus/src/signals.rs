//! Hints to look again, within one process.

use parking_lot::Mutex;
use segue_core::ports::{Fut, Listener, Signals, Topic};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Hints within one process. A hint that comes while nobody waits is kept until somebody does, once a topic and listener.
#[derive(Debug, Default)]
pub struct InProcessSignals {
    ears: Mutex<Vec<Weak<Ear>>>,
}

#[derive(Debug, Default)]
struct Ear {
    /// Topics, oldest first, each at most once; so it cannot grow.
    heard: Mutex<Vec<Topic>>,
    woken: Notify,
}

impl Ear {
    fn hear(&self, topic: Topic) {
        let mut heard = self.heard.lock();
        if !heard.contains(&topic) {
            heard.push(topic);
            drop(heard);
            self.woken.notify_one();
        }
    }

    /// The oldest hint of one of these topics. What is not asked for stays until it is.
    fn recall(&self, topics: &[Topic]) -> Option<Topic> {
        let mut heard = self.heard.lock();
        let place = heard.iter().position(|topic| topics.contains(topic))?;
        Some(heard.remove(place))
    }
}

impl InProcessSignals {
    /// Nobody listens yet.
    pub fn new() -> Arc<InProcessSignals> {
        Arc::default()
    }
}

impl Signals for InProcessSignals {
    fn hint(&self, topic: Topic) {
        for ear in self.ears.lock().iter().filter_map(Weak::upgrade) {
            ear.hear(topic);
        }
    }

    fn tell_others(&self, _topic: Topic) {}

    fn listen(&self) -> Box<dyn Listener> {
        let ear = Arc::new(Ear::default());
        let mut ears = self.ears.lock();
        ears.retain(|ear| ear.strong_count() > 0);
        ears.push(Arc::downgrade(&ear));
        Box::new(InProcessListener(ear))
    }
}

struct InProcessListener(Arc<Ear>);

impl Listener for InProcessListener {
    fn next<'a>(&'a mut self, topics: &'a [Topic]) -> Fut<'a, Topic> {
        Box::pin(async move {
            loop {
                // Looked up before waiting, and nothing waits afterwards: a `next` that is dropped loses no hint.
                if let Some(topic) = self.0.recall(topics) {
                    return topic;
                }
                self.0.woken.notified().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// What a listener hears without waiting.
    fn now(listener: &mut dyn Listener, topics: &[Topic]) -> Option<Topic> {
        listener.next(topics).now_or_never()
    }

    #[test]
    fn hints_of_one_topic_count_once_and_come_oldest_first() {
        let signals = InProcessSignals::new();
        let mut listener = signals.listen();
        for _ in 0..1_000 {
            signals.hint(Topic::Due);
            signals.hint(Topic::Ready);
        }
        let both = [Topic::Ready, Topic::Due];
        assert_eq!(now(&mut *listener, &both), Some(Topic::Due));
        assert_eq!(now(&mut *listener, &both), Some(Topic::Ready));
        assert_eq!(now(&mut *listener, &both), None);
    }

    #[test]
    fn a_hint_waits_until_its_topic_is_asked_for() {
        let signals = InProcessSignals::new();
        let mut listener = signals.listen();
        signals.hint(Topic::Due);
        assert_eq!(now(&mut *listener, &[Topic::Ready]), None);
        signals.hint(Topic::Ready);
        assert_eq!(now(&mut *listener, &[Topic::Ready]), Some(Topic::Ready));
        assert_eq!(now(&mut *listener, &[Topic::Due]), Some(Topic::Due));
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_no_hint() {
        let signals = InProcessSignals::new();
        let mut listener = signals.listen();
        {
            let mut wait = listener.next(&[Topic::Ready]);
            assert_eq!((&mut wait).now_or_never(), None);
            signals.hint(Topic::Ready);
        }
        assert_eq!(now(&mut *listener, &[Topic::Ready]), Some(Topic::Ready));
    }

    #[tokio::test]
    async fn a_hint_wakes_whoever_waits_for_it_also_after_one_for_somebody_else() {
        let signals = InProcessSignals::new();
        let mut listener = signals.listen();
        let waiting = tokio::spawn(async move { listener.next(&[Topic::Ready]).await });
        tokio::task::yield_now().await;
        signals.hint(Topic::Due);
        tokio::task::yield_now().await;
        signals.hint(Topic::Ready);
        assert_eq!(waiting.await.unwrap(), Topic::Ready);
    }

    #[test]
    fn listeners_that_went_away_are_forgotten() {
        let signals = InProcessSignals::new();
        for _ in 0..100 {
            drop(signals.listen());
        }
        let _here = signals.listen();
        assert_eq!(signals.ears.lock().len(), 1);
    }
}
