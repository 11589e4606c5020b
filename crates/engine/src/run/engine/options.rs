//! How an engine is set up.

use std::sync::Arc;

use modelembed_terms::CacheType;

use crate::run::progress::EvalProgress;

/// How an [`Engine`](super::Engine) is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Sequences that it holds at most.
    pub sequences: usize,
    /// Tokens that a sequence holds at most; `None` takes the length that the model was trained
    /// for.
    pub ctx_tokens: Option<usize>,
    /// Tokens that keys and values of all sequences have room for, and of pages that are kept
    /// beside them, in pages of 256 of which each sequence has its own last one; `None` takes what
    /// full sequences need.
    pub kv_tokens: Option<usize>,
    /// Bytes that keys and values of all sequences, and of pages that are kept beside them, may
    /// take; `None` sets no limit but the runtime's.
    pub kv_bytes: Option<u64>,
    /// Tokens that are computed together at most, which working memory grows with; `None` takes as
    /// many as are quickest.
    pub chunk_tokens: Option<usize>,
    /// What keys and values are stored in; `None` takes [`I16`](CacheType::I16) where heads fit,
    /// and f32 for a model loaded as [exact](crate::LoadOptions::exact).
    pub cache_type: Option<CacheType>,
    /// Whether it is measured where the time goes. Costs two readings of a clock a job.
    pub timing: bool,
    /// Told how far each step is.
    pub progress: Option<Arc<EvalProgress>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            sequences: 1,
            ctx_tokens: None,
            kv_tokens: None,
            kv_bytes: None,
            chunk_tokens: None,
            cache_type: None,
            timing: false,
            progress: None,
        }
    }
}

impl EngineOptions {
    /// These options with so many sequences.
    #[must_use]
    pub fn sequences(mut self, sequences: usize) -> EngineOptions {
        self.sequences = sequences;
        self
    }

    /// These options with sequences of so many tokens.
    #[must_use]
    pub fn ctx_tokens(mut self, ctx_tokens: impl Into<Option<usize>>) -> EngineOptions {
        self.ctx_tokens = ctx_tokens.into();
        self
    }

    /// These options with room for keys and values of so many tokens in all.
    #[must_use]
    pub fn kv_tokens(mut self, kv_tokens: impl Into<Option<usize>>) -> EngineOptions {
        self.kv_tokens = kv_tokens.into();
        self
    }

    /// These options with at most so many bytes for keys and values.
    #[must_use]
    pub fn kv_bytes(mut self, kv_bytes: impl Into<Option<u64>>) -> EngineOptions {
        self.kv_bytes = kv_bytes.into();
        self
    }

    /// These options with at most so many tokens computed together.
    #[must_use]
    pub fn chunk_tokens(mut self, chunk_tokens: impl Into<Option<usize>>) -> EngineOptions {
        self.chunk_tokens = chunk_tokens.into();
        self
    }

    /// These options with keys and values stored in this type.
    #[must_use]
    pub fn cache_type(mut self, cache_type: impl Into<Option<CacheType>>) -> EngineOptions {
        self.cache_type = cache_type.into();
        self
    }

    /// These options with time measured stage by stage, or without.
    #[must_use]
    pub fn timing(mut self, timing: bool) -> EngineOptions {
        self.timing = timing;
        self
    }

    /// These options with something that is told how far each step is.
    #[must_use]
    pub fn progress(mut self, progress: impl Into<Option<Arc<EvalProgress>>>) -> EngineOptions {
        self.progress = progress.into();
        self
    }
}
