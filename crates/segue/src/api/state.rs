//! What the handlers stand on.

use super::error::ApiError;
use super::views::Names;
use crate::backend::Backend;
use crate::project::Project;
use crate::roster::Roster;
use parking_lot::RwLock;
use segue_core::command::{Command, Reject, Reply};
use segue_core::payload::{DATABASE_MAX, Payload};
use segue_core::ports::{Store, StoreError};
use segue_engine::Engine;
use std::sync::Arc;
use tokio::sync::watch;

/// What the handlers stand on: a project's store and, in a node, its engine.
pub struct Api {
    /// The project.
    pub project: Project,
    /// Its tables and bodies.
    pub backend: Backend,
    /// Its engine, in a node. Without one, tasks are taken in and wait.
    pub engine: Option<Arc<Engine>>,
    /// Who is defined where.
    pub roster: RwLock<Arc<Roster>>,
    /// Becomes true when whoever serves this ends: streams end with it.
    pub closing: watch::Receiver<bool>,
}

/// The state of the router.
pub type Shared = Arc<Api>;

impl Api {
    /// The store, for reading.
    pub fn store(&self) -> &dyn Store {
        self.backend.store.as_ref()
    }

    /// Who is defined where, at this moment.
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.read().clone()
    }

    /// Who is defined where, if that can be told.
    ///
    /// # Errors
    /// When a file that defines them is wrong.
    pub fn sound_roster(&self) -> Result<Arc<Roster>, ApiError> {
        let roster = self.roster();
        match &roster.broken {
            None => Ok(roster),
            Some(why) => Err(ApiError::invalid(why.clone())
                .hint("mend the file; docs/segue-toml.md describes it")),
        }
    }

    /// Applies one command: by the engine where one runs, else by the store alone. What that leaves behind stands in
    /// the tables, and the next engine takes it up.
    ///
    /// # Errors
    /// When it is refused, or the store cannot.
    pub async fn command(&self, command: Command) -> Result<Reply, ApiError> {
        if let Some(engine) = &self.engine {
            return Ok(engine.command(command).await?);
        }
        let decisions = self.store().apply(vec![command]).await?;
        match decisions.into_iter().next() {
            Some(Ok(effects)) => Ok(effects.reply),
            Some(Err(reject)) => Err(reject.into()),
            None => Err(StoreError::Io("it gave no answer to a command".into()).into()),
        }
    }

    /// A payload of this JSON text, whatever its size.
    ///
    /// # Errors
    /// When it is no JSON, or cannot be kept.
    pub async fn payload(&self, text: String) -> Result<Payload, ApiError> {
        if text.len() > DATABASE_MAX {
            return Ok(self.backend.blobs.put(text.into_bytes()).await?);
        }
        Payload::of_text(text).map_err(|error| Reject::Invalid(error.to_string()).into())
    }

    /// The text of a payload, wherever it is kept.
    ///
    /// # Errors
    /// When the body is missing or damaged.
    pub async fn text_of(&self, payload: &Payload) -> Result<String, ApiError> {
        match payload {
            Payload::Stored { hash, .. } => {
                let bytes = self.backend.blobs.get(*hash).await?;
                String::from_utf8(bytes).map_err(|_| {
                    StoreError::Corrupt(format!("payload {} is not UTF-8", hash.hex())).into()
                })
            }
            here @ Payload::Here(_) => Ok(here.text().unwrap_or("null").to_owned()),
        }
    }

    /// The agents' names by instance.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn names(&self) -> Result<Names, ApiError> {
        Ok(Names::new(&self.store().agents().await?))
    }
}
