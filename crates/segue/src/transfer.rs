//! Everything of a project as one file of JSON lines, and back: how a project moves from one database to another.

use crate::backend::Backend;
use crate::failure::{Exit, Failure, Outcome};
use segue_core::ports::StoreError;
use segue_store::Header;
use segue_store::backup::Exports;
use std::fs::File;
use std::io::{self, BufRead, BufWriter, Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::NamedTempFile;

/// Bytes of an export's first line, at most.
const HEADER_MAX: u64 = 64 * 1024;

/// Writes the export of a project into a file that is not there yet: all of it or nothing, for the owner's eyes only. Returns its length.
///
/// # Errors
/// When the file is there already or cannot be written, and what the store reports.
pub async fn to_file(backend: &Backend, path: &Path) -> Result<u64, StoreError> {
    let refused = |error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Io(format!(
            "{} is there already: name another file, or remove it first",
            path.display()
        )),
        io::ErrorKind::StorageFull => StoreError::Full(path.display().to_string()),
        _ => StoreError::Io(format!("{} cannot be written: {error}", path.display())),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    if path.exists() {
        return Err(refused(&io::ErrorKind::AlreadyExists.into()));
    }
    // Under another name until it is whole; that one goes, whatever happens.
    let new = NamedTempFile::new_in(folder).map_err(|error| refused(&error))?;
    let out = new.as_file().try_clone().map_err(|error| refused(&error))?;
    write(backend, out).await?;
    let keep = || -> io::Result<u64> {
        let file = new.persist_noclobber(path).map_err(|error| error.error)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(file.metadata()?.len())
    };
    keep().map_err(|error| refused(&error))
}

/// Writes the export of a project.
///
/// # Errors
/// When `out` takes no more, and what the store reports.
pub async fn write(backend: &Backend, out: impl Write + Send + 'static) -> Result<(), StoreError> {
    let nothing_is_known = Arc::new(|_| false);
    backend.export_rows(nothing_is_known, Box::new(BufWriter::new(out))).await
}

/// A writer that remembers whether its reader has gone: what a store reports of that is a text.
pub struct Pipe<W> {
    out: W,
    has_gone: Arc<AtomicBool>,
}

impl<W: Write> Pipe<W> {
    /// Over this one.
    pub fn of(out: W) -> Pipe<W> {
        Pipe { out, has_gone: Arc::default() }
    }

    /// Whether the reader has gone; can be asked when the writer has been given away.
    pub fn has_gone(&self) -> Arc<AtomicBool> {
        self.has_gone.clone()
    }

    fn noted<T>(&self, written: io::Result<T>) -> io::Result<T> {
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.has_gone.store(true, Ordering::Relaxed);
        }
        written
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.noted(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.noted(flushed)
    }
}

/// What an export says of itself in its first line, and the same lines once more from the first one on.
///
/// # Errors
/// When it cannot be read, or is no export.
pub fn opened(
    name: &str,
    mut from: impl BufRead + Send + 'static,
) -> Outcome<(Header, Box<dyn BufRead + Send>)> {
    let mut first = Vec::new();
    from.by_ref()
        .take(HEADER_MAX)
        .read_until(b'\n', &mut first)
        .map_err(|error| Failure::new(Exit::Usage, format!("{name} cannot be read: {error}")))?;
    let header = serde_json::from_slice(&first).map_err(|_| {
        Failure::usage(format!("{name} is no export of a project: its first line is no header"))
            .hint("`segue export` writes exports; `segue restore` reads backups")
    })?;
    Ok((header, Box::new(Cursor::new(first).chain(from))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn what_is_no_export_is_told_from_its_first_line() {
        for text in ["", "\n", "tasks", "{\"number\": 1}\n"] {
            let Err(failure) = opened("x.jsonl", BufReader::new(text.as_bytes())) else {
                panic!("{text:?} was taken");
            };
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.starts_with("x.jsonl is no export"), "{}", failure.message);
        }
    }
}
