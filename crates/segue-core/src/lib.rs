//! What is true in Segue, with no clock and no wires.
//!
//! This crate holds the words of the product as types and the one function through which
//! every change of state goes, [`decide`](decide::decide). It is pure: no runtime, no SQL, no clock,
//! no randomness, no input or output. Time, ids and chance come in through [`decide::Ctx`].

pub mod agent;
pub mod attempt;
pub mod changes;
pub mod command;
pub mod decide;
pub mod discover;
pub mod event;
pub mod failpoint;
pub mod fleet;
pub mod ids;
pub mod letter;
pub mod outage;
pub mod outcome;
pub mod payload;
pub mod plan;
pub mod ports;
pub mod retry;
pub mod route;
pub mod scope;
pub mod snapshot;
pub mod state;
pub mod task;
pub mod template;
pub mod time;
pub mod trace;
pub mod worker;
pub mod workflow;
