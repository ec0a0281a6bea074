//! The in-process bus before the suite that every bus answers, plainly and behind a connection that breaks.

use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::ports::{Fut, Signals, WorkBus};
use segue_testkit::bus_suite::{BusRig, Dead, FlakyBus, RestartRig, dead_letters};
use std::future::ready;
use std::sync::Arc;

const QUEUE_MAX: usize = 16;

struct Rig {
    bus: Arc<InProcessBus>,
    flaky: Arc<FlakyBus>,
    signals: Arc<InProcessSignals>,
    through_flaky: bool,
}

impl Rig {
    fn new(through_flaky: bool) -> Rig {
        let bus = InProcessBus::with_queue_max(QUEUE_MAX);
        let flaky = FlakyBus::over(bus.clone());
        Rig { bus, flaky, signals: InProcessSignals::new(), through_flaky }
    }
}

impl BusRig for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn WorkBus>> {
        let bus: Arc<dyn WorkBus> =
            if self.through_flaky { self.flaky.clone() } else { self.bus.clone() };
        Box::pin(ready(bus))
    }

    fn signals(&self) -> Fut<'_, Arc<dyn Signals>> {
        let signals: Arc<dyn Signals> = self.signals.clone();
        Box::pin(ready(signals))
    }

    fn queue_max(&self) -> usize {
        QUEUE_MAX
    }

    fn dead_letters(&self) -> Fut<'_, Vec<Dead>> {
        Box::pin(dead_letters(&*self.bus))
    }

    fn close(&self) -> Fut<'_, ()> {
        self.bus.close();
        Box::pin(ready(()))
    }
}

impl RestartRig for Rig {
    fn restart(&self) -> Fut<'_, ()> {
        Box::pin(async {
            self.flaky.break_off();
            // Others run into the gap.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            self.flaky.mend();
        })
    }
}

mod plain {
    use super::Rig;
    segue_testkit::bus_suite!(Rig::new(false));
}

/// The suite asks nothing that a bus with connections could not keep, and its questions about restarts can be answered.
mod behind_a_connection {
    use super::Rig;
    segue_testkit::bus_suite!(Rig::new(true));
    segue_testkit::bus_restart_suite!(Rig::new(true));

    #[tokio::test]
    async fn all_questions_are_answered_in_one_test() {
        segue_testkit::bus_suite::ask_all(async || super::Rig::new(true)).await;
        segue_testkit::bus_suite::ask_all_of_restarts(async || super::Rig::new(true)).await;
    }
}
