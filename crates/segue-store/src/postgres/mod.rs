//! The store of many machines: PostgreSQL 15 or later, any number of nodes on the same tables.
//!
//! [`PostgresStore`] is one node's connection. What concurrent callers ask is gathered into transactions that travel on a few lanes,
//! each a connection of its own, in a handful of round trips whatever the size of the batch. Rows are locked in two phases; see
//! `docs/decisions/006-cluster.md`.

mod asked;
mod audit;
mod batch;
mod cells;
mod examine;
mod export;
mod lane;
mod line;
mod load;
mod options;
mod outside;
#[cfg(test)]
mod plans;
mod prune;
mod put;
mod queries;
mod readers;
mod schema;
mod select;
mod signals;
mod specs;
mod state;
mod store;
mod trouble;
mod write;

pub use examine::{Examined, examine};
pub use export::{EmptyProject, import};
pub use options::{Options, Tls};
pub use outside::{IsReferred, LargeBodies};
pub use signals::PostgresSignals;
pub use store::PostgresStore;
