//! Where Redis is: the URL of a server, of the Sentinels that know it, or of a cluster.

use segue_core::ports::SoftError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Servers that a URL names at most.
const SERVERS_MAX: usize = 64;
const PORT: u16 = 6_379;
const SENTINEL_PORT: u16 = 26_379;

/// How Redis is reached. Its `Debug` shows no secret.
#[derive(Clone)]
pub struct Options {
    /// `redis://[user:password@]host[:port][/db]`, `redis+sentinel://[user:password@]host[:port],../master[/db]` or
    /// `redis+cluster://[user:password@]host[:port],..`; `rediss` instead of `redis` is TLS. The Sentinels' own
    /// credentials, where they have any: `?sentinel_user=..&sentinel_password=..`.
    pub url: String,
    /// The certificates to trust (PEM); the system's where there is none.
    pub ca: Option<PathBuf>,
    /// What tells projects apart that share a Redis: letters, digits, `-`, `_` and `.`.
    pub prefix: String,
    /// How long connecting may take.
    pub connect: Duration,
    /// How long a command may take.
    pub command: Duration,
    /// How long the directory remembers whom nobody heard of.
    pub presence_ttl: Duration,
}

impl Options {
    /// The Redis at this URL, for the project of this prefix.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            ca: None,
            prefix: prefix.into(),
            connect: Duration::from_secs(2),
            command: Duration::from_secs(2),
            presence_ttl: Duration::from_millis(crate::soft::PRESENCE_TTL_MS),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &without_secrets(&self.url))
            .field("ca", &self.ca)
            .field("prefix", &self.prefix)
            .field("connect", &self.connect)
            .field("command", &self.command)
            .field("presence_ttl", &self.presence_ttl)
            .finish()
    }
}

/// The URL without credentials and parameters.
pub(super) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".into() };
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{rest}")
}

/// What kind of Redis it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One server.
    Single,
    /// Sentinels know which server is the primary.
    Sentinel,
    /// A cluster.
    Cluster,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Single => "single",
            Mode::Sentinel => "sentinel",
            Mode::Cluster => "cluster",
        })
    }
}

/// A name and a password. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Login::default() { "Login(none)" } else { "Login(..)" })
    }
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub mode: Mode,
    pub tls: bool,
    pub servers: Vec<(String, u16)>,
    pub login: Login,
    pub sentinel_login: Login,
    pub master: String,
    pub db: i64,
}

fn wrong(what: impl fmt::Display) -> SoftError {
    SoftError::Invalid(format!(
        "the URL of Redis {what}; it is redis://[user:password@]host[:port][/db], redis+sentinel://[user:password@]host[:port],../master[/db] or \
         redis+cluster://[user:password@]host[:port],.. (rediss for TLS)"
    ))
}

impl Target {
    /// Takes a URL apart. What it says of a wrong one names no part that may be a secret.
    pub(super) fn parse(url: &str) -> Result<Target, SoftError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let (tls, mode) = match scheme {
            "redis" => (false, Mode::Single),
            "rediss" => (true, Mode::Single),
            "redis+sentinel" => (false, Mode::Sentinel),
            "rediss+sentinel" => (true, Mode::Sentinel),
            "redis+cluster" => (false, Mode::Cluster),
            "rediss+cluster" => (true, Mode::Cluster),
            _ => return Err(wrong("has a scheme that is unknown")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (parse_login(login)?, rest),
            None => (Login::default(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if mode == Mode::Sentinel { SENTINEL_PORT } else { PORT };
        let servers = hosts.split(',').map(|host| parse_server(host, port));
        let servers: Vec<(String, u16)> = servers.collect::<Result<_, _>>()?;
        if servers.len() > SERVERS_MAX || (mode == Mode::Single && servers.len() > 1) {
            return Err(wrong("names too many servers"));
        }
        let (master, db) = match mode {
            Mode::Sentinel => match path.split_once('/').unwrap_or((path, "")) {
                ("", _) => return Err(wrong("names no master after the Sentinels")),
                (master, db) => (decode(master)?, db),
            },
            Mode::Single | Mode::Cluster => (String::new(), path),
        };
        let db = match db {
            "" => 0,
            db => db.parse::<u16>().map_err(|_| wrong("has a database that is no number"))?,
        };
        if mode == Mode::Cluster && db != 0 {
            return Err(wrong("names a database, and a cluster has only one"));
        }
        let sentinel_login = parse_query(query, mode)?;
        Ok(Target { mode, tls, servers, login, sentinel_login, master, db: i64::from(db) })
    }
}

fn parse_login(text: &str) -> Result<Login, SoftError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (decode(user)?, Some(decode(password)?)),
        None => (decode(text)?, None),
    };
    Ok(Login { user: Some(user).filter(|user| !user.is_empty()), password })
}

fn parse_query(query: &str, mode: Mode) -> Result<Login, SoftError> {
    let mut login = Login::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", user)) if mode == Mode::Sentinel => {
                login.user = Some(decode(user)?);
            }
            Some(("sentinel_password", password)) if mode == Mode::Sentinel => {
                login.password = Some(decode(password)?);
            }
            Some(_) | None => return Err(wrong("has a parameter that is unknown")),
        }
    }
    Ok(login)
}

fn parse_server(text: &str, port: u16) -> Result<(String, u16), SoftError> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(|| wrong("has a `[` without a `]`"))?,
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        Some(number) => number.parse().map_err(|_| wrong("has a port that is no number"))?,
        None if rest.is_empty() => port,
        None => return Err(wrong("has something after the `]` of an address")),
    };
    if host.is_empty() {
        return Err(wrong("names no host"));
    }
    Ok((host.to_owned(), port))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, SoftError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?')),
            _ => return Err(wrong("has a `%` without two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_kind_are_taken_apart() {
        let one = Target::parse("redis://localhost").unwrap();
        assert_eq!((one.mode, one.tls, one.db), (Mode::Single, false, 0));
        assert_eq!(one.servers, [("localhost".to_owned(), PORT)]);

        let tls = Target::parse("rediss://:p%40ss%3a@[::1]:7000/3").unwrap();
        assert_eq!((tls.tls, tls.db), (true, 3));
        assert_eq!(tls.servers, [("::1".to_owned(), 7_000)]);
        assert_eq!(tls.login, Login { user: None, password: Some("p@ss:".into()) });

        let url = "redis+sentinel://u:p@a,b:7/main/2?sentinel_user=s&sentinel_password=t";
        let sentinel = Target::parse(url).unwrap();
        assert_eq!((sentinel.mode, &*sentinel.master, sentinel.db), (Mode::Sentinel, "main", 2));
        assert_eq!(sentinel.servers, [("a".to_owned(), SENTINEL_PORT), ("b".to_owned(), 7)]);
        assert_eq!(sentinel.sentinel_login.password.as_deref(), Some("t"));

        let cluster = Target::parse("rediss+cluster://a:1,b:2").unwrap();
        assert_eq!((cluster.mode, cluster.tls, cluster.servers.len()), (Mode::Cluster, true, 2));
    }

    #[test]
    fn a_wrong_url_is_refused_without_showing_what_may_be_secret() {
        for url in [
            "localhost",
            "http://a",
            "redis://",
            "redis://u:hunter2@a:port",
            "redis://u:hunter2@a/b",
            "redis://u:hunter2%4@a",
            "redis://a,b",
            "redis+sentinel://u:hunter2@a",
            "redis+cluster://a/1",
            "redis://a?sentinel_password=hunter2",
            "redis://[::1",
            "redis://[::1]x",
        ] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn nothing_that_is_printed_shows_a_password() {
        let url = "redis+sentinel://u:hunter2@a/main?sentinel_password=hunter3";
        let printed = format!("{:?} {:?}", Options::new(url, "p"), Target::parse(url).unwrap());
        assert!(!printed.contains("hunter"), "{printed}");
        assert!(printed.contains("redis+sentinel://a/main"), "{printed}");
    }
}
