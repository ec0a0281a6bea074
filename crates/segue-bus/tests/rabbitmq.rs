//! The bus over RabbitMQ before the suite that every bus answers, and before what only a broker can do to it. Each test starts one broker.

#[path = "rabbitmq/rig.rs"]
mod rig;
#[path = "rabbitmq/trouble.rs"]
mod trouble;

mod on_rabbitmq {
    use crate::rig::{Rig, broker};
    use crate::trouble;
    use segue_testkit::bus_suite;
    use segue_testkit::questions::{Question, ask};
    use segue_testkit::servers::{RabbitMq, RabbitMqOptions};
    use std::sync::Arc;

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

    macro_rules! questions {
        ($broker:ident: $($question:ident),+ $(,)?) => {
            vec![$({
                let broker = $broker.clone();
                Question::new(stringify!($question), 2, async move || {
                    trouble::$question(Rig::shared(broker).await).await;
                })
            }),+]
        };
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_question_about_strangers_and_dead_letters() {
        let broker = broker().await;
        let questions = questions!(broker:
            hostile_letters_are_dead_with_a_reason,
            nobody_else_gives_out_work,
            work_that_is_too_large_is_dead_at_once,
            work_that_nobody_accepts_comes_to_the_engine,
            dead_work_waits_for_the_engine,
            the_broker_says_what_is_missing,
            a_node_that_says_nothing_keeps_nobody_from_starting,
        );
        ask(questions, 4).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_tls_with_a_certificate_that_is_trusted() {
        let options = RabbitMqOptions { tls: true, ..RabbitMqOptions::default() };
        let broker = Arc::new(RabbitMq::start_with(options).await);
        trouble::only_who_is_trusted_is_talked_to(Rig::shared(broker).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_a_cluster_that_loses_a_node() {
        let broker = Arc::new(RabbitMq::cluster(3).await);
        trouble::a_lost_node_keeps_nobody_from_starting(Rig::shared(broker).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_question_about_a_broker_in_trouble() {
        trouble::listen();
        let broker = broker().await;
        let questions = questions!(broker:
            a_broker_without_memory_makes_publish_wait,
            whoever_publishes_nothing_hears_of_an_alarm,
            what_waits_for_a_broker_without_memory_is_bounded,
            an_outage_is_told_in_few_lines,
            a_broker_that_is_killed_under_load_loses_nothing,
        );
        ask(questions, 1).await;
    }
}
