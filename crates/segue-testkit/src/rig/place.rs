//! The servers of a run, and the lines of each member to each of them.

use super::{Options, verdict};
use crate::servers::{Postgres, Proxy, RabbitMq, Redis, S3};
use std::collections::BTreeMap;
use std::fmt;
use tokio::sync::Mutex;

/// The servers.
pub struct Place {
    /// The database that takes the writes; another one after it was lost.
    pub primary: Mutex<Postgres>,
    /// Its synchronous standby, until it is promoted.
    pub standby: Mutex<Option<Postgres>>,
    /// The broker.
    pub rabbit: RabbitMq,
    /// The soft state.
    pub redis: Redis,
    /// The bodies.
    pub s3: S3,
    /// The name of the database.
    pub database: String,
    /// The name of the virtual host.
    pub vhost: String,
    /// The name of the bucket.
    pub bucket: String,
    /// Addresses of all servers of PostgreSQL, the first primary before the standby.
    pub postgres: Vec<String>,
}

/// A server that a line leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The database, all servers of it.
    Postgres,
    /// The broker, all nodes of it.
    RabbitMq,
    /// The soft state.
    Redis,
    /// The bodies.
    S3,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Server::Postgres => "postgres",
            Server::RabbitMq => "rabbitmq",
            Server::Redis => "redis",
            Server::S3 => "s3",
        })
    }
}

impl Place {
    /// Starts everything.
    pub async fn start(options: &Options) -> Place {
        let (primary, rabbit, redis, s3) = tokio::join!(
            Postgres::start(),
            RabbitMq::cluster(options.brokers),
            Redis::start(),
            S3::start()
        );
        let database = primary.database_name().await;
        let standby = match options.standby {
            true => Some(primary.standby(true).await),
            false => None,
        };
        let postgres = std::iter::once(&primary).chain(&standby).map(Postgres::address).collect();
        let vhost = rabbit.vhost_name().await;
        let bucket = s3.bucket().await;
        Place {
            primary: Mutex::new(primary),
            standby: Mutex::new(standby),
            rabbit,
            redis,
            s3,
            database,
            vhost,
            bucket,
            postgres,
        }
    }

    /// The versions of the servers, as they say themselves.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn versions(&self) -> Result<BTreeMap<&'static str, String>, String> {
        let url = self.primary.lock().await.url(&self.database);
        let asked = vec!["--command".to_owned(), "SHOW server_version".to_owned()];
        let postgres = verdict::psql(url, asked, None).await?;
        Ok(BTreeMap::from([
            ("postgresql", postgres.trim().to_owned()),
            ("rabbitmq", self.rabbit.version().await),
            ("redis", self.redis.version().await),
            ("s3", self.s3.version().await),
        ]))
    }
}

/// The lines of one member, each through a proxy of its own.
pub struct Lines {
    postgres: Vec<Proxy>,
    rabbit: Vec<Proxy>,
    redis: Proxy,
    s3: Proxy,
}

impl Lines {
    /// Lines to all servers.
    pub async fn to(place: &Place) -> Lines {
        let mut lines = Lines {
            postgres: Vec::new(),
            rabbit: Vec::new(),
            redis: Proxy::to(&place.redis.address()).await,
            s3: Proxy::to(&place.s3.address()).await,
        };
        for address in &place.postgres {
            lines.postgres.push(Proxy::to(address).await);
        }
        for node in 0..place.rabbit.nodes() {
            lines.rabbit.push(Proxy::to(&place.rabbit.address(node)).await);
        }
        lines
    }

    /// The addresses of PostgreSQL as this member knows them, with commas.
    pub fn postgres(&self) -> String {
        self.postgres.iter().map(Proxy::addr).collect::<Vec<_>>().join(",")
    }

    /// The addresses of the broker's nodes.
    pub fn rabbit(&self) -> Vec<String> {
        self.rabbit.iter().map(Proxy::addr).collect()
    }

    /// The address of Redis.
    pub fn redis(&self) -> String {
        self.redis.addr()
    }

    /// The address of S3.
    pub fn s3(&self) -> String {
        self.s3.addr()
    }

    /// The lines to one server.
    pub fn lines(&self, server: Server) -> &[Proxy] {
        match server {
            Server::Postgres => &self.postgres,
            Server::RabbitMq => &self.rabbit,
            Server::Redis => std::slice::from_ref(&self.redis),
            Server::S3 => std::slice::from_ref(&self.s3),
        }
    }

    /// All lines.
    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.postgres.iter().chain(&self.rabbit).chain([&self.redis, &self.s3])
    }

    /// Bytes that went to each server and came from it.
    pub fn bytes(&self, server: Server) -> (u64, u64) {
        let sum = |sum: (u64, u64), line: &Proxy| (sum.0 + line.bytes().0, sum.1 + line.bytes().1);
        self.lines(server).iter().fold((0, 0), sum)
    }
}
