//! Reaches the servers of a cluster.

use super::settings::{ObjectsSettings, Settings};
use crate::backend::{Backend, Base, Bus, Kind};
use anyhow::{Context, Result};
use segue_bus::rabbitmq::{Options as RabbitOptions, RabbitBus};
use segue_bus::signals::InProcessSignals;
use segue_core::ids::ProjectId;
use segue_core::ports::{Fut, Presence, Signals, StoreError};
use segue_engine::Parts;
use segue_store::backup::Imports;
use segue_store::objects::{ObjectBlobs, Objects};
use segue_store::postgres::{self, Options as PostgresOptions, PostgresStore, Tls};
use segue_store::soft::{InProcessSoft, Options as RedisOptions, RedisSoft};
use std::io::BufRead;
use std::sync::Arc;

/// The object store of a cluster.
///
/// # Errors
/// When its address or options cannot be right.
pub fn objects(settings: &ObjectsSettings) -> Result<Objects> {
    let url = settings.url.trim_end_matches('/');
    let objects = Objects::open(&format!("{url}/bodies"), &settings.options);
    objects.with_context(|| format!("the object store {url}"))
}

/// How PostgreSQL is reached.
///
/// # Errors
/// When the file names no project or no database, or the object store cannot be opened.
pub fn postgres_options(settings: &Settings) -> Result<PostgresOptions> {
    let missing = || format!("{} has no section for it", settings.file.display());
    let project = settings.project.as_ref().with_context(missing)?;
    let postgres = settings.postgres.as_ref().with_context(missing)?;
    let objects = objects(settings.objects.as_ref().with_context(missing)?)?;
    let blobs = Arc::new(ObjectBlobs::new(objects));
    let mut options = PostgresOptions::new(postgres.url.reveal(), project.id, project.key, blobs);
    options.tls = postgres.ca.clone().map_or(Tls::System, Tls::Authorities);
    options.label = project.name.clone();
    options.lanes = postgres.lanes;
    Ok(options)
}

/// How RabbitMQ is reached, for this project.
pub fn rabbit_options(settings: &Settings, project: ProjectId) -> RabbitOptions {
    let rabbit = &settings.rabbitmq;
    let urls = rabbit.urls.iter().map(|url| url.reveal().to_owned()).collect();
    let mut options = RabbitOptions::new(urls, project.to_string());
    if let Some(prefix) = &rabbit.prefix {
        options.prefix = prefix.clone();
    }
    options.ca_file = rabbit.ca.clone();
    options.engine_users = rabbit.engine_users.clone();
    options
}

/// How Redis is reached, where there is one.
pub fn redis_options(settings: &Settings, project: ProjectId) -> Option<RedisOptions> {
    let redis = settings.redis.as_ref()?;
    let mut options = RedisOptions::new(redis.url.reveal(), project.to_string());
    options.ca = redis.ca.clone();
    Some(options)
}

/// One choice of TLS for the whole process: libraries ask for it, and two of them are built in.
pub fn choose_tls() {
    // Somebody else may have made the same choice already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn connected_store(settings: &Settings) -> Result<Arc<PostgresStore>> {
    choose_tls();
    PostgresStore::connect(postgres_options(settings)?).await.context("PostgreSQL")
}

/// The tables and bodies of a cluster, and nothing else.
///
/// # Errors
/// When they cannot be reached.
pub fn backend(settings: &Settings) -> Fut<'_, Result<Backend>> {
    // Boxed, as the drivers' futures are deep.
    Box::pin(async {
        let store = connected_store(settings).await?;
        Ok(Backend::new(store.clone(), store.clone(), Kind::Postgres(store)))
    })
}

/// The project of a cluster, for filling it: nothing may be there yet.
///
/// # Errors
/// When the file names no project or no database, or the object store cannot be opened.
pub fn empty(settings: &Settings) -> Result<Box<dyn Imports>> {
    choose_tls();
    Ok(Box::new(EmptyProject(postgres_options(settings)?)))
}

struct EmptyProject(PostgresOptions);

impl Imports for EmptyProject {
    fn import_rows(&self, mut from: Box<dyn BufRead + Send>) -> Fut<'_, Result<(), StoreError>> {
        let options = self.0.clone();
        Box::pin(async move {
            // Reading is not asynchronous: the threads that others wait for are left alone.
            let here = tokio::runtime::Handle::current();
            let work = move || here.block_on(postgres::import(options, from.as_mut())).map(drop);
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| StoreError::Io(format!("the import was cut off: {error}")))?
        })
    }
}

/// Everything that a node of a cluster stands on.
///
/// # Errors
/// When one of the servers cannot be reached; Redis may be away.
pub fn base(settings: &Settings) -> Fut<'_, Result<Base>> {
    Box::pin(connected(settings))
}

async fn connected(settings: &Settings) -> Result<Base> {
    let store = connected_store(settings).await?;
    let project = settings.project.as_ref().map(|project| project.id);
    let project = project.context("there is no [project]")?;
    let bus = RabbitBus::connect(rabbit_options(settings, project)).await.context("RabbitMQ")?;
    let (signals, presence): (Arc<dyn Signals>, Arc<dyn Presence>) =
        match redis_options(settings, project) {
            Some(options) => {
                let redis = RedisSoft::connect(options).await.context("Redis")?;
                (redis.signals(InProcessSignals::new()), redis.presence())
            }
            None => (store.signals(), InProcessSoft::new()),
        };
    let backend = Backend::new(store.clone(), store.clone(), Kind::Postgres(store.clone()));
    let parts = Parts { store: store.clone(), blobs: store, bus: bus.clone(), signals, presence };
    Ok(Base::new(backend, parts, Bus::Broker(bus)))
}
