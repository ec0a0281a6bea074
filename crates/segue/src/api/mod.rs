//! The REST API: one router, whether a request comes over the Unix socket or from within the same process.
//!
//! `docs/api.md` describes it for its users. Handlers turn JSON into commands and rows into views; every change of
//! state goes through the engine's one door, or, where no engine runs, through the store's.

pub mod agents;
pub mod error;
pub mod event_view;
pub mod events;
pub mod extract;
pub mod ids;
pub mod locks;
pub mod log;
pub mod missing;
pub mod nodes;
pub mod router;
pub mod runs;
pub mod shared;
pub mod state;
pub mod submit;
pub mod tasks;
pub mod trace;
pub mod upkeep;
pub mod views;

pub use router::router;
pub use state::Api;
