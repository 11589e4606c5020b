//! Many contexts over one model, computed together.

mod options;
mod sequences;
mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use modelembed_terms::CacheType;
use modelembed_text::TokenId;

use self::step::WantedRow;
use crate::cpu::scratch::{Scratch, session_cols};
use crate::error::{Error, Result};
use crate::gpu::GpuSession;
use crate::load::model::Model;
use crate::run::progress::EvalProgress;
use crate::run::runtime::KvBudget;
use crate::run::timing::Clock;
use crate::state::active::Active;
use crate::state::layout::{self, PAGE_TOKENS};
use crate::state::pages::{PageStore, StoreSizes, Tables};

pub use self::options::EngineOptions;
pub use self::step::{Row, Run, Wants};

/// Token ids that a sequence has room for from the start, in 4 MB: metadata may name a context of
/// any length, and what a token appends must not allocate in contexts that are used.
const MOST_RESERVED_TOKENS: usize = 1 << 20;

/// A sequence of an [`Engine`]. Ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId {
    engine: u64,
    slot: usize,
    serial: u64,
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
    /// The run that the last step was refused or failed for.
    failed: Option<usize>,
    /// Of each run of the last step its vector, where one was wanted.
    pooled: Vec<Vec<f32>>,
}

struct Sequence {
    serial: u64,
    tokens: Vec<TokenId>,
    /// How many of the tokens are drafts.
    n_drafts: usize,
    /// Tokens whose keys and values are those that evaluating them gives: all, until some before
    /// others were removed.
    n_pure: usize,
    tables: Tables,
}

impl Engine {
    /// Reserves address space for the sequences; memory is used as they fill.
    ///
    /// # Errors
    /// Contexts of 0 tokens, of more than the model has learned positions of, or of more than memory
    /// can be addressed for, no sequence, more than one
    /// with layers on a GPU, or the operating system's refusal.
    pub fn new(model: &Arc<Model>, options: &EngineOptions) -> Result<Engine> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let ctx_tokens = options.ctx_tokens.unwrap_or(model.spec().ctx_train);
        if ctx_tokens == 0 {
            return Err(Error::zero("ctx_tokens"));
        }
        if let Some(table) = model.program().positions() {
            let known = model.program().tensor(table).rows();
            if ctx_tokens > known {
                let wanted = format!("at most {known}, the positions that the model has learned");
                return Err(Error::InvalidOption { option: "ctx_tokens", seen: ctx_tokens.to_string(), wanted });
            }
        }
        if options.sequences == 0 {
            return Err(Error::zero("sequences"));
        }
        if options.sequences > 1 && model.gpu().is_some() {
            return Err(Error::NotOnGpu { what: "a batch of several sequences" });
        }
        let cache_type =
            options.cache_type.unwrap_or_else(|| layout::usual_type(model.program().caches(), model.is_exact()));
        if options.timing {
            model.pool().measure_waiting(true);
        }
        let whole = Arc::clone(model.runtime().kv_budget());
        let budget = match options.kv_bytes {
            Some(bytes) => Arc::new(KvBudget::new(bytes, Some(whole))),
            None => whole,
        };
        // One page more a sequence: one that is shared is replaced before it is given up.
        let of_sequence = ctx_tokens.div_ceil(PAGE_TOKENS).saturating_add(1);
        let n_pages = options.kv_tokens.map(|n| n.div_ceil(PAGE_TOKENS));
        let n_pages = n_pages.unwrap_or(of_sequence.saturating_mul(options.sequences));
        // A layer's keys and values live where the layer lives.
        let (program, share) = (model.program(), model.cpu_share());
        let sizes = StoreSizes {
            caches: &program.caches()[..share.n_caches(program)],
            records: &program.records()[..share.n_records(program)],
            ty: cache_type,
            n_pages,
            n_sequences: options.sequences,
        };
        let store = PageStore::new(&sizes, &budget)?;
        let rotated: Vec<usize> = model.spec().ropes.iter().map(|rope| rope.n_rot).collect();
        let most_rows = ctx_tokens.saturating_mul(options.sequences);
        let cols = session_cols(model.program(), most_rows, options.chunk_tokens, model.plan().chunk_tokens);
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
            failed: None,
            pooled: Vec::new(),
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
        self.slots[slot] = Some(Sequence { serial, tokens, n_drafts: 0, n_pure: usize::MAX, tables });
        Ok(SequenceId { engine: self.id, slot, serial })
    }

    /// Ends a sequence and gives its pages back, to this engine's other sequences.
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

    /// Does what takes pages; where none is left, once more after windows gave back what nothing
    /// looks at any more.
    fn with_pages<T>(&mut self, mut take: impl FnMut(&mut Engine) -> Result<T>) -> Result<T> {
        match take(self) {
            Err(Error::OutOfPages { .. } | Error::NoFreePage { .. }) => {
                for sequence in self.slots.iter_mut().flatten() {
                    let len = sequence.tokens.len() - sequence.n_drafts;
                    self.store.release_unseen(&mut sequence.tables, len, true);
                }
                take(self)
            }
            result => result,
        }
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

    /// Tokens of a sequence whose keys and values are those that evaluating them gives, at most.
    pub(crate) fn n_pure(&self, id: SequenceId) -> Result<usize> {
        Ok(self.sequence(id)?.n_pure)
    }

    /// Gives a sequence that is empty its tokens and pages, of which those of the first `n_pure`
    /// tokens are what evaluating them gives.
    pub(crate) fn fill(&mut self, id: SequenceId, tables: Tables, tokens: &[TokenId], n_pure: u64) -> Result<()> {
        let (_, sequence) = self.sequence_mut(id)?;
        sequence.n_pure = usize::try_from(n_pure).unwrap_or(usize::MAX);
        sequence.tables = tables;
        sequence.tokens.extend_from_slice(tokens);
        Ok(())
    }
}

/// An error where nothing can be chosen from. In logits of a sound model the first one is a number:
/// one look.
pub(crate) fn must_hold_a_number(logits: &[f32], n_vocab: usize, n_tokens: usize) -> Result<()> {
    match logits.iter().any(|logit| logit.is_finite()) {
        true => Ok(()),
        false => Err(Error::NoLogitIsANumber { n_vocab, n_tokens }),
    }
}
