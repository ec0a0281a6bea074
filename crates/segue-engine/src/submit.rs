//! Stop 2 of the trip: work comes in.

use crate::engine::{Engine, EngineError};
use segue_core::command::{Command, NewTask, Reply, Submit};
use segue_core::ids::TaskId;
use segue_core::payload::{DATABASE_MAX, Payload};
use segue_core::ports::Decision;
use segue_core::ports::StoreError;

impl Engine {
    /// Takes in a task or a whole graph. When this returns, it is durable.
    ///
    /// # Errors
    /// When the graph is refused, or the store cannot.
    pub async fn submit(&self, tasks: Vec<NewTask>) -> Result<TaskId, EngineError> {
        match self.command(Command::Submit(Submit { tasks })).await? {
            Reply::Submitted { root, .. } | Reply::Existing { root } => Ok(root),
            other => Err(StoreError::Io(format!("a submit was answered by {other:?}")).into()),
        }
    }

    /// Takes in many independent submits in one batch; each is accepted or refused by itself.
    ///
    /// # Errors
    /// When the store cannot.
    pub async fn submit_batch(&self, submits: Vec<Submit>) -> Result<Vec<Decision>, EngineError> {
        Ok(self.apply(submits.into_iter().map(Command::Submit).collect()).await?)
    }

    /// A payload of this JSON text, whatever its size: large bodies are kept before this returns.
    ///
    /// # Errors
    /// When the text is no JSON, or the blob store cannot keep it.
    pub async fn payload(&self, text: String) -> Result<Payload, EngineError> {
        payload(self.parts.blobs.as_ref(), text).await
    }

    /// The text of a payload, wherever it is kept.
    ///
    /// # Errors
    /// When the body is missing or damaged.
    pub async fn text_of(&self, payload: &Payload) -> Result<String, EngineError> {
        match payload {
            Payload::Stored { hash, .. } => {
                let bytes = self.parts.blobs.get(*hash).await?;
                String::from_utf8(bytes).map_err(|_| {
                    StoreError::Corrupt(format!("payload {} is not UTF-8", hash.hex())).into()
                })
            }
            here @ Payload::Here(_) => Ok(here.text().unwrap_or("null").to_owned()),
        }
    }
}

/// A payload of this JSON text, whatever its size.
pub(crate) async fn payload(
    blobs: &dyn segue_core::ports::Blobs,
    text: String,
) -> Result<Payload, EngineError> {
    if text.len() > DATABASE_MAX {
        serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(not_json)?;
        return Ok(blobs.put(text.into_bytes()).await?);
    }
    Payload::of_text(text).map_err(not_json)
}

fn not_json(error: impl std::fmt::Display) -> EngineError {
    EngineError::Rejected(segue_core::command::Reject::Invalid(error.to_string()))
}
