//! How serving is set up.

use std::time::Duration;

use modelembed::CacheType;

/// How serving is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Answers that are written at the same time, at most; with layers on a GPU one is.
    pub sequences: usize,
    /// Tokens of a prompt and its answer together, at most; `None` takes the length that the model
    /// was trained for.
    pub ctx_tokens: Option<usize>,
    /// Bytes that keys and values may take, those that are kept for later requests included;
    /// `None` takes what `sequences` full contexts need.
    pub kv_bytes: Option<u64>,
    /// What keys and values are stored in; `None` takes what the engine takes.
    pub cache_type: Option<CacheType>,
    /// How long a step may last for the sake of a prompt. Where one row of every running answer
    /// takes more than two thirds of this, it is one and a half times those rows instead.
    pub step: Duration,
    /// Requests that wait, at most.
    pub queue: usize,
    /// Events that wait for their reader, at most: an answer whose reader is further behind ends.
    pub events: usize,
    /// Whether what was computed is kept for later requests.
    pub keeps_prefixes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            sequences: 16,
            ctx_tokens: None,
            kv_bytes: None,
            cache_type: None,
            step: Duration::from_millis(150),
            queue: 256,
            events: 1024,
            keeps_prefixes: true,
        }
    }
}

impl Options {
    /// These options with so many answers at the same time.
    #[must_use]
    pub fn sequences(mut self, sequences: usize) -> Options {
        self.sequences = sequences;
        self
    }

    /// These options with contexts of so many tokens.
    #[must_use]
    pub fn ctx_tokens(mut self, ctx_tokens: impl Into<Option<usize>>) -> Options {
        self.ctx_tokens = ctx_tokens.into();
        self
    }

    /// These options with so many bytes for keys and values.
    #[must_use]
    pub fn kv_bytes(mut self, kv_bytes: impl Into<Option<u64>>) -> Options {
        self.kv_bytes = kv_bytes.into();
        self
    }

    /// These options with keys and values stored in this type.
    #[must_use]
    pub fn cache_type(mut self, cache_type: impl Into<Option<CacheType>>) -> Options {
        self.cache_type = cache_type.into();
        self
    }

    /// These options with steps of this length.
    #[must_use]
    pub fn step(mut self, step: Duration) -> Options {
        self.step = step;
        self
    }

    /// These options with so many requests that may wait.
    #[must_use]
    pub fn queue(mut self, queue: usize) -> Options {
        self.queue = queue;
        self
    }

    /// These options with so many events that may wait for their reader.
    #[must_use]
    pub fn events(mut self, events: usize) -> Options {
        self.events = events;
        self
    }

    /// These options with prefixes kept for later requests, or not.
    #[must_use]
    pub fn keeps_prefixes(mut self, keeps_prefixes: bool) -> Options {
        self.keeps_prefixes = keeps_prefixes;
        self
    }
}
