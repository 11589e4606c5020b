//! What a client gets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use modelembed::TokenId;
use tokio::sync::mpsc;

/// What happens to a request, in this order: [`PromptToken`](Event::PromptToken)s where they were
/// wanted, [`Prompt`](Event::Prompt), [`Token`](Event::Token)s, [`End`](Event::End). Only the end
/// always comes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A token of the prompt, where log-probabilities of these were wanted.
    PromptToken {
        /// The token.
        id: TokenId,
        /// Its bytes.
        bytes: Vec<u8>,
        /// Its log-probability; `None` for the first one, which nothing stands before.
        logprob: Option<f32>,
        /// The most likely ones in its place, most likely first.
        top: Vec<(TokenId, f32)>,
    },
    /// The prompt is computed: the first token follows.
    Prompt {
        /// Tokens of the prompt.
        tokens: usize,
        /// Of these, tokens that were not computed, since they were there.
        cached_tokens: usize,
    },
    /// A token of the answer.
    Token {
        /// The token.
        id: TokenId,
        /// The text that is sure with it: whole characters, nothing that may become a stop text.
        /// It may be of earlier tokens, and be empty.
        text: String,
        /// The token's own bytes.
        bytes: Vec<u8>,
        /// Its log-probability, where it was wanted.
        logprob: Option<f32>,
        /// The most likely ones in its place, most likely first.
        top: Vec<(TokenId, f32)>,
    },
    /// Nothing follows.
    End(End),
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// Text that was held back, and is part of the answer.
    pub text: String,
    /// What was computed.
    pub usage: Usage,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The model has done.
    Stop,
    /// This text of [`stop`](crate::Request::stop) came.
    StopString(String),
    /// This token of [`stop_tokens`](crate::Request::stop_tokens) came.
    StopToken(TokenId),
    /// It has as many tokens as were wanted, or as the context has room for.
    Length,
    /// The client cancelled it, or left.
    Cancelled,
    /// The client did not read.
    Slow,
    /// Something went wrong.
    Failed(String),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: usize,
    /// Of these, those that were not computed, since they were there.
    pub cached: usize,
    /// Of the answer; a token that ends the generation counts with them.
    pub completion: usize,
}

/// The events of a request. Who drops it cancels the request.
#[derive(Debug)]
pub struct Answer {
    pub(crate) id: u64,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) line: Arc<Line>,
}

/// What an answer and who writes it have in common beside the events.
#[derive(Debug, Default)]
pub(crate) struct Line {
    is_cancelled: AtomicBool,
    /// The end has a place of its own: it comes also where the channel is full.
    end: Mutex<Option<End>>,
}

impl Line {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Sets the end, which is read once the sender is gone.
    pub(crate) fn end(&self, end: End) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    fn take_end(&self) -> Option<Event> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take().map(Event::End)
    }
}

impl Answer {
    /// The request's number: they are given in the order in which requests came.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The next event; `None` after the end.
    pub async fn next(&mut self) -> Option<Event> {
        match self.events.recv().await {
            None => self.line.take_end(),
            event => event,
        }
    }

    /// The next event, for a thread of one's own; `None` after the end.
    ///
    /// # Panics
    /// Within an asynchronous task.
    pub fn blocking_next(&mut self) -> Option<Event> {
        match self.events.blocking_recv() {
            None => self.line.take_end(),
            event => event,
        }
    }

    /// Wants no more: the answer ends at the next step, with [`EndReason::Cancelled`].
    pub fn cancel(&self) {
        self.line.is_cancelled.store(true, Ordering::Release);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.cancel();
    }
}
