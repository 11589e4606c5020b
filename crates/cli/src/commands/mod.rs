//! One file a sub-command.

pub mod bench;
pub mod inspect;
pub mod pack;
pub mod score;
pub mod tokenize;
