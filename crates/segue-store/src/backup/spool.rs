//! The file that a backup goes through on this machine, so that neither a slow nor a failing object store holds the database.

use bytes::Bytes;
use parking_lot::Mutex;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// A file without a name: it goes with the process, however that ends.
pub(super) fn nameless(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("backup-{}", Uuid::new_v4().simple()));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// A piece of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    at: u64,
    pub(super) bytes: u64,
}

/// Pieces one behind the other.
#[derive(Clone)]
pub(super) struct Spool {
    file: Arc<File>,
    end: Arc<Mutex<u64>>,
}

impl Spool {
    pub(super) fn new(folder: &Path) -> io::Result<Spool> {
        Ok(Spool { file: Arc::new(nameless(folder)?), end: Arc::new(Mutex::new(0)) })
    }

    /// Writes these bytes behind the last ones.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<Piece> {
        let mut end = self.end.lock();
        let piece = Piece { at: *end, bytes: bytes.len() as u64 };
        (&*self.file).write_all(bytes)?;
        *end += piece.bytes;
        Ok(piece)
    }

    /// Reads a piece, off the threads that others wait for.
    pub(super) async fn read(&self, piece: Piece) -> io::Result<Bytes> {
        let file = self.file.clone();
        let read = move || {
            let length = usize::try_from(piece.bytes).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, piece.at)?;
            Ok(Bytes::from(bytes))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

impl Piece {
    /// A piece of this length that is kept nowhere.
    pub(super) fn of_length(bytes: u64) -> Piece {
        Piece { at: 0, bytes }
    }

    /// This piece and the one that lies behind it.
    pub(super) fn and(self, next: Piece) -> Piece {
        Piece { at: self.at, bytes: self.bytes + next.bytes }
    }
}
