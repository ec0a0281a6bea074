//! What the disk and SQLite do by themselves, in the same minute: machines are noisy.

use super::report::{Figure, percentile};
use anyhow::{Context, Result};
use serde_json::json;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

/// Syncs measured.
const SYNCS: usize = 400;
/// Bytes written before each sync: a page of the database's log.
const SYNC_BYTES: usize = 4_096;

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
