//! Backups of any store on any object store: the export, cut into objects that are never changed, and numbered manifests.
//!
//! [`Backups`] are those of one place. See `docs/decisions/010-backup.md`.

mod cut;
mod error;
mod keep;
mod manifest;
mod place;
mod portable;
mod read;
mod spool;
mod sweep;
mod verify;
mod write;

pub use error::BackupError;
pub use keep::Keep;
pub use manifest::{Body, Link, Manifest, Part, Rows, Written};
pub use place::{Backups, Progress, Stage};
pub use portable::{Exports, Imports, Known};
pub use read::Numbers;
pub use sweep::Swept;
pub use verify::Verified;
