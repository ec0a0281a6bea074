//! The bus over RabbitMQ before the suite that every bus answers, and before what only a broker can do to it. Each test starts one broker.

#[path = "rabbitmq/rig.rs"]
mod rig;

mod on_rabbitmq {
    use crate::rig::{Rig, broker};
    use segue_testkit::bus_suite;

    /// One letter a message, so that the bounds of queues can be told to the letter.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_question_of_the_suite() {
        let broker = broker().await;
        bus_suite::ask_all(move || Rig::exact(broker.clone())).await;
    }

    /// Letters share messages, as they do by default.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_question_about_restarts() {
        let broker = broker().await;
        bus_suite::ask_all_of_restarts(move || Rig::shared(broker.clone())).await;
    }
}
