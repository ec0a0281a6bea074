//! What a project stands on: the tables and bodies of this machine, or those of a cluster.

use crate::cluster;
use crate::project::Project;
use anyhow::{Context, Result};
use segue_bus::in_process::InProcessBus;
use segue_bus::rabbitmq::RabbitBus;
use segue_bus::signals::InProcessSignals;
use segue_core::ids::ProjectId;
use segue_core::ports::{Blobs, Fut, Store, StoreError};
use segue_engine::Parts;
use segue_store::backup::{Exports, Imports, Known};
use segue_store::postgres::PostgresStore;
use segue_store::soft::InProcessSoft;
use segue_store::sqlite::{EmptyFolder, Manifest, Options, SqliteStore};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// The tables and the bodies of a project.
#[derive(Clone)]
pub struct Backend {
    /// The tables.
    pub store: Arc<dyn Store>,
    /// The bodies.
    pub blobs: Arc<dyn Blobs>,
    kind: Kind,
}

/// Which database it is: for the few things that are no part of a port.
#[derive(Clone)]
pub(crate) enum Kind {
    /// A file of this machine.
    Sqlite(Arc<SqliteStore>),
    /// A server.
    Postgres(Arc<PostgresStore>),
}

impl Backend {
    /// Over these.
    pub(crate) fn new(store: Arc<dyn Store>, blobs: Arc<dyn Blobs>, kind: Kind) -> Backend {
        Backend { store, blobs, kind }
    }

    /// Round trips to the server and statements so far; nothing where there is none.
    pub fn traffic(&self) -> Option<(u64, u64)> {
        match &self.kind {
            Kind::Sqlite(_) => None,
            Kind::Postgres(store) => Some(store.traffic()),
        }
    }

    /// That of a project: the cluster's, where it is part of one. Of an embedded one the caller holds the lock.
    ///
    /// # Errors
    /// When it cannot be opened or reached.
    pub async fn open(project: &Project) -> Result<Backend> {
        match &project.cluster {
            Some(settings) => cluster::connect::backend(settings).await,
            None => Backend::embedded(project),
        }
    }

    /// Where the tables of a project are made of an export or a backup, as the project with this id: nothing may be there yet.
    ///
    /// # Errors
    /// When what the cluster's file says cannot be right.
    pub fn empty(project: &Project, id: ProjectId) -> Result<Box<dyn Imports>> {
        match &project.cluster {
            Some(settings) => cluster::connect::empty(settings),
            None => Ok(Box::new(EmptyFolder(Options::new(&project.state, id, project.key)))),
        }
    }

    fn embedded(project: &Project) -> Result<Backend> {
        let options = Options::new(&project.state, project.id, project.key);
        let store = SqliteStore::open(options)
            .with_context(|| format!("cannot open the database in {}", project.state.display()))?;
        Ok(Backend::new(store.clone(), store.clone(), Kind::Sqlite(store)))
    }

    /// Reads all of the database, and says what is wrong with it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn audit(&self) -> Result<Vec<String>, StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.audit().await,
            Kind::Postgres(store) => store.audit().await,
        }
    }

    /// Writes a copy of the database of this machine into a folder.
    ///
    /// # Errors
    /// When it cannot be written, or the database is a server's.
    pub async fn backup(&self, dir: &Path) -> Result<Manifest, StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.backup(dir).await,
            Kind::Postgres(_) => Err(StoreError::Io(
                "a folder takes the copy of a database file; the project's is on a server: use `segue backup s3://BUCKET/PREFIX` or `file:///FOLDER`".into(),
            )),
        }
    }
}

impl Exports for Backend {
    fn export_rows(
        &self,
        known: Known,
        out: Box<dyn Write + Send>,
    ) -> Fut<'_, Result<(), StoreError>> {
        match &self.kind {
            Kind::Sqlite(store) => store.export_rows(known, out),
            Kind::Postgres(store) => store.export_rows(known, out),
        }
    }
}

/// Everything that an engine stands on, and what has to be closed at its end.
pub struct Base {
    /// The tables and bodies.
    pub backend: Backend,
    /// What the engine gets.
    pub parts: Parts,
    bus: Bus,
}

pub(crate) enum Bus {
    Here(Arc<InProcessBus>),
    Broker(Arc<RabbitBus>),
}

impl Base {
    pub(crate) fn new(backend: Backend, parts: Parts, bus: Bus) -> Base {
        Base { backend, parts, bus }
    }

    /// That of a project.
    ///
    /// # Errors
    /// When something of it cannot be opened or reached.
    pub async fn open(project: &Project) -> Result<Base> {
        if let Some(settings) = &project.cluster {
            return cluster::connect::base(settings).await;
        }
        let backend = Backend::embedded(project)?;
        let bus = InProcessBus::new();
        let parts = Parts {
            store: backend.store.clone(),
            blobs: backend.blobs.clone(),
            bus: bus.clone(),
            signals: InProcessSignals::new(),
            presence: InProcessSoft::new(),
        };
        Ok(Base::new(backend, parts, Bus::Here(bus)))
    }

    /// Ends the bus: whoever waits for letters is told.
    pub async fn close(&self) {
        match &self.bus {
            Bus::Here(bus) => bus.close(),
            Bus::Broker(bus) => bus.close().await,
        }
    }
}
