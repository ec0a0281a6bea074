//! Which workloads run, how often, and what is reported of them.

use super::report::{Figure, Report, percentile};
use super::rig::Ground;
use super::{probe, processes, workloads};
use crate::cluster::Settings;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Every workload that runs unless others are named. W5 takes minutes and is run on request.
const DEFAULT: [&str; 7] = ["probe", "W1", "W2", "W3", "W4", "W6", "W7"];

/// Those of a cluster: W7 is about one process and its children, and the same there.
const CLUSTER: [&str; 6] = ["probe", "W1", "W2", "W3", "W4", "W6"];

/// Arguments of `segue bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Workloads to run: probe, W1 to W7. Without this: all but W5.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    workload: Vec<String>,
    /// Runs of each workload; the value is their median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Folder in which the databases are made: on the disk that is to be measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Tasks of the backlog of W5.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: usize,
    /// Hand work to the node's agents over the bus, as it goes to agents elsewhere
    #[arg(long)]
    over_the_bus: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the workloads and reports; on the servers of a cluster where one is given, each run in a project of its own.
pub async fn run(args: &BenchArgs, cluster: Option<Arc<Settings>>) -> Result<()> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let ground = Ground { dir, cluster, over_the_bus: args.over_the_bus };
    let default: &[&str] = if ground.cluster.is_some() { &CLUSTER } else { &DEFAULT };
    let named: Vec<String> = if args.workload.is_empty() {
        default.iter().map(|name| (*name).to_owned()).collect()
    } else {
        args.workload.clone()
    };
    let report = Report { json: args.json, deployment: ground.deployment() };
    let servers = match &ground.cluster {
        Some(settings) => Some(probe::servers(settings).await?),
        None => None,
    };
    report.machine(servers.as_ref())?;
    for name in &named {
        let figures = match name.to_ascii_lowercase().as_str() {
            "probe" => probe::probe(&ground.dir)?,
            "w1" => w1(args, &ground).await?,
            "w2" => w2(args, &ground).await?,
            "w3" => w3(args, &ground).await?,
            "w4" => w4(args, &ground).await?,
            "w5" => w5(args, &ground).await?,
            "w6" if ground.cluster.is_some() => w6_of_cluster(args, &ground).await?,
            "w6" => w6(args, &ground).await?,
            "w7" => w7(args, &ground).await?,
            _ => bail!(
                "there is no workload `{name}`: they are probe, W1, W2, W3, W4, W5, W6 and W7"
            ),
        };
        for figure in &figures {
            report.figure(figure)?;
        }
    }
    Ok(())
}

async fn w1(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    const TASKS: usize = 10_000;
    let (mut tasks, mut submits) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let rates = workloads::w1(ground, TASKS).await?;
        tasks.push(rates.tasks_per_s);
        submits.push(rates.submit_per_s);
    }
    let setup = workloads::batch_setup(TASKS);
    Ok(vec![
        Figure::new("W1", "tasks_per_s", "1/s", tasks, setup.clone()),
        Figure::new("W1", "submit_per_s", "1/s", submits, setup),
    ])
}

async fn w2(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let took = workloads::w2(ground, 100, 10).await?;
        p50.push(percentile(&took, 0.5));
        p99.push(percentile(&took, 0.99));
    }
    let setup = json!({ "tasks_per_s": 100, "seconds": 10, "rig": workloads::setup() });
    Ok(vec![
        Figure::new("W2", "p50_ms", "ms", p50, setup.clone()),
        Figure::new("W2", "p99_ms", "ms", p99, setup),
    ])
}

async fn w3(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    let (mut p50, mut p99, mut rate) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let took = workloads::w3_latency(ground, 200).await?;
        p50.push(percentile(&took, 0.5));
        p99.push(percentile(&took, 0.99));
        rate.push(workloads::w3_rate(ground, 3_000, 200).await?);
    }
    let one = json!({ "chains": 200, "at_a_time": 1, "length": 3, "rig": workloads::setup() });
    let many = json!({ "chains": 3_000, "at_a_time": 200, "length": 3, "rig": workloads::setup() });
    Ok(vec![
        Figure::new("W3", "p50_ms", "ms", p50, one.clone()),
        Figure::new("W3", "p99_ms", "ms", p99, one),
        Figure::new("W3", "chains_per_s", "1/s", rate, many),
    ])
}

async fn w4(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    let mut seconds = Vec::new();
    for _ in 0..args.runs {
        seconds.push(workloads::w4(ground, 1_000).await?);
    }
    let setup = json!({ "width": 1_000, "rig": workloads::setup() });
    Ok(vec![Figure::new("W4", "seconds", "s", seconds, setup)])
}

async fn w5(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    const RUN: usize = 10_000;
    // The small backlog comes first, so that the largest memory use is that of the large one.
    let mut figures = Vec::new();
    for backlog in [RUN, args.backlog] {
        let (mut submit, mut run, mut rss) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.runs {
            let found = workloads::w5(ground, backlog, RUN).await?;
            submit.push(found.submit_per_s);
            run.push(found.run_per_s);
            rss.push(found.rss_mb);
        }
        let setup =
            json!({ "backlog": backlog, "run": RUN, "submit": workloads::batch_setup(backlog) });
        figures.push(Figure::new("W5", "submit_per_s", "1/s", submit, setup.clone()));
        figures.push(Figure::new("W5", "run_per_s", "1/s", run, setup.clone()));
        figures.push(Figure::new("W5", "rss_mb", "MiB", rss, setup));
    }
    Ok(figures)
}

async fn w6(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    const WATCH: Duration = Duration::from_secs(10);
    let (mut ready, mut rss, mut core) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let idle = processes::w6(&ground.dir, WATCH).await?;
        ready.push(idle.ready_ms);
        rss.push(idle.rss_mb);
        core.push(idle.core_percent);
    }
    let setup = json!({ "watched_s": WATCH.as_secs() });
    Ok(vec![
        Figure::new("W6", "ready_ms", "ms", ready, setup.clone()),
        Figure::new("W6", "rss_mb", "MiB", rss, setup.clone()),
        Figure::new("W6", "idle_core_percent", "%", core, setup),
    ])
}

async fn w6_of_cluster(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    // Three renewals of the lease are in it.
    const WATCH: Duration = Duration::from_secs(30);
    let (mut core, mut statements, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let idle = processes::w6_of_cluster(ground, WATCH).await?;
        core.push(idle.core_percent);
        statements.push(idle.statements_per_s);
        trips.push(idle.round_trips_per_s);
    }
    let setup = json!({ "watched_s": WATCH.as_secs(), "rig": workloads::setup() });
    Ok(vec![
        Figure::new("W6", "idle_core_percent", "%", core, setup.clone()),
        Figure::new("W6", "idle_statements_per_s", "1/s", statements, setup.clone()),
        Figure::new("W6", "idle_round_trips_per_s", "1/s", trips, setup),
    ])
}

async fn w7(args: &BenchArgs, ground: &Ground) -> Result<Vec<Figure>> {
    const TASKS: usize = 500;
    const SLOTS: u32 = 4;
    let mut rate = Vec::new();
    for _ in 0..args.runs {
        rate.push(processes::w7(&ground.dir, TASKS, SLOTS).await?);
    }
    let setup = json!({ "tasks": TASKS, "program": "/bin/true", "slots": SLOTS });
    Ok(vec![Figure::new("W7", "processes_per_s", "1/s", rate, setup)])
}
