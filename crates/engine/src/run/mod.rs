//! What a loaded model does: batches of sequences, sessions, text, chats.

pub(crate) mod chat;
pub(crate) mod engine;
pub(crate) mod generate;
pub(crate) mod lookup;
pub(crate) mod progress;
pub(crate) mod runtime;
pub(crate) mod sampler;
pub(crate) mod saved;
pub(crate) mod session;
pub(crate) mod timing;
pub(crate) mod turns;
