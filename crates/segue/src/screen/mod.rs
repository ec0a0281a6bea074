//! What people see: colours, tables, times, and the tree of a run.

pub mod live;
pub mod plain;
pub mod style;
pub mod table;
pub mod text;
pub mod tree;
