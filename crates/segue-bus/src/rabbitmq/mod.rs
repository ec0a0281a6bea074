//! The bus over RabbitMQ: letters survive the process that sent them, and everybody who reaches the broker takes part.
//!
//! See `docs/wire.md` for what goes over it, and `docs/decisions/007-rabbitmq.md` for why it is cut so.

mod book;
mod bus;
mod consume;
mod dead;
mod link;
mod names;
mod options;
mod probe;
mod publish;
mod standing;
mod topology;

pub use bus::{RabbitBus, Status};
pub use names::DEAD_MAX;
pub use options::Options;
pub use probe::Probe;

use bus::Shared;
