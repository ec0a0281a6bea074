//! Many machines: what their nodes share, how the servers are reached, and who is who.

pub mod connect;
pub mod doctor;
pub mod duties;
pub mod place;
pub mod read;
pub mod settings;
pub mod tls;

pub use settings::{For, Settings};
