//! How serving goes.

use std::time::Duration;

/// What requests must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Tokens of a prompt and its answer together, at most.
    pub ctx_tokens: usize,
    /// Answers that are written at the same time, at most.
    pub sequences: usize,
    /// Requests that wait, at most.
    pub queue: usize,
    /// Tokens of the vocabulary.
    pub n_vocab: usize,
    /// Positions of a page of keys and values.
    pub page_tokens: usize,
}

/// How it goes at the moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Requests that wait for their first slice of prompt.
    pub queued: usize,
    /// Requests whose prompts are being computed.
    pub prompts: usize,
    /// Answers that are being written.
    pub running: usize,
    /// Pages of keys and values that are in use, those of kept prefixes included.
    pub pages_used: usize,
    /// Pages of kept prefixes, some of which running answers share.
    pub pages_cached: usize,
    /// Pages that there are.
    pub pages_total: usize,
    /// How long the last step took.
    pub step: Duration,
    /// How long ago it ended; since the start where there was none.
    pub since_step: Duration,
    /// Whether new requests are refused until those that are there have ended.
    pub is_draining: bool,
    /// Why nothing is computed any more.
    pub stopped: Option<String>,
    /// Counts since the start.
    pub totals: Totals,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Requests that became answers.
    pub accepted: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Answers that ended by themselves: by the model, a stop text or token, or their length.
    pub finished: u64,
    /// Answers whose clients left.
    pub cancelled: u64,
    /// Answers whose clients did not read.
    pub slow: u64,
    /// Answers that failed.
    pub failed: u64,
    /// Times that an answer went back to the queue for lack of pages.
    pub preempted: u64,
    /// Tokens of prompts, when they began to be computed.
    pub prompt_tokens: u64,
    /// Of these, tokens whose keys and values were there.
    pub cached_tokens: u64,
    /// Rows of prompts that were computed, those of answers that went back to the queue included.
    pub computed_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Steps.
    pub steps: u64,
    /// Pages that left the tree of prefixes for others.
    pub evicted_pages: u64,
}
