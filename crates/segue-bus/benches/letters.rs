//! What a letter costs on the in-process bus: publish -> next -> ack, in one thread and between threads. `cargo bench -p segue-bus`.
#![allow(clippy::print_stdout)]

use segue_bus::in_process::InProcessBus;
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
}

/// The median and the least: on a busy machine the least says more about the code.
fn runs(mut run: impl FnMut() -> Duration) -> String {
    let mut runs: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    runs.sort_unstable();
    format!("{:.1?} (least {:.1?})", runs[RUNS / 2], runs[0])
}

fn letters(to: &Address) -> Vec<Letter> {
    let body = serde_json::json!({ "text": "x".repeat(180) });
    let payload = Payload::of(&body).unwrap_or_else(|_| Payload::null());
    (0..LETTERS as u128)
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
