//! What goes wrong is told once: what passes by itself, by the adapter whose server is away; everything else, by whoever met it.

use crate::engine::EngineError;
use segue_core::ports::Passing;
use std::fmt::Display;

impl Passing for EngineError {
    fn is_passing(&self) -> bool {
        match self {
            EngineError::Store(error) => error.is_passing(),
            EngineError::Bus(error) => error.is_passing(),
            EngineError::Rejected(_) => false,
        }
    }
}

/// Tells what could not be done, unless that is the consequence of an outage alone.
pub(crate) fn complain(error: &(impl Passing + Display), what: &str) {
    if error.is_passing() {
        tracing::debug!(%error, "{what}");
    } else {
        tracing::warn!(%error, "{what}");
    }
}
