//! Keeps one ChangeSet whole or not at all.
//!
//! Adapters of the port [`Store`](segue_core::ports::Store), one module each. No rule of Segue is written here, and
//! none in SQL: an adapter loads what a batch of commands needs, lets [`decide`](segue_core::decide::decide)
//! decide, and writes what came out in one transaction.

pub mod backup;
mod failure;
pub mod objects;
pub mod postgres;
mod rows;
pub mod soft;
pub mod sqlite;

pub use rows::lines::Header;
