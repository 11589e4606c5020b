//! One file a sub-command.

pub mod bench;
pub mod inspect;
pub mod score;
pub mod synthetic;
pub mod tokenize;
