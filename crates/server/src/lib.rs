//! HTTP over the scheduler: OpenAI's chat and completions, and what llama-server's clients ask for.
//!
//! A [`Server`] is bound to an address and a scheduler's [`Handle`](modelembed_serve::Handle), and
//! [runs](Server::run) until its [`Stopper`] ends it. Requests are read, rendered and tokenized
//! beside the threads that serve connections; the scheduler answers with events, which
//! [`events`] turns into what an answer consists of, and encoders only format.
//!
//! Who may ask is decided before anything is read: names of this machine, pages of other sites,
//! keys. Whatever can be refused is refused with a status; a stream has its headers at once and
//! signs of life by the clock. A client that leaves cancels its answer.
//!
//! Nothing of a request is logged but its endpoint, status and time.
#![forbid(unsafe_code)]

mod answer;
mod api;
mod app;
mod encode;
mod endpoints;
mod error;
pub mod events;
mod http;
mod metrics;
mod openapi;
mod options;
mod prompt;

pub use error::ApiError;
pub use http::listener::{Server, ServerError, Stopper};
pub use options::{Listen, Options};

/// Whose body is read, see [`read_body`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Body {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

/// What [`read_body`] hands out of a chat: its messages, and the variables beside them.
#[doc(hidden)]
pub type ReadChat = (serde_json::Value, serde_json::Map<String, serde_json::Value>);

/// Reads the bytes of a body as its endpoint does, for a vocabulary of `n_vocab` tokens; a chat's
/// messages and variables come back. For tests of the readers.
///
/// # Errors
/// What a client would be told.
#[doc(hidden)]
pub fn read_body(kind: Body, body: &[u8], n_vocab: usize) -> Result<Option<ReadChat>, ApiError> {
    let (body, defaults) = (http::body::parse(body)?, modelembed::SamplerOptions::default());
    match kind {
        Body::Chat => {
            let conversation = api::chat::ChatRequest::read(&body, &defaults, n_vocab)?.conversation;
            Ok(Some((conversation.messages, conversation.variables)))
        }
        Body::Completion => api::completion::CompletionRequest::read(&body, &defaults, n_vocab).map(|_| None),
    }
}
