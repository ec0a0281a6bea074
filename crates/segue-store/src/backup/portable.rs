//! What a store gives for being backed up, and takes for being restored.

use segue_core::payload::Hash;
use segue_core::ports::{Fut, StoreError};
use std::io::{BufRead, Write};
use std::sync::Arc;

/// Whether a body need not be exported again.
pub type Known = Arc<dyn Fn(Hash) -> bool + Send + Sync>;

/// A store whose rows and bodies can be copied out: the same JSON lines from every backend.
pub trait Exports: Send + Sync {
    /// Writes everything as it stands at one moment: a line of header, a line a row, bodies outside the database in parts, and at the end the sum
    /// of all lines before. For a body that is `known` it may write one line without `hex`. `out` is a file of this machine, so it takes no time worth waiting for.
    fn export_rows(
        &self,
        known: Known,
        out: Box<dyn Write + Send>,
    ) -> Fut<'_, Result<(), StoreError>>;
}

/// A place for a store that holds nothing yet.
pub trait Imports: Send + Sync {
    /// Makes the store of an export: all of it or nothing. Refuses, and says what to do, where there is anything already.
    fn import_rows(&self, from: Box<dyn BufRead + Send>) -> Fut<'_, Result<(), StoreError>>;
}
