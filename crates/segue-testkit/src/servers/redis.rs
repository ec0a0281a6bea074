//! A Redis of one's own.

use super::folder::{Account, Folder};
use super::keeper::{self, Kept, Running};
use super::tls::{Certificate, Tls};
use super::{STARTS, port, secret};
use std::ffi::OsString;
use std::path::Path;

const PACKAGE: &str = "redis-server";
/// How often in a row a question may be cut off.
const CUT_MAX: usize = 2;

/// What a Redis is started with.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Whether it takes connections by TLS only. [`Redis::authority`] is whom its certificate is signed by.
    pub tls: bool,
    /// More lines for its configuration, such as `maxclients 10`.
    pub configuration: Vec<String>,
}

/// A Redis of one's own, which keeps nothing on disk: killed, it has forgotten everything. It ends when this is dropped, or the process dies.
pub struct Redis {
    folder: Folder,
    options: RedisOptions,
    password: String,
    tls: Option<Tls>,
    port: u16,
    running: Running,
}

impl Redis {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start, with what it said; or when Redis is not installed.
    pub async fn start() -> Redis {
        Redis::start_with(RedisOptions::default()).await
    }

    /// Starts one with these options.
    ///
    /// # Panics
    /// As [`Redis::start`] does.
    pub async fn start_with(options: RedisOptions) -> Redis {
        Redis::start_as(options, secret(), None).await
    }

    /// Starts one with this password, and with a certificate of the authority of another one: a replica has those of its primary.
    pub(super) async fn start_as(
        options: RedisOptions,
        password: String,
        primary: Option<&Redis>,
    ) -> Redis {
        let folder = Folder::new();
        let tls = match primary.and_then(|primary| primary.tls.as_ref()) {
            Some(tls) => Some(tls.sibling(&folder, &Account::Ours)),
            None => options.tls.then(|| Tls::make(&folder, &Account::Ours)),
        };
        let running = Running::default();
        let mut server = Redis { folder, options, password, tls, port: 0, running };
        let mut why = String::new();
        for _ in 0..STARTS {
            server.port = port::free();
            match server.try_start().await {
                Ok(()) => return server,
                Err(failure) => why = failure,
            }
        }
        panic!("{why}");
    }

    async fn try_start(&self) -> Result<(), String> {
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("requirepass {}", self.password),
            format!("masterauth {}", self.password),
            "save \"\"".to_owned(),
            "appendonly no".to_owned(),
            format!("dir {}", self.folder.path().display()),
        ];
        lines.extend(listens(self.port, self.tls.as_ref()));
        lines.extend(self.options.configuration.iter().cloned());
        let text = lines.join("\n") + "\n";
        let file = self.folder.write("redis.conf", &text, &Account::Ours);
        let program = keeper::program("redis-server", &[], PACKAGE);
        let arguments = [OsString::from(file)];
        let kept = Kept::start("redis", &self.folder, &Account::Ours, &program, &arguments, &[]);
        kept.until_ready(|kept| kept.said().contains("Ready to accept connections")).await?;
        self.running.set(kept);
        Ok(())
    }

    /// Its address, `127.0.0.1:PORT`: what a [`Proxy`](super::Proxy) is put before.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_by(&self.address())
    }

    /// Its URL by way of another address, such as a proxy's.
    pub fn url_by(&self, address: &str) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://:{}@{address}/", self.password)
    }

    /// The file with the certificate of the authority that signed its own, where it has TLS.
    ///
    /// # Panics
    /// When it was started without.
    pub fn authority(&self) -> &Path {
        &self.tls.as_ref().expect("it was started with TLS").authority
    }

    /// Shows this certificate from now on: it is started again with it.
    ///
    /// # Panics
    /// When it was started without TLS, or does not start.
    pub async fn show(&self, certificate: Certificate) {
        let tls = self.tls.as_ref().expect("it was started with TLS");
        tls.replace(certificate, &self.folder, &Account::Ours);
        self.kill().await;
        self.start_again().await;
    }

    /// The password that clients give.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Its certificate, where it has one.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it by SIGKILL.
    pub async fn kill(&self) {
        self.running.kill().await;
    }

    /// Starts it again on the same port, empty, and returns once it takes connections.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn start_again(&self) {
        assert!(!self.running.is_up(), "it runs: kill it before");
        if let Err(why) = self.try_start().await {
            panic!("{why}");
        }
    }

    /// Makes it forget everything.
    ///
    /// # Panics
    /// When it does not.
    pub async fn flush(&self) {
        assert_eq!(self.command(&["FLUSHALL"]).await, "OK");
    }

    /// What Redis's own client says to this command.
    ///
    /// # Panics
    /// When the client fails.
    pub async fn command(&self, words: &[&str]) -> String {
        ask(self.port, &self.password, self.tls(), words).await
    }

    /// Its version.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn version(&self) -> String {
        let said = self.command(&["INFO", "server"]).await;
        let version = said.lines().find_map(|line| line.strip_prefix("redis_version:"));
        version.expect("Redis says its version").trim().to_owned()
    }

    /// Stops it where it stands: connections stay open, and nothing is answered. Until [`Redis::go_on`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.running.stop();
    }

    /// Lets it go on after [`Redis::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.running.go_on();
    }
}

/// The lines that say where a server or a Sentinel listens, and that it speaks to others as it is spoken to.
pub(super) fn listens(port: u16, tls: Option<&Tls>) -> Vec<String> {
    match tls {
        None => vec![format!("port {port}")],
        Some(tls) => vec![
            "port 0".to_owned(),
            format!("tls-port {port}"),
            format!("tls-ca-cert-file {}", tls.authority.display()),
            format!("tls-cert-file {}", tls.certificate.display()),
            format!("tls-key-file {}", tls.key.display()),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
        ],
    }
}

/// What Redis's own client says to a command for the server on this port.
pub(super) async fn ask(port: u16, password: &str, tls: Option<&Tls>, words: &[&str]) -> String {
    let client = keeper::program("redis-cli", &[], "redis-tools");
    let command = || {
        let mut command = keeper::clean(&Account::Ours, &client);
        command.env("REDISCLI_AUTH", password);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        if let Some(tls) = tls {
            command.arg("--tls").arg("--cacert").arg(&tls.authority);
        }
        command.args(words);
        command
    };
    // A Sentinel that changes who follows whom cuts all connections: whoever was just asking asks again.
    for _ in 0..CUT_MAX {
        if let Ok(output) = keeper::try_run(command()).await {
            return String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
    }
    let output = keeper::run(command()).await;
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
