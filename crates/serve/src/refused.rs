//! Why serving does not start, and why a request does not become an answer.

use std::time::Duration;

/// Why serving does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The engine refuses the options.
    #[error(transparent)]
    Engine(#[from] modelembed::Error),
    /// An option has a value that it cannot have.
    #[error("{option} is {seen}, wanted {wanted}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// What it has.
        seen: String,
        /// What it can have.
        wanted: String,
    },
    /// The operating system has no thread.
    #[error("no thread to compute on: {0}")]
    Thread(std::io::Error),
}

/// Why a request does not become an answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It can never fit. It would come again.
    #[error("the prompt has {prompt} tokens and the answer at least {wanted}, but the context holds {limit}")]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that the answer must have room for.
        wanted: usize,
        /// Tokens that a prompt and its answer have together at most.
        limit: usize,
    },
    /// Too many wait already.
    #[error("{queued} requests wait already, which is as many as may")]
    QueueFull {
        /// Requests that wait.
        queued: usize,
        /// When there may be room.
        retry_after: Duration,
    },
    /// Those that are there are finished, and no new ones taken.
    #[error("no new requests are taken: serving is about to end")]
    Draining,
    /// Nothing is computed any more.
    #[error("no requests are taken any more: {why}")]
    Stopped {
        /// What happened.
        why: String,
    },
    /// A field has a value that it cannot have. It would come again.
    #[error("{field} is {seen}, wanted {wanted}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// What it has.
        seen: String,
        /// What it can have.
        wanted: String,
    },
}
