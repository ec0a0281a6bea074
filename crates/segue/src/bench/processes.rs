//! W6 and W7: what a node costs that does nothing, and how many processes it starts.

use super::rig::{Ground, Rig};
use super::workloads::rss_mb;
use crate::agents;
use crate::node::{Node, NodeOptions};
use crate::project::Project;
use anyhow::{Context, Result, bail};
use segue_agent::process::Launcher;
use segue_core::command::{NewTask, Submit};
use segue_core::payload::Payload;
use segue_core::task::{Route, TaskSpec, TaskState};
use segue_engine::workflow::new_task_id;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What W6 found.
pub struct Idle {
    /// From the start of the process until it answers on its socket, in milliseconds.
    pub ready_ms: f64,
    /// Resident memory in MiB.
    pub rss_mb: f64,
    /// Processor time used, in percent of one core.
    pub core_percent: f64,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// W6: `segue up` on an empty project, watched for so long.
pub async fn w6(base: &Path, watch: Duration) -> Result<Idle> {
    let folder = tempfile::Builder::new().prefix("segue-idle-").tempdir_in(base)?;
    std::fs::write(folder.path().join("segue.toml"), "[claude]\nenabled = false\n")?;
    let socket = folder.path().join(".segue/node.sock");
    let began = Instant::now();
    let child = Command::new(std::env::current_exe()?)
        .arg("up")
        .arg("--project")
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a node")?;
    let mut child = Ended(child);
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        if began.elapsed() > Duration::from_secs(10) || child.0.try_wait()?.is_some() {
            bail!("the node did not listen on {} within 10 s", socket.display());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ready_ms = began.elapsed().as_secs_f64() * 1_000.0;
    let pid = child.0.id();
    // The first seconds are the start, not idleness.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, at) = (cpu_seconds(pid)?, Instant::now());
    tokio::time::sleep(watch).await;
    let used = cpu_seconds(pid)? - before;
    Ok(Idle {
        ready_ms,
        rss_mb: rss_mb(pid, "VmRSS"),
        core_percent: 100.0 * used / at.elapsed().as_secs_f64(),
    })
}

/// What W6 found of a node of a cluster.
pub struct IdleNode {
    /// Processor time used by the whole process, in percent of one core.
    pub core_percent: f64,
    /// Statements that PostgreSQL was sent in a second.
    pub statements_per_s: f64,
    /// Round trips to it in a second.
    pub round_trips_per_s: f64,
}

/// W6 on a cluster: a node with agents and nothing to do, in this process, watched for so long.
pub async fn w6_of_cluster(ground: &Ground, watch: Duration) -> Result<IdleNode> {
    let rig = Rig::start(ground).await?;
    // The first seconds are the start, not idleness.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let traffic = || rig.node.base.backend.traffic().context("the tables are in a file");
    let (pid, at) = (std::process::id(), Instant::now());
    let (cpu, before) = (cpu_seconds(pid)?, traffic()?);
    tokio::time::sleep(watch).await;
    let (cpu, after) = (cpu_seconds(pid)? - cpu, traffic()?);
    let seconds = at.elapsed().as_secs_f64();
    rig.finish(0).await?;
    Ok(IdleNode {
        core_percent: 100.0 * cpu / seconds,
        statements_per_s: (after.1 - before.1) as f64 / seconds,
        round_trips_per_s: (after.0 - before.0) as f64 / seconds,
    })
}

/// Processor time of a process so far, from its scheduler statistics (nanoseconds, all threads).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(entry?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += stat.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

/// W7: so many tasks for an agent that is `/bin/true`. Processes per second, supervisors and accounting included.
pub async fn w7(base: &Path, tasks: usize, slots: u32) -> Result<f64> {
    let folder = tempfile::Builder::new().prefix("segue-processes-").tempdir_in(base)?;
    let config = format!(
        "[claude]\nenabled = false\n[[agent]]\nname = \"true\"\ncommand = [\"/bin/true\"]\nresult = \"text\"\nmax_concurrency = {slots}\n"
    );
    std::fs::write(folder.path().join("segue.toml"), config)?;
    let project = Project::open_or_make(folder.path())?;
    let team = agents::Team::load(folder.path(), None)?;
    let hosted = agents::hosted(&team, &project, &Launcher::this_binary())?;
    let lock = project.lock()?;
    let node = Node::start(project, lock, hosted, NodeOptions::default()).await?;
    let submits: Vec<Submit> = (0..tasks)
        .map(|_| {
            let spec = TaskSpec::new(new_task_id(), "true", Route::agent("true"));
            Submit { tasks: vec![NewTask { spec, input: Payload::null() }] }
        })
        .collect();
    let ids: Vec<_> = submits.iter().map(|submit| submit.tasks[0].spec.id).collect();
    let began = Instant::now();
    node.engine.submit_batch(submits).await?;
    for id in ids {
        let task = node.engine.wait_for(id).await?;
        if task.state != TaskState::Completed {
            bail!("task {id} is {}: {:?}", task.state, task.error);
        }
    }
    let took = began.elapsed();
    node.stop(Duration::from_secs(5)).await;
    Ok(tasks as f64 / took.as_secs_f64())
}
