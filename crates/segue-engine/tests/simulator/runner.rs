//! Agents that do what the number in their input says: well, slowly, badly, or through others.
// tidy: allow-file(sleep) simulated time: tokio's clock is paused, nobody waits for real

use parking_lot::Mutex;
use segue_agent::runner::{Control, End, Job, Ran, Runner};
use segue_core::outcome::Delegated;
use segue_core::payload::Payload;
use segue_core::ports::Fut;
use segue_core::retry::RetryPolicy;
use segue_core::task::{ErrorClass, OnFailure, Route, TaskError, Timeouts, Usage};
use segue_testkit::faults::{Dice, Life};
use segue_testkit::simulator::Seen;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Plays every agent of one host, as long as that lives.
pub struct Scripted {
    pub life: Life,
    pub seen: Arc<Mutex<Seen>>,
}

impl Runner for Scripted {
    fn run(&self, job: Job) -> Fut<'_, Ran> {
        let attempt = job.attempt.parse().expect("an id");
        *self.seen.lock().ran.entry(attempt).or_insert(0) += 1;
        Box::pin(async move {
            tokio::select! {
                biased;
                // A process that died says nothing any more.
                () = self.life.ended() => std::future::pending().await,
                ran = act(job) => ran,
            }
        })
    }
}

/// How one attempt goes.
struct Plan {
    takes_ms: u64,
    notes: u64,
    /// Milliseconds after which it gives up when it is told to; `None` where it does not listen.
    heeds_ms: Option<u64>,
    obeys_limit: bool,
    end: End,
}

async fn act(mut job: Job) -> Ran {
    let mut plan = plan(&job);
    let mut end_at = Instant::now() + Duration::from_millis(plan.takes_ms);
    if let Some(limit) = job.run_ms.filter(|limit| plan.obeys_limit && *limit < plan.takes_ms) {
        end_at = Instant::now() + Duration::from_millis(limit);
        plan.end = fail(ErrorClass::Timeout, None);
    }
    if plan.takes_ms > 0 {
        job.control.started(None);
    }
    for note in 0..plan.notes {
        job.control.progress(&json!({ "note": note }));
    }
    if end_at > Instant::now() {
        tokio::select! {
            biased;
            () = sleep_until(end_at) => {}
            () = told_to_end(&mut job.control, plan.heeds_ms) => plan.end = End::Cancelled,
        }
    }
    let used = Usage { output_tokens: 7, ..Usage::default() };
    Ran { usage: (plan.takes_ms % 2 == 1).then_some(used), ..Ran::plain(plan.end) }
}

async fn told_to_end(control: &mut Control, heeds_ms: Option<u64>) {
    let Some(ms) = heeds_ms else { return std::future::pending().await };
    control.cancelled().await;
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
}

fn plan(job: &Job) -> Plan {
    let input: Value = serde_json::from_str(&job.input).expect("the input is JSON");
    let b = input["b"].as_u64().unwrap_or(0);
    let depth = input["depth"].as_u64().unwrap_or(0);
    // The character of a task is that of all its attempts.
    let character = Dice::new(b).roll(100);
    let mut dice = Dice::new(b ^ (u64::from(job.number) << 40) ^ 0x5e9e);
    let takes_ms = match dice.roll(20) {
        0..=9 => 0,
        10..=15 => dice.between(1, 500),
        16..=18 => dice.between(500, 5_000),
        _ => dice.between(10_000, 90_000),
    };
    let end = match character {
        0..=24 if depth > 0 => delegate(job, depth, &mut dice),
        0..=64 => complete(job, b, &mut dice),
        65..=79 if dice.roll(2) == 0 => complete(job, b, &mut dice),
        65..=79 => {
            let classes = [
                ErrorClass::Transient,
                ErrorClass::RateLimited,
                ErrorClass::Timeout,
                ErrorClass::InvalidOutput,
            ];
            let class = classes[dice.roll(4) as usize];
            let wait = class == ErrorClass::RateLimited && dice.roll(2) == 0;
            fail(class, wait.then(|| dice.between(1, 30_000)))
        }
        80..=83 => fail(ErrorClass::Permanent, None),
        84..=86 => {
            // No class for a program to choose; it may, all the same.
            let odd = [
                ErrorClass::Lost,
                ErrorClass::Upstream,
                ErrorClass::Skipped,
                ErrorClass::Cancelled,
                ErrorClass::Template,
            ];
            fail(odd[dice.roll(5) as usize], None)
        }
        87 | 88 => End::Complete("this is no JSON".into()),
        89 => End::Cancelled,
        _ => complete(job, b, &mut dice),
    };
    Plan {
        takes_ms,
        notes: if dice.roll(5) == 0 { dice.roll(3) } else { 0 },
        heeds_ms: (dice.roll(4) > 0).then(|| if dice.roll(2) == 0 { 0 } else { dice.roll(2_000) }),
        obeys_limit: dice.roll(3) > 0,
        end,
    }
}

fn complete(job: &Job, b: u64, dice: &mut Dice) -> End {
    let list: Vec<u64> = (0..b % 4).collect();
    let mut output = json!({ "n": b % 10, "list": list, "attempt": job.number });
    if dice.per_mille(10) {
        // Too large for a row.
        output["large"] = Value::String("x".repeat(70_000));
    }
    End::Complete(output.to_string())
}

fn fail(class: ErrorClass, retry_after_ms: Option<u64>) -> End {
    End::Fail { error: TaskError::new(class, format!("{class:?} by script")), retry_after_ms }
}

/// How often the task has been resumed, as its own continuation tells.
fn round(job: &Job) -> u64 {
    let continuation = job.resume.as_ref().and_then(|resume| resume.continuation.as_ref());
    let value: Option<Value> =
        continuation.and_then(|it| serde_json::from_str(it.text().unwrap_or("null")).ok());
    value.and_then(|value| value["round"].as_u64()).unwrap_or(0)
}

/// Hands out parts, waits for them or not, and hands out more now and then.
fn delegate(job: &Job, depth: u64, dice: &mut Dice) -> End {
    let round = round(job);
    if job.resume.is_some() && (round >= 3 || dice.roll(3) > 0) {
        return complete(job, round, dice);
    }
    let count = dice.between(1, 4);
    let mut tasks = Vec::new();
    for number in 0..count {
        let needs: Vec<Arc<str>> = (0..number)
            .filter(|_| dice.roll(3) == 0)
            .map(|need| format!("r{round}p{need}").into())
            .collect();
        let mut input = json!({ "b": dice.roll(1 << 32), "depth": depth - 1 });
        let template = dice.roll(3) == 0;
        if let (true, Some(need)) = (template, needs.first()) {
            input["seen"] = Value::String(format!("{{{{ tasks.{need}.output }}}}"));
        }
        let routes = [
            Route::agent("a"),
            Route::agent("b"),
            Route::agent("c"),
            Route::capability("work"),
            Route::capability("rare"),
        ];
        let policies = [OnFailure::Fail, OnFailure::Skip, OnFailure::Continue];
        let part = Delegated {
            key: format!("r{round}p{number}").into(),
            name: None,
            route: routes[dice.roll(5) as usize].clone(),
            input: Payload::null(),
            needs,
            priority: None,
            on_failure: policies[dice.roll(3) as usize],
            retry: RetryPolicy { attempts: 2, base_ms: 300, ..RetryPolicy::default() },
            timeouts: Timeouts::default(),
            workspace: None,
            template,
            state_keys: Vec::new(),
        };
        tasks.push((part, input.to_string()));
    }
    let continuation = (dice.roll(4) > 0).then(|| json!({ "round": round + 1 }).to_string());
    End::Delegate { tasks, resume: dice.roll(3) > 0, continuation }
}
