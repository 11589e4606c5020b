//! Tokenizers, detokenizer and chat templates from outside.

mod chat_goldens;
mod common;
mod detokenizer;
mod guard;
mod hostile;
mod none_goldens;
mod token_goldens;
