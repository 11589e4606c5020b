//! Why a saved context cannot be used.

use std::io;

/// Why a saved context cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// The file could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),

    /// The file is something else.
    #[error("it is no saved session")]
    NotASession,

    /// Another program wrote it.
    #[error("it has version {seen} of the format, wanted {wanted}")]
    Version {
        /// The file's.
        seen: u32,
        /// The only one that is read.
        wanted: u32,
    },

    /// It is of other weights or of another vocabulary.
    #[error("it is of another model")]
    OtherModel,

    /// What was computed then has other bits than what would be computed now.
    #[error("its {what} is {seen}, here it is {wanted}")]
    Other {
        /// What is another: the type of the cache, the instruction set, ...
        what: &'static str,
        /// The file's.
        seen: String,
        /// This one's.
        wanted: String,
    },

    /// The context is too short for it.
    #[error("it has {tokens} tokens, the context holds {ctx_tokens}")]
    TooLong {
        /// Tokens of the file.
        tokens: u64,
        /// Tokens of the context.
        ctx_tokens: usize,
    },

    /// It holds a context, but no messages.
    #[error("it holds no chat")]
    NotAChat,

    /// Bytes were changed or lost.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}
