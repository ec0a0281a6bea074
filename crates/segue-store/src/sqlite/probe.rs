//! What SQLite does by itself on this disk, for comparison with what the store makes of it.

use rusqlite::{Connection, params};
use segue_core::ports::StoreError;
use std::path::Path;
use std::time::Instant;

/// Rows of one commit.
const BATCH: usize = 500;
/// Commits.
const BATCHES: usize = 40;

/// The version of SQLite that is built in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Rows of 200 bytes per second that one connection appends in commits of 500, each synced.
///
/// # Errors
/// When the database cannot be made in `folder`.
pub fn probe_rows_per_s(folder: &Path) -> Result<f64, StoreError> {
    measure(folder)
        .map_err(|error| StoreError::Io(format!("probe in {}: {error}", folder.display())))
}

fn measure(folder: &Path) -> rusqlite::Result<f64> {
    let mut connection = Connection::open(folder.join("probe.db"))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)", [])?;
    let body = [7_u8; 200];
    let began = Instant::now();
    for _ in 0..BATCHES {
        let batch = connection.transaction()?;
        {
            let mut insert = batch.prepare_cached("INSERT INTO rows (body) VALUES (?1)")?;
            for _ in 0..BATCH {
                insert.execute(params![body.as_slice()])?;
            }
        }
        batch.commit()?;
    }
    Ok((BATCH * BATCHES) as f64 / began.elapsed().as_secs_f64())
}
