//! The store of one machine: SQLite in a file, one writer, readers beside it.
//!
//! [`SqliteStore`] holds the whole state of a project in the folder `.segue`: the database `segue.db` in
//! write-ahead mode with `synchronous=FULL`, and large bodies in the folder `blobs`. One thread owns the writing connection;
//! what concurrent callers send it is gathered into one transaction and one sync.

mod audit;
mod backup;
mod blobs;
mod cells;
mod checkpoint;
mod copies;
mod error;
mod export;
mod hot;
mod load;
mod options;
mod pool;
mod probe;
mod prune;
mod queries;
mod schema;
mod state;
mod store;
mod write;
mod writer;

use crate::rows::{decode, encode};

pub use crate::rows::lines::Header;
pub use backup::{FileSum, Manifest, restore, verify};
pub use copies::EmptyFolder;
pub use export::{export_file, import};
pub use options::{Options, Sync, SystemClock, Threads};
pub use probe::{probe_rows_per_s, sqlite_version};
#[cfg(test)]
pub(crate) use schema::statements;
pub use store::SqliteStore;
