//! One file a sub-command; `parts` and `scan` are what some of them share.

pub mod bench;
mod chart;
pub mod compare;
pub mod inspect;
pub mod pack;
mod parts;
pub mod plan;
mod scan;
pub mod score;
pub mod status;
pub mod synthetic;
pub mod tokenize;
pub mod verify;
pub mod warm;
