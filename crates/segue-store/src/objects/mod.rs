//! Objects by name in an S3 bucket or a folder: written whole, durable when the call returns, never half there.

mod blobs;
mod error;
mod options;
mod place;

pub use blobs::ObjectBlobs;
pub use error::{ObjectError, Trouble};
pub use options::{Options, Secret};
pub use place::{Created, Found, Objects};
