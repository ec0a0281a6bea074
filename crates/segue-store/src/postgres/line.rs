//! A connection with its prepared statements. What is asked together travels together: one round trip.

use super::options::{Options, Tls};
use super::trouble::Trouble;
use crate::failure::{Failure, Kind};
use futures_util::future::try_join_all;
use rustc_hash::FxHashMap;
use rustls::{ClientConfig, RootCertStore};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Connection, Row, RowStream, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is added to the longest time of a statement before a connection that says nothing is given up.
const SILENCE_MORE: Duration = Duration::from_secs(5);

/// A value of a statement.
pub(super) type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// A statement with its values.
pub(super) struct Ask<'a> {
    sql: &'a str,
    params: Vec<Param<'a>>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(sql: &'static str) -> Ask<'a> {
        Ask { sql, params: Vec::new() }
    }

    /// A statement that was put together: of names alone, never of values.
    pub(super) fn of_text(sql: &'a str) -> Ask<'a> {
        Ask { sql, params: Vec::new() }
    }

    /// Adds the next value.
    pub(super) fn with(mut self, value: impl ToSql + Sync + Send + 'a) -> Ask<'a> {
        self.params.push(Box::new(value));
        self
    }

    /// Adds a value for each row.
    pub(super) fn column<T: ToSql + Sync + Send + 'a>(
        self,
        values: impl Iterator<Item = T>,
    ) -> Ask<'a> {
        self.with(values.collect::<Vec<T>>())
    }
}

/// What went to the server so far.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) trips: AtomicU64,
    pub(super) statements: AtomicU64,
}

/// Where to connect, and how.
#[derive(Clone)]
pub(super) struct Target {
    config: Config,
    tls: MakeRustlsConnect,
    settings: Arc<str>,
    silence_max: Duration,
    pub(super) traffic: Arc<Traffic>,
    /// The servers and the database, for errors: no user, no password.
    pub(super) place: Arc<str>,
}

type Wire =
    Connection<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>;

impl Target {
    pub(super) fn of(options: &Options) -> Result<Target, Failure> {
        let mut config: Config = plain(&options.url).parse().map_err(|_| {
            // The error of the parser quotes what it does not understand, which may be the password.
            let what = "the URL of PostgreSQL cannot be read: postgresql://USER:PASSWORD@HOST:PORT/DATABASE";
            Failure::new(Kind::Data, what)
        })?;
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(options.connect_timeout)
            .keepalives(true)
            .keepalives_idle(options.keepalive)
            .keepalives_interval(options.keepalive)
            .keepalives_retries(3)
            .tcp_user_timeout(options.keepalive * 3);
        if config.get_application_name().is_none() {
            config.application_name("segue");
        }
        if let Some(mode) = ssl_mode(options, &config) {
            config.ssl_mode(mode);
        }
        let needs_roots = config.get_ssl_mode() != SslMode::Disable;
        let tls = MakeRustlsConnect::new(client_config(&options.tls, needs_roots)?);
        let settings = format!(
            "SET search_path = segue, pg_temp; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET jit = off; SET client_min_messages = warning; SET synchronous_commit = on",
            options.statement_timeout.as_millis(),
            (options.statement_timeout * 2).as_millis(),
        );
        Ok(Target {
            place: place(&config).into(),
            config,
            tls,
            settings: settings.into(),
            silence_max: options.statement_timeout + SILENCE_MORE,
            traffic: Arc::default(),
        })
    }

    /// What is set for every connection.
    #[cfg(test)]
    pub(super) fn settings(&self) -> &str {
        &self.settings
    }

    /// Connects to the first host that takes writes.
    pub(super) async fn connect(&self) -> Result<(Client, Wire), Trouble> {
        let budget = self.config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(5));
        let hosts = u32::try_from(self.config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
        let connecting = self.config.connect(self.tls.clone());
        match tokio::time::timeout(budget.saturating_mul(hosts.saturating_add(1)), connecting).await
        {
            Ok(Ok(both)) => Ok(both),
            Ok(Err(error)) => Err(match Trouble::from(error) {
                // Whatever keeps it from connecting may pass, and is told as it is.
                Trouble::Known(failure) => Trouble::Dead(failure.detail),
                Trouble::Again(detail) => Trouble::Dead(detail),
                other => other,
            }),
            Err(_) => Err(Trouble::Dead("nobody answers there".into())),
        }
    }

    /// Connects, with these statements prepared. `more` are settings of its own.
    pub(super) async fn open(
        &self,
        statements: impl IntoIterator<Item = &'static str>,
        more: &str,
    ) -> Result<Line, Trouble> {
        let (client, wire) = self.connect().await?;
        tokio::spawn(async move {
            if let Err(error) = wire.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        let prepare = async {
            client.batch_execute(&self.settings).await?;
            if !more.is_empty() {
                client.batch_execute(more).await?;
            }
            try_join_all(statements.into_iter().map(|sql| {
                let client = &client;
                async move { Ok::<_, Trouble>((sql, client.prepare(sql).await?)) }
            }))
            .await
        };
        let prepared = tokio::time::timeout(self.silence_max, prepare).await;
        let prepared = prepared.map_err(|_| Trouble::Dead("it says nothing".into()))??;
        Ok(Line {
            client,
            prepared: prepared.into_iter().collect(),
            traffic: self.traffic.clone(),
            silence_max: self.silence_max,
        })
    }
}

/// Whether TLS is used where the URL does not say so: it has to be where somebody named whom to trust, and within this machine it would protect from
/// nobody, while a server's makeshift certificate (Debian makes one) would be refused.
fn ssl_mode(options: &Options, config: &Config) -> Option<SslMode> {
    if options.url.contains("sslmode=") {
        return None;
    }
    match &options.tls {
        Tls::Authorities(_) => Some(SslMode::Require),
        Tls::System if config.get_hosts().iter().all(is_this_machine) => Some(SslMode::Disable),
        Tls::System => None,
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// rustls always checks the certificate, so what libpq calls `verify-full` is what is meant by `require` here.
fn plain(url: &str) -> String {
    url.replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require")
}

fn client_config(tls: &Tls, needs_roots: bool) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match tls {
        _ if !needs_roots => {}
        Tls::System => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        Tls::Authorities(path) => {
            use rustls::pki_types::CertificateDer;
            use rustls::pki_types::pem::PemObject;
            let wrong = |what: String| {
                Failure::new(
                    Kind::Data,
                    format!("{} holds no certificates: {what}", path.display()),
                )
            };
            for certificate in
                CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?
            {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Kind::Data, format!("TLS cannot be set up: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let host = |(at, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(at)),
        Host::Unix(path) => path.display().to_string(),
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("PostgreSQL at {}/{}", hosts.join(","), config.get_dbname().unwrap_or(""))
}

/// An open connection.
pub(super) struct Line {
    client: Client,
    prepared: FxHashMap<&'static str, Statement>,
    traffic: Arc<Traffic>,
    silence_max: Duration,
}

impl Line {
    /// Sends all of this at once, and waits for all answers: one round trip. The server does it in order. Where one fails, what comes after it
    /// in a transaction is not done.
    pub(super) async fn flight(&self, asks: &[Ask<'_>]) -> Result<Vec<Vec<Row>>, Trouble> {
        self.traffic.trips.fetch_add(1, Ordering::Relaxed);
        self.traffic.statements.fetch_add(asks.len() as u64, Ordering::Relaxed);
        // Polled in order, and a prepared statement is sent when it is polled first.
        let all = try_join_all(asks.iter().map(|ask| self.one(ask)));
        match tokio::time::timeout(self.silence_max, all).await {
            Ok(answers) => answers,
            Err(_) => Err(Trouble::Dead("it did not answer in time".into())),
        }
    }

    /// One statement.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Vec<Row>, Trouble> {
        let mut answers = self.flight(std::slice::from_ref(&ask)).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    async fn one(&self, ask: &Ask<'_>) -> Result<Vec<Row>, Trouble> {
        let params: Vec<&(dyn ToSql + Sync)> =
            ask.params.iter().map(|param| param.as_ref() as &(dyn ToSql + Sync)).collect();
        match self.prepared.get(ask.sql) {
            Some(statement) => Ok(self.client.query(statement, &params).await?),
            None => Ok(self.client.query(ask.sql, &params).await?),
        }
    }

    /// One statement that brings no rows. Its text is not kept with the connection.
    pub(super) async fn ask_text(&self, ask: Ask<'_>) -> Result<(), Trouble> {
        self.flight(std::slice::from_ref(&ask)).await.map(drop)
    }

    /// The rows of a statement about a project, as they come: not all of them are held at a time.
    pub(super) async fn stream(&self, sql: &str, project: i32) -> Result<RowStream, Trouble> {
        Ok(self.client.query_raw(sql, [project]).await?)
    }

    /// Several statements without values, as a text.
    pub(super) async fn script(&self, sql: &str) -> Result<(), Trouble> {
        Ok(self.client.batch_execute(sql).await?)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{self, ObjectBlobs, Objects};
    use segue_core::ids::ProjectId;
    use uuid::Uuid;

    #[test]
    fn tls_is_used_where_it_is_asked_for_and_where_an_authority_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().to_string_lossy().into_owned();
        let objects = Objects::open(&place, &objects::Options::default()).expect("it opens");
        let blobs = Arc::new(ObjectBlobs::new(objects));
        let mode = |url: &str, tls: Tls| {
            let options = Options::new(url, ProjectId(Uuid::nil()), [0; 32], blobs.clone());
            let options = Options { tls, ..options };
            let config: Config = plain(url).parse().expect("a URL");
            ssl_mode(&options, &config).unwrap_or(config.get_ssl_mode())
        };
        let named = || Tls::Authorities("authority.pem".into());
        for (url, tls, wanted) in [
            ("postgresql://a@127.0.0.1/d", Tls::System, SslMode::Disable),
            ("postgresql://a@localhost,[::1]:1/d", Tls::System, SslMode::Disable),
            ("postgresql://a@127.0.0.1,db.example/d", Tls::System, SslMode::Prefer),
            ("postgresql://a@127.0.0.1/d", named(), SslMode::Require),
            ("postgresql://a@db.example/d", named(), SslMode::Require),
            ("postgresql://a@127.0.0.1/d?sslmode=verify-full", Tls::System, SslMode::Require),
            ("host=localhost user=a sslmode=verify-ca", Tls::System, SslMode::Require),
            ("postgresql://a@db.example/d?sslmode=disable", named(), SslMode::Disable),
        ] {
            assert_eq!(mode(url, tls), wanted, "{url}");
        }
    }
}
