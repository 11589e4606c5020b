//! Many contexts over one model, computed together.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use modelembed_spec::Register;
use modelembed_terms::CacheType;
use modelembed_text::TokenId;

use crate::cpu::Pass;
use crate::cpu::scratch::{Scratch, session_cols};
use crate::error::{Error, Result};
use crate::gpu::GpuSession;
use crate::model::Model;
use crate::progress::EvalProgress;
use crate::state::active::Active;
use crate::state::layout::{self, PAGE_TOKENS};
use crate::state::pages::{PageStore, SealedPage, Tables};
use crate::state::rope::Turn;
use crate::timing::{Clock, Phase};

/// Token ids that a sequence has room for from the start, in 4 MB: metadata may name a context of
/// any length, and what a token appends must not allocate in contexts that are used.
const MOST_RESERVED_TOKENS: usize = 1 << 20;

/// How an [`Engine`] is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Sequences that it holds at most.
    pub sequences: usize,
    /// Tokens that a sequence holds at most; `None` takes the length that the model was trained
    /// for.
    pub ctx_tokens: Option<usize>,
    /// Tokens that keys and values of all sequences have room for, and of pages that are kept beside
    /// them; `None` takes what full sequences need.
    pub kv_tokens: Option<usize>,
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
    pub fn ctx_tokens(mut self, tokens: usize) -> EngineOptions {
        self.ctx_tokens = Some(tokens);
        self
    }

    /// These options with room for keys and values of so many tokens in all.
    #[must_use]
    pub fn kv_tokens(mut self, tokens: usize) -> EngineOptions {
        self.kv_tokens = Some(tokens);
        self
    }

    /// These options with at most so many tokens computed together.
    #[must_use]
    pub fn chunk_tokens(mut self, tokens: usize) -> EngineOptions {
        self.chunk_tokens = Some(tokens);
        self
    }

    /// These options with keys and values stored in this type.
    #[must_use]
    pub fn cache_type(mut self, cache_type: CacheType) -> EngineOptions {
        self.cache_type = Some(cache_type);
        self
    }
}

/// A sequence of an [`Engine`]. Ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId {
    engine: u64,
    slot: usize,
    serial: u64,
}

/// What one evaluation does for one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The sequence; in a batch each can be once.
    pub sequence: SequenceId,
    /// What is appended to it, at least one token.
    pub tokens: &'a [TokenId],
    /// Which logits are wanted.
    pub wants: Wants,
    /// How many of the last tokens are drafts: they may still be taken back, and are not shared with
    /// other sequences until something is appended behind them.
    pub draft_tokens: usize,
    /// When this is set, the sequence stays as it was.
    pub cancel: Option<&'a AtomicBool>,
}

impl<'a> Run<'a> {
    /// Appends tokens and wants the logits of what follows the last one.
    pub fn new(sequence: SequenceId, tokens: &'a [TokenId]) -> Run<'a> {
        Run { sequence, tokens, wants: Wants::Last, draft_tokens: 0, cancel: None }
    }

    /// The same with other wishes.
    #[must_use]
    pub fn wants(mut self, wants: Wants) -> Run<'a> {
        self.wants = wants;
        self
    }
}

/// Which logits are wanted of some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// None.
    Nothing,
    /// Those of what follows the last token.
    Last,
    /// Those of what follows each token.
    All,
}

/// Logits of what follows one token.
#[derive(Debug)]
pub struct Row<'a> {
    /// Which of the batch's runs the token is of.
    pub run: usize,
    /// Which of its tokens.
    pub token: usize,
    /// (n_vocab), free to be changed.
    pub logits: &'a mut [f32],
}

/// Contexts of tokens over a shared model, computed together: the weights are read once for all of
/// them. A sequence's logits have the same bits alone and in any company, whatever the number of
/// threads is and however its tokens are cut.
///
/// With layers on a GPU an engine has one sequence.
pub struct Engine {
    pub(crate) model: Arc<Model>,
    id: u64,
    store: PageStore,
    slots: Vec<Option<Sequence>>,
    next_serial: u64,
    ctx_tokens: usize,
    progress: Option<Arc<EvalProgress>>,
    pub(crate) scratch: Scratch,
    pub(crate) gpu: Option<GpuSession>,
    pub(crate) clock: Clock,
    batch: Batch,
}

/// What is kept from step to step for its memory only.
struct Batch {
    active: Active,
    /// Of the chunk.
    tokens: Vec<TokenId>,
    wanted: Vec<WantedRow>,
    /// Which runs of the last step were cancelled.
    cancelled: Vec<bool>,
}

/// A row whose logits are wanted.
#[derive(Clone, Copy)]
struct WantedRow {
    col: usize,
    run: usize,
    token: usize,
    /// Tokens of the context up to this one.
    n_tokens: usize,
}

struct Sequence {
    serial: u64,
    tokens: Vec<TokenId>,
    /// How many of the tokens are drafts.
    n_drafts: usize,
    tables: Tables,
}

impl Engine {
    /// Reserves address space for the sequences; memory is used as they fill.
    ///
    /// # Errors
    /// Contexts of 0 tokens or of more than memory can be addressed for, no sequence, more than one
    /// with layers on a GPU, or the operating system's refusal.
    pub fn new(model: &Arc<Model>, options: &EngineOptions) -> Result<Engine> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let ctx_tokens = options.ctx_tokens.unwrap_or(model.spec().ctx_train);
        if ctx_tokens == 0 {
            return Err(Error::InvalidOption("a context of 0 tokens holds nothing; wanted at least 1".into()));
        }
        if options.sequences == 0 {
            return Err(Error::InvalidOption("an engine of 0 sequences computes nothing; wanted at least 1".into()));
        }
        if options.sequences > 1 && model.gpu().is_some() {
            return Err(Error::NotOnGpu { what: "a batch of several sequences" });
        }
        let cache_type =
            options.cache_type.unwrap_or_else(|| layout::usual_type(model.program().caches(), model.is_exact()));
        if options.timing {
            model.pool().measure_waiting(true);
        }
        // A layer's keys and values live where the layer lives.
        let shapes = &model.program().caches()[..model.cpu_share().n_caches(model.program())];
        let budget = model.runtime().kv_budget();
        // One page more a sequence: one that is shared is replaced before it is given up.
        let of_sequence = ctx_tokens.div_ceil(PAGE_TOKENS).saturating_add(1);
        let n_pages = options.kv_tokens.map(|n| n.div_ceil(PAGE_TOKENS));
        let n_pages = n_pages.unwrap_or(of_sequence.saturating_mul(options.sequences));
        let store = PageStore::new(shapes, cache_type, n_pages, budget)?;
        let rotated: Vec<usize> = model.spec().ropes.iter().map(|rope| rope.n_rot).collect();
        let most_rows = ctx_tokens.saturating_mul(options.sequences);
        let cols = session_cols(model.program(), most_rows, options.chunk_tokens);
        let scratch = Scratch::new(model.program(), &rotated, ctx_tokens, cols, model.pool())?;
        let gpu = model
            .gpu()
            .map(|gpu| GpuSession::new(gpu, model.compiled(), ctx_tokens, scratch.max_cols, cache_type))
            .transpose()?;
        if let Some(gpu) = gpu.as_ref().filter(|_| options.timing) {
            gpu.measure();
        }
        let batch = Batch {
            active: Active::new(store.layout()),
            tokens: Vec::with_capacity(scratch.max_cols),
            wanted: Vec::new(),
            cancelled: Vec::new(),
        };
        Ok(Engine {
            model: Arc::clone(model),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            store,
            slots: (0..options.sequences).map(|_| None).collect(),
            next_serial: 0,
            ctx_tokens,
            progress: options.progress.clone(),
            scratch,
            gpu,
            clock: Clock::new(options.timing),
            batch,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens that a sequence holds at most.
    pub fn ctx_tokens(&self) -> usize {
        self.ctx_tokens
    }

    /// What keys and values are stored in.
    pub fn cache_type(&self) -> CacheType {
        self.store.layout().cache_type()
    }

    /// Begins a sequence, which is empty.
    ///
    /// # Errors
    /// There are as many as the engine holds.
    pub fn add(&mut self) -> Result<SequenceId> {
        let tables = self.store.tables();
        let room = self.ctx_tokens.min(MOST_RESERVED_TOKENS);
        self.insert(tables, Vec::with_capacity(room))
    }

    fn insert(&mut self, tables: Tables, tokens: Vec<TokenId>) -> Result<SequenceId> {
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            return Err(Error::TooManySequences { capacity: self.slots.len() });
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        self.slots[slot] = Some(Sequence { serial, tokens, n_drafts: 0, tables });
        Ok(SequenceId { engine: self.id, slot, serial })
    }

    /// Ends a sequence and gives its memory back.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn end(&mut self, id: SequenceId) -> Result<()> {
        self.sequence(id)?;
        self.slots[id.slot] = None;
        Ok(())
    }

    fn sequence(&self, id: SequenceId) -> Result<&Sequence> {
        let slot = self.slots.get(id.slot).filter(|_| id.engine == self.id).and_then(Option::as_ref);
        slot.filter(|sequence| sequence.serial == id.serial).ok_or(Error::NoSuchSequence)
    }

    fn sequence_mut(&mut self, id: SequenceId) -> Result<(&PageStore, &mut Sequence)> {
        self.sequence(id)?;
        match &mut self.slots[id.slot] {
            Some(sequence) => Ok((&self.store, sequence)),
            None => Err(Error::NoSuchSequence),
        }
    }

    /// Tokens of a sequence, oldest first.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn tokens(&self, id: SequenceId) -> Result<&[TokenId]> {
        Ok(&self.sequence(id)?.tokens)
    }

    /// Bytes of keys and values of a sequence. Pages that it shares count in full.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn kv_bytes(&self, id: SequenceId) -> Result<u64> {
        let sequence = self.sequence(id)?;
        let on_gpu = self.gpu.as_ref().map_or(0, GpuSession::kv_bytes_per_token) * sequence.tokens.len() as u64;
        Ok(self.store.bytes_of(&sequence.tables, sequence.tokens.len()) + on_gpu)
    }

    /// Evaluates a batch: appends each run's tokens to its sequence and calls `each` with the logits
    /// that are wanted, in the order of runs and tokens. They are no longer there afterwards.
    ///
    /// A run that was cancelled is computed with the others and thrown away: its sequence is as it
    /// was, and [`was_cancelled`](Self::was_cancelled) tells. When all runs are cancelled, the step
    /// ends early.
    ///
    /// # Errors
    /// Before anything is computed: no such sequence, or one that comes twice, no tokens, an id
    /// outside the vocabulary, a full context, no memory left for keys and values. While it is
    /// computed: cancellation of all, a failed read, logits of which none is a number. Every
    /// sequence then is as it was; what `each` was told is void.
    pub fn step(&mut self, runs: &[Run<'_>], each: &mut dyn FnMut(Row<'_>)) -> Result<()> {
        let n_vocab = self.model.n_vocab();
        let phase =
            if runs.iter().any(|run| run.tokens.len() > 1 + run.draft_tokens) { Phase::Prompt } else { Phase::Decode };
        let mut wanted = std::mem::take(&mut self.batch.wanted);
        let result = self.run_batch(runs, phase, &mut |pass, _| {
            wanted.clear();
            for active in &pass.active.runs {
                let run = &runs[active.index];
                let rows = active.cols.clone().map(|col| {
                    let (run, token) = (active.index, active.offset + col - active.cols.start);
                    WantedRow { col, run, token, n_tokens: active.position(col) + 1 }
                });
                match run.wants {
                    _ if is_set(run.cancel) => {}
                    Wants::Nothing => {}
                    Wants::Last => wanted.extend(rows.filter(|row| row.token + 1 == run.tokens.len())),
                    Wants::All => wanted.extend(rows),
                }
            }
            for rows in wanted.chunks(pass.head_cols()) {
                pass.logits(rows.iter().map(|row| row.col))?;
                for (logits, row) in pass.s.register(Register::Logits).chunks_exact_mut(n_vocab).zip(rows) {
                    must_hold_a_number(logits, n_vocab, row.n_tokens)?;
                    each(Row { run: row.run, token: row.token, logits });
                }
            }
            Ok(())
        });
        self.batch.wanted = wanted;
        result
    }

    /// Whether a run of the last step, by its index, was cancelled.
    pub fn was_cancelled(&self, run: usize) -> bool {
        self.batch.cancelled.get(run).copied().unwrap_or(false)
    }

    /// Runs the layers over a batch, chunk by chunk, and calls `after_chunk` while a chunk's residual
    /// stream is there, with whether it is the last.
    pub(crate) fn run_batch(
        &mut self,
        runs: &[Run<'_>],
        phase: Phase,
        after_chunk: &mut dyn FnMut(&mut Pass<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        self.batch.cancelled.clear();
        self.check(runs)?;
        let result = self.prepare(runs).and_then(|()| self.compute(runs, phase, after_chunk));
        for run in runs {
            let is_cancelled = is_set(run.cancel);
            let (store, sequence) = self.sequence_mut(run.sequence)?;
            if result.is_ok() && !is_cancelled {
                sequence.tokens.extend_from_slice(run.tokens);
                sequence.n_drafts = run.draft_tokens.min(run.tokens.len());
                store.release_unseen(&mut sequence.tables, sequence.tokens.len() - sequence.n_drafts, false);
            } else {
                store.release(&mut sequence.tables, sequence.tokens.len());
            }
            self.batch.cancelled.push(is_cancelled);
        }
        match result {
            Ok(()) if self.batch.cancelled.iter().all(|&c| c) => Err(Error::Cancelled),
            result => result,
        }
    }

    /// Refuses what cannot be evaluated.
    fn check(&self, runs: &[Run<'_>]) -> Result<()> {
        let n_vocab = self.model.n_vocab();
        if runs.is_empty() {
            return Err(Error::InvalidOption("no tokens to evaluate".into()));
        }
        for (i, run) in runs.iter().enumerate() {
            let sequence = self.sequence(run.sequence)?;
            if runs[..i].iter().any(|other| other.sequence == run.sequence) {
                return Err(Error::SequenceTwice { run: i });
            }
            if run.tokens.is_empty() {
                return Err(Error::InvalidOption("no tokens to evaluate".into()));
            }
            if let Some(id) = run.tokens.iter().find(|id| id.0 as usize >= n_vocab) {
                return Err(Error::TokenOutOfRange { id: id.0, n_vocab });
            }
            let (used, capacity) = (sequence.tokens.len(), self.ctx_tokens);
            if run.tokens.len() > capacity - used {
                return Err(Error::ContextFull { used, wanted: run.tokens.len(), capacity });
            }
        }
        Ok(())
    }

    /// Takes the pages that a batch needs. When there are none, layers with windows give back
    /// what nothing looks at any more.
    fn prepare(&mut self, runs: &[Run<'_>]) -> Result<()> {
        match self.take_pages(runs) {
            Err(Error::OutOfPages { .. }) => {
                for sequence in self.slots.iter_mut().flatten() {
                    let len = sequence.tokens.len() - sequence.n_drafts;
                    self.store.release_unseen(&mut sequence.tables, len, true);
                }
                self.take_pages(runs)
            }
            result => result,
        }
    }

    fn take_pages(&mut self, runs: &[Run<'_>]) -> Result<()> {
        for run in runs {
            let (store, sequence) = self.sequence_mut(run.sequence)?;
            store.prepare(&mut sequence.tables, sequence.tokens.len(), run.tokens.len())?;
        }
        Ok(())
    }

    fn compute(
        &mut self,
        runs: &[Run<'_>],
        phase: Phase,
        after_chunk: &mut dyn FnMut(&mut Pass<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let Engine { model, store, slots, scratch, gpu, clock, progress, ctx_tokens, batch, .. } = self;
        let Batch { active, tokens, .. } = batch;
        let _turn = model.runtime().turn();
        let n_all: usize = runs.iter().map(|run| run.tokens.len()).sum();
        clock.start(phase, n_all, || model.pool().waited());
        let progress = progress.as_deref();
        let n_parts = model.cpu_share().layer_segments(model.program()).len().max(1);
        if let Some(progress) = progress {
            progress.start(n_all);
        }
        let (mut rest, mut offset, mut n_done) = (0..runs.len(), 0, 0);
        while !rest.is_empty() {
            tokens.clear();
            while !rest.is_empty() && tokens.len() < scratch.max_cols {
                let run = &runs[rest.start];
                let n = (run.tokens.len() - offset).min(scratch.max_cols - tokens.len());
                if let Some(sequence) = &mut slots[run.sequence.slot] {
                    let pos = sequence.tokens.len() + offset;
                    active.add(rest.start, std::mem::take(&mut sequence.tables), pos, offset, n);
                }
                tokens.extend_from_slice(&run.tokens[offset..offset + n]);
                offset += n;
                if offset == run.tokens.len() {
                    (rest.start, offset) = (rest.start + 1, 0);
                }
            }
            let n = tokens.len();
            // Every part asks when it begins, and again where it waits for its weights.
            let n_asked = Cell::new(0);
            let is_cancelled = || {
                if let Some(progress) = progress {
                    progress.reach(n_done + n * n_asked.get() / n_parts);
                    n_asked.set(n_parts.min(n_asked.get() + 1));
                }
                runs.iter().all(|run| is_set(run.cancel))
            };
            let ctx_tokens = *ctx_tokens;
            let mut pass = Pass { model, store, active, s: scratch, gpu: gpu.as_mut(), clock, ctx_tokens, n };
            let result = pass.layers(tokens, &is_cancelled).and_then(|()| after_chunk(&mut pass, rest.is_empty()));
            active.end(|index, tables| {
                if let Some(sequence) = &mut slots[runs[index].sequence.slot] {
                    sequence.tables = tables;
                }
            });
            result?;
            n_done += n;
        }
        if let Some(progress) = progress {
            progress.reach(n_all);
        }
        Ok(())
    }

    /// Refuses what layers on a GPU have no room for.
    pub(crate) fn refuse_gpu(&self, what: &'static str) -> Result<()> {
        if self.gpu.is_some() { Err(Error::NotOnGpu { what }) } else { Ok(()) }
    }

    /// Where pages come from.
    pub(crate) fn store(&self) -> &PageStore {
        &self.store
    }

    /// Tokens of a sequence, and their pages.
    pub(crate) fn parts(&self, id: SequenceId) -> Result<(&[TokenId], &Tables)> {
        let sequence = self.sequence(id)?;
        Ok((&sequence.tokens, &sequence.tables))
    }

    /// Gives a sequence that is empty its tokens and pages.
    pub(crate) fn fill(&mut self, id: SequenceId, tables: Tables, tokens: &[TokenId]) -> Result<()> {
        let (_, sequence) = self.sequence_mut(id)?;
        sequence.tables = tables;
        sequence.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Whether a sequence can be taken back to its first `len` tokens: layers that look at a window
    /// forget what is far behind it.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn can_return(&self, id: SequenceId, len: usize) -> Result<bool> {
        let sequence = self.sequence(id)?;
        Ok(len >= sequence.tokens.len() || self.store.can_return(&sequence.tables, len))
    }

    /// Forgets all but the first `len` tokens of a sequence; does nothing if there are fewer.
    ///
    /// # Errors
    /// There is no such sequence, or it cannot [return](Self::can_return) there: then it is as it
    /// was.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> Result<()> {
        if !self.can_return(id, len)? {
            return Err(Error::CannotReturn { len, used: self.tokens(id)?.len() });
        }
        let (store, sequence) = self.sequence_mut(id)?;
        sequence.tokens.truncate(len);
        sequence.n_drafts = 0;
        store.release(&mut sequence.tables, sequence.tokens.len());
        Ok(())
    }

    /// Forgets the tokens `range` of a sequence and moves the later ones down to close the gap. Their
    /// keys are turned to their new positions; what they learnt from the forgotten tokens stays in
    /// them.
    ///
    /// # Errors
    /// There is no such sequence, a range that ends beyond it, no memory left for pages that others
    /// share, or layers with a window forgot what the tokens behind would look at. The sequence then
    /// is as it was.
    pub fn remove(&mut self, id: SequenceId, range: Range<usize>) -> Result<()> {
        let len = self.tokens(id)?.len();
        if range.start > range.end || range.end > len {
            return Err(Error::InvalidOption(format!("tokens {range:?} of a context of {len} cannot be removed")));
        }
        let (from, to) = (range.end..len, range.start);
        if !self.store.can_shift(&self.sequence(id)?.tables, &from, to) {
            return Err(Error::CannotReturn { len: range.start, used: len });
        }
        let delta = -(range.len() as i64);
        let (model, ctx_tokens) = (Arc::clone(&self.model), self.ctx_tokens);
        let turns: Vec<Turn> = model.ropes().iter().map(|rope| Turn::new(rope.table(ctx_tokens), delta)).collect();
        let (kernels, ropes, caches) = (model.kernels(), &model.spec().ropes, model.program().caches());
        let rotate = |cache: usize, key: &mut [f32]| {
            if let Some(id) = caches[cache].rope {
                let (turn, style) = (&turns[usize::from(id.0)], ropes[usize::from(id.0)].style);
                kernels.rope(key, &turn.cos, &turn.sin, style);
            }
        };
        let (store, sequence) = self.sequence_mut(id)?;
        store.shift(&mut sequence.tables, from.clone(), to, kernels, &rotate)?;
        sequence.tokens.drain(range);
        sequence.n_drafts = 0;
        if let Some(gpu) = &mut self.gpu {
            gpu.shift(from, to, &turns);
        }
        Ok(())
    }

    /// Begins a sequence with the first `len` tokens of another one, without computing anything:
    /// whole pages of keys and values are shared, the rest is copied.
    ///
    /// # Errors
    /// There is no such sequence or no room for another one, `len` is beyond its end, it cannot
    /// [return](Self::can_return) there, or no memory is left.
    pub fn fork(&mut self, id: SequenceId, len: usize) -> Result<SequenceId> {
        self.refuse_gpu("a fork")?;
        let sequence = self.sequence(id)?;
        if len > sequence.tokens.len() {
            let used = sequence.tokens.len();
            return Err(Error::InvalidOption(format!("{len} tokens of a context of {used} cannot be forked")));
        }
        if !self.can_return(id, len)? {
            return Err(Error::CannotReturn { len, used: sequence.tokens.len() });
        }
        if self.slots.iter().all(Option::is_some) {
            return Err(Error::TooManySequences { capacity: self.slots.len() });
        }
        let tables = self.store.fork(&sequence.tables, len)?;
        let mut tokens = Vec::with_capacity(self.ctx_tokens.min(MOST_RESERVED_TOKENS));
        tokens.extend_from_slice(&sequence.tokens[..len]);
        self.insert(tables, tokens)
    }

    /// The pages of a sequence that are full of tokens which nobody takes back, in their order: draft
    /// tokens do not count. Layers with a window may have given back the first ones; those of the
    /// others are in all pages.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn sealed(&self, id: SequenceId) -> Result<Vec<SealedPage>> {
        let sequence = self.sequence(id)?;
        let n = (sequence.tokens.len() - sequence.n_drafts) / PAGE_TOKENS;
        Ok((0..n).map(|number| self.store.sealed(&sequence.tables, number, self.id)).collect())
    }

    /// Begins a sequence with pages of others, without computing anything.
    ///
    /// # Errors
    /// Pages of another engine or out of their order, other numbers of tokens than the pages have,
    /// an id outside the vocabulary, a full context, no room for another sequence, or a window's page
    /// that is missing.
    pub fn attach(&mut self, tokens: &[TokenId], pages: &[SealedPage]) -> Result<SequenceId> {
        self.refuse_gpu("a fork")?;
        if tokens.len() != pages.len() * PAGE_TOKENS {
            let problem =
                format!("{} pages hold {} tokens, not {}", pages.len(), pages.len() * PAGE_TOKENS, tokens.len());
            return Err(Error::InvalidOption(problem));
        }
        let n_vocab = self.model.n_vocab();
        if let Some(id) = tokens.iter().find(|id| id.0 as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { id: id.0, n_vocab });
        }
        if tokens.len() > self.ctx_tokens {
            return Err(Error::ContextFull { used: 0, wanted: tokens.len(), capacity: self.ctx_tokens });
        }
        let tables = self.store.attach(pages, self.id)?;
        if !self.store.can_return(&tables, tokens.len()) {
            return Err(Error::CannotReturn { len: tokens.len(), used: tokens.len() });
        }
        let mut all = Vec::with_capacity(self.ctx_tokens.min(MOST_RESERVED_TOKENS));
        all.extend_from_slice(tokens);
        self.insert(tables, all)
    }

    /// A page out of its bytes, as [`SealedPage::bytes`] gave them: of an engine over the same model
    /// with the same [cache type](Self::cache_type).
    ///
    /// # Errors
    /// Bytes of another length than a page has, or no memory left.
    pub fn import(&self, number: usize, groups: &[Option<&[u8]>]) -> Result<SealedPage> {
        self.store.import(number, groups, self.id)
    }
}

fn is_set(flag: Option<&AtomicBool>) -> bool {
    flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error where nothing can be chosen from. In logits of a sound model the first one is a number:
/// one look.
pub(crate) fn must_hold_a_number(logits: &[f32], n_vocab: usize, n_tokens: usize) -> Result<()> {
    match logits.iter().any(|logit| logit.is_finite()) {
        true => Ok(()),
        false => Err(Error::NoLogitIsANumber { n_vocab, n_tokens }),
    }
}
