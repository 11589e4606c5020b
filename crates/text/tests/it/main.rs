//! Tokenizers, detokenizer and chat templates from outside.

mod chat_goldens;
mod common;
mod detokenizer;
mod hostile;
mod token_goldens;
