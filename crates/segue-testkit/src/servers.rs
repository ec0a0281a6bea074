//! Private servers for tests: each is started by the test that needs it, from Debian's packages, on free ports of the loopback in a folder of
//! its own, and ends with it, however it ends.
//!
//! - [`Postgres`], with a streaming standby where wanted
//! - [`RabbitMq`], one node or a cluster
//! - [`Redis`], and [`RedisSentinel`] with a replica
//! - [`S3`]
//! - [`Proxy`], which stands before any of them and cuts, holds or slows down what goes through
//!
//! A program that is missing is a failure that says what to install, never a skip: `cargo xtask servers install` brings them all.
//!
//! A server takes seconds to start, and each test of nextest is a process of its own: so one test starts one server and asks everything on it,
//! each question with a database, vhost or bucket of its own. Tests on servers say so in their names (CONTRIBUTING.md), so that no more of
//! them run at a time than the machine bears.

mod folder;
mod keeper;
mod port;
mod postgres;
mod proxy;
mod rabbit_mq;
mod redis;
mod s3;
mod sentinel;
mod tls;

pub use postgres::{Postgres, PostgresOptions};
pub use proxy::Proxy;
pub use rabbit_mq::{RabbitMq, RabbitMqOptions};
pub use redis::{Redis, RedisOptions};
pub use s3::S3;
pub use sentinel::RedisSentinel;
pub use tls::{Certificate, another_authority};

use std::time::{Duration, Instant};

/// After this long a server that does not answer is taken not to start at all.
const PATIENCE: Duration = Duration::from_secs(180);

/// A start is tried so often: somebody else may take a port between finding it free and the server's taking it.
const STARTS: usize = 4;

/// How often a condition that nothing announces is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `look` finds something, and gives up after [`PATIENCE`].
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while began.elapsed() < PATIENCE {
        ticks.tick().await;
        if let Some(found) = look() {
            return Some(found);
        }
    }
    None
}

/// The same for a condition that takes waiting to look at.
async fn until_it_is<F: Future<Output = bool>>(what: &str, look: impl Fn() -> F) {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while !look().await {
        assert!(began.elapsed() < PATIENCE, "in vain waited for: {what}");
        ticks.tick().await;
    }
}

/// A name or password that nobody can guess.
fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
