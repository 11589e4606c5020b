//! Bodies: of answers, and of requests within bounds.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::error::ApiError;

/// The body of an answer: whole, or what comes out of a channel.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    Channel(mpsc::Receiver<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            AnswerBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            AnswerBody::Channel(frames) => frames.poll_recv(context).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AnswerBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            AnswerBody::Channel(_) => SizeHint::default(),
        }
    }
}

/// Reads a body of JSON: at most `most_bytes` of it, within `time` as a whole, however it trickles.
pub(crate) async fn read_json(
    headers: &HeaderMap,
    body: Incoming,
    most_bytes: usize,
    time: Duration,
    bodies: &Semaphore,
) -> Result<Value, ApiError> {
    // A page of another site can send other types without asking first.
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let seen = if kind.is_empty() { "missing".to_owned() } else { format!("{:?}", shown(kind)) };
        let message = format!("the header content-type is {seen}, wanted application/json");
        return Err(ApiError::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let too_large = |seen: &str| {
        let message = format!("the body has {seen} bytes, wanted at most {most_bytes}");
        ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    if let Some(len) = announced.filter(|&len| len > most_bytes as u64) {
        return Err(too_large(&len.to_string()));
    }
    let late = || {
        let message = format!("the body did not come within {} seconds", time.as_secs());
        ApiError::refused(StatusCode::REQUEST_TIMEOUT, message)
    };
    let collected = tokio::time::timeout(time, collect(body, most_bytes, bodies)).await.map_err(|_| late())?;
    let (bytes, _room) = collected?.ok_or_else(|| too_large("more"))?;
    if bytes.len() < LONG_BYTES {
        return parse(&bytes);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
    parsed.unwrap_or_else(|_| Err(ApiError::failed("the body could not be read")))
}

/// Bytes of all bodies that are being read and parsed.
const MOST_BYTES_AT_ONCE: usize = 256 << 20;
const KIB: usize = 1 << 10;
/// A body of so many bytes is parsed beside the threads that serve connections.
const LONG_BYTES: usize = 64 << 10;

/// Places for the bodies of all connections, one for each KiB.
pub(crate) fn places() -> Semaphore {
    Semaphore::new(MOST_BYTES_AT_ONCE / KIB)
}

/// JSON of bounded depth: serde_json stops at 128.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad(format!("the body is no JSON that can be read: {error}")))
}

/// A body with the places that it takes; `None` for one that is longer. Many that come at once wait
/// for each other, as far as they have come, rather than take memory together.
async fn collect<'p>(
    mut body: Incoming,
    most_bytes: usize,
    bodies: &'p Semaphore,
) -> Result<Option<(Vec<u8>, Option<SemaphorePermit<'p>>)>, ApiError> {
    let (mut bytes, mut room) = (Vec::new(), None::<SemaphorePermit<'p>>);
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| ApiError::bad(format!("the body cannot be read: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > most_bytes {
            return Ok(None);
        }
        // The places are never closed.
        if let Ok(more) = bodies.acquire_many(data.len().div_ceil(KIB) as u32).await {
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
        }
        bytes.extend_from_slice(data);
    }
    Ok(Some((bytes, room)))
}

/// What a client sent, as an error repeats it.
pub(crate) fn shown(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(at, _)| &text[..at])
}
