//! Turns commands into changes, and changes into letters.
//!
//! The trip, one file a stop: [`submit`], [`dispatch`], [`intake`]; beside it the side stair: [`timers`], [`duties`] and the soft
//! state of the [`directory`]. Everything above the ports: nothing here knows which store or bus it stands on.

mod complain;
pub mod dead_letters;
pub mod directory;
pub mod dispatch;
pub mod duties;
pub mod engine;
mod hearing;
mod host_bus;
pub mod hosts;
pub mod intake;
mod lock_within;
pub mod locks;
pub mod presence;
mod reported;
mod roster;
pub mod single;
mod state;
pub mod submit;
pub mod timers;
mod wait;
mod workers;
pub mod workflow;

pub use engine::{Config, Engine, EngineError, Parts};
pub use host_bus::HostBus;
pub use hosts::LocalHost;
pub use lock_within::lock_within;
pub use locks::StoreLocks;
pub use single::{Job, Lease, Single, run_single};
