//! A row as every driver gives it.

use crate::failure::Failure;
use segue_core::payload::Payload;

/// A row that was read, whatever the driver: its columns by place.
pub(crate) trait Cells {
    /// The name of a column, for errors.
    fn name(&self, column: usize) -> &str;
    /// Whether the column is NULL.
    fn is_null(&self, column: usize) -> Result<bool, Failure>;
    /// A number; a truth value is 0 or 1.
    fn integer(&self, column: usize) -> Result<Option<i64>, Failure>;
    /// A text.
    fn text(&self, column: usize) -> Result<Option<&str>, Failure>;
    /// So many bytes.
    fn bytes<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Failure>;
    /// A payload: its text, or a reference to it.
    fn payload(&self, column: usize) -> Result<Option<Payload>, Failure>;
}
