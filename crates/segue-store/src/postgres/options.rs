//! What a store is connected with.

use segue_core::ids::ProjectId;
use segue_core::ports::{Blobs, Clock};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Which authorities a server's certificate may come from. It is always checked where TLS is used, whatever `sslmode` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Those that this system trusts.
    #[default]
    System,
    /// Those in this file of PEM certificates, alone.
    Authorities(PathBuf),
}

/// What a store is connected with.
#[derive(Clone)]
pub struct Options {
    /// `postgresql://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?target_session_attrs=read-write&sslmode=require`, or `key=value` words. It is never
    /// printed or logged. A server that takes no writes is never used, whether the URL says so or not.
    pub url: String,
    /// Whose certificate is believed.
    pub tls: Tls,
    /// Whose state it is. A database holds any number of projects.
    pub project: ProjectId,
    /// What people call the project, noted beside its id.
    pub label: String,
    /// The key from which the secrets of attempts are made: the same on every node of the project, and never written into the database.
    pub key: [u8; 32],
    /// Keeps bodies of more than 64 KiB; the same place for every node.
    pub blobs: Arc<dyn Blobs>,
    /// Transactions of this store that may be open at a time, at least one.
    pub lanes: usize,
    /// Connections for reading beside the lanes, at least one.
    pub readers: usize,
    /// Where the time comes from: PostgreSQL's own clock where `None`. For tests.
    pub clock: Option<Arc<dyn Clock>>,
    /// Where ids of attempts and jitter come from: drawn from the system where `None`. For tests: another one for each store on the same database.
    pub seed: Option<u64>,
    /// How long one host may take to answer a connection.
    pub connect_timeout: Duration,
    /// How long one statement may take, waiting for locks included.
    pub statement_timeout: Duration,
    /// How long a batch waits for a database that is away before its caller is told.
    pub away_patience: Duration,
    /// How often a silent connection is checked.
    pub keepalive: Duration,
    /// How long the letters of another open store are left to it before this one publishes them.
    pub letters_grace: Duration,
}

impl Options {
    /// Options fit for work: two lanes, two readers, PostgreSQL's clock.
    pub fn new(
        url: impl Into<String>,
        project: ProjectId,
        key: [u8; 32],
        blobs: Arc<dyn Blobs>,
    ) -> Options {
        Options {
            url: url.into(),
            tls: Tls::System,
            project,
            label: String::new(),
            key,
            blobs,
            lanes: 2,
            readers: 2,
            clock: None,
            seed: None,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            away_patience: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            letters_grace: Duration::from_secs(4),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password, and whoever has the key can report any outcome.
        f.debug_struct("Options")
            .field("tls", &self.tls)
            .field("project", &self.project)
            .field("label", &self.label)
            .field("lanes", &self.lanes)
            .field("readers", &self.readers)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
