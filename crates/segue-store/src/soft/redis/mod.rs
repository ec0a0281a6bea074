//! Soft state in Redis: one server, Sentinel, or a cluster.

mod gates;
mod link;
mod locks;
mod options;
mod presence;
mod signals;
mod soft;

pub use options::{Mode, Options};
pub use signals::RedisSignals;
pub use soft::{RedisSoft, Status};
