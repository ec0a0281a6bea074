//! Why a backup was not written, read or removed.

use crate::objects::{ObjectError, Trouble};
use segue_core::ports::StoreError;
use std::io;

/// Why a backup was not written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The place did not do what it was asked.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The store did not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file that a backup goes through on this machine.
    #[error("the scratch file cannot be used: {0}")]
    Scratch(#[from] io::Error),
    /// There is no backup, or none of this number.
    #[error("{0}")]
    None(String),
    /// Something is missing or not as it was written.
    #[error("{at} {what}: {means}")]
    Damaged {
        /// The object.
        at: String,
        /// What is wrong with it.
        what: String,
        /// What that means.
        means: String,
    },
    /// The backups there are of another project.
    #[error("{0}")]
    OtherProject(String),
    /// Made by a newer Segue.
    #[error("{0}")]
    Newer(String),
    /// Somebody who came later has written a backup already.
    #[error(
        "backup {number} was written under fence {theirs}, and this one has {mine}: another node has taken over, so nothing was written"
    )]
    Fenced {
        /// The latest backup.
        number: u64,
        /// Its fence.
        theirs: u64,
        /// The fence of the one who came too late.
        mine: u64,
    },
    /// It took so long that what it refers to may be gone.
    #[error(
        "the backup took longer than {0} hours and was given up: nothing was written that counts"
    )]
    TooSlow(u64),
    /// Others wrote so many that no number was to be had.
    #[error("others wrote {0} backups in the meantime: nothing was written that counts. Try again")]
    Crowded(usize),
}

impl BackupError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            BackupError::Objects(error) => error.trouble.hint(),
            BackupError::Store(_) => return None,
            BackupError::Scratch(_) => "make room in the project's folder .segue",
            BackupError::None(_) => "`segue backup list` says which backups there are",
            BackupError::Damaged { .. } => {
                "restore another number (`segue backup list`), and make a new backup now"
            }
            BackupError::OtherProject(_) => "name another prefix or folder for this project",
            BackupError::Newer(_) => "use the newer program",
            BackupError::Fenced { .. } => "the node that took over makes the backups",
            BackupError::TooSlow(_) => "look at the speed of the network, and try again",
            BackupError::Crowded(_) => "let one node make the backups",
        })
    }

    /// Whether the place could not be reached, so that the same may work later.
    pub fn is_away(&self) -> bool {
        matches!(self, BackupError::Objects(error) if error.trouble == Trouble::Away)
    }

    pub(super) fn damaged(
        at: impl Into<String>,
        what: impl Into<String>,
        means: impl Into<String>,
    ) -> BackupError {
        BackupError::Damaged { at: at.into(), what: what.into(), means: means.into() }
    }
}
