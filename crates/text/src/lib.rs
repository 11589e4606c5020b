//! Text in and out of a model.
//!
//! [`Tokenizer`] turns text into token ids by the vocabulary of a GGUF file and [`Detokenizer`]
//! turns a stream of ids back into text. [`chat`] renders conversations into the text that a model
//! was trained on.
//!
//! How a text is encoded: special tokens are found first (`partition`), the rest is cut into words
//! (`split`, byte-level vocabularies only), and inside of each word neighbours are merged, best
//! pair first (`bpe`, `spm`, both over `merge`).
#![forbid(unsafe_code)]

mod bpe;
mod bytemap;
pub mod chat;
mod detokenizer;
mod edges;
mod error;
mod merge;
mod partition;
mod printable;
mod special;
mod split;
mod spm;
mod table;
mod token;
mod tokenizer;
mod vocab;

pub use detokenizer::{Detokenizer, DetokenizerState};
pub use error::TextError;
pub use printable::printable;
pub use token::TokenId;
pub use tokenizer::{EncodeOptions, Tokenizer};
