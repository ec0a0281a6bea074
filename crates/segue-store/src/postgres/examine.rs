//! What `segue doctor` asks of PostgreSQL.

use super::cells::read;
use super::line::{Ask, Target};
use super::options::Options;
use super::trouble::Trouble;
use segue_core::ports::StoreError;
use std::time::{Duration, Instant};

/// What the server said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Its version, in its own words.
    pub version: String,
    /// How long a question and its answer took.
    pub round_trip: Duration,
    /// Its clock, in milliseconds since 1970.
    pub now_ms: i64,
    /// Whether it syncs what it commits.
    pub syncs: bool,
    /// Standbys that follow it, as far as the user may see them.
    pub standbys: i64,
    /// Those of them for which a commit waits. A user who may not see how they follow goes by the setting.
    pub synchronous_standbys: i64,
    /// Whether the tables of Segue are there already.
    pub has_tables: bool,
}

/// Asks the server, and changes nothing.
///
/// # Errors
/// When it cannot be reached, or the settings cannot be right.
pub async fn examine(options: &Options) -> Result<Examined, StoreError> {
    let target = Target::of(options).map_err(|failure| failure.of(&"PostgreSQL"))?;
    let place = target.place.clone();
    asked(&target).await.map_err(|trouble| trouble.failure().of(&place))
}

async fn asked(target: &Target) -> Result<Examined, Trouble> {
    let line = target.open([], "").await?;
    // The first question also prepares the statement; the second one shows what a trip costs.
    line.ask(Ask::new("SELECT 1")).await?;
    let began = Instant::now();
    line.script("SELECT 1").await?;
    let round_trip = began.elapsed();
    let sql = "SELECT current_setting('server_version'), \
               (extract(epoch FROM clock_timestamp()) * 1000)::int8, \
               current_setting('fsync') = 'on', \
               (SELECT count(*) FROM pg_stat_replication), \
               (SELECT count(*) FROM pg_stat_replication WHERE CASE WHEN sync_state IS NULL \
                   THEN current_setting('synchronous_standby_names') <> '' ELSE sync_state IN ('sync', 'quorum') END), \
               to_regclass('segue.migrations') IS NOT NULL";
    let rows = line.ask(Ask::new(sql)).await?;
    let Some(row) = rows.first() else { return Err(Trouble::data("it does not say what it is")) };
    Ok(Examined {
        version: read::<String>(row, 0)?,
        round_trip,
        now_ms: read(row, 1)?,
        syncs: read(row, 2)?,
        standbys: read(row, 3)?,
        synchronous_standbys: read(row, 4)?,
        has_tables: read(row, 5)?,
    })
}
