//! What a store does with all of its rows at once: export, backup, audit. The writer goes on meanwhile.

use super::audit;
use super::backup::{self, Manifest};
use super::error::{Failure, Kind};
use super::export;
use super::options::Options;
use super::schema;
use super::store::SqliteStore;
use crate::backup::{Exports, Imports, Known};
use crate::rows::lines::Header;
use rusqlite::Connection;
use segue_core::ports::{Fut, Store, StoreError};
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Copies that are being made. While there are any, no file of a body is removed.
#[derive(Clone, Default)]
pub(super) struct Copies(Arc<AtomicUsize>);

/// One copy that is being made.
struct Copying(Copies);

impl Copies {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    fn begin(&self) -> Copying {
        self.0.fetch_add(1, Ordering::AcqRel);
        Copying(self.clone())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SqliteStore {
    /// Writes all rows and bodies as JSON lines, as they stand at one moment, in bounded memory. [`import`](super::import) reads them. No
    /// secret is among them; the key is not, either.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`] where `out` takes no more.
    pub fn export(
        &self,
        mut out: impl Write + Send + 'static,
    ) -> Fut<'_, Result<Header, StoreError>> {
        let (blobs, of) = (self.blobs.clone(), (self.project_id, self.now()));
        Box::pin(self.aside(move |conn| export::export(conn, &blobs, of, &|_| false, &mut out)))
    }

    /// Copies the database and the bodies that it refers to into an empty folder, with a manifest. See
    /// [`verify`](super::verify) and [`restore`](super::restore).
    ///
    /// # Errors
    /// [`StoreError::Full`] where there is no room, [`StoreError::Io`] where the folder is not empty or cannot be written.
    pub fn backup(&self, to: &Path) -> Fut<'_, Result<Manifest, StoreError>> {
        let (blobs, of, to) = (self.blobs.clone(), (self.project_id, self.now()), to.to_owned());
        Box::pin(self.aside(move |conn| backup::backup(conn, &blobs, of, &to)))
    }

    /// Reads all of the database and says what is wrong with it, each finding in a sentence; nothing where all is well.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the file is damaged so much that it cannot be read.
    pub fn audit(&self) -> Fut<'_, Result<Vec<String>, StoreError>> {
        let blobs = self.blobs.clone();
        Box::pin(self.aside(move |conn| audit::audit(conn, Some(&blobs))))
    }

    /// Runs `work` with a connection and a thread of its own, since it takes long; or, where the store has no threads, at once.
    async fn aside<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Connection) -> Result<R, Failure> + Send + 'static,
    {
        let (path, copying) = (self.shared.path.clone(), self.copies.begin());
        let work = move || {
            let _copying = copying;
            work(&schema::open_reader(&path)?)
        };
        let done = if self.has_threads() {
            let (send, receive) = tokio::sync::oneshot::channel();
            let thread = std::thread::Builder::new().name("segue-copy".into());
            match thread.spawn(move || send.send(work())) {
                Ok(_) => receive
                    .await
                    .unwrap_or_else(|_| Err(Failure::new(Kind::Data, "the thread has ended"))),
                Err(error) => Err(error.into()),
            }
        } else {
            work()
        };
        done.map_err(|failure| self.shared.read_failed(failure))
    }
}

impl Exports for SqliteStore {
    fn export_rows(
        &self,
        known: Known,
        mut out: Box<dyn Write + Send>,
    ) -> Fut<'_, Result<(), StoreError>> {
        let (blobs, of) = (self.blobs.clone(), (self.project_id, self.now()));
        Box::pin(self.aside(move |conn| {
            export::export(conn, &blobs, of, known.as_ref(), &mut out).map(drop)
        }))
    }
}

/// A folder with no store in it, or one that holds nothing, where [`SqliteStore::open`] will find what is imported.
#[derive(Clone)]
pub struct EmptyFolder(pub Options);

impl Imports for EmptyFolder {
    fn import_rows(&self, mut from: Box<dyn BufRead + Send>) -> Fut<'_, Result<(), StoreError>> {
        let options = self.0.clone();
        Box::pin(async move {
            let work = move || export::import(&options, &mut from).map(drop);
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| StoreError::Io(format!("the import was cut off: {error}")))?
        })
    }
}
