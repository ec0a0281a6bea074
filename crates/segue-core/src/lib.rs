//! What is true in Segue, with no clock and no wires.
//!
//! This crate holds the words of the product as types and the one function through which
//! every change of state goes, [`decide`](decide::decide). It is pure: no runtime, no SQL, no clock,
//! no randomness, no input or output. Time, ids and chance come in through [`decide::Ctx`].

pub mod discover;
pub mod plan;
pub mod template;
pub mod workflow;
