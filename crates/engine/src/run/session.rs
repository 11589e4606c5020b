//! A conversation with a model: what it has seen, and what it expects next.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use modelembed_spec::Register;
use modelembed_terms::CacheType;
use modelembed_text::{EncodeOptions, TokenId};

use crate::cpu::scratch::LOGIT_COLS;
use crate::cpu::{Pass, Wanted};
use crate::error::{Error, Result};
use crate::gpu::Best;
use crate::load::model::Model;
use crate::run::engine::{Engine, EngineOptions, Run, SequenceId, Wants, must_hold_a_number};
use crate::run::generate::ChooseToken;
use crate::run::progress::EvalProgress;
use crate::run::sampler::Sampler;
use crate::run::timing::{Phase, Stage, Timing};

/// Draft tokens that one evaluation checks at most: with the token before them as many columns as
/// logits are computed for at once.
pub(crate) const MAX_DRAFT_TOKENS: usize = LOGIT_COLS - 1;

/// How a [`Session`] is set up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Tokens that the context holds; `None` takes the length that the model was trained for.
    pub ctx_tokens: Option<usize>,
    /// Tokens that are computed together at most, which working memory grows with; `None` takes as
    /// many as are quickest. A session whose longest prompt is known needs no more than that.
    pub chunk_tokens: Option<usize>,
    /// When this is set, [`Session::eval`] stops at the next layer with
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub cancel: Option<Arc<AtomicBool>>,
    /// Told how far each evaluation is.
    pub progress: Option<Arc<EvalProgress>>,
    /// What keys and values are stored in; `None` takes [`I16`](CacheType::I16) where heads fit,
    /// and f32 for a model loaded as [exact](crate::LoadOptions::exact).
    pub cache_type: Option<CacheType>,
    /// Whether [`Session::timing`] tells where the time goes. Costs two readings of a clock a job.
    pub timing: bool,
}

impl SessionOptions {
    /// These options for a context of so many tokens.
    #[must_use]
    pub fn ctx_tokens(mut self, ctx_tokens: impl Into<Option<usize>>) -> SessionOptions {
        self.ctx_tokens = ctx_tokens.into();
        self
    }

    /// These options with at most so many tokens computed together.
    #[must_use]
    pub fn chunk_tokens(mut self, chunk_tokens: impl Into<Option<usize>>) -> SessionOptions {
        self.chunk_tokens = chunk_tokens.into();
        self
    }

    /// These options with a flag that cancels evaluations.
    #[must_use]
    pub fn cancel(mut self, cancel: impl Into<Option<Arc<AtomicBool>>>) -> SessionOptions {
        self.cancel = cancel.into();
        self
    }

    /// These options with something that is told how far each evaluation is.
    #[must_use]
    pub fn progress(mut self, progress: impl Into<Option<Arc<EvalProgress>>>) -> SessionOptions {
        self.progress = progress.into();
        self
    }

    /// These options with keys and values stored in this type.
    #[must_use]
    pub fn cache_type(mut self, cache_type: impl Into<Option<CacheType>>) -> SessionOptions {
        self.cache_type = cache_type.into();
        self
    }

    /// These options with time measured stage by stage, or without.
    #[must_use]
    pub fn timing(mut self, timing: bool) -> SessionOptions {
        self.timing = timing;
        self
    }
}

/// A context of tokens over a shared model: an [`Engine`] with one sequence.
pub struct Session {
    engine: Engine,
    sequence: SequenceId,
    cancel: Option<Arc<AtomicBool>>,
    /// Of the last evaluation the logits that a sampler needs, where they did not all come to the
    /// engine's memory: one for each column.
    best: Option<Vec<Best>>,
    /// The last token of a generated text, until something is appended.
    pending: Option<TokenId>,
}

impl Session {
    /// Reserves the memory of a context; it is used as the context fills.
    ///
    /// # Errors
    /// A context of 0 tokens or of more than memory can be addressed for, or the operating system's
    /// refusal.
    pub fn new(model: &Arc<Model>, options: SessionOptions) -> Result<Session> {
        let SessionOptions { ctx_tokens, chunk_tokens, cancel, progress, cache_type, timing } = options;
        let options =
            EngineOptions { ctx_tokens, chunk_tokens, cache_type, timing, progress, ..EngineOptions::default() };
        let mut engine = Engine::new(model, &options)?;
        let sequence = engine.add()?;
        Ok(Session { engine, sequence, cancel, best: None, pending: None })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// Tokens in the context, oldest first.
    pub fn tokens(&self) -> &[TokenId] {
        self.own(self.engine.tokens(self.sequence))
    }

    /// The last token of the text that was generated last, which the context does not hold yet: the
    /// next text begins with it. Tokens that are appended by hand begin without it, unless they
    /// hold it.
    pub fn pending(&self) -> Option<TokenId> {
        self.pending
    }

    pub(crate) fn set_pending(&mut self, pending: Option<TokenId>) {
        self.pending = pending;
    }

    /// Tokens of a text that goes on with what the session holds.
    pub(crate) fn encode_next(&self, text: &str) -> Result<Vec<TokenId>> {
        let tokenizer = self.model().tokenizer();
        let options = EncodeOptions::default().add_special(true).parse_special(true);
        let Some(before) = self.pending.or(self.tokens().last().copied()) else {
            return Ok(tokenizer.encode(text.as_bytes(), options)?);
        };
        let behind = tokenizer.encode_after(before, text.as_bytes(), options.add_special(false))?;
        Ok(self.pending.into_iter().chain(behind).collect())
    }

    /// What the engine answers about the session's one sequence, which is always there.
    fn own<T>(&self, answer: Result<T>) -> T {
        answer.unwrap_or_else(|e| unreachable!("the sequence of a session: {e}"))
    }

    /// The engine and its one sequence.
    pub(crate) fn parts(&self) -> (&Engine, SequenceId) {
        (&self.engine, self.sequence)
    }

    /// The same, to be changed.
    pub(crate) fn parts_mut(&mut self) -> (&mut Engine, SequenceId) {
        (&mut self.engine, self.sequence)
    }

    /// Number of tokens in the context.
    pub fn len(&self) -> usize {
        self.tokens().len()
    }

    /// Whether the context is empty.
    pub fn is_empty(&self) -> bool {
        self.tokens().is_empty()
    }

    /// Tokens that the context holds.
    pub fn capacity(&self) -> usize {
        self.engine.ctx_tokens()
    }

    /// Bytes of keys and values of the tokens in the context.
    pub fn kv_bytes_used(&self) -> u64 {
        self.own(self.engine.kv_bytes(self.sequence))
    }

    /// Where the time went so far; `None` without [`SessionOptions::timing`].
    pub fn timing(&self) -> Option<&Timing> {
        self.engine.clock.timing()
    }

    /// Charges the time since the last lap to `stage`.
    pub(crate) fn lap(&mut self, stage: Stage) {
        let Engine { clock, model, .. } = &mut self.engine;
        clock.lap(stage, || model.pool().waited());
    }

    /// What the caller does until the next evaluation is no part of it.
    pub(crate) fn pause_clock(&mut self) {
        self.engine.clock.pause();
    }

    /// Appends tokens and returns the logits of what follows the last one: (n_vocab), free for the
    /// caller to change.
    ///
    /// # Errors
    /// No tokens, a full context, an id outside the vocabulary, cancellation, or logits of which
    /// none is a number. The context then is as it was before.
    pub fn eval(&mut self, tokens: &[TokenId]) -> Result<&mut [f32]> {
        let phase = if tokens.len() > 1 { Phase::Prompt } else { Phase::Decode };
        let n_vocab = self.model().n_vocab();
        let n_tokens = self.len() + tokens.len();
        self.append(tokens, 0, phase, &mut |pass, is_last| {
            if !is_last {
                return Ok(());
            }
            pass.logits(pass.n - 1..pass.n)?;
            must_hold_a_number(&pass.s.register(Register::Logits)[..n_vocab], n_vocab, n_tokens)
        })?;
        Ok(&mut self.engine.scratch.register(Register::Logits)[..n_vocab])
    }

    /// Appends a prompt, to [`sample`](Self::sample) what follows it as column 0.
    pub(crate) fn eval_prompt(&mut self, tokens: &[TokenId], sampler: Option<&Sampler>) -> Result<()> {
        let phase = if tokens.len() > 1 { Phase::Prompt } else { Phase::Decode };
        self.append_for(tokens, 0, phase, sampler, |n| n - 1..n)
    }

    /// Appends a part of a prompt whose last logits nobody wants.
    pub(crate) fn eval_part(&mut self, tokens: &[TokenId]) -> Result<()> {
        self.append(tokens, 0, Phase::Prompt, &mut |_, _| Ok(()))
    }

    /// Appends the last token and some that may follow it, at most [`MAX_DRAFT_TOKENS`] of them, to
    /// [`sample`](Self::sample) what follows each. On the CPU logits have the bits that
    /// [`eval`](Self::eval) gives, token by token.
    pub(crate) fn eval_drafts(&mut self, tokens: &[TokenId], sampler: Option<&Sampler>) -> Result<()> {
        self.append_for(tokens, tokens.len().saturating_sub(1), Phase::Decode, sampler, |n| 0..n)
    }

    fn append_for(
        &mut self,
        tokens: &[TokenId],
        draft_tokens: usize,
        phase: Phase,
        sampler: Option<&Sampler>,
        cols: impl Fn(usize) -> Range<usize>,
    ) -> Result<()> {
        let mut wanted = Wanted { n_best: None, also: Vec::new() };
        if let Some(sampler) = sampler.filter(|_| self.engine.gpu.is_some()) {
            // As drafts come true they are recent tokens too, and may push as many others from the
            // front.
            let n_drafts = if phase == Phase::Decode { tokens.len() } else { 0 };
            wanted.n_best = sampler.n_best().map(|n| n + n_drafts);
            wanted.also.extend(sampler.changed().chain(tokens.iter().copied().take(n_drafts)));
        }
        let mut best = None;
        self.append(tokens, draft_tokens, phase, &mut |pass, is_last| {
            if is_last {
                best = pass.logits_for(cols(pass.n), &wanted)?;
            }
            Ok(())
        })?;
        self.best = best;
        Ok(())
    }

    /// Chooses what follows the token of column `index`, as [`sample`](Self::sample) does.
    ///
    /// # Errors
    /// As there, or a token that the vocabulary lacks.
    pub(crate) fn choose(&mut self, index: usize, chooser: &mut dyn ChooseToken) -> Result<TokenId> {
        if let Some(sampler) = chooser.as_sampler() {
            return self.sample(index, sampler);
        }
        let (n_vocab, n_tokens) = (self.model().n_vocab(), self.len());
        let (logits, _) = self.engine.scratch.logits_of(index);
        must_hold_a_number(logits, n_vocab, n_tokens)?;
        let id = chooser.choose(logits);
        if id.index() < n_vocab { Ok(id) } else { Err(Error::TokenOutOfRange { id: id.0, n_vocab }) }
    }

    /// Chooses what follows the token of column `index` of the last
    /// [`eval_drafts`](Self::eval_drafts) or [`eval_prompt`](Self::eval_prompt).
    ///
    /// # Errors
    /// Logits of which none is a number. Only the column that is asked for counts: a draft that did
    /// not come true is no matter.
    pub(crate) fn sample(&mut self, index: usize, sampler: &mut Sampler) -> Result<TokenId> {
        let (n_vocab, n_tokens) = (self.model().n_vocab(), self.len());
        if let Some(best) = self.best.as_mut().and_then(|all| all.get_mut(index)) {
            must_hold_a_number(&best.logits, n_vocab, n_tokens)?;
            return Ok(sampler.sample_best(&best.ids, &mut best.logits));
        }
        let head_is_here = self.engine.gpu.as_ref().is_none_or(|gpu| !gpu.has_head());
        let (logits, peaks) = self.engine.scratch.logits_of(index);
        must_hold_a_number(logits, n_vocab, n_tokens)?;
        Ok(if head_is_here { sampler.sample_with_peaks(logits, peaks) } else { sampler.sample(logits) })
    }

    /// Appends tokens and calls `each` with the index and the logits (n_vocab) of every one of
    /// them, in order.
    ///
    /// # Errors
    /// As [`eval`](Self::eval).
    pub fn eval_each(&mut self, tokens: &[TokenId], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        let cancel = self.cancel.clone();
        let run = Run { cancel: cancel.as_deref(), ..Run::new(self.sequence, tokens).wants(Wants::All) };
        self.engine.step(&[run], &mut |row| each(row.token, row.logits))?;
        self.pending = None;
        Ok(())
    }

    fn append(
        &mut self,
        tokens: &[TokenId],
        draft_tokens: usize,
        phase: Phase,
        after_chunk: &mut dyn FnMut(&mut Pass<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let Session { engine, sequence, cancel, pending, .. } = self;
        let run = Run { draft_tokens, cancel: cancel.as_deref(), ..Run::new(*sequence, tokens) };
        engine.run_batch(&[run], phase, after_chunk)?;
        *pending = None;
        Ok(())
    }

    /// Whether the context can be taken back to its first `len` tokens: layers that look at a
    /// window forget what is far behind it.
    pub fn can_return(&self, len: usize) -> bool {
        self.own(self.engine.can_return(self.sequence, len))
    }

    /// The last position up to `len` that the context can be taken back to.
    pub(crate) fn returnable(&self, len: usize) -> usize {
        self.own(self.engine.returnable(self.sequence, len))
    }

    /// Whether the context can go back only to where it was [kept](Self::keep_here).
    pub(crate) fn needs_keeping(&self) -> bool {
        !self.model().program().records().is_empty()
    }

    /// Keeps the state here, and none that was kept before.
    pub(crate) fn keep_here(&mut self) {
        let dropped = self.engine.drop_snapshots(self.sequence);
        let kept = dropped.and_then(|()| self.engine.snapshot(self.sequence));
        self.own(kept);
    }

    /// Forgets all but the first `len` tokens; does nothing if there are fewer.
    ///
    /// # Errors
    /// The context cannot [return](Self::can_return) there; it then is as it was. It can always
    /// return to nothing.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        let goes_back = len < self.len();
        self.engine.truncate(self.sequence, len)?;
        self.pending = self.pending.filter(|_| !goes_back);
        Ok(())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pending = None;
        let cleared = self.engine.truncate(self.sequence, 0);
        self.own(cleared);
    }

    /// Forgets the tokens `range` and moves the later ones down to close the gap. Their keys are
    /// turned to their new positions; what they learnt from the forgotten tokens stays in them.
    ///
    /// # Errors
    /// A range that ends beyond the context, or one that leaves a gap in what a window looks at;
    /// the context then is as it was.
    pub fn remove(&mut self, range: Range<usize>) -> Result<()> {
        self.engine.remove(self.sequence, range)
    }
}
