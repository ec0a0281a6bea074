//! Private servers, and members of a cluster over them: each with a folder, a file and lines to the servers of its own, which can be cut.

#![allow(dead_code, reason = "each test file uses a part of this")]

use crate::common::{Place, Started};
use segue_testkit::servers::{Postgres, Proxy, RabbitMq, Redis, S3};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The project of every member.
const PROJECT: &str = "01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f";

/// One of each server.
pub struct Servers {
    pub postgres: Postgres,
    pub rabbit: RabbitMq,
    pub redis: Redis,
    pub s3: S3,
    database: String,
    vhost: String,
    bucket: String,
}

impl Servers {
    pub async fn start() -> Servers {
        let (postgres, rabbit, redis, s3) =
            tokio::join!(Postgres::start(), RabbitMq::start(), Redis::start(), S3::start());
        let (database, vhost) = (postgres.database_name().await, rabbit.vhost_name().await);
        let bucket = s3.bucket().await;
        Servers { postgres, rabbit, redis, s3, database, vhost, bucket }
    }
}

/// The lines of one member.
pub struct Lines {
    pub postgres: Proxy,
    pub rabbit: Proxy,
    pub redis: Proxy,
    pub s3: Proxy,
}

impl Lines {
    async fn to(servers: &Servers) -> Lines {
        Lines {
            postgres: Proxy::to(&servers.postgres.address()).await,
            rabbit: Proxy::to(&servers.rabbit.address(0)).await,
            redis: Proxy::to(&servers.redis.address()).await,
            s3: Proxy::to(&servers.s3.address()).await,
        }
    }

    pub fn all(&self) -> [&Proxy; 4] {
        [&self.postgres, &self.rabbit, &self.redis, &self.s3]
    }
}

/// A node or a worker: where it runs, and how it reaches the servers.
pub struct Member {
    pub name: String,
    pub place: Place,
    pub lines: Lines,
    file: PathBuf,
}

impl Member {
    /// A node with these agents.
    pub async fn node(servers: &Servers, name: &str, agents: &str) -> Member {
        let (place, lines) = (Place::with(agents), Lines::to(servers).await);
        let Servers { postgres, redis, s3, database, bucket, .. } = servers;
        let mut text = broker(servers, &lines);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[project]\nname = \"team\"\nid = \"{PROJECT}\"\nkey = \"{}\"\n[postgres]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n\
             [objects]\nurl = \"s3://{bucket}/bodies\"\nendpoint = \"http://{}\"\nregion = \"us-east-1\"\naccess_key_id = \"{}\"\n\
             secret_access_key = \"{}\"\npath_style = true\nallow_http = true\n[node]\nname = \"{name}\"\nlease = \"6s\"\n",
            "5e".repeat(32),
            postgres.url_by(&lines.postgres.addr(), database),
            redis.url_by(&lines.redis.addr()),
            lines.s3.addr(),
            s3.access_key(),
            s3.secret_key(),
        );
        Member::written(name, place, lines, &text)
    }

    /// A worker with these agents, whose token this node's command line gives.
    pub async fn worker(servers: &Servers, node: &Member, name: &str, agents: &str) -> Member {
        let (place, lines) = (Place::with(agents), Lines::to(servers).await);
        let token = node.ok(&["worker", "token", name]).out;
        let mut text = broker(servers, &lines);
        let _ = write!(text, "[worker]\ntoken = \"{}\"\nlease = \"6s\"\n", token.trim());
        Member::written(name, place, lines, &text)
    }

    fn written(name: &str, place: Place, lines: Lines, text: &str) -> Member {
        let file = place.beside("cluster.toml");
        std::fs::write(&file, text).unwrap();
        Member { name: name.to_owned(), place, lines, file }
    }

    /// From its next start on it knows this broker as well.
    pub fn add_broker(&self, url: &str) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let text = text.replacen("\"]\n", &format!("\", \"{url}\"]\n"), 1);
        std::fs::write(&self.file, text).unwrap();
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let mut all = args.to_vec();
        all.extend(["--config", path(&self.file)]);
        all
    }

    /// Starts `up` or `worker`, and waits until it is there.
    pub fn begin(&self, args: &[&str]) -> Started {
        let mut started = self.place.start(&self.args(args));
        started.out_line(if args[0] == "up" { "listening on" } else { "joined with" });
        started
    }

    /// Runs a command to its end.
    pub fn segue(&self, args: &[&str]) -> crate::common::Came {
        self.place.segue(&self.args(args))
    }

    /// Runs a command that has to work.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> crate::common::Came {
        self.segue(args).with(0)
    }
}

fn broker(servers: &Servers, lines: &Lines) -> String {
    format!(
        "[rabbitmq]\nurls = [\"{}\"]\n",
        servers.rabbit.url_by(&lines.rabbit.addr(), &servers.vhost)
    )
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}
