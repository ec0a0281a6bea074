//! What a letter costs: publish -> next -> ack, in one thread and between threads. `cargo bench -p segue-bus`. With the URL of a RabbitMQ in
//! `SEGUE_BENCH_RABBITMQ`, the same over that, in a project of its own that is left behind there.
#![allow(clippy::print_stdout)]

use segue_bus::in_process::InProcessBus;
use segue_bus::rabbitmq::{Options, RabbitBus};
use segue_core::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{Address, Letter, LetterBody, Secret, TaskRequest, WIRE_VERSION};
use segue_core::payload::Payload;
use segue_core::ports::{Consumer, WorkBus};
use segue_core::time::Time;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const LETTERS: usize = 10_000;
const RUNS: usize = 21;

fn main() {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return println!("no runtime: {error}"),
    };
    for (batch, max) in [(1, 1), (1, 1_024), (256, 1_024), (LETTERS, 1_024)] {
        let one = runs(|| runtime.block_on(one_thread(batch, max)));
        let two = runs(|| runtime.block_on(two_threads(batch, max)));
        println!(
            "{LETTERS} letters, {batch} a publish, {max} a next: in one task {one}, between two {two}"
        );
    }
    match std::env::var(RABBITMQ) {
        Ok(url) => runtime.block_on(over_rabbitmq(url)),
        Err(_) => println!("{RABBITMQ} names no RabbitMQ, so none was measured"),
    }
}

/// Names the broker to measure.
const RABBITMQ: &str = "SEGUE_BENCH_RABBITMQ";

async fn over_rabbitmq(url: String) {
    let project = format!("bench-{}", Uuid::new_v4().simple());
    let bus = match RabbitBus::connect(Options::new(vec![url], project)).await {
        Ok(bus) => bus,
        Err(error) => return println!("RabbitMQ: {error}"),
    };
    for (publishers, batch) in [(1, 1), (64, 1), (1, 16), (64, 16), (1, 256), (16, 256)] {
        let letters = if publishers == 1 && batch == 1 { 500 } else { 40_000 };
        let cpu = cpu_time();
        let took = between_tasks(&bus, publishers, batch, letters).await;
        let cpu = (cpu_time() - cpu).as_micros() as f64 / letters as f64;
        let rate = letters as f64 / took.as_secs_f64();
        println!(
            "RabbitMQ, {publishers} at a time of {batch} a publish: {rate:.0} letters/s, {cpu:.1} us of processor a letter on this side"
        );
    }
    bus.close().await;
}

/// Several publishers, one after another letter, and one consumer.
async fn between_tasks(
    bus: &Arc<RabbitBus>,
    publishers: usize,
    batch: usize,
    letters: usize,
) -> Duration {
    let to = Address::Host(HostId(Uuid::new_v4()));
    let Ok(mut consumer) = bus.consume(to.clone()).await else { return Duration::MAX };
    let work = batches(some_letters(&to, letters), batch);
    let shares: Vec<Vec<Vec<Letter>>> = (0..publishers)
        .map(|i| work.iter().skip(i).step_by(publishers).cloned().collect())
        .collect();
    let began = Instant::now();
    for share in shares {
        let bus = bus.clone();
        tokio::spawn(async move {
            for letters in share {
                if let Err(error) = bus.publish(letters).await {
                    println!("RabbitMQ: {error}");
                }
            }
        });
    }
    let mut left = letters;
    while left > 0 {
        let Ok(batch) = consumer.next(1_024).await else { return Duration::MAX };
        left -= batch.len();
        let _ = consumer.ack(batch.iter().map(|delivery| delivery.token).collect()).await;
    }
    began.elapsed()
}

/// Processor time of this process, by the system's clock of 100 ticks a second; zero where it cannot be read.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// The median and the least: on a busy machine the least says more about the code.
fn runs(mut run: impl FnMut() -> Duration) -> String {
    let mut runs: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    runs.sort_unstable();
    format!("{:.1?} (least {:.1?})", runs[RUNS / 2], runs[0])
}

fn letters(to: &Address) -> Vec<Letter> {
    some_letters(to, LETTERS)
}

fn some_letters(to: &Address, count: usize) -> Vec<Letter> {
    let body = serde_json::json!({ "text": "x".repeat(180) });
    let payload = Payload::of(&body).unwrap_or_else(|_| Payload::null());
    (0..count as u128)
        .map(|i| Letter {
            seq: i as u64,
            version: WIRE_VERSION,
            from: "segue".into(),
            to: to.clone(),
            task: Some(TaskId(Uuid::from_u128(i))),
            reply_to: None,
            correlation: Some(i),
            causation: None,
            traceparent: None,
            hops: 0,
            at: Time(0),
            body: LetterBody::TaskRequest(Box::new(TaskRequest {
                attempt: AttemptId(Uuid::from_u128(i)),
                number: 1,
                secret: Secret([7; 32]),
                instance: InstanceId(Uuid::nil()),
                incarnation: Incarnation(Uuid::nil()),
                run: TaskId(Uuid::nil()),
                name: "bench".into(),
                capability: None,
                input: payload.clone(),
                run_ms: None,
                workspace: None,
                resume: None,
                state: None,
                team: Vec::new(),
            })),
        })
        .collect()
}

fn batches(letters: Vec<Letter>, size: usize) -> Vec<Vec<Letter>> {
    let mut letters = letters.into_iter();
    std::iter::from_fn(|| Some(letters.by_ref().take(size).collect::<Vec<_>>()))
        .take_while(|batch| !batch.is_empty())
        .collect()
}

async fn drain(consumer: &mut dyn Consumer, max: usize) {
    let mut left = LETTERS;
    while left > 0 {
        let Ok(batch) = consumer.next(max).await else { return };
        left -= batch.len();
        let tokens = batch.iter().map(|delivery| delivery.token).collect();
        drop(batch);
        let _ = consumer.ack(tokens).await;
    }
}

async fn one_thread(batch: usize, max: usize) -> Duration {
    let bus = InProcessBus::new();
    let to = Address::Host(HostId(Uuid::nil()));
    let Ok(mut consumer) = bus.consume(to.clone()).await else { return Duration::MAX };
    let work = batches(letters(&to), batch);
    let began = Instant::now();
    for letters in work {
        let _ = bus.publish(letters).await;
    }
    drain(&mut *consumer, max).await;
    began.elapsed()
}

async fn two_threads(batch: usize, max: usize) -> Duration {
    let bus = InProcessBus::new();
    let to = Address::Host(HostId(Uuid::nil()));
    let Ok(mut consumer) = bus.consume(to.clone()).await else { return Duration::MAX };
    let work = batches(letters(&to), batch);
    let began = Instant::now();
    let sender: Arc<InProcessBus> = bus.clone();
    let sending = tokio::spawn(async move {
        for letters in work {
            let _ = sender.publish(letters).await;
        }
    });
    let receiving = tokio::spawn(async move { drain(&mut *consumer, max).await });
    let _ = tokio::join!(sending, receiving);
    began.elapsed()
}
