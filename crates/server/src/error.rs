//! What a client is told when a request fails.

use std::time::Duration;

use hyper::StatusCode;
use modelembed_serve::Refused;
use serde_json::{Map, Value, json};

/// An answer that says what is wrong, in the shape of OpenAI's interface.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status, where nothing was sent yet.
    pub status: StatusCode,
    /// The class of the error.
    pub kind: &'static str,
    /// What was seen and what was wanted.
    pub message: String,
    /// The field that is meant, as a path from the body.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
    /// When it may be otherwise. Errors without would come again.
    pub retry_after: Option<Duration>,
    /// Numbers for programs.
    pub numbers: Box<[(&'static str, usize)]>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        let message = message.into();
        ApiError { status, kind, message, param: None, code: None, retry_after: None, numbers: Box::default() }
    }

    /// A field that is not what it should be.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::bad(message) }
    }

    /// A request that makes no sense as a whole.
    pub(crate) fn bad(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    pub(crate) fn refused(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError::new(status, INVALID, message)
    }

    pub(crate) fn code(mut self, code: &'static str) -> ApiError {
        self.code = Some(code);
        self
    }

    /// A prompt that can never fit: clients that know the code make it shorter.
    pub(crate) fn too_long(param: &str, prompt: usize, limit: usize, message: String) -> ApiError {
        let numbers = Box::new([("n_prompt_tokens", prompt), ("n_ctx", limit)]);
        ApiError { numbers, ..ApiError::invalid(param, message).code("context_length_exceeded") }
    }

    /// What went wrong while an answer was computed.
    pub(crate) fn failed(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message)
    }

    /// Why the scheduler takes no request; `param` is the field of the prompt.
    pub(crate) fn of_refusal(refused: &Refused, param: &str) -> ApiError {
        let message = refused.to_string();
        match refused {
            Refused::TooLong { prompt, limit, .. } => {
                let message = format!("{message}: it exceeds the available context size");
                ApiError::too_long(param, *prompt, *limit, message)
            }
            Refused::QueueFull { retry_after, .. } => ApiError {
                retry_after: Some(*retry_after),
                ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).code("queue_full")
            },
            Refused::Draining => ApiError {
                retry_after: Some(Duration::from_secs(5)),
                ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message).code("draining")
            },
            Refused::Invalid { field, .. } => ApiError::invalid(*field, message),
            // Why may name what is nobody's affair.
            _ => {
                tracing::error!(message, "a request was refused");
                let message = "no requests are taken any more: what computes has ended";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message).code("stopped")
            }
        }
    }

    /// The body.
    pub fn body(&self) -> Value {
        let mut error = Map::from_iter([
            ("message".to_string(), json!(self.message)),
            ("type".to_string(), json!(self.kind)),
            ("param".to_string(), json!(self.param)),
            ("code".to_string(), json!(self.code)),
        ]);
        error.extend(self.numbers.iter().map(|(name, n)| ((*name).to_string(), json!(n))));
        json!({ "error": error })
    }
}
