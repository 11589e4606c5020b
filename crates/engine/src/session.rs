//! A conversation with a model: what it has seen, and what it expects next.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelembed_spec::Register;
use modelembed_terms::CacheType;
use modelembed_text::TokenId;

use crate::cpu::scratch::{LOGIT_COLS, Scratch, session_cols};
use crate::cpu::{Pass, Wanted};
use crate::error::{Error, Result};
use crate::gpu::{Best, GpuSession};
use crate::model::Model;
use crate::progress::EvalProgress;
use crate::sampler::Sampler;
use crate::state::kv::{self, KvCache};
use crate::state::rope::Turn;
use crate::timing::{Clock, Phase, Stage, Timing};

/// Guesses that one evaluation checks at most: with the token before them as many columns as logits
/// are computed for at once.
pub(crate) const MAX_DRAFT_TOKENS: usize = LOGIT_COLS - 1;

/// Token ids that a session has room for from the start, in 4 MB: metadata may name a context of
/// any length, and what a token appends must not allocate in contexts that are used.
const MOST_RESERVED_TOKENS: usize = 1 << 20;

/// How a [`Session`] is set up.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Tokens that the context holds; `None` takes the length that the model was trained for.
    pub ctx_tokens: Option<usize>,
    /// Tokens that are computed together at most, which working memory grows with; `None` takes as
    /// many as are quickest. A session whose longest prompt is known needs no more than that.
    pub chunk_tokens: Option<usize>,
    /// When this is set, [`Session::eval`] stops at the next layer with [`Error::Cancelled`].
    pub cancel: Option<Arc<AtomicBool>>,
    /// Told how far each evaluation is.
    pub progress: Option<Arc<EvalProgress>>,
    /// What keys and values are stored in; `None` takes [`I16`](CacheType::I16) where heads fit,
    /// and f32 for a model loaded as [exact](crate::LoadOptions::exact).
    pub cache_type: Option<CacheType>,
    /// Whether [`Session::timing`] tells where the time goes. Costs two readings of a clock a job.
    pub timing: bool,
}

/// A context of tokens over a shared model: KV cache and working memory. Everything that changes is
/// here.
pub struct Session {
    model: Arc<Model>,
    kv: KvCache,
    scratch: Scratch,
    gpu: Option<GpuSession>,
    tokens: Vec<TokenId>,
    cancel: Option<Arc<AtomicBool>>,
    progress: Option<Arc<EvalProgress>>,
    clock: Clock,
    /// Of the last evaluation the logits that a sampler needs, where they did not all come to
    /// `scratch`: one for each column.
    best: Option<Vec<Best>>,
}

impl Session {
    /// Reserves the memory of a context; it is used as the context fills.
    ///
    /// # Errors
    /// A context of 0 tokens or of more than memory can be addressed for, or the operating system's
    /// refusal.
    pub fn new(model: &Arc<Model>, options: SessionOptions) -> Result<Session> {
        let capacity = options.ctx_tokens.unwrap_or(model.spec().ctx_train);
        if capacity == 0 {
            return Err(Error::InvalidOption("a context of 0 tokens holds nothing; wanted at least 1".into()));
        }
        let cache_type =
            options.cache_type.unwrap_or_else(|| kv::usual_type(model.program().caches(), model.is_exact()));
        if options.timing {
            model.pool().measure_waiting(true);
        }
        // A layer's keys and values live where the layer lives.
        let shapes = &model.program().caches()[..model.cpu_share().n_caches(model.program())];
        let kv = KvCache::new(shapes, capacity, cache_type)?;
        let rotated: Vec<usize> = model.spec().ropes.iter().map(|rope| rope.n_rot).collect();
        let cols = session_cols(model.program(), capacity, options.chunk_tokens);
        let scratch = Scratch::new(model.program(), &rotated, capacity, cols, model.pool())?;
        let gpu = model
            .gpu()
            .map(|gpu| GpuSession::new(gpu, model.compiled(), capacity, scratch.max_cols, cache_type))
            .transpose()?;
        if let Some(gpu) = gpu.as_ref().filter(|_| options.timing) {
            gpu.measure();
        }
        Ok(Session {
            kv,
            scratch,
            gpu,
            tokens: Vec::with_capacity(capacity.min(MOST_RESERVED_TOKENS)),
            cancel: options.cancel,
            progress: options.progress,
            clock: Clock::new(options.timing),
            best: None,
            model: Arc::clone(model),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens in the context, oldest first.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Number of tokens in the context.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the context is empty.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens that the context holds.
    pub fn capacity(&self) -> usize {
        self.kv.capacity()
    }

    /// Bytes of keys and values of the tokens in the context.
    pub fn kv_bytes_used(&self) -> u64 {
        let on_gpu = self.gpu.as_ref().map_or(0, GpuSession::kv_bytes_per_token);
        (self.kv.bytes_per_token() + on_gpu) * self.len() as u64
    }

    /// Where the time went so far; `None` without [`SessionOptions::timing`].
    pub fn timing(&self) -> Option<&Timing> {
        self.clock.timing()
    }

    /// Charges the time since the last lap to `stage`.
    pub(crate) fn lap(&mut self, stage: Stage) {
        let pool = self.model.pool();
        self.clock.lap(stage, || pool.waited());
    }

    /// What the caller does until the next evaluation is no part of it.
    pub(crate) fn pause_clock(&mut self) {
        self.clock.pause();
    }

    /// Appends tokens and returns the logits of what follows the last one: (n_vocab), free for the
    /// caller to change.
    ///
    /// # Errors
    /// No tokens, a full context, an id outside the vocabulary, cancellation, or logits of which
    /// none is a number. The context then is as it was before.
    pub fn eval(&mut self, tokens: &[TokenId]) -> Result<&mut [f32]> {
        if tokens.is_empty() {
            return Err(Error::InvalidOption("no tokens to evaluate".into()));
        }
        let phase = if tokens.len() > 1 { Phase::Prompt } else { Phase::Decode };
        let n_vocab = self.model.n_vocab();
        self.append(tokens, phase, |pass, is_last| {
            if !is_last {
                return Ok(());
            }
            pass.logits(pass.n - 1..pass.n)?;
            let n_tokens = pass.pos + pass.n;
            must_hold_a_number(&pass.s.register(Register::Logits)[..n_vocab], n_vocab, n_tokens)
        })?;
        Ok(&mut self.scratch.register(Register::Logits)[..n_vocab])
    }

    /// Appends a prompt, to [`sample`](Self::sample) what follows it as column 0.
    pub(crate) fn eval_prompt(&mut self, tokens: &[TokenId], sampler: &Sampler) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::InvalidOption("no tokens to evaluate".into()));
        }
        let phase = if tokens.len() > 1 { Phase::Prompt } else { Phase::Decode };
        self.append_for(tokens, phase, sampler, |n| n - 1..n)
    }

    /// Appends the last token and some that may follow it, at most [`MAX_DRAFT_TOKENS`] of them, to
    /// [`sample`](Self::sample) what follows each. On the CPU logits have the bits that
    /// [`eval`](Self::eval) gives, token by token.
    pub(crate) fn eval_drafts(&mut self, tokens: &[TokenId], sampler: &Sampler) -> Result<()> {
        self.append_for(tokens, Phase::Decode, sampler, |n| 0..n)
    }

    fn append_for(
        &mut self,
        tokens: &[TokenId],
        phase: Phase,
        sampler: &Sampler,
        cols: impl Fn(usize) -> Range<usize>,
    ) -> Result<()> {
        let mut wanted = Wanted { n_best: None, also: Vec::new() };
        if self.gpu.is_some() {
            // As drafts come true they are recent tokens too, and may push as many others from the
            // front.
            let n_drafts = if phase == Phase::Decode { tokens.len() } else { 0 };
            wanted.n_best = sampler.n_best().map(|n| n + n_drafts);
            wanted.also.extend(sampler.changed().chain(tokens.iter().copied().take(n_drafts)));
        }
        let mut best = None;
        self.append(tokens, phase, |pass, is_last| {
            if is_last {
                best = pass.logits_for(cols(pass.n), &wanted)?;
            }
            Ok(())
        })?;
        self.best = best;
        Ok(())
    }

    /// Chooses what follows the token of column `index` of the last
    /// [`eval_drafts`](Self::eval_drafts) or [`eval_prompt`](Self::eval_prompt).
    ///
    /// # Errors
    /// Logits of which none is a number. Only the column that is asked for counts: a draft that did
    /// not come true is no matter.
    pub(crate) fn sample(&mut self, index: usize, sampler: &mut Sampler) -> Result<TokenId> {
        let (n_vocab, n_tokens) = (self.model.n_vocab(), self.tokens.len());
        if let Some(best) = self.best.as_mut().and_then(|all| all.get_mut(index)) {
            must_hold_a_number(&best.logits, n_vocab, n_tokens)?;
            return Ok(sampler.sample_best(&best.ids, &mut best.logits));
        }
        let head_is_here = self.gpu.as_ref().is_none_or(|gpu| !gpu.has_head());
        let (logits, peaks) = self.scratch.logits_of(index);
        must_hold_a_number(logits, n_vocab, n_tokens)?;
        Ok(if head_is_here { sampler.sample_with_peaks(logits, peaks) } else { sampler.sample(logits) })
    }

    /// Appends tokens and calls `each` with the index and the logits (n_vocab) of every one of
    /// them, in order.
    ///
    /// # Errors
    /// As [`eval`](Self::eval).
    pub fn eval_each(&mut self, tokens: &[TokenId], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        let n_vocab = self.model.n_vocab();
        let mut index = 0;
        self.append(tokens, Phase::Prompt, |pass, _| {
            let n = pass.n;
            for first in (0..n).step_by(LOGIT_COLS) {
                let cols = first..n.min(first + LOGIT_COLS);
                pass.logits(cols.clone())?;
                let start = pass.pos;
                for (logits, col) in pass.s.register(Register::Logits).chunks_exact(n_vocab).zip(cols) {
                    must_hold_a_number(logits, n_vocab, start + col + 1)?;
                    each(index, logits);
                    index += 1;
                }
            }
            Ok(())
        })
    }

    fn append(
        &mut self,
        tokens: &[TokenId],
        phase: Phase,
        mut after_chunk: impl FnMut(&mut Pass<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        self.check(tokens)?;
        let Session { model, kv, scratch, gpu, cancel, progress, clock, .. } = self;
        let _turn = model.residency().turn();
        clock.start(phase, tokens.len(), || model.pool().waited());
        let progress = progress.as_deref();
        let start = self.tokens.len();
        let mut pos = start;
        let end = pos + tokens.len();
        let n_parts = model.cpu_share().layer_segments(model.program()).len().max(1);
        if let Some(progress) = progress {
            progress.start(tokens.len());
        }
        for chunk in tokens.chunks(scratch.max_cols) {
            // Every part asks when it begins, and again where it waits for its weights.
            let n_asked = Cell::new(0);
            let is_cancelled = || {
                if let Some(progress) = progress {
                    progress.reach(pos - start + chunk.len() * n_asked.get() / n_parts);
                    n_asked.set(n_parts.min(n_asked.get() + 1));
                }
                cancel.as_ref().is_some_and(|c| c.load(Ordering::Relaxed))
            };
            let mut pass = Pass { model, kv, s: scratch, gpu: gpu.as_mut(), clock, pos, n: chunk.len() };
            pass.layers(chunk, &is_cancelled)?;
            pos += chunk.len();
            after_chunk(&mut pass, pos == end)?;
        }
        if let Some(progress) = progress {
            progress.reach(tokens.len());
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn check(&self, tokens: &[TokenId]) -> Result<()> {
        let n_vocab = self.model.n_vocab();
        if let Some(id) = tokens.iter().find(|id| id.0 as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { id: id.0, n_vocab });
        }
        if tokens.len() > self.capacity() - self.len() {
            return Err(Error::ContextFull { used: self.len(), wanted: tokens.len(), capacity: self.capacity() });
        }
        Ok(())
    }

    /// Forgets all but the first `len` tokens; does nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    /// Forgets the tokens `range` and moves the later ones down to close the gap. Their keys are
    /// turned to their new positions; what they learnt from the forgotten tokens stays in them.
    ///
    /// # Panics
    /// If the range ends beyond the context.
    pub fn remove(&mut self, range: std::ops::Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "tokens {range:?} of {}", self.len());
        let delta = -(range.len() as i64);
        let capacity = self.kv.capacity();
        let turns: Vec<Turn> = self.model.ropes().iter().map(|rope| Turn::new(rope.table(capacity), delta)).collect();
        if let Some(gpu) = &mut self.gpu {
            gpu.shift(range.end..self.tokens.len(), range.start, &turns);
        }
        let (kernels, ropes, caches) = (self.model.kernels(), &self.model.spec().ropes, self.model.program().caches());
        self.kv.shift(range.end..self.tokens.len(), range.start, kernels, |layer, key| {
            if let Some(id) = caches[layer].rope {
                let (turn, style) = (&turns[usize::from(id.0)], ropes[usize::from(id.0)].style);
                kernels.rope(key, &turn.cos, &turn.sin, style);
            }
        });
        self.tokens.drain(range);
    }
}

/// An error where nothing can be chosen from. In logits of a sound model the first one is a number:
/// one look.
fn must_hold_a_number(logits: &[f32], n_vocab: usize, n_tokens: usize) -> Result<()> {
    match logits.iter().any(|logit| logit.is_finite()) {
        true => Ok(()),
        false => Err(Error::NoLogitIsANumber { n_vocab, n_tokens }),
    }
}
