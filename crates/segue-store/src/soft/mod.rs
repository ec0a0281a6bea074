//! What is soft: who is there, locks for as long as their keeper remembers, counters of the admission gate, hints.
//!
//! See `docs/decisions/008-soft-state.md`. [`InProcessSoft`] keeps it for one process, [`RedisSoft`] for many machines.

mod in_process;
mod redis;

pub use in_process::{InProcessSoft, MonotonicClock};
pub use redis::{Mode, Options, RedisSignals, RedisSoft, Status};

/// How long a directory remembers an instance or a node that nobody heard of, in milliseconds.
pub const PRESENCE_TTL_MS: u64 = 30_000;
