//! Asks the database, by PostgreSQL's own client: nothing of the engine or the store takes part.

use super::place::Place;
use super::report::Finding;
use std::path::Path;
use std::process::Command;

/// The check: the same as docs/chaos-check-cluster.sql.
pub const SCRIPT: &str = include_str!("../../../../docs/chaos-check-cluster.sql");
/// Its name in the folder of a run.
pub const SCRIPT_FILE: &str = "chaos-check-cluster.sql";
/// The bodies outside the database that are what their names say.
pub const BODIES_FILE: &str = "bodies.txt";
/// The database as the run left it, as statements.
pub const DATABASE_FILE: &str = "database.sql";
/// Lists the bodies.
const BODIES: &str = include_str!("bodies.py");
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

/// Lists the bodies of a run, keeps a copy of its database, and counts.
pub async fn check(place: &Place, dir: &Path) -> Result<Vec<Finding>, String> {
    let bodies = place.s3.ask(BODIES, &[&place.bucket, "bodies/"]).await;
    std::fs::write(dir.join(BODIES_FILE), bodies)
        .map_err(|error| format!("cannot write {BODIES_FILE}: {error}"))?;
    let url = place.primary.lock().await.url(&place.database);
    let words = ["--no-owner", "--file", DATABASE_FILE].map(str::to_owned).to_vec();
    client("pg_dump", url.clone(), words, Some(dir)).await?;
    recount(url, dir, "").await
}

/// Puts the database that a run left into an empty one.
///
/// # Errors
/// When it cannot be read or written.
pub async fn restore(url: String, dir: &Path) -> Result<(), String> {
    let words = ["--set", "ON_ERROR_STOP=1", "--file", DATABASE_FILE].map(str::to_owned);
    psql(url, words.to_vec(), Some(dir)).await.map(drop)
}

/// Counts what a run left, from the files in its folder and a database that holds what it left. What these statements change before counts, and does not
/// stay.
///
/// # Errors
/// When a file is missing, or the database cannot be read or changed.
pub async fn recount(url: String, dir: &Path, before: &str) -> Result<Vec<Finding>, String> {
    let begin = format!("BEGIN; SET LOCAL search_path = segue, public; {before}");
    let words = ["--set", "ON_ERROR_STOP=1", "--command", &begin, "--file", SCRIPT_FILE];
    let arguments = words.map(str::to_owned).to_vec();
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
    let mut words =
        ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"].map(str::to_owned).to_vec();
    words.extend(arguments);
    client("psql", url, words, dir).await
}

/// What one of PostgreSQL's own clients prints.
async fn client(
    program: &'static str,
    url: String,
    arguments: Vec<String>,
    dir: Option<&Path>,
) -> Result<String, String> {
    let dir = dir.map(Path::to_owned);
    let done = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program);
        command.arg("--no-password");
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
        format!("{program} does not start: {error}; install Debian's package postgresql-client")
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
    use crate::servers::S3;

    #[tokio::test]
    async fn on_s3_a_body_that_is_not_what_its_name_says_is_left_out() {
        let s3 = S3::start().await;
        let bucket = s3.bucket().await;
        let put = "import boto3, hashlib, sys\nput = boto3.client('s3').put_object\n\
            for body, said in ((b'{\"attempt\":\"a\"}', b'{\"attempt\":\"a\"}'), (b'[1]', b'[1]'), (b'cut', b'cut off')):\n    \
            name = hashlib.sha256(said).hexdigest()\n    \
            put(Bucket=sys.argv[1], Key=f'bodies/bodies/{name[:2]}/{name}/1', Body=body)";
        s3.ask(put, &[&bucket]).await;
        let listed = s3.ask(BODIES, &[&bucket, "bodies/"]).await;
        let mut rows: Vec<Vec<&str>> =
            listed.lines().map(|line| line.split('\t').skip(1).collect()).collect();
        rows.sort_unstable();
        assert_eq!(rows, [["15", "a"], ["3", "-"]]);
    }

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
