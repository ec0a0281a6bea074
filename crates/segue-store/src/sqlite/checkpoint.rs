//! Moving pages from the write-ahead log into the database, beside the writer: whoever waits for a commit must not wait
//! for the syncs of a checkpoint as well.

use super::error::{Failure, Kind};
use super::options::{Options, Sync, Threads};
use super::store::Shared;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Pages by which the log grows from one checkpoint to the next.
const STEP_PAGES: u32 = 1_000;
/// Pages of the log at which the writer stops to make a checkpoint itself: under steady load the thread beside it never comes to the
/// end of the log, and only from its end does the log begin anew. 32 MiB, which are read once where a crash has left them.
const LOG_PAGES_MAX: u32 = 8_000;

/// Counts the pages of the log and has them moved.
pub(super) struct Checkpointer {
    /// Pages of the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Pages of the log when the thread was woken last.
    woken_at: u32,
    /// Pages of the log at which the writer makes the next checkpoint itself.
    own_at: u32,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Watches the writing connection; starts the thread, where the store has threads.
    pub(super) fn start(
        conn: &mut Connection,
        options: &Options,
        shared: &Arc<Shared>,
    ) -> Result<Checkpointer, Failure> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = pages.clone();
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            seen.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let mut checkpointer =
            Checkpointer { pages, woken_at: 0, own_at: LOG_PAGES_MAX, wake: None, thread: None };
        if let Threads::Own { .. } = options.threads {
            let own = connect(&shared.path, options.sync)?;
            let (wake, woken) = sync_channel(1);
            let shared = shared.clone();
            let thread = std::thread::Builder::new()
                .name("segue-checkpoint".into())
                .spawn(move || work(&own, &woken, &shared))?;
            checkpointer.wake = Some(wake);
            checkpointer.thread = Some(thread);
        }
        Ok(checkpointer)
    }

    /// After a commit: looks how long the log is.
    pub(super) fn after_commit(&mut self, conn: &Connection) -> Result<(), Failure> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.woken_at {
            // The log has begun anew.
            self.woken_at = 0;
            self.own_at = LOG_PAGES_MAX;
        }
        let is_long = pages >= self.own_at;
        if is_long || (self.wake.is_none() && pages >= self.woken_at + STEP_PAGES) {
            self.woken_at = pages;
            // Where a long reader keeps the log from being moved, trying again at every commit would not help.
            self.own_at = pages.max(LOG_PAGES_MAX) + STEP_PAGES;
            return checkpoint(conn);
        }
        if let Some(wake) = &self.wake
            && pages >= self.woken_at + STEP_PAGES
        {
            match wake.try_send(()) {
                Ok(()) => self.woken_at = pages,
                // It is at work; the next commit tries again.
                Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connect(path: &Path, sync: Sync) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update(None, "synchronous", sync.word())?;
    Ok(conn)
}

fn work(conn: &Connection, woken: &Receiver<()>, shared: &Shared) {
    while woken.recv().is_ok() {
        if let Err(failure) = checkpoint(conn)
            && failure.kind != Kind::Locked
        {
            // What a sync has failed to move may be lost without another word: nothing more is written.
            shared.failed(failure);
        }
    }
}

/// Moves what no reader holds back, and waits for nobody.
fn checkpoint(conn: &Connection) -> Result<(), Failure> {
    let mut statement = conn.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    // Whether it was busy, pages of the log, and pages of it that are in the database now.
    let (busy, pages, moved): (i64, i64, i64) =
        statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    tracing::trace!(busy, pages, moved, "checkpoint");
    Ok(())
}
