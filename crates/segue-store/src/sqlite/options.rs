//! What a store is opened with.

use segue_core::ids::ProjectId;
use segue_core::ports::Clock;
use segue_core::time::Time;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How far a commit goes before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// To the disk: what was answered survives the loss of power. The only one fit for work.
    #[default]
    Full,
    /// To the system: what was answered survives the end of the process. For tests and simulators.
    Off,
}

impl Sync {
    /// As `PRAGMA synchronous` has it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Sync::Full => "FULL",
            Sync::Off => "OFF",
        }
    }
}

/// Where the work of the store is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// On a writer's thread and this many readers' threads of its own, at least one.
    Own {
        /// How many readers.
        readers: usize,
    },
    /// On the thread of the caller, one call after another: nothing depends on the scheduler of the
    /// system, so that a simulator finds the same order again.
    Callers,
}

/// What a store is opened with.
#[derive(Clone)]
pub struct Options {
    /// The folder for the database and the large bodies: `.segue` of the project. Made where it is missing.
    pub dir: PathBuf,
    /// Whose state it is. A database of another project is refused.
    pub project: ProjectId,
    /// The key from which the secrets of attempts are made. It is kept apart from the database, and never written there.
    pub key: [u8; 32],
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// How far a commit goes.
    pub sync: Sync,
    /// Where the work is done.
    pub threads: Threads,
    /// Where ids of attempts and jitter come from: drawn from the system where `None`. For simulators: another one each time the same
    /// database is opened, or ids repeat.
    pub seed: Option<u64>,
}

impl Options {
    /// Options fit for work: every commit synced, a writer and two readers, the clock of the system.
    pub fn new(dir: impl Into<PathBuf>, project: ProjectId, key: [u8; 32]) -> Options {
        Options {
            dir: dir.into(),
            project,
            key,
            clock: Arc::new(SystemClock),
            sync: Sync::Full,
            threads: Threads::Own { readers: 2 },
            seed: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is left out: whoever has it can report any outcome.
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("project", &self.project)
            .field("sync", &self.sync)
            .field("threads", &self.threads)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// The clock of the system. It may be set back; a store over it does not follow it there.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
