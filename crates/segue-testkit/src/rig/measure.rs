//! Servers for a bench: started, described in a `cluster.toml`, and ended with it. What they say of themselves stands below the figures.

use super::member::{quoted, write_private};
use super::verdict::psql;
use crate::servers::{Postgres, PostgresOptions, RabbitMq, Redis};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use uuid::Uuid;

/// What PostgreSQL did while the workloads ran, as one object.
const STATISTICS: &str = include_str!("statistics.sql");
/// Which statements took its time, one object each.
const STATEMENTS: &str = include_str!("statements.sql");

/// Starts PostgreSQL (which syncs), RabbitMQ and Redis, and runs `segue bench` with these words on them. True where it ended well.
/// With `statements`, PostgreSQL also counts what each statement costs, which takes some of its time.
///
/// # Errors
/// When the program cannot be started, or a file cannot be written.
pub async fn bench(
    binary: &Path,
    dir: &Path,
    statements: bool,
    words: &[String],
) -> Result<bool, String> {
    let mut configuration = vec!["shared_buffers = 256MB".into(), "max_wal_size = 2GB".into()];
    if statements {
        configuration.push("shared_preload_libraries = 'pg_stat_statements'".into());
    }
    let synced = PostgresOptions { fsync: true, configuration, ..PostgresOptions::default() };
    let (postgres, rabbit, redis) =
        tokio::join!(Postgres::start_with(synced), RabbitMq::start(), Redis::start());
    let database = postgres.database().await;
    if statements {
        let counted = "CREATE EXTENSION pg_stat_statements".into();
        psql(database.clone(), vec!["--command".into(), counted], None).await?;
    }
    let bodies = dir.join("bodies");
    std::fs::create_dir_all(&bodies).map_err(|error| format!("{}: {error}", bodies.display()))?;
    let text = format!(
        "[project]\nname = \"bench\"\nid = {}\nkey = {}\n[postgres]\nurl = {}\n[rabbitmq]\nurls = [{}]\n[redis]\nurl = {}\n\
         [objects]\nurl = {}\n[node]\nname = \"bench\"\n",
        quoted(&Uuid::new_v4().to_string()),
        quoted(&format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())),
        quoted(&database),
        quoted(&rabbit.vhost().await),
        quoted(&redis.url()),
        quoted(&format!("file://{}", bodies.display())),
    );
    let config = dir.join("cluster.toml");
    write_private(&config, &text).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut command = Command::new(binary);
    command.arg("bench").args(words).arg("--config").arg(&config);
    let ran = tokio::task::spawn_blocking(move || command.status()).await;
    let status = ran
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("{} does not start: {error}", binary.display()))?;
    for question in [Some(STATISTICS), statements.then_some(STATEMENTS)].into_iter().flatten() {
        let asked = vec!["--command".into(), question.into()];
        let said = psql(database.clone(), asked, None).await?;
        writeln!(std::io::stdout(), "{}", said.trim()).map_err(|error| error.to_string())?;
    }
    Ok(status.success())
}
