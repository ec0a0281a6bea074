//! A Redis of one's own.

use super::folder::{Account, Folder};
use super::keeper::{self, Kept};
use super::postgres::end;
use super::{STARTS, port, secret};
use parking_lot::Mutex;
use std::ffi::OsString;

const PACKAGE: &str = "redis-server";

/// A Redis of one's own, which keeps nothing on disk: killed, it has forgotten everything. It ends when this is dropped, or the process dies.
pub struct Redis {
    folder: Folder,
    password: String,
    port: u16,
    running: Mutex<Option<Kept>>,
}

impl Redis {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start, with what it said; or when Redis is not installed.
    pub async fn start() -> Redis {
        let folder = Folder::new();
        let mut server = Redis { folder, password: secret(), port: 0, running: Mutex::new(None) };
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
        let configuration = format!(
            "bind 127.0.0.1\nport {}\nrequirepass {}\nsave \"\"\nappendonly no\ndir {}\n",
            self.port,
            self.password,
            self.folder.path().display()
        );
        let file = self.folder.write("redis.conf", &configuration, &Account::Ours);
        let program = keeper::program("redis-server", &[], PACKAGE);
        let arguments = [OsString::from(file)];
        let kept = Kept::start("redis", &self.folder, &Account::Ours, &program, &arguments, &[]);
        kept.until_ready(|kept| kept.said().contains("Ready to accept connections")).await?;
        *self.running.lock() = Some(kept);
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
        format!("redis://:{}@{address}/", self.password)
    }

    /// Ends it by SIGKILL.
    pub async fn kill(&self) {
        let running = self.running.lock().take();
        end(running).await;
    }

    /// Starts it again on the same port, empty, and returns once it takes connections.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn start_again(&self) {
        assert!(self.running.lock().is_none(), "it runs: kill it before");
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
        let client = keeper::program("redis-cli", &[], "redis-tools");
        let mut command = keeper::clean(&Account::Ours, &client);
        command.env("REDISCLI_AUTH", &self.password);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(words);
        let output = keeper::run(command).await;
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Stops it where it stands: connections stay open, and nothing is answered. Until [`Redis::go_on`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.running.lock().as_mut().expect("it runs").stop();
    }

    /// Lets it go on after [`Redis::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.running.lock().as_mut().expect("it runs").go_on();
    }
}
