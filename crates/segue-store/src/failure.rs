//! What went wrong in a database or the file system, sorted by what the caller must do.

use segue_core::ports::StoreError;
use std::io;
use std::path::Path;

/// What went wrong, before it is known at which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
}

/// What it means for whoever comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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
    /// It cannot be reached for now, and is tried again.
    Away,
    /// Something is there already where it has to be empty.
    NotEmpty,
    /// Something about the data of this batch; others are not concerned.
    Data,
}

impl Kind {
    /// Whether nothing may be written any more before the store is opened again.
    pub(crate) fn is_fatal(self) -> bool {
        match self {
            Kind::Corrupt | Kind::ReadOnly | Kind::Io | Kind::Version => true,
            Kind::Full | Kind::Locked | Kind::Away | Kind::NotEmpty | Kind::Data => false,
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Failure {
        Failure { kind, detail: detail.into() }
    }

    /// A row that nobody but somebody else can have written.
    pub(crate) fn corrupt(detail: impl Into<String>) -> Failure {
        Failure::new(Kind::Corrupt, detail)
    }

    /// The error for the caller, with the file that it is about.
    pub(crate) fn at(self, path: &Path) -> StoreError {
        self.of(&path.display())
    }

    /// The error for the caller, with what it is about.
    pub(crate) fn of(self, place: &dyn std::fmt::Display) -> StoreError {
        let text = format!("{place}: {}", self.detail);
        match self.kind {
            Kind::Full => StoreError::Full(text),
            Kind::Locked => StoreError::Locked(text),
            Kind::Corrupt => StoreError::Corrupt(text),
            Kind::ReadOnly => StoreError::ReadOnly(text),
            Kind::Io | Kind::Data => StoreError::Io(text),
            Kind::Version => StoreError::Version(text),
            Kind::Away => StoreError::Away(text),
            Kind::NotEmpty => StoreError::NotEmpty(text),
        }
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
