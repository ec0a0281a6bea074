//! What the disk, SQLite and the servers do by themselves, in the same minute: machines are noisy.

use super::report::{Figure, percentile};
use crate::cluster::{Settings, connect};
use anyhow::{Context, Result};
use segue_bus::rabbitmq::RabbitBus;
use segue_store::postgres;
use serde_json::{Value, json};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

/// Syncs measured.
const SYNCS: usize = 400;
/// Bytes written before each sync: a page of the database's log.
const SYNC_BYTES: usize = 4_096;

/// What the servers of a cluster say of themselves: versions, what is synced, and how long an answer takes.
pub async fn servers(settings: &Settings) -> Result<Value> {
    connect::choose_tls();
    let database = postgres::examine(&connect::postgres_options(settings)?).await?;
    let project = settings.project.as_ref().context("the file names no [project]")?.id;
    let bus = RabbitBus::connect(connect::rabbit_options(settings, project)).await?;
    let broker = bus.probe().await;
    bus.close().await;
    let broker = broker?;
    let ms = |took: std::time::Duration| (took.as_secs_f64() * 1e6).round() / 1e3;
    Ok(json!({
        "postgres": {
            "version": database.version, "fsync": database.syncs, "round_trip_ms": ms(database.round_trip),
            "synchronous_standbys": database.synchronous_standbys, "lanes": settings.postgres.as_ref().map(|it| it.lanes),
        },
        "rabbitmq": { "version": broker.version, "round_trip_ms": ms(broker.round_trip) },
        "redis": settings.redis.is_some(),
    }))
}

/// Probes the disk of this folder.
pub fn probe(base: &Path) -> Result<Vec<Figure>> {
    let folder = tempfile::Builder::new().prefix("segue-probe-").tempdir_in(base)?;
    let syncs = fdatasync_ms(folder.path())?;
    let setup = json!({ "syncs": SYNCS, "bytes": SYNC_BYTES });
    let rows = segue_store::sqlite::probe_rows_per_s(folder.path()).context("SQLite probe")?;
    Ok(vec![
        Figure::new(
            "probe",
            "fdatasync_p50_ms",
            "ms",
            vec![percentile(&syncs, 0.5)],
            setup.clone(),
        ),
        Figure::new("probe", "fdatasync_p99_ms", "ms", vec![percentile(&syncs, 0.99)], setup),
        Figure::new(
            "probe",
            "sqlite_rows_per_s",
            "1/s",
            vec![rows],
            json!({ "batch": 500, "row_bytes": 200 }),
        ),
    ])
}

fn fdatasync_ms(folder: &Path) -> Result<Vec<f64>> {
    let mut file = std::fs::File::create(folder.join("sync"))?;
    file.set_len(1 << 20)?;
    file.sync_all()?;
    let page = [7; SYNC_BYTES];
    let mut took = Vec::with_capacity(SYNCS);
    for place in 0..SYNCS {
        file.seek(SeekFrom::Start((place * SYNC_BYTES % (1 << 20)) as u64))?;
        file.write_all(&page)?;
        let began = Instant::now();
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(took)
}
