//! What went wrong in SQLite, sorted by what the caller must do.

pub(super) use crate::failure::{Failure, Kind};
use rusqlite::ErrorCode;
use rusqlite::ffi;

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        let kind = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => kind_of(failure),
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => Kind::Corrupt,
            _ => Kind::Data,
        };
        let code = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => {
                format!(" (SQLite {})", failure.extended_code)
            }
            _ => String::new(),
        };
        Failure { kind, detail: format!("{error}{code}") }
    }
}

/// The codes of <https://www.sqlite.org/rescode.html>.
fn kind_of(failure: &ffi::Error) -> Kind {
    match failure.code {
        ErrorCode::DiskFull => Kind::Full,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Kind::Corrupt,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Kind::Locked,
        ErrorCode::ReadOnly
        | ErrorCode::CannotOpen
        | ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied => Kind::ReadOnly,
        ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::NoLargeFileSupport => Kind::Io,
        _ => Kind::Data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn sqlite(extended: i32) -> Failure {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None).into()
    }

    #[test]
    fn codes_are_sorted_by_what_the_caller_must_do() {
        let table = [
            (ffi::SQLITE_FULL, Kind::Full),
            (ffi::SQLITE_CORRUPT, Kind::Corrupt),
            (ffi::SQLITE_NOTADB, Kind::Corrupt),
            (ffi::SQLITE_BUSY, Kind::Locked),
            (ffi::SQLITE_BUSY_SNAPSHOT, Kind::Locked),
            (ffi::SQLITE_READONLY, Kind::ReadOnly),
            (ffi::SQLITE_READONLY_DIRECTORY, Kind::ReadOnly),
            (ffi::SQLITE_CANTOPEN, Kind::ReadOnly),
            (ffi::SQLITE_IOERR_FSYNC, Kind::Io),
            (ffi::SQLITE_IOERR_WRITE, Kind::Io),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, Kind::Data),
            (ffi::SQLITE_TOOBIG, Kind::Data),
        ];
        for (code, kind) in table {
            assert_eq!(sqlite(code).kind, kind, "code {code}");
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let error = sqlite(ffi::SQLITE_FULL).at(Path::new("/here/segue.db"));
        assert!(error.to_string().contains("/here/segue.db"), "{error}");
    }
}
