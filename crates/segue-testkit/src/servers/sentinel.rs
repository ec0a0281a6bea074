//! A Redis with a replica, and a Sentinel that makes the replica the primary when the primary is gone.

use super::folder::{Account, Folder};
use super::keeper::{self, Kept, Running};
use super::redis::{Redis, RedisOptions, ask, listens};
use super::tls::Tls;
use super::{STARTS, port, secret, until_it_is};
use std::ffi::OsString;
use std::path::Path;

const PACKAGE: &str = "redis-sentinel";

/// The name under which the Sentinel knows them.
const NAME: &str = "segue";

/// A primary that does not answer for so long is gone.
const GONE_AFTER_MS: u32 = 1_000;

/// A Redis with a replica, watched by one Sentinel.
pub struct RedisSentinel {
    // The Sentinel ends first, so that it has nothing to mend.
    sentinel: Running,
    folder: Folder,
    tls: Option<Tls>,
    port: u16,
    first: Redis,
    second: Redis,
}

impl RedisSentinel {
    /// Starts all three, and returns once the replica follows and the Sentinel knows it.
    ///
    /// # Panics
    /// When one does not start, with what it said; or when they are not installed.
    pub async fn start() -> RedisSentinel {
        RedisSentinel::start_with(false).await
    }

    /// Starts all three; by TLS only, all with certificates of one authority, where that is wanted.
    ///
    /// # Panics
    /// As [`RedisSentinel::start`] does.
    pub async fn start_with(tls: bool) -> RedisSentinel {
        let password = secret();
        // A replica asks at once, and is to be served at once.
        let at_once = "repl-diskless-sync-delay 0".to_owned();
        let options = RedisOptions { tls, configuration: vec![at_once.clone()] };
        let first = Redis::start_as(options, password.clone(), None).await;
        let follow = format!("replicaof 127.0.0.1 {}", first.port());
        let options = RedisOptions { tls, configuration: vec![at_once, follow] };
        let second = Redis::start_as(options, password, Some(&first)).await;
        until_it_is("a replica that follows", async || {
            second.command(&["INFO", "replication"]).await.contains("master_link_status:up")
        })
        .await;
        let sentinel = Running::default();
        let folder = Folder::new();
        let tls = first.tls().map(|tls| tls.sibling(&folder, &Account::Ours));
        let mut server = RedisSentinel { sentinel, folder, tls, port: 0, first, second };
        server.start_sentinel().await;
        let replica = server.second.port().to_string();
        until_it_is("a Sentinel that knows the replica", async || {
            server.ask(&["SENTINEL", "replicas", NAME]).await.contains(&replica)
        })
        .await;
        server
    }

    async fn start_sentinel(&mut self) {
        let mut why = String::new();
        for _ in 0..STARTS {
            self.port = port::free();
            match self.try_start().await {
                Ok(()) => return,
                Err(failure) => why = failure,
            }
        }
        panic!("{why}");
    }

    async fn try_start(&self) -> Result<(), String> {
        let password = self.first.password();
        let mut lines = listens(self.port, self.tls.as_ref());
        lines.extend([
            "bind 127.0.0.1".to_owned(),
            format!("requirepass {password}"),
            format!("dir {}", self.folder.path().display()),
            format!("sentinel monitor {NAME} 127.0.0.1 {} 1", self.first.port()),
            format!("sentinel auth-pass {NAME} {password}"),
            format!("sentinel down-after-milliseconds {NAME} {GONE_AFTER_MS}"),
            format!("sentinel failover-timeout {NAME} 5000"),
        ]);
        let text = lines.join("\n") + "\n";
        let file = self.folder.write("sentinel.conf", &text, &Account::Ours);
        let program = keeper::program("redis-sentinel", &[], PACKAGE);
        let arguments = [OsString::from(file)];
        let kept = Kept::start("sentinel", &self.folder, &Account::Ours, &program, &arguments, &[]);
        kept.until_ready(|kept| kept.said().contains("+monitor master")).await?;
        self.sentinel.set(kept);
        Ok(())
    }

    async fn ask(&self, words: &[&str]) -> String {
        ask(self.port, self.first.password(), self.tls.as_ref(), words).await
    }

    /// The address of the Sentinel, `127.0.0.1:PORT`. It takes the same password as the servers.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of the Sentinel.
    pub fn url(&self) -> String {
        self.first.url_by(&self.address())
    }

    /// The file with the certificate of the authority that signed those of all three, where they have TLS.
    ///
    /// # Panics
    /// When they were started without.
    pub fn authority(&self) -> &Path {
        self.first.authority()
    }

    /// The name under which the Sentinel knows the primary.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The password of all three.
    pub fn password(&self) -> &str {
        self.first.password()
    }

    /// The server that was the primary when all were started.
    pub fn first(&self) -> &Redis {
        &self.first
    }

    /// The server that was the replica.
    pub fn second(&self) -> &Redis {
        &self.second
    }

    /// Waits until the second server is the primary: after the first was killed or stopped.
    ///
    /// # Panics
    /// When it does not become so.
    pub async fn until_promoted(&self) {
        until_it_is("a replica that is promoted", async || {
            self.second.command(&["INFO", "replication"]).await.contains("role:master")
        })
        .await;
    }
}
