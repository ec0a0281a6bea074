//! The workloads W1 to W5, each on a rig of its own.

use super::rig::{AGENTS, Ground, PAYLOAD_BYTES, Rig, SLOTS, noop, single};
use anyhow::{Context, Result};
use segue_core::command::NewTask;
use segue_core::ids::TaskId;
use segue_core::task::Need;
use segue_engine::workflow::new_task_id;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Callers of W1 and W5, and the submits that each hands over at a time.
const CALLERS: usize = 4;
const BATCH: usize = 256;

/// How the rig is set up, for the report.
pub fn setup() -> Value {
    json!({ "agents": AGENTS, "slots_each": SLOTS, "payload_bytes": PAYLOAD_BYTES })
}

/// How W1 and W5 submit, for the report.
pub fn batch_setup(tasks: usize) -> Value {
    json!({ "tasks": tasks, "callers": CALLERS, "batch": BATCH, "agents": AGENTS, "slots_each": SLOTS, "payload_bytes": PAYLOAD_BYTES })
}

/// Independent tasks: submits and completed tasks per second.
pub struct Rates {
    /// Submits per second until the last one was durable.
    pub submit_per_s: f64,
    /// Tasks per second from the first submit until the last one was durably completed.
    pub tasks_per_s: f64,
}

/// W1: so many independent tasks, from the first submit until the last is durably completed.
pub async fn w1(ground: &Ground, tasks: usize) -> Result<Rates> {
    let rig = Rig::start(ground).await?;
    let began = Instant::now();
    let submitted = submit_all(&rig, tasks).await?;
    rig.seen.reached(tasks).await;
    rig.all_written(tasks as u64).await?;
    let all = began.elapsed();
    rig.finish(tasks as u64).await?;
    Ok(Rates {
        submit_per_s: tasks as f64 / submitted.as_secs_f64(),
        tasks_per_s: tasks as f64 / all.as_secs_f64(),
    })
}

/// Submits from several callers at once, each a batch at a time. Returns how long that took.
async fn submit_all(rig: &Rig, tasks: usize) -> Result<Duration> {
    let began = Instant::now();
    let left = Arc::new(AtomicUsize::new(tasks));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (left, engine) = (left.clone(), rig.node.engine.clone());
        callers.spawn(async move {
            loop {
                let mut batch = 0;
                let _ = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    batch = left.min(BATCH);
                    Some(left - batch)
                });
                if batch == 0 {
                    return anyhow::Ok(());
                }
                let submits = (0..batch).map(|_| single()).collect();
                for decision in engine.submit_batch(submits).await? {
                    decision?;
                }
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(began.elapsed())
}

/// W2: open loop at so many tasks a second. Milliseconds from the call of submit to the start of the agent, per task.
pub async fn w2(ground: &Ground, per_s: u32, seconds: u32) -> Result<Vec<f64>> {
    let rig = Rig::start(ground).await?;
    let count = (per_s * seconds) as usize;
    let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / f64::from(per_s)));
    let mut calls = tokio::task::JoinSet::new();
    let mut called = Vec::with_capacity(count);
    for _ in 0..count {
        beat.tick().await;
        let id = new_task_id();
        rig.seen.starts.lock().insert(id, None);
        called.push((id, Instant::now()));
        let engine = rig.node.engine.clone();
        calls.spawn(async move { engine.submit(vec![noop(id)]).await });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    rig.seen.reached(count).await;
    rig.all_written(count as u64).await?;
    let starts = std::mem::take(&mut *rig.seen.starts.lock());
    rig.finish(count as u64).await?;
    called
        .into_iter()
        .map(|(id, at)| {
            let start = starts.get(&id).copied().flatten().context("a task never started")?;
            Ok(start.duration_since(at).as_secs_f64() * 1_000.0)
        })
        .collect()
}

/// Three tasks, each needing the one before.
fn chain() -> (Vec<NewTask>, TaskId) {
    let ids = [new_task_id(), new_task_id(), new_task_id()];
    let tasks = ids
        .iter()
        .enumerate()
        .map(|(place, id)| {
            let mut task = noop(*id);
            if let Some(before) = place.checked_sub(1) {
                task.spec.needs.push(Need { task: ids[before], name: None, order_only: false });
            }
            task
        })
        .collect();
    (tasks, ids[2])
}

/// W3, one at a time: milliseconds from submit until the third task of a chain is durably completed.
pub async fn w3_latency(ground: &Ground, chains: usize) -> Result<Vec<f64>> {
    let rig = Rig::start(ground).await?;
    let mut took = Vec::with_capacity(chains);
    for _ in 0..chains {
        let (tasks, last) = chain();
        let began = Instant::now();
        rig.node.engine.submit(tasks).await?;
        rig.node.engine.wait_for(last).await?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    rig.finish(3 * chains as u64).await?;
    Ok(took)
}

/// W3, many at a time: chains per second.
pub async fn w3_rate(ground: &Ground, chains: usize, at_a_time: usize) -> Result<f64> {
    let rig = Rig::start(ground).await?;
    let began = Instant::now();
    let left = Arc::new(AtomicUsize::new(chains));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..at_a_time {
        let (left, engine) = (left.clone(), rig.node.engine.clone());
        callers.spawn(async move {
            while left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
            {
                let (tasks, last) = chain();
                engine.submit(tasks).await?;
                engine.wait_for(last).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    let took = began.elapsed();
    rig.finish(3 * chains as u64).await?;
    Ok(chains as f64 / took.as_secs_f64())
}

/// W4: one task, then `width` that need it, then one that needs all of them. Seconds from submit to the end.
pub async fn w4(ground: &Ground, width: usize) -> Result<f64> {
    let rig = Rig::start(ground).await?;
    let first = noop(new_task_id());
    let need = |task: TaskId| Need { task, name: None, order_only: false };
    let mut last = noop(new_task_id());
    let mut tasks = vec![first];
    let root = tasks[0].spec.id;
    for _ in 0..width {
        let mut middle = noop(new_task_id());
        middle.spec.needs.push(need(root));
        last.spec.needs.push(need(middle.spec.id));
        tasks.push(middle);
    }
    let end = last.spec.id;
    tasks.push(last);
    let began = Instant::now();
    rig.node.engine.submit(tasks).await?;
    rig.node.engine.wait_for(end).await?;
    let took = began.elapsed().as_secs_f64();
    rig.finish(width as u64 + 2).await?;
    Ok(took)
}

/// What W5 found.
pub struct Backlog {
    /// Submits per second over the whole backlog.
    pub submit_per_s: f64,
    /// Tasks run per second from the head of the backlog.
    pub run_per_s: f64,
    /// Resident memory in MiB at its largest.
    pub rss_mb: f64,
}

/// W5: a backlog of ready tasks for agents that come when it is complete; then the first `run` of it.
pub async fn w5(ground: &Ground, backlog: usize, run: usize) -> Result<Backlog> {
    let rig = Rig::without_agents(ground).await?;
    let submitted = submit_all(&rig, backlog).await?;
    let began = Instant::now();
    rig.register_agents().await?;
    rig.seen.reached(run).await;
    let took = began.elapsed();
    rig.node.engine.stop_assigning();
    let rss_mb = rss_mb(std::process::id(), "VmHWM");
    let ran = rig.seen.runs.load(Ordering::SeqCst) as f64;
    rig.node.stop(Duration::from_secs(10)).await;
    Ok(Backlog {
        submit_per_s: backlog as f64 / submitted.as_secs_f64(),
        run_per_s: ran.min(run as f64) / took.as_secs_f64(),
        rss_mb,
    })
}

/// Memory of a process in MiB: `VmRSS` now, `VmHWM` at its largest. Not a number where the system does not say.
pub fn rss_mb(pid: u32, field: &str) -> f64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with(field))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        })
        .map_or(f64::NAN, |kib| kib / 1_024.0)
}
