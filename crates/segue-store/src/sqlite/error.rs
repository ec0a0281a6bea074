//! What went wrong in SQLite or the file system, sorted by what the caller must do.

use rusqlite::ErrorCode;
use rusqlite::ffi;
use segue_core::ports::StoreError;
use std::io;
use std::path::Path;

/// What went wrong, before it is known at which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) detail: String,
}

/// What it means for whoever comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No room. The next batch may find some.
    Full,
    /// Somebody else writes. The next batch may not meet them.
    Locked,
    /// Damaged: no more writes.
    Corrupt,
    /// Cannot be written: no more writes.
    ReadOnly,
    /// The disk failed, so that nobody knows what is on it: no more writes before the file is read anew.
    Io,
    /// Another version, or another project.
    Version,
    /// Something about the data of this batch; others are not concerned.
    Data,
}

impl Kind {
    /// Whether nothing may be written any more before the store is opened again.
    pub(super) fn is_fatal(self) -> bool {
        match self {
            Kind::Corrupt | Kind::ReadOnly | Kind::Io | Kind::Version => true,
            Kind::Full | Kind::Locked | Kind::Data => false,
        }
    }
}

impl Failure {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Failure {
        Failure { kind, detail: detail.into() }
    }

    /// A row that nobody but somebody else can have written.
    pub(super) fn corrupt(detail: impl Into<String>) -> Failure {
        Failure::new(Kind::Corrupt, detail)
    }

    /// The error for the caller, with the file that it is about.
    pub(super) fn at(self, path: &Path) -> StoreError {
        let text = format!("{}: {}", path.display(), self.detail);
        match self.kind {
            Kind::Full => StoreError::Full(text),
            Kind::Locked => StoreError::Locked(text),
            Kind::Corrupt => StoreError::Corrupt(text),
            Kind::ReadOnly => StoreError::ReadOnly(text),
            Kind::Io | Kind::Data => StoreError::Io(text),
            Kind::Version => StoreError::Version(text),
        }
    }
}

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

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Kind::Full,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
            _ => Kind::Io,
        };
        Failure { kind, detail: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
