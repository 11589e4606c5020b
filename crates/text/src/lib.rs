//! Text in and out of a model.
#![forbid(unsafe_code)]

pub mod chat;
mod printable;

pub use printable::printable;
