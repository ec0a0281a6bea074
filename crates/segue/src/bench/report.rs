//! Figures as JSON lines, or as a table for people.

use serde_json::{Map, Value, json};
use std::io::Write;

/// One figure of one workload.
pub struct Figure {
    /// `W1` .. `W7`, or `probe`.
    pub workload: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// The unit of the value.
    pub unit: &'static str,
    /// The value of every run, in order.
    pub runs: Vec<f64>,
    /// How it was measured: callers, batch sizes, counts.
    pub setup: Value,
}

impl Figure {
    /// A figure over several runs.
    pub fn new(
        workload: &'static str,
        metric: &'static str,
        unit: &'static str,
        runs: Vec<f64>,
        setup: Value,
    ) -> Figure {
        Figure { workload, metric, unit, runs, setup }
    }

    /// The median of the runs.
    pub fn value(&self) -> f64 {
        median(&self.runs)
    }
}

/// The middle value; the lower of the two middle ones of an even number.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The smallest value that at least this part of the values does not exceed.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Where figures go.
pub struct Report {
    /// One JSON object a line instead of a table.
    pub json: bool,
    /// `embedded` or `cluster`.
    pub deployment: &'static str,
}

impl Report {
    /// Says on what the figures were taken; `servers` is what those of a cluster say of themselves.
    pub fn machine(&self, servers: Option<&Value>) -> std::io::Result<()> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let cpu = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            })
            .unwrap_or_else(|| "unknown".to_owned());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let durability = match servers {
            None => "SQLite WAL, synchronous=FULL: fsynced before the caller is told".to_owned(),
            Some(servers) if servers["postgres"]["fsync"] == true => {
                "PostgreSQL fsync and synchronous_commit on, RabbitMQ quorum queues with confirms: synced before the caller is told".to_owned()
            }
            Some(_) => "PostgreSQL without fsync: figures of it say nothing".to_owned(),
        };
        let facts = json!({
            "workload": "machine", "deployment": self.deployment, "metric": "cores", "value": cores, "unit": "1",
            "cpu": cpu, "kernel": kernel.trim(), "segue": env!("CARGO_PKG_VERSION"),
            "sqlite": segue_store::sqlite::sqlite_version(), "durability": durability, "servers": servers,
            "build": if cfg!(debug_assertions) { "debug: figures of a debug build say nothing" } else { "release" },
        });
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{facts}")
        } else {
            writeln!(
                out,
                "{cores} cores, {cpu}; {}, {}",
                facts["durability"].as_str().unwrap_or(""),
                facts["build"].as_str().unwrap_or("")
            )
        }
    }

    /// Writes one figure.
    pub fn figure(&self, figure: &Figure) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let mut line = Map::new();
            line.insert("workload".into(), figure.workload.into());
            line.insert("deployment".into(), self.deployment.into());
            line.insert("metric".into(), figure.metric.into());
            line.insert("value".into(), rounded(figure.value()));
            line.insert("unit".into(), figure.unit.into());
            line.insert("runs".into(), figure.runs.iter().copied().map(rounded).collect());
            line.insert("setup".into(), figure.setup.clone());
            return writeln!(out, "{}", Value::Object(line));
        }
        let spread: Vec<String> = figure.runs.iter().map(|run| short(*run)).collect();
        writeln!(
            out,
            "{:<6} {:<20} {:>12} {:<6} {}",
            figure.workload,
            figure.metric,
            short(figure.value()),
            figure.unit,
            if spread.len() > 1 { format!("[{}]", spread.join(" ")) } else { String::new() }
        )
    }
}

fn rounded(value: f64) -> Value {
    json!((value * 1_000.0).round() / 1_000.0)
}

fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.0);
        assert_eq!(percentile(&values, 0.99), 4.0);
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert!(median(&[]).is_nan());
    }
}
