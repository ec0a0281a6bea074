//! A process that hosts agents for a project whose engine is elsewhere: everything goes by letters.

mod blobs;
mod link;
mod presence;

pub use blobs::{BusBlobs, SpooledBlobs};
pub use link::{Link, LinkError};
pub use presence::{Presence, Stay};
