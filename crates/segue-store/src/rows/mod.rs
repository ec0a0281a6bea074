//! Rows and values: how every backend spells them.

mod batch;
mod cells;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod letters;
pub(crate) mod lines;
pub(crate) mod tables;

pub(crate) use batch::{WEIGHT_MAX, add, changes_anything, weight};
pub(crate) use cells::Cells;
