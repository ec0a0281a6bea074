//! The connection: opened when it is needed, dropped when it is dead, and not tried again before a pause is over.

use super::options::{Login, Mode, Options, Target, without_secrets};
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult, Script, ScriptInvocation,
    ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use segue_core::outage::{Outage, Words};
use segue_core::ports::SoftError;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The pause after the first failure to connect. It doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A connection, to a server or to a cluster.
#[derive(Clone)]
enum Conn {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Conn {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Conn::One(one) => one.req_packed_command(cmd),
            Conn::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Conn::One(one) => one.req_packed_commands(pipeline, offset, count),
            Conn::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Conn::One(one) => one.get_db(),
            Conn::Cluster(cluster) => cluster.get_db(),
        }
    }
}

/// Whether a question may be asked twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The answer is the same.
    Yes,
    /// The first one may have been taken, and only its answer lost.
    No,
}

enum Question<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    Script(&'a ScriptInvocation<'a>),
}

impl Question<'_> {
    async fn ask(&self, conn: &mut Conn) -> RedisResult<Value> {
        match self {
            Question::Command(cmd) => cmd.query_async(conn).await,
            Question::Pipeline(pipeline) => pipeline.query_async(conn).await,
            Question::Script(invocation) => invocation.invoke_async(conn).await,
        }
    }
}

pub(super) struct Link {
    options: Options,
    target: Target,
    certificates: Option<TlsCertificates>,
    state: Mutex<State>,
    outage: Outage,
}

const AWAY: Words = Words {
    begins: "Redis is away; work goes on without it, and it is tried again and again",
    goes_on: "Redis is still away",
    is_over: "Redis is back",
};

#[derive(Default)]
struct State {
    conn: Option<Conn>,
    /// Counts connections, so that a late failure of an old one does not drop its successor.
    number: u64,
    /// Servers of the list that did not answer are asked last the next time.
    failures: usize,
    not_before: Option<Instant>,
    why: String,
}

impl Link {
    /// Looks at the options; connects to nobody.
    pub(super) fn new(options: Options) -> Result<Link, SoftError> {
        let target = Target::parse(&options.url)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if options.prefix.is_empty() || !options.prefix.chars().all(fits) {
            return Err(SoftError::Invalid(
                "the prefix in Redis takes letters, digits, `-`, `_` and `.`".into(),
            ));
        }
        let certificates = match &options.ca {
            Some(_) if !target.tls => {
                return Err(SoftError::Invalid(
                    "a CA for Redis needs a URL that begins with rediss".into(),
                ));
            }
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                SoftError::Invalid(format!("the CA for Redis, {}: {error}", path.display()))
            })?),
            None => None,
        };
        if target.tls {
            // Whoever comes first installs it; every connection of Segue goes through ring.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let certificates =
            certificates.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let began = Instant::now();
        let outage = Outage::new(AWAY, move || began.elapsed());
        Ok(Link { options, target, certificates, state: Mutex::default(), outage })
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// A key of this project. All of a project's keys are in one slot of a cluster.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{{segue:{}}}:{name}", self.options.prefix)
    }

    /// Runs a script, which Redis is told once.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        again: Again,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, SoftError> {
        let mut invocation = script.prepare_invoke();
        fill(&mut invocation);
        self.ask(again, Question::Script(&invocation)).await
    }

    /// Runs a command.
    pub(super) async fn command<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, SoftError> {
        self.ask(Again::Yes, Question::Command(cmd)).await
    }

    /// Runs commands in one round trip.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, SoftError> {
        self.ask(Again::Yes, Question::Pipeline(pipeline)).await
    }

    async fn ask<T: FromRedisValue>(
        &self,
        again: Again,
        question: Question<'_>,
    ) -> Result<T, SoftError> {
        let mut tries = if again == Again::Yes { 2 } else { 1 };
        loop {
            let (number, mut conn) = self.connection().await?;
            // A cluster's client waits and tries by itself; here nobody waits longer than was said.
            let asked = tokio::time::timeout(self.options.command, question.ask(&mut conn)).await;
            let error = match asked {
                Ok(Ok(answer)) => {
                    return T::from_redis_value(answer).map_err(|error| said(&error.into()));
                }
                Ok(Err(error)) => error,
                Err(_) => RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)),
            };
            tries -= 1;
            if is_dead(&error) {
                self.drop_connection(number, &error).await;
                if tries > 0 && !error.is_timeout() {
                    continue;
                }
            }
            return Err(said(&error));
        }
    }

    async fn connection(&self) -> Result<(u64, Conn), SoftError> {
        let mut state = self.state.lock().await;
        if let Some(conn) = &state.conn {
            return Ok((state.number, conn.clone()));
        }
        if state.not_before.is_some_and(|at| Instant::now() < at) {
            return Err(SoftError::Away(state.why.clone()));
        }
        match self.limited(self.connect(state.failures)).await {
            Ok(conn) => {
                state.conn = Some(conn.clone());
                state.number += 1;
                state.failures = 0;
                state.not_before = None;
                // At the level of the first line: whoever read that one wants to read this.
                if let Some(words) = self.outage.worked() {
                    tracing::warn!(place = %self.place(), "{words}");
                }
                Ok((state.number, conn))
            }
            Err(error) => {
                let doublings = u32::try_from(state.failures.min(16)).unwrap_or(16);
                let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
                state.failures += 1;
                state.not_before = Some(Instant::now() + pause);
                let away = said(&error);
                state.why = match &away {
                    SoftError::Away(why) | SoftError::Invalid(why) => why.clone(),
                };
                self.is_away(&state.why);
                Err(SoftError::Away(state.why.clone()))
            }
        }
    }

    async fn drop_connection(&self, number: u64, error: &RedisError) {
        let mut state = self.state.lock().await;
        if state.number == number && state.conn.take().is_some() {
            self.is_away(&said(error).to_string());
        }
    }

    fn is_away(&self, why: &str) {
        if let Some(words) = self.outage.failed() {
            tracing::warn!(why, place = %self.place(), "{words}");
        }
    }

    /// Where Redis is, without credentials.
    fn place(&self) -> String {
        without_secrets(&self.options.url)
    }

    /// A connection of its own that listens.
    pub(super) async fn listen(&self, channel: &str, failures: usize) -> Result<PubSub, SoftError> {
        let connect = async {
            let client = match self.target.mode {
                Mode::Sentinel => self.primary(failures).await?,
                // Every server of a cluster passes on what is published at any.
                Mode::Single | Mode::Cluster => self.client(failures)?,
            };
            let mut subscription = client.get_async_pubsub().await?;
            subscription.subscribe(channel).await?;
            Ok(subscription)
        };
        self.limited(connect).await.map_err(|error| said(&error))
    }

    async fn limited<T>(&self, connect: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        match tokio::time::timeout(self.options.connect, connect).await {
            Ok(result) => result,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    async fn connect(&self, failures: usize) -> RedisResult<Conn> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect))
            .set_response_timeout(Some(self.options.command));
        let client = match self.target.mode {
            Mode::Single => self.client(failures)?,
            Mode::Sentinel => self.primary(failures).await?,
            Mode::Cluster => {
                return Ok(Conn::Cluster(self.cluster()?.get_async_connection().await?));
            }
        };
        Ok(Conn::One(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    fn addresses(&self, failures: usize) -> Vec<ConnectionAddr> {
        let mut servers = self.target.servers.clone();
        let first = failures % servers.len().max(1);
        servers.rotate_left(first);
        let address = |(host, port)| match self.target.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        servers.into_iter().map(address).collect()
    }

    fn client(&self, failures: usize) -> RedisResult<Client> {
        let address = self
            .addresses(failures)
            .into_iter()
            .next()
            .ok_or((ErrorKind::InvalidClientConfig, "the URL names no server"))?;
        let info = address.into_connection_info()?;
        let mut login = info.redis_settings().clone().set_db(self.target.db);
        if let Some(user) = &self.target.login.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.target.login.password {
            login = login.set_password(password);
        }
        let info = info.set_redis_settings(login);
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    /// The primary, as the Sentinels name it now. They are asked anew each time: what a client remembers of them is what a failover changes.
    async fn primary(&self, failures: usize) -> RedisResult<Client> {
        let Target { login, sentinel_login, master, db, tls, .. } = &self.target;
        let mut builder = SentinelClientBuilder::new(
            self.addresses(failures),
            master,
            SentinelServerType::Master,
        )?
        .set_client_to_redis_db(*db);
        if *tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        let Login { user, password } = login;
        if let Some(user) = user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password);
        }
        let Login { user, password } = sentinel_login;
        if let Some(user) = user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        builder.build()?.async_get_client().await
    }

    fn cluster(&self) -> RedisResult<ClusterClient> {
        let mut builder = ClusterClient::builder(self.addresses(0))
            .connection_timeout(self.options.connect)
            .response_timeout(self.options.command)
            .retries(2);
        if self.target.tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        if let Some(user) = &self.target.login.user {
            builder = builder.username(user);
        }
        if let Some(password) = &self.target.login.password {
            builder = builder.password(password);
        }
        builder.build()
    }
}

/// Whether a connection is of no more use: it broke, hangs, or its server is no primary any more.
fn is_dead(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Io
                | ErrorKind::Parse
                | ErrorKind::ClusterConnectionNotFound
                | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

/// What a failure means to whoever asked. Redis's words name no credentials: it answers `WRONGPASS` without repeating them.
fn said(error: &RedisError) -> SoftError {
    let words: String = error.to_string().chars().take(300).collect();
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            SoftError::Away(format!("Redis refuses the user or the password of its URL ({words})"))
        }
        ErrorKind::UnexpectedReturnType => SoftError::Invalid(format!(
            "Redis answered with something else than was asked for: {words}"
        )),
        _ => SoftError::Away(words),
    }
}
