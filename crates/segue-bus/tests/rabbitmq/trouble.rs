//! What only a broker can do to a bus: strangers write to its queues, it runs out of memory, it gives up on a letter, it dies under load.

use crate::rig::Rig;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use segue_bus::rabbitmq::RabbitBus;
use segue_bus::wire;
use segue_core::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{Address, Letter, LetterBody, Secret, TaskRequest};
use segue_core::payload::Payload;
use segue_core::ports::{BusError, Consumer, Delivery, WorkBus};
use segue_testkit::bus_suite::{letter, within};
use segue_testkit::servers::{Proxy, RabbitMq};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a message, at most, in these questions.
const SMALL: usize = 64 * 1024;

fn some_host() -> Address {
    Address::Host(HostId(Uuid::new_v4()))
}

/// A letter that brings work.
fn work(to: &Address, n: u64) -> Letter {
    let request = TaskRequest {
        attempt: AttemptId(Uuid::from_u128(u128::from(n))),
        number: 1,
        secret: Secret([7; 32]),
        instance: InstanceId(Uuid::nil()),
        incarnation: Incarnation(Uuid::nil()),
        run: TaskId(Uuid::nil()),
        name: "work".into(),
        capability: None,
        input: Payload::of_text("{ \"a\" : 1.0 }").unwrap(),
        run_ms: None,
        workspace: None,
        resume: None,
        state: None,
        team: Vec::new(),
    };
    let task = Some(TaskId(Uuid::from_u128(u128::from(n))));
    Letter { task, body: LetterBody::TaskRequest(Box::new(request)), ..letter(to, n) }
}

async fn stranger(rig: &Rig) -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&rig.options.urls[0], properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn throw(channel: &Channel, rig: &Rig, to: &Address, body: &[u8]) {
    let Address::Host(host) = to else { panic!("a host") };
    let queue = format!("{}host.{host}", rig.options.prefix);
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let thrown = channel.basic_publish("".into(), queue.as_str().into(), options, body, properties);
    let said = thrown.await.unwrap().await.unwrap();
    assert!(said.is_ack() && said.take_message().is_none(), "it is in the queue");
}

async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut came = Vec::new();
    while came.len() < count {
        let what = format!("letter {} of {count}", came.len() + 1);
        came.extend(within(&what, consumer.next(count - came.len())).await.expect("letters come"));
    }
    came
}

async fn ack(consumer: &mut dyn Consumer, came: &[Delivery]) {
    consumer.ack(came.iter().map(|delivery| delivery.token).collect()).await.unwrap();
}

/// Waits until so many dead letters are left.
async fn dead(bus: &RabbitBus, count: usize) -> Vec<String> {
    let all = async {
        loop {
            let dead = bus.look_at_dead(1_000).await.expect("dead letters are looked at");
            if dead.len() >= count {
                return dead.into_iter().map(|dead| dead.reason).collect();
            }
            tokio::task::yield_now().await;
        }
    };
    within(&format!("{count} dead letters"), all).await
}

/// What is no letter of ours dies alone, says why, and stops nobody.
pub async fn hostile_letters_are_dead_with_a_reason(mut rig: Rig) {
    rig.options.message_bytes_max = SMALL;
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    let (connection, channel) = stranger(&rig).await;
    let project = rig.options.project.clone();
    let good = |n| wire::letter_text(&project, &letter(&host, n)).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let message =
        |letters: &[String]| wire::message(letters.iter().map(|letter| letter.as_bytes()), false);
    let foreign = text(wire::letter_text("another", &letter(&host, 7)).unwrap());
    let lost = text(wire::letter_text(&project, &letter(&some_host(), 7)).unwrap());
    let named = Letter { from: "x".repeat(wire::NAME_MAX + 1).into(), ..letter(&host, 7) };
    let named = text(wire::letter_text(&project, &named).unwrap());
    let future = text(good(7)).replace("\"version\":1", "\"version\":42");
    let strange = text(good(7)).replace("\"type\":\"query\"", "\"type\":\"virus\"");
    let curious = text(good(2)).replacen('{', "{\"unknown\":[{}],", 1);
    let hostile: Vec<(Vec<u8>, &str)> = vec![
        (vec![b'x'; SMALL + 1], "bytes are too many for a message"),
        (b"\xff\xfe".to_vec(), "not UTF-8"),
        (b"".to_vec(), "not a message"),
        (b"[1,2]".to_vec(), "not a message"),
        (b"{\"version\":1,\"letters\":[".to_vec(), "not a message"),
        (vec![b'['; SMALL - 1], "nested too deeply"),
        (b"{\"version\":2,\"letters\":[{}]}".to_vec(), "wire version 2 is unknown"),
        (b"{\"version\":1,\"letters\":[]}".to_vec(), "without letters"),
        (b"{\"version\":1,\"letters\":[{}]}".to_vec(), "not a letter"),
        (message(&[foreign]), "another project, `another`"),
        (message(&[lost]), "it is for host"),
        (message(&[named]), "a name of 257 bytes"),
        (message(&[future]), "wire version 42 is unknown"),
        // Those around it arrive.
        (message(&[text(good(1)), strange, curious]), "unknown variant `virus`"),
    ];
    for (body, _) in &hostile {
        throw(&channel, &rig, &host, body).await;
    }
    bus.publish(vec![letter(&host, 3)]).await.unwrap();

    let came = take(&mut *consumer, 3).await;
    let numbers: Vec<u64> = came.iter().map(|delivery| delivery.letter.seq).collect();
    assert_eq!(numbers, [1, 2, 3]);
    ack(&mut *consumer, &came).await;
    let reasons = dead(&bus, hostile.len()).await;
    for (_, expected) in &hostile {
        assert!(reasons.iter().any(|reason| reason.contains(expected)), "{expected}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), hostile.len(), "{reasons:#?}");
    // Nothing of it is left in the queue.
    drop(consumer);
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    bus.publish(vec![letter(&host, 4)]).await.unwrap();
    let last = take(&mut *consumer, 1).await;
    assert_eq!((last[0].letter.seq, last[0].redelivered), (4, false));
    ack(&mut *consumer, &last).await;
    connection.close(200, "OK".into()).await.unwrap();
    bus.close().await;
}

/// Where engines have a user of their own, nobody else gives out work.
pub async fn nobody_else_gives_out_work(mut rig: Rig) {
    let honest = rig.bus().await;
    rig.options.engine_users = vec!["engine".to_owned()];
    let wary = rig.bus().await;
    let host = some_host();
    let mut consumer = wary.consume(host.clone()).await.unwrap();
    let from_agent = Letter { from: "planner".into(), ..letter(&host, 2) };
    honest.publish(vec![work(&host, 1), letter(&host, 1), from_agent]).await.unwrap();
    let came = take(&mut *consumer, 1).await;
    assert_eq!(came[0].letter.seq, 2);
    ack(&mut *consumer, &came).await;
    let reasons = dead(&wary, 2).await;
    assert!(reasons.iter().all(|reason| reason.contains("forged sender")), "{reasons:?}");
}

/// A letter that is too large for the broker is dead before it goes out, with what is needed to end its attempt.
pub async fn work_that_is_too_large_is_dead_at_once(mut rig: Rig) {
    rig.options.message_bytes_max = SMALL;
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    let mut dead = bus.consume_dead().await.unwrap();
    let mut large = work(&host, 9);
    let LetterBody::TaskRequest(request) = &mut large.body else { panic!("work") };
    request.input = Payload::of_trusted_text(&format!("\"{}\"", "x".repeat(SMALL)));
    bus.publish(vec![large, work(&host, 10)]).await.unwrap();
    let came = take(&mut *consumer, 1).await;
    assert_eq!(came[0].letter, work(&host, 10));
    ack(&mut *consumer, &came).await;
    let came = take(&mut *dead, 1).await;
    assert!(came[0].dead.as_deref().is_some_and(|why| why.contains("too large for the bus")));
    let LetterBody::TaskRequest(request) = &came[0].letter.body else { panic!("work") };
    assert_eq!((request.secret.clone(), &request.input), (Secret([7; 32]), &Payload::null()));
    ack(&mut *dead, &came).await;
    bus.close().await;
}

/// Work that is handed over again and again without being accepted comes to the engine as a dead letter.
pub async fn work_that_nobody_accepts_comes_to_the_engine(mut rig: Rig) {
    rig.options.delivery_limit = 2;
    let bus = rig.bus().await;
    let host = some_host();
    let mut dead = bus.consume_dead().await.unwrap();
    drop(bus.consume(host.clone()).await.unwrap());
    bus.publish(vec![work(&host, 5)]).await.unwrap();
    let mut times = 0;
    let came = loop {
        // Hosts that die over it.
        let mut consumer = bus.consume(host.clone()).await.unwrap();
        tokio::select! {
            came = dead.next(1) => break came.unwrap(),
            taken = consumer.next(1) => times += taken.unwrap().len(),
        }
    };
    assert_eq!(came[0].letter, work(&host, 5));
    assert!((1..=3).contains(&times), "it was handed over {times} times");
    let why = came[0].dead.clone().unwrap();
    assert!(why.contains("too often"), "{why}");
    ack(&mut *dead, &came).await;
    bus.close().await;
}

/// Dead work that nobody ends comes again; what is refused there is left to be looked at.
pub async fn dead_work_waits_for_the_engine(rig: Rig) {
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    bus.publish(vec![work(&host, 1), work(&host, 2)]).await.unwrap();
    for delivery in take(&mut *consumer, 2).await {
        consumer.reject(delivery.token, Some("no".into())).await.unwrap();
    }
    let mut dead = bus.consume_dead().await.unwrap();
    let came = take(&mut *dead, 2).await;
    dead.reject(came[0].token, None).await.unwrap();
    dead.reject(came[1].token, Some("not to be read".into())).await.unwrap();
    let again = take(&mut *dead, 1).await;
    assert_eq!((again[0].letter.seq, again[0].redelivered), (1, true));
    assert_eq!(again[0].dead.as_deref(), Some("no"));
    ack(&mut *dead, &again).await;
    let left = bus.look_at_dead(10).await.unwrap();
    assert_eq!(left.len(), 1);
    // Looking takes nothing.
    assert_eq!(bus.look_at_dead(10).await.unwrap(), left);
    assert_eq!(left[0].letter, Some(work(&host, 2)));
    bus.close().await;
}

/// The broker says what it is, and what of the topology is missing.
pub async fn the_broker_says_what_is_missing(rig: Rig) {
    let bus = rig.bus().await;
    let probe = bus.probe().await.unwrap();
    assert!(probe.version.as_deref().is_some_and(|version| version.contains('.')), "{probe:?}");
    assert_eq!((probe.missing.len(), &probe.blocked), (0, &None));
    let (connection, channel) = stranger(&rig).await;
    let name = format!("{}agent.broadcasts", rig.options.prefix);
    channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    connection.close(200, "OK".into()).await.unwrap();
    assert_eq!(bus.probe().await.unwrap().missing, [format!("exchange {name}")]);
    bus.close().await;
    assert!(bus.probe().await.is_err());
}

/// While the broker is short of memory publishing waits and says so, acknowledging goes on, and nothing is lost.
pub async fn a_broker_without_memory_makes_publish_wait(rig: Rig) {
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    bus.publish(vec![letter(&host, 1)]).await.unwrap();
    let first = take(&mut *consumer, 1).await;
    let broker = &rig.broker;
    broker.eval("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1}).").await;
    let publishing = {
        let (bus, host) = (bus.clone(), host.clone());
        tokio::spawn(async move { bus.publish(vec![letter(&host, 2)]).await })
    };
    let blocked = async {
        while bus.status().blocked.is_none() {
            tokio::task::yield_now().await;
        }
    };
    within("the bus to say that it is blocked", blocked).await;
    assert_eq!(bus.comebacks(), None);
    ack(&mut *consumer, &first).await;
    // A letter that came before the alarm was seen may be there; one that is published now is not.
    let mut late = bus.publish(vec![letter(&host, 3)]);
    assert!(futures_util::FutureExt::now_or_never(&mut late).is_none());
    assert!(bus.status().waiting > 0);
    broker.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.6).").await;
    within("publishing to go on", late).await.unwrap();
    within("publishing to go on", publishing).await.unwrap().unwrap();
    let came = take(&mut *consumer, 2).await;
    ack(&mut *consumer, &came).await;
    assert_eq!(bus.status().blocked, None);
    assert_eq!(bus.comebacks(), Some(0));
    bus.close().await;
}

/// The alarm of a broker that has less memory than it wants, until it is ended.
async fn set_memory(broker: &RabbitMq, part: &str) {
    broker.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({part}).")).await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let condition = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    within(what, condition).await;
}

/// A broker says so to those alone who publish: a bus that does so rarely knows it all the same, and so does one that is asked at once.
pub async fn whoever_publishes_nothing_hears_of_an_alarm(mut rig: Rig) {
    rig.options.heartbeat = std::time::Duration::from_secs(1);
    let bus = rig.bus().await;
    assert_eq!((bus.trouble(), bus.probe().await.unwrap().blocked), (None, None));
    set_memory(&rig.broker, "0.0001").await;
    until("the bus to hear of the alarm", || bus.trouble().is_some()).await;
    let trouble = bus.trouble().unwrap();
    assert!(trouble.contains("takes no letters") && trouble.contains("memory"), "{trouble}");
    let another = rig.bus().await;
    let blocked = another.probe().await.unwrap().blocked;
    assert!(blocked.is_some_and(|why| why.contains("memory")));
    set_memory(&rig.broker, "0.6").await;
    until("the bus to hear of its end", || bus.trouble().is_none()).await;
    until("the other one to hear of its end", || another.trouble().is_none()).await;
    let lines = lines_with("takes no letters: it is short of memory");
    assert!(!lines.is_empty(), "nothing was said of it");
    bus.close().await;
    another.close().await;
}

/// Whoever wants to publish waits with it; what is given up takes no room.
pub async fn what_waits_for_a_broker_without_memory_is_bounded(mut rig: Rig) {
    const MAX: usize = 64 * 1024;
    rig.options.waiting_bytes_max = MAX;
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    set_memory(&rig.broker, "0.0001").await;
    until("the bus to hear of the alarm", || {
        // Whoever publishes is told.
        let _ = futures_util::FutureExt::now_or_never(bus.probe());
        bus.status().blocked.is_some()
    })
    .await;
    let large = |n| {
        let payload = Payload::of_trusted_text(&format!("\"{}\"", "x".repeat(8 * 1024)));
        Letter { body: LetterBody::Query { payload }, ..letter(&host, n) }
    };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (bus, letter) = (bus.clone(), large(n));
        tasks.spawn(async move { bus.publish(vec![letter]).await });
    }
    until("the room to be full", || bus.status().waiting_bytes > MAX * 3 / 4).await;
    assert!(bus.status().waiting_bytes <= MAX, "{:?}", bus.status());
    // Whoever asks for more than there is at all gets through in the end, and nobody overtakes.
    tasks.shutdown().await;
    assert_eq!(bus.status().waiting_bytes, 0);
    let many: Vec<Letter> = (200..220).map(large).collect();
    let publishing = {
        let bus = bus.clone();
        tokio::spawn(async move { bus.publish(many).await })
    };
    until("the letters to wait", || bus.status().waiting_bytes == MAX).await;
    set_memory(&rig.broker, "0.6").await;
    within("publishing to go on", publishing).await.unwrap().unwrap();
    assert_eq!(bus.status().waiting_bytes, 0);
    let mut numbers = Vec::new();
    while numbers.last() != Some(&219) {
        let came = take(&mut *consumer, 1).await;
        ack(&mut *consumer, &came).await;
        numbers.push(came[0].letter.seq);
    }
    // Of what was given up only that may have come which was on its way already.
    assert!(numbers.len() <= 22, "{numbers:?}");
    bus.close().await;
}

/// What the bus has said in this process.
static SAID: parking_lot::Mutex<Vec<u8>> = parking_lot::Mutex::new(Vec::new());

struct Ear;

impl std::io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        SAID.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps what is said from now on.
pub fn listen() {
    let filter = tracing_subscriber::EnvFilter::new("warn,lapin=off");
    let said = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    said.with_writer(|| Ear).try_init().expect("nobody else listens");
}

fn lines_with(part: &str) -> Vec<String> {
    let said = String::from_utf8_lossy(&SAID.lock()).into_owned();
    said.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
}

/// However often both connections, and whoever waits, try in vain: one line when the broker goes, one when it is back.
pub async fn an_outage_is_told_in_few_lines(mut rig: Rig) {
    let proxy = Proxy::to(&rig.broker.address(0)).await;
    // Nobody is a broker here, and each try is counted.
    let counter = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let counted = format!("amqp://nobody:x@{}/none", counter.local_addr().unwrap());
    rig.options.urls = vec![rig.broker.url_by(&proxy.addr(), "%2f"), counted];
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    let before = SAID.lock().len();
    let told = |part: &str| {
        let said = String::from_utf8_lossy(&SAID.lock()[before..]).into_owned();
        said.lines().filter(|line| line.contains(part)).count()
    };
    proxy.cut().await;
    for _ in 0..10 {
        within("a try", counter.accept()).await.unwrap();
        let _ = bus.publish(vec![letter(&host, 1)]).await;
        let _ = futures_util::FutureExt::now_or_never(consumer.next(1));
    }
    assert_eq!((told("RabbitMQ is away"), told("RabbitMQ is back"), told("WARN")), (1, 0, 1));
    drop(counter);
    proxy.heal().await;
    until("the bus to be back", || bus.trouble().is_none()).await;
    until("that to be told", || told("RabbitMQ is back") == 1).await;
    bus.publish(vec![letter(&host, 2)]).await.unwrap();
    let came = take(&mut *consumer, 1).await;
    ack(&mut *consumer, &came).await;
    assert_eq!((told("RabbitMQ is away"), told("RabbitMQ is back")), (1, 1));
    bus.close().await;
}

/// 2,000 letters, a broker that is killed twice meanwhile, senders that repeat what was refused: everything comes.
pub async fn a_broker_that_is_killed_under_load_loses_nothing(rig: Rig) {
    const LETTERS: u64 = 2_000;
    let host = some_host();
    let taker = rig.bus().await;
    let mut consumer = taker.consume(host.clone()).await.unwrap();
    let sender = rig.bus().await;
    let sending = async {
        for n in (0..LETTERS).step_by(20) {
            let letters: Vec<Letter> = (n..n + 20).map(|n| letter(&host, n)).collect();
            while let Err(error) = sender.publish(letters.clone()).await {
                assert!(matches!(error, BusError::Away(_)), "{error}");
                tokio::task::yield_now().await;
            }
        }
    };
    let taking = async {
        let mut missing: BTreeSet<u64> = (0..LETTERS).collect();
        while !missing.is_empty() {
            for delivery in consumer.next(64).await.expect("letters come") {
                missing.remove(&delivery.letter.seq);
                let _ = consumer.ack(vec![delivery.token]).await;
            }
        }
    };
    let killing = async {
        for _ in 0..2 {
            restart(&rig.broker).await;
        }
    };
    within("everything", async { tokio::join!(sending, taking, killing) }).await;
    assert!(taker.status().reconnects > 0);
    let back = async {
        loop {
            match taker.comebacks() {
                Some(comebacks) => return comebacks,
                None => tokio::task::yield_now().await,
            }
        }
    };
    assert!(within("the bus to be back", back).await > 0);
    taker.close().await;
    sender.close().await;
}

async fn restart(broker: &Arc<RabbitMq>) {
    broker.eval("[dets:sync(T) || T <- dets:all()].").await;
    broker.kill().await;
    broker.start_again().await;
}

/// A bus whose first node of the broker takes connections and says nothing starts by way of the next one.
pub async fn a_node_that_says_nothing_keeps_nobody_from_starting(mut rig: Rig) {
    let silent = Proxy::to(&rig.broker.address(0)).await;
    silent.hold().await;
    rig.options.urls.insert(0, rig.broker.url_by(&silent.addr(), "%2f"));
    rig.options.connect_timeout = std::time::Duration::from_secs(3);
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    bus.publish(vec![letter(&host, 1)]).await.unwrap();
    let came = take(&mut *consumer, 1).await;
    ack(&mut *consumer, &came).await;
    bus.close().await;
}

/// One of three nodes is lost, and with it the queue of the dead letters that people look at: a bus starts by way of the others, and letters come.
pub async fn a_lost_node_keeps_nobody_from_starting(mut rig: Rig) {
    // The queue stands where it was asked for first.
    rig.bus().await.close().await;
    rig.broker.kill_node(0).await;
    rig.options.urls = (1..3).map(|node| rig.broker.url(node, "%2f")).collect();
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    bus.publish(vec![letter(&host, 1)]).await.unwrap();
    let came = take(&mut *consumer, 1).await;
    ack(&mut *consumer, &came).await;
    bus.close().await;
}

/// A broker whose certificate nobody vouches for hears no password; one that is trusted is used, and asked for its version.
pub async fn only_who_is_trusted_is_talked_to(mut rig: Rig) {
    assert!(rig.options.urls[0].starts_with("amqps://"));
    let mut wary = rig.options.clone();
    wary.connect_timeout = std::time::Duration::from_secs(3);
    let refused =
        RabbitBus::connect(wary).await.expect_err("the system does not know this authority");
    let password = rig.options.urls[0].split([':', '@']).nth(2).unwrap().to_owned();
    assert!(!refused.to_string().contains(&password), "{refused}");
    rig.options.ca_file = Some(rig.broker.authority().to_owned());
    let bus = rig.bus().await;
    let host = some_host();
    let mut consumer = bus.consume(host.clone()).await.unwrap();
    bus.publish(vec![letter(&host, 1)]).await.unwrap();
    let came = take(&mut *consumer, 1).await;
    ack(&mut *consumer, &came).await;
    let probe = bus.probe().await.unwrap();
    assert!(probe.version.is_some() && probe.missing.is_empty(), "{probe:?}");
    assert!(!format!("{bus:?} {probe:?}").contains(&password));
    bus.close().await;
}
