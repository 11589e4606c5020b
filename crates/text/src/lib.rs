//! Text in and out of a model.
#![forbid(unsafe_code)]

pub mod chat;
mod error;
mod printable;
mod token;

pub use error::TextError;
pub use printable::printable;
pub use token::TokenId;

mod interim;
pub use interim::{Detokenizer, EncodeOptions, Tokenizer};
