//! A bus of its own on a broker that several questions share: each has a project, and so a prefix, of its own.

use parking_lot::Mutex;
use segue_bus::rabbitmq::{Options, RabbitBus};
use segue_bus::signals::InProcessSignals;
use segue_core::ports::{Fut, Signals, WorkBus};
use segue_testkit::bus_suite::{BusRig, Dead, RestartRig, dead_letters};
use segue_testkit::servers::RabbitMq;
use std::sync::Arc;
use uuid::Uuid;

/// Messages that a consumer of an exact rig holds.
const PREFETCH: u16 = 16;

/// A project on a broker.
pub struct Rig {
    pub broker: Arc<RabbitMq>,
    pub options: Options,
    buses: Mutex<Vec<Arc<RabbitBus>>>,
    signals: Arc<InProcessSignals>,
}

/// A broker of this test's own.
pub async fn broker() -> Arc<RabbitMq> {
    // What the bus has to say is shown where somebody asks for it (`RUST_LOG`).
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    Arc::new(RabbitMq::start().await)
}

impl Rig {
    /// Letters share messages.
    pub async fn shared(broker: Arc<RabbitMq>) -> Rig {
        let project = format!("suite-{}", Uuid::new_v4().simple());
        let options = Options::new(vec![broker.url(0, "%2f")], project);
        Rig { broker, options, buses: Mutex::default(), signals: InProcessSignals::new() }
    }

    /// One letter a message.
    pub async fn exact(broker: Arc<RabbitMq>) -> Rig {
        let mut rig = Rig::shared(broker).await;
        rig.options.letters_max = 1;
        rig.options.queue_max = 4;
        rig.options.prefetch = PREFETCH;
        rig
    }

    /// Another connection, with all that only this bus has.
    pub async fn bus(&self) -> Arc<RabbitBus> {
        let bus = RabbitBus::connect(self.options.clone()).await.expect("a connection");
        self.buses.lock().push(bus.clone());
        bus
    }
}

impl BusRig for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn WorkBus>> {
        Box::pin(async { self.bus().await as Arc<dyn WorkBus> })
    }

    fn signals(&self) -> Fut<'_, Arc<dyn Signals>> {
        let signals: Arc<dyn Signals> = self.signals.clone();
        Box::pin(std::future::ready(signals))
    }

    fn queue_max(&self) -> usize {
        // What the one consumer holds.
        usize::from(PREFETCH)
    }

    fn queue_slack(&self) -> usize {
        // The message that fills the queue, and the one that shows that it is full.
        self.options.queue_max as usize + 1
    }

    fn dead_letters(&self) -> Fut<'_, Vec<Dead>> {
        Box::pin(async {
            let bus = self.buses.lock()[0].clone();
            dead_letters(&*bus).await
        })
    }

    fn close(&self) -> Fut<'_, ()> {
        Box::pin(async {
            let buses = self.buses.lock().clone();
            for bus in buses {
                bus.close().await;
            }
        })
    }
}

impl RestartRig for Rig {
    fn restart(&self) -> Fut<'_, ()> {
        Box::pin(async {
            // RabbitMQ 3.10 writes its list of quorum queues to the disk twice a second: a queue that was made just before a SIGKILL hangs for
            // ever afterwards. That is not what is asked here.
            self.broker.eval("[dets:sync(T) || T <- dets:all()].").await;
            self.broker.kill().await;
            self.broker.start_again().await;
        })
    }
}
