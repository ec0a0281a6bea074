//! Columns of SQLite as every backend reads and writes them.

use super::decode;
use super::encode::Cell;
use super::error::Failure;
use crate::rows::Cells;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};
use segue_core::payload::Payload;
use std::sync::LazyLock;

/// A task by project and id.
pub(super) static TASK_BY_ID: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM tasks WHERE project = ?1 AND id = ?2", decode::TASK));

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Reference(bytes) => ValueRef::Blob(bytes),
            Cell::Null => ValueRef::Null,
        }))
    }
}

impl Cells for Row<'_> {
    fn name(&self, column: usize) -> &str {
        self.as_ref().column_name(column).unwrap_or("?")
    }

    fn is_null(&self, column: usize) -> Result<bool, Failure> {
        Ok(self.get_ref(column)? == ValueRef::Null)
    }

    fn integer(&self, column: usize) -> Result<Option<i64>, Failure> {
        Ok(self.get(column)?)
    }

    fn text(&self, column: usize) -> Result<Option<&str>, Failure> {
        match self.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|_| wrong(self, column, "text that is not UTF-8")),
            ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => {
                Err(wrong(self, column, "no text"))
            }
        }
    }

    fn bytes<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Failure> {
        match self.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(bytes) => match bytes.try_into() {
                Ok(bytes) => Ok(Some(bytes)),
                Err(_) => {
                    Err(wrong(self, column, &format!("{} bytes instead of {N}", bytes.len())))
                }
            },
            ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => {
                Err(wrong(self, column, "no bytes"))
            }
        }
    }

    fn payload(&self, column: usize) -> Result<Option<Payload>, Failure> {
        match self.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(_) => Ok(self.text(column)?.map(Payload::of_trusted_text)),
            ValueRef::Blob(_) => Ok(self.bytes(column)?.map(decode::reference)),
            ValueRef::Integer(_) | ValueRef::Real(_) => Err(wrong(self, column, "no payload")),
        }
    }
}

fn wrong(row: &Row<'_>, column: usize, what: &str) -> Failure {
    Failure::corrupt(format!("column `{}` holds {what}", row.name(column)))
}
