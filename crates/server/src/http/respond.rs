//! Answers: JSON, text, errors, and the headers that all have.

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WARNING};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::ApiError;
use crate::http::body::AnswerBody;

/// An answer of this server.
pub(crate) type Answered = Response<AnswerBody>;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

fn whole(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Answered {
    let mut response = Response::new(AnswerBody::Whole(Some(bytes.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(crate) fn json(value: &Value) -> Answered {
    json_with(StatusCode::OK, value)
}

pub(crate) fn json_with(status: StatusCode, value: &Value) -> Answered {
    whole(status, "application/json", value.to_string().into_bytes())
}

pub(crate) fn text(kind: &'static str, text: String) -> Answered {
    whole(StatusCode::OK, kind, text.into_bytes())
}

/// No content, and which methods there are.
pub(crate) fn options(allow: &str) -> Answered {
    let mut response = Response::new(AnswerBody::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert(&mut response, ALLOW, allow);
    response
}

/// An error, with what SDKs go by: they send again after most statuses unless they are told not to.
pub(crate) fn error(error: &ApiError) -> Answered {
    let mut response = json_with(error.status, &error.body());
    match error.retry_after {
        Some(after) => insert(&mut response, RETRY_AFTER, &after.as_secs().max(1).to_string()),
        None => insert(&mut response, SHOULD_RETRY, "false"),
    }
    if error.status == StatusCode::UNAUTHORIZED {
        insert(&mut response, hyper::header::WWW_AUTHENTICATE, "Bearer");
    }
    response
}

/// Whether a stream is of events, or one JSON text that may come late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streamed {
    Events,
    Json,
}

/// An answer whose headers go out at once and whose body comes through a channel.
pub(crate) fn stream(kind: Streamed, frames: mpsc::Receiver<hyper::body::Bytes>) -> Answered {
    let mut response = Response::new(AnswerBody::Channel(frames));
    match kind {
        Streamed::Events => {
            insert(&mut response, CONTENT_TYPE, "text/event-stream");
            insert(&mut response, CACHE_CONTROL, "no-cache");
            // Proxies are to pass on what comes.
            insert(&mut response, ACCEL_BUFFERING, "no");
        }
        Streamed::Json => insert(&mut response, CONTENT_TYPE, "application/json"),
    }
    response
}

/// Tells what of a request has no effect.
pub(crate) fn warn(response: &mut Answered, warnings: &[String]) {
    for warning in warnings {
        let text: String =
            warning.chars().map(|c| if c == '"' || c == '\\' || c.is_control() { '\'' } else { c }).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 modelembed \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Sets a header, unless it holds what none may.
pub(crate) fn insert(response: &mut Answered, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
