//! Carries letters, and says what it promises.

pub mod in_process;
pub mod signals;
