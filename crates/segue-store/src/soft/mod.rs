//! What is soft: who is there, locks for as long as their keeper remembers, counters of the admission gate, hints.
//!
//! See `docs/decisions/008-soft-state.md`. [`InProcessSoft`] keeps it for one process, [`RedisSoft`] for many machines.

mod in_process;
mod redis;

pub use in_process::{InProcessSoft, MonotonicClock, PRESENCE_TTL_MS};
pub use redis::{Mode, Options, RedisSignals, RedisSoft, Status};
