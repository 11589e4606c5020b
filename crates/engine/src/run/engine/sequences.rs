//! Sequences that go back, lose a part, fork, and share pages.

use std::ops::Range;
use std::sync::Arc;

use modelembed_text::TokenId;

use super::{Engine, MOST_RESERVED_TOKENS, SequenceId};
use crate::error::{Error, PageError, Result};
use crate::state::layout::PAGE_TOKENS;
use crate::state::pages::{PageUse, SealedPage};
use crate::state::rope::Turn;

impl Engine {
    /// Whether a sequence can be taken back to its first `len` tokens: layers that look at a window
    /// forget what is far behind it, and recurrences what is before the last multiple of 64 tokens,
    /// unless there is a [snapshot](Self::snapshot).
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn can_return(&self, id: SequenceId, len: usize) -> Result<bool> {
        let sequence = self.sequence(id)?;
        Ok(len >= sequence.tokens.len() || self.store.can_return(&sequence.tables, len))
    }

    /// The last position up to `len` that a sequence can be taken back to; 0 where there is no other.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn returnable(&self, id: SequenceId, len: usize) -> Result<usize> {
        let sequence = self.sequence(id)?;
        let used = sequence.tokens.len();
        Ok(if len >= used { used } else { self.store.returnable(&sequence.tables, len) })
    }

    /// Gives all [snapshots](Self::snapshot) of a sequence back.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn drop_snapshots(&mut self, id: SequenceId) -> Result<()> {
        self.sequence_mut(id)?.1.tables.records.keep_none();
        Ok(())
    }

    /// Keeps the state of a model's recurrences as it is behind the tokens that a sequence has now,
    /// so that the sequence can [return](Self::can_return) to here, and fork from here, when it has
    /// gone on. It lasts until the sequence is taken back to before, or ends, and costs as much
    /// memory as every state. Models without recurrences need it for nothing.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn snapshot(&mut self, id: SequenceId) -> Result<()> {
        self.sequence_mut(id)?.1.tables.records.keep();
        Ok(())
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
        if len <= sequence.n_pure {
            sequence.n_pure = usize::MAX;
        }
        store.release(&mut sequence.tables, sequence.tokens.len());
        Ok(())
    }

    /// Forgets the tokens `range` of a sequence and moves the later ones down to close the gap.
    /// Their keys are turned to their new positions; what they learnt from the forgotten tokens
    /// stays in them.
    ///
    /// # Errors
    /// There is no such sequence, a range that ends beyond it, no memory left for pages that others
    /// share, layers with a window forgot what the tokens behind would look at, or the model's keys
    /// cannot be moved. The sequence then is as it was.
    pub fn remove(&mut self, id: SequenceId, range: Range<usize>) -> Result<()> {
        let len = self.tokens(id)?.len();
        if range.start > range.end || range.end > len {
            return Err(Error::NoSuchTokens { start: range.start, end: range.end, used: len });
        }
        if range.is_empty() {
            return Ok(());
        }
        let (from, to) = (range.end..len, range.start);
        let can_move = from.is_empty() || self.model.program().can_move_keys();
        if !can_move || !self.store.can_shift(&self.sequence(id)?.tables, &from, to) {
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
        self.with_pages(|engine| {
            let (store, sequence) = engine.sequence_mut(id)?;
            store.shift(&mut sequence.tables, from.clone(), to, kernels, &rotate)
        })?;
        let (_, sequence) = self.sequence_mut(id)?;
        sequence.tokens.drain(range);
        sequence.n_drafts = 0;
        sequence.n_pure = sequence.n_pure.min(to);
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
            return Err(Error::NoSuchTokens { start: 0, end: len, used });
        }
        if !self.can_return(id, len)? {
            return Err(Error::CannotReturn { len, used: sequence.tokens.len() });
        }
        if self.slots.iter().all(Option::is_some) {
            return Err(Error::TooManySequences { capacity: self.slots.len() });
        }
        let mut tokens = Vec::with_capacity(self.ctx_tokens.min(MOST_RESERVED_TOKENS));
        tokens.extend_from_slice(&sequence.tokens[..len]);
        let n_pure = sequence.n_pure;
        let tables = self.with_pages(|engine| engine.store.fork(&engine.sequence(id)?.tables, len))?;
        let fork = self.insert(tables, tokens)?;
        self.sequence_mut(fork)?.1.n_pure = n_pure;
        Ok(fork)
    }

    /// The pages of a sequence that are full of tokens which nobody takes back, in their order:
    /// draft tokens do not count, and where tokens were [removed](Self::remove) the pages before
    /// them alone, since what stands behind is not what those tokens give. Layers with a window may
    /// have given back the first ones; those of the others are in all pages.
    ///
    /// # Errors
    /// There is no such sequence.
    pub fn sealed(&self, id: SequenceId) -> Result<Vec<SealedPage>> {
        let sequence = self.sequence(id)?;
        let n = (sequence.tokens.len() - sequence.n_drafts).min(sequence.n_pure) / PAGE_TOKENS;
        Ok((0..n).map(|number| self.store.sealed(&sequence.tables, (number, PAGE_TOKENS), self.id)).collect())
    }

    /// The pages of the first `len` tokens of a sequence; the last one may be full in part. What
    /// the sequence stores in its place afterwards goes to a copy.
    ///
    /// # Errors
    /// There is no such sequence, `len` is beyond its end, among drafts or behind
    /// [removed](Self::remove) tokens, or it cannot [return](Self::can_return) there.
    pub fn prefix(&self, id: SequenceId, len: usize) -> Result<Vec<SealedPage>> {
        self.refuse_gpu("a shared page")?;
        let sequence = self.sequence(id)?;
        let n = (sequence.tokens.len() - sequence.n_drafts).min(sequence.n_pure);
        if len > n {
            return Err(Error::NoSuchTokens { start: 0, end: len, used: n });
        }
        if !self.store.can_return(&sequence.tables, len) {
            return Err(Error::CannotReturn { len, used: sequence.tokens.len() });
        }
        let n_tokens = |number: usize| PAGE_TOKENS.min(len - number * PAGE_TOKENS);
        let page = |number| self.store.sealed(&sequence.tables, (number, n_tokens(number)), self.id);
        Ok((0..len.div_ceil(PAGE_TOKENS)).map(page).collect())
    }

    /// How many pages sequences of this engine, and whoever keeps pages of theirs, hold and may
    /// hold.
    pub fn page_use(&self) -> PageUse {
        self.store.page_use()
    }

    /// Begins a sequence with pages of others, without computing anything. All of them are full but
    /// the last one, of which the tokens may be a part: whoever stores behind them does so in a
    /// copy.
    ///
    /// # Errors
    /// Pages of another engine or out of their order, other numbers of tokens than the pages have,
    /// an id outside the vocabulary, a full context, no room for another sequence, or a window's
    /// page or a state that is missing.
    pub fn attach(&mut self, tokens: &[TokenId], pages: &[SealedPage]) -> Result<SequenceId> {
        self.refuse_gpu("an attached page")?;
        let wanted: usize = pages.iter().map(SealedPage::n_tokens).sum();
        if tokens.len() > wanted || tokens.len().div_ceil(PAGE_TOKENS) != pages.len() {
            return Err(PageError::Tokens { pages: pages.len(), seen: tokens.len(), wanted }.into());
        }
        let n_vocab = self.model.n_vocab();
        if let Some(id) = tokens.iter().find(|id| id.0 as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { id: id.0, n_vocab });
        }
        if tokens.len() > self.ctx_tokens {
            return Err(Error::ContextFull { used: 0, wanted: tokens.len(), capacity: self.ctx_tokens });
        }
        let tables = self.store.attach(pages, tokens.len(), self.id)?;
        if !self.store.can_return(&tables, tokens.len()) {
            return Err(Error::CannotReturn { len: tokens.len(), used: tokens.len() });
        }
        let mut all = Vec::with_capacity(self.ctx_tokens.min(MOST_RESERVED_TOKENS));
        all.extend_from_slice(tokens);
        self.insert(tables, all)
    }

    /// A page out of its bytes, as [`SealedPage::bytes`] gave them: of an engine over the same
    /// model with the same [cache type](Self::cache_type).
    ///
    /// # Errors
    /// Bytes of another length than a page has, or no memory left.
    pub fn import(&self, number: usize, groups: &[Option<&[u8]>]) -> Result<SealedPage> {
        self.store.import(number, groups, self.id)
    }
}
