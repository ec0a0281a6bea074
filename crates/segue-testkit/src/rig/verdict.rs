//! Asks the database, by PostgreSQL's own client: nothing of the engine or the store takes part.

use super::place::Place;
use super::report::Finding;
use std::path::Path;
use std::process::Command;

/// The check: the same as docs/chaos-check-cluster.sql.
pub const SCRIPT: &str = include_str!("../../../../docs/chaos-check-cluster.sql");
/// Its name in the folder of a run.
pub const SCRIPT_FILE: &str = "chaos-check-cluster.sql";
const PROGRESS: &str = include_str!("progress.sql");

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tasks in the database.
    pub tasks: u64,
    /// Those that are terminal.
    pub ended: u64,
    /// The cursor of the last event.
    pub cursor: u64,
    /// Letters and duties that are left.
    pub left: u64,
}

/// Looks how far it is. An error says that the database is away just then.
pub async fn progress(place: &Place) -> Result<Progress, String> {
    let url = place.primary.lock().await.url(&place.database);
    let lines = psql(url, vec!["--command".into(), PROGRESS.into()], None).await?;
    let numbers: Vec<u64> =
        lines.trim().split('|').filter_map(|word| word.trim().parse().ok()).collect();
    match numbers[..] {
        [tasks, ended, cursor, left] => Ok(Progress { tasks, ended, cursor, left }),
        _ => Err(format!("psql says {lines}")),
    }
}

/// Runs the check in the folder of a run.
pub async fn check(place: &Place, dir: &Path) -> Result<Vec<Finding>, String> {
    let url = place.primary.lock().await.url(&place.database);
    let arguments = vec!["--file".into(), dir.join(SCRIPT_FILE).to_string_lossy().into_owned()];
    let text = psql(url, arguments, Some(dir)).await?;
    let findings: Vec<Finding> = text.lines().filter_map(Finding::read).collect();
    match findings.is_empty() {
        true => Err(format!("the check counted nothing: {text}")),
        false => Ok(findings),
    }
}

/// What psql prints.
pub(super) async fn psql(
    url: String,
    arguments: Vec<String>,
    dir: Option<&Path>,
) -> Result<String, String> {
    let dir = dir.map(Path::to_owned);
    let done = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password"]);
        // The address, and with it the password, stands in the environment, where no list of processes shows it.
        let (address, password) = apart(&url);
        command.args(arguments).arg("--dbname").arg(address).env("PGPASSWORD", password);
        command.env("PGCONNECT_TIMEOUT", "5");
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        command.output()
    });
    let output = done.await.map_err(|error| error.to_string())?;
    let output = output.map_err(|error| {
        format!("psql does not start: {error}; install Debian's package postgresql-client")
    })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// A URL without its password, and the password.
fn apart(url: &str) -> (String, String) {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (user, hosts) = rest.split_once('@')?;
        let (user, password) = user.split_once(':')?;
        Some((format!("{scheme}://{user}@{hosts}"), password.to_owned()))
    });
    parts.unwrap_or_else(|| (url.to_owned(), String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_taken_out_of_it() {
        let (url, password) = apart("postgresql://a:secret@h1:1,h2:2/db?x=y");
        assert_eq!(
            (url.as_str(), password.as_str()),
            ("postgresql://a@h1:1,h2:2/db?x=y", "secret")
        );
        assert_eq!(apart("postgresql://h/db"), ("postgresql://h/db".into(), String::new()));
    }
}
