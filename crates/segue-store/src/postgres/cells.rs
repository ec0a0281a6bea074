//! Columns of PostgreSQL as every backend reads and writes them.

use super::trouble::Trouble;
use crate::failure::Failure;
use crate::rows::Cells;
use crate::rows::encode::Cell;
use segue_core::payload::{Hash, Payload};
use std::borrow::Cow;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

/// PostgreSQL keeps no text with the character U+0000.
pub(super) fn can_be_kept(text: &str) -> bool {
    !text.contains('\0')
}

/// A payload as a column holds it. No JSON text begins with `#`.
pub(super) fn payload(payload: &Payload) -> Cow<'_, str> {
    match Cell::of(payload) {
        Cell::Text(text) => Cow::Borrowed(text),
        Cell::Reference(_) | Cell::Null => {
            Cow::Owned(format!("#{}:{}", payload.hash().hex(), payload.size()))
        }
    }
}

/// The reverse of [`payload`].
pub(super) fn read_payload(text: &str) -> Option<Payload> {
    let Some(reference) = text.strip_prefix('#') else {
        return Some(Payload::of_trusted_text(text));
    };
    let (hash, size) = reference.split_once(':')?;
    Some(Payload::Stored { hash: Hash::from_hex(hash)?, size: size.parse().ok()? })
}

impl Cells for Row {
    fn name(&self, column: usize) -> &str {
        self.columns().get(column).map_or("?", |column| column.name())
    }

    fn is_null(&self, column: usize) -> Result<bool, Failure> {
        Ok(get::<Option<IsThere>>(self, column)?.is_none())
    }

    fn integer(&self, column: usize) -> Result<Option<i64>, Failure> {
        let kind = self.columns().get(column).map(|column| column.type_().clone());
        match kind {
            Some(Type::INT8) => get(self, column),
            Some(Type::INT4) => Ok(get::<Option<i32>>(self, column)?.map(i64::from)),
            Some(Type::INT2) => Ok(get::<Option<i16>>(self, column)?.map(i64::from)),
            Some(Type::BOOL) => Ok(get::<Option<bool>>(self, column)?.map(i64::from)),
            _ => Err(wrong(self, column, "no number")),
        }
    }

    fn text(&self, column: usize) -> Result<Option<&str>, Failure> {
        get(self, column)
    }

    fn bytes<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Failure> {
        let found = match self.columns().get(column).map(|column| column.type_()) {
            Some(&Type::UUID) => get::<Option<Uuid>>(self, column)?
                .map(|id| <[u8; N]>::try_from(id.as_bytes().as_slice())),
            _ => get::<Option<&[u8]>>(self, column)?.map(<[u8; N]>::try_from),
        };
        found.transpose().map_err(|_| wrong(self, column, &format!("no {N} bytes")))
    }

    fn payload(&self, column: usize) -> Result<Option<Payload>, Failure> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        let payload = read_payload(text);
        payload.map(Some).ok_or_else(|| wrong(self, column, "no payload"))
    }
}

/// Any value that is not NULL.
struct IsThere;

impl<'a> FromSql<'a> for IsThere {
    fn from_sql(
        _: &Type,
        _: &'a [u8],
    ) -> Result<IsThere, Box<dyn std::error::Error + std::marker::Sync + Send>> {
        Ok(IsThere)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A column that must fit.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Failure> {
    row.try_get(column).map_err(|error| wrong(row, column, &format!("what does not fit: {error}")))
}

/// The same for those who deal in troubles.
pub(super) fn read<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Trouble> {
    get(row, column).map_err(Trouble::from)
}

fn wrong(row: &Row, column: usize, what: &str) -> Failure {
    Failure::corrupt(format!("column `{}` holds {what}", row.name(column)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_whether_they_stand_in_the_row_or_not() {
        let here = Payload::of_text("{\"a\":1}").expect("JSON");
        assert_eq!(read_payload(&payload(&here)), Some(here));
        let stored = Payload::Stored { hash: Hash([7; 32]), size: 123_456 };
        assert_eq!(read_payload(&payload(&stored)), Some(stored));
        for odd in ["#", "#12:3", "#zz:1"] {
            assert_eq!(read_payload(odd), None, "{odd}");
        }
    }
}
