//! Hints to look again, within one process.

use parking_lot::Mutex;
use segue_core::ports::{Fut, Listener, Signals, Topic};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Hints within one process. A hint that comes while nobody waits is kept until somebody does, once a topic.
#[derive(Debug, Default)]
pub struct InProcessSignals {
    ears: Mutex<Vec<Weak<Ear>>>,
}

#[derive(Debug, Default)]
struct Ear {
    heard: Mutex<Vec<Topic>>,
    woken: Notify,
}

impl InProcessSignals {
    /// Nobody listens yet.
    pub fn new() -> Arc<InProcessSignals> {
        Arc::default()
    }
}

impl Signals for InProcessSignals {
    fn hint(&self, topic: Topic) {
        self.ears.lock().retain(|ear| {
            let Some(ear) = ear.upgrade() else { return false };
            let mut heard = ear.heard.lock();
            if !heard.contains(&topic) {
                heard.push(topic);
            }
            drop(heard);
            ear.woken.notify_one();
            true
        });
    }

    fn listen(&self) -> Box<dyn Listener> {
        let ear = Arc::new(Ear::default());
        self.ears.lock().push(Arc::downgrade(&ear));
        Box::new(InProcessListener(ear))
    }
}

struct InProcessListener(Arc<Ear>);

impl Listener for InProcessListener {
    fn next<'a>(&'a mut self, topics: &'a [Topic]) -> Fut<'a, Topic> {
        Box::pin(async move {
            loop {
                {
                    let mut heard = self.0.heard.lock();
                    // What nobody asks for here would otherwise stay for ever.
                    heard.retain(|topic| topics.contains(topic));
                    if let Some(topic) = heard.pop() {
                        return topic;
                    }
                }
                self.0.woken.notified().await;
            }
        })
    }
}
