//! Pages of keys and values: where they come from and whom they belong to.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use modelembed_kernels::Kernels;
use modelembed_spec::{CacheShape, RecordShape};
use modelembed_storage::{Block, Slab};
use modelembed_terms::CacheType;

use super::layout::{Held, Layout, PAGE_TOKENS};
use super::records::{RecordLayout, Records};
use crate::error::{Error, PageError, Result};
use crate::run::runtime::KvBudget;

/// Positions that layers with a window keep beyond what they look at, so that a context can be
/// taken back by as many.
const KEPT_BEHIND: usize = 1024;

/// Keys and values of [`PAGE_TOKENS`] positions of a group of layers, or a record. It can be written
/// by the one sequence that has it alone; shared, it is only read.
pub(crate) struct Page {
    block: Block,
    budget: Arc<KvBudget>,
}

impl Page {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.block
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.block
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.budget.give_back(self.block.len() as u64);
    }
}

/// Pages of an engine: each has the positions of all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageUse {
    /// Pages that sequences hold, or somebody else.
    pub used: usize,
    /// Pages that can be taken at least. Where layers look at a window, states take memory too, or
    /// it is shared with other engines, this is less than the difference of the others.
    pub free: usize,
    /// Pages that can be used at most.
    pub total: usize,
    /// How many pages the state of the model's recurrences is as large as, rounded up; 0 without
    /// recurrences.
    pub of_state: usize,
}

/// Where an engine's pages come from.
pub(crate) struct PageStore {
    layout: Layout,
    /// One for each group of layers.
    slabs: Vec<Slab>,
    record_layout: RecordLayout,
    /// Where records come from, if the model has recurrences.
    records: Option<Slab>,
    budget: Arc<KvBudget>,
}

/// How much there is to be of a model's pages and records.
pub(crate) struct StoreSizes<'a> {
    pub(crate) caches: &'a [CacheShape],
    pub(crate) records: &'a [RecordShape],
    pub(crate) ty: CacheType,
    /// Of each group of layers.
    pub(crate) n_pages: usize,
    /// Sequences at most.
    pub(crate) n_sequences: usize,
}

/// Records that a sequence has at most, but for those that are kept on demand: the one where it
/// goes on, the one before while tokens behind the boundary are drafts, and one that is written.
const RECORDS_PER_SEQUENCE: usize = 3;
/// Bytes of address space that records are given at most, beyond what sequences must have.
const MOST_RECORD_BYTES: usize = 1 << 40;

/// What a sequence has: a table of pages for each group of layers, and records.
#[derive(Default)]
pub(crate) struct Tables {
    groups: Vec<Table>,
    pub(crate) records: Records,
}

/// The pages of a group, in the order of their positions.
#[derive(Default)]
pub(crate) struct Table {
    /// The number of the first one: page `p` has the positions from `p * PAGE_TOKENS` on. Those
    /// before it were given back.
    pub(crate) first: usize,
    /// The first position of which keys and values are there.
    valid: usize,
    pub(crate) pages: VecDeque<Arc<Page>>,
    /// While a chunk is computed, where those of its pages begin that are written.
    pub(crate) first_write: usize,
}

impl Table {
    /// A table without pages, of which the first one will have this number, and what is before
    /// `valid` is not there.
    pub(crate) fn new(first: usize, valid: usize) -> Table {
        Table { first, valid, ..Table::default() }
    }

    /// The first position of which keys and values are there.
    pub(crate) fn valid(&self) -> usize {
        self.valid
    }

    /// The number behind the last page.
    fn end(&self) -> usize {
        self.first + self.pages.len()
    }

    fn page_mut(&mut self, number: usize) -> &mut Page {
        let page = number.checked_sub(self.first).and_then(|i| self.pages.get_mut(i)).and_then(Arc::get_mut);
        page.unwrap_or_else(|| unreachable!("page {number} was made ready for writing"))
    }

    fn page(&self, number: usize) -> Option<&Page> {
        self.pages.get(number.checked_sub(self.first)?).map(|page| &**page)
    }
}

/// Keys and values of a page's positions, of all layers, which nobody changes any more. Whoever
/// keeps it keeps its memory.
#[derive(Clone)]
pub struct SealedPage {
    number: usize,
    /// Positions of it that are there.
    n_tokens: usize,
    /// Of each group of layers, where it is still there.
    groups: Vec<Option<Arc<Page>>>,
    /// The record of what follows its positions, if the model has recurrences, and it is there.
    record: Option<Option<Arc<Page>>>,
    engine: u64,
}

impl SealedPage {
    /// Positions of a page.
    pub const TOKENS: usize = PAGE_TOKENS;

    /// Which page of its sequence it is: it has the positions from so many times
    /// [`TOKENS`](Self::TOKENS) on.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many of its positions are there: all, but for the last page of a
    /// [prefix](crate::Engine::prefix).
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Whether a model with recurrences can go on behind it; always true of one without.
    pub fn has_state(&self) -> bool {
        self.record.as_ref().is_none_or(Option::is_some)
    }

    /// The same without the state, whose memory is then not kept.
    #[must_use]
    pub fn without_state(mut self) -> SealedPage {
        self.record = self.record.map(|_| None);
        self
    }

    /// Its bytes, of each group of layers that look at the same positions; `None` where a window
    /// has passed it. Of a model with recurrences their state behind the page comes last; `None`
    /// where it was not kept.
    pub fn bytes(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.groups.iter().chain(&self.record).map(|page| page.as_deref().map(Page::bytes))
    }
}

impl std::fmt::Debug for SealedPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedPage").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Tables {
    /// One table a group, and records.
    pub(crate) fn new(groups: Vec<Table>, records: Records) -> Tables {
        Tables { groups, records }
    }

    /// The table of a group.
    pub(crate) fn of(&self, group: usize) -> &Table {
        &self.groups[group]
    }

    /// The same, for moving pages in and out.
    pub(crate) fn of_mut(&mut self, group: usize) -> &mut Table {
        &mut self.groups[group]
    }
}

impl PageStore {
    /// Address space for pages and records.
    ///
    /// # Errors
    /// Heads that do not fit the type, sizes that overflow, or the operating system's refusal.
    pub(crate) fn new(sizes: &StoreSizes<'_>, budget: &Arc<KvBudget>) -> Result<PageStore> {
        let n_pages = sizes.n_pages;
        let layout = Layout::new(sizes.caches, sizes.ty)?;
        let record_layout = RecordLayout::new(sizes.records)?;
        let slab = |page_bytes: usize| {
            // No more than may ever be out: contexts can be long, and address space is not endless.
            let affordable = budget.most() / page_bytes.max(1) as u64;
            let n_pages = n_pages.min(usize::try_from(affordable).unwrap_or(usize::MAX));
            // No slab comes near the end of the address space.
            let fits = page_bytes.checked_mul(n_pages).is_some_and(|bytes| bytes <= isize::MAX as usize / 8);
            match fits {
                true => Ok(Slab::new(page_bytes, n_pages)?),
                false => {
                    let n_tokens = n_pages.saturating_mul(PAGE_TOKENS);
                    Err(Error::ContextTooLarge { tokens: n_tokens })
                }
            }
        };
        let slabs = layout.groups().iter().map(|group| slab(group.page_bytes)).collect::<Result<_>>()?;
        let records = match record_layout.bytes() {
            0 => None,
            bytes => {
                let must = sizes.n_sequences.saturating_mul(RECORDS_PER_SEQUENCE);
                let kept = n_pages.min((MOST_RECORD_BYTES / bytes).saturating_sub(must));
                let n = must.saturating_add(kept);
                if n.checked_mul(bytes).is_none_or(|all| all > isize::MAX as usize / 8) {
                    return Err(Error::StatesTooLarge { sequences: sizes.n_sequences });
                }
                Some(Slab::new(bytes, n)?)
            }
        };
        Ok(PageStore { layout, slabs, record_layout, records, budget: Arc::clone(budget) })
    }

    /// How records are laid out.
    pub(crate) fn record_layout(&self) -> &RecordLayout {
        &self.record_layout
    }

    /// Bytes of a record; 0 where the model has no recurrence.
    pub(crate) fn record_bytes(&self) -> usize {
        self.records.as_ref().map_or(0, Slab::block_bytes)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of a page of each group.
    pub(crate) fn page_bytes(&self) -> Vec<usize> {
        self.slabs.iter().map(Slab::block_bytes).collect()
    }

    /// Tables of a sequence that is empty.
    pub(crate) fn tables(&self) -> Tables {
        Tables { groups: self.slabs.iter().map(|_| Table::default()).collect(), records: Records::default() }
    }

    /// Bytes of keys and values of the first `len` positions that are kept, and of records.
    pub(crate) fn bytes_of(&self, tables: &Tables, len: usize) -> u64 {
        let groups = self.layout.groups().iter().zip(&tables.groups);
        let pages = groups.map(|(group, t)| (len.saturating_sub(t.valid) * group.bytes_per_token) as u64);
        pages.sum::<u64>() + (tables.records.n_slots() * self.record_bytes()) as u64
    }

    /// How many pages there are.
    pub(crate) fn page_use(&self) -> PageUse {
        // A model of recurrences alone has no pages, but positions.
        let page_bytes: usize = self.page_bytes().iter().sum();
        let bytes = if page_bytes == 0 { self.record_bytes().max(1) } else { page_bytes } as u64;
        let in_bytes = |bytes_left: u64| usize::try_from(bytes_left / bytes).unwrap_or(usize::MAX);
        let of_slabs = |n: &dyn Fn(&Slab) -> usize| self.slabs.iter().map(n).min().unwrap_or(usize::MAX);
        let used = self.slabs.iter().map(|slab| slab.n_blocks() - slab.n_free()).max().unwrap_or(0);
        PageUse {
            used,
            free: of_slabs(&Slab::n_free).min(in_bytes(self.budget.left())),
            total: of_slabs(&Slab::n_blocks).min(in_bytes(self.budget.most())),
            of_state: (self.record_bytes() as u64).div_ceil(bytes) as usize,
        }
    }

    /// A page of a group, with whatever is in it.
    pub(crate) fn take(&self, group: usize) -> Result<Page> {
        self.take_of(&self.slabs[group])
    }

    /// A record, with whatever is in it.
    pub(crate) fn take_record(&self) -> Result<Page> {
        match &self.records {
            Some(slab) => self.take_of(slab),
            None => unreachable!("a model without recurrences has no records"),
        }
    }

    fn take_of(&self, slab: &Slab) -> Result<Page> {
        let bytes = slab.block_bytes() as u64;
        if let Err(short) = self.budget.take(bytes) {
            let (used_bytes, budget_bytes) = (short.used(), short.limit());
            return Err(Error::OutOfPages { used_bytes, wanted_bytes: bytes, budget_bytes });
        }
        // From here on the page gives back what it took.
        match slab.take() {
            Some(block) => Ok(Page { block, budget: Arc::clone(&self.budget) }),
            None => {
                self.budget.give_back(bytes);
                Err(Error::NoFreePage { pages: slab.n_blocks(), tokens: slab.n_blocks() * PAGE_TOKENS })
            }
        }
    }

    /// Makes the pages of positions `pos..pos + n` ready for being written: they are there, and
    /// nobody else has them. What stands before `pos` stays.
    ///
    /// # Errors
    /// No page is left. Pages that were taken until then stay in the table;
    /// [`release`](Self::release) gives them back.
    pub(crate) fn prepare(&self, tables: &mut Tables, pos: usize, n: usize) -> Result<()> {
        if self.records.is_some() {
            tables.records.prepare(&self.record_layout, (pos, n), &|| self.take_record())?;
        }
        for (group, table) in tables.groups.iter_mut().enumerate() {
            let wanted = pos / PAGE_TOKENS..(pos + n).div_ceil(PAGE_TOKENS);
            for number in wanted {
                if number == table.end() {
                    table.pages.push_back(Arc::new(self.take(group)?));
                    continue;
                }
                let page = &mut table.pages[number - table.first];
                if Arc::get_mut(page).is_none() {
                    let n_rows = pos.saturating_sub(number * PAGE_TOKENS);
                    *page = Arc::new(self.copy(group, page, n_rows)?);
                }
            }
        }
        Ok(())
    }

    /// A page with the first `n_rows` positions of another one.
    fn copy(&self, group: usize, from: &Page, n_rows: usize) -> Result<Page> {
        let mut page = self.take(group)?;
        self.layout.copy_rows(group, from.bytes(), page.bytes_mut(), 0..n_rows);
        Ok(page)
    }

    /// Gives back the pages behind the first `len` positions.
    pub(crate) fn release(&self, tables: &mut Tables, len: usize) {
        tables.records.release(len);
        for table in &mut tables.groups {
            let end = len.div_ceil(PAGE_TOKENS);
            table.pages.truncate(end.saturating_sub(table.first));
            if table.pages.is_empty() {
                table.first = len / PAGE_TOKENS;
                table.valid = len;
            }
            table.valid = table.valid.min(len);
        }
    }

    /// Gives back the pages that no position from `len` on looks at: all of them where memory is
    /// short, else those that are far behind.
    pub(crate) fn release_unseen(&self, tables: &mut Tables, len: usize, is_short: bool) {
        tables.records.release_unseen(len);
        let kept = if is_short { 0 } else { KEPT_BEHIND };
        for (group, table) in self.layout.groups().iter().zip(&mut tables.groups) {
            let first = group.visible.first_seen(len).saturating_sub(kept) / PAGE_TOKENS;
            while table.first < first && !table.pages.is_empty() {
                table.pages.pop_front();
                table.first += 1;
            }
            table.valid = table.valid.max(table.first * PAGE_TOKENS);
        }
    }

    /// Whether a sequence can go on behind its first `len` positions: what they look at is there.
    pub(crate) fn can_return(&self, tables: &Tables, len: usize) -> bool {
        let mut groups = self.layout.groups().iter().zip(&tables.groups);
        (self.records.is_none() || tables.records.can_return(len))
            && groups.all(|(group, table)| {
                let first = group.visible.first_seen(len);
                first >= len || table.valid <= first
            })
    }

    /// The last position up to `len` that a sequence can go on behind.
    pub(crate) fn returnable(&self, tables: &Tables, len: usize) -> usize {
        let len = if self.records.is_none() { len } else { tables.records.returnable(len) };
        if self.can_return(tables, len) { len } else { 0 }
    }

    /// Tables of another sequence that begins with the same `len` positions. Whole pages are
    /// shared, of the last one the rows are copied.
    ///
    /// # Errors
    /// No page is left.
    pub(crate) fn fork(&self, tables: &Tables, len: usize) -> Result<Tables> {
        let (n_whole, n_rows) = (len / PAGE_TOKENS, len % PAGE_TOKENS);
        let fork = |(group, table): (usize, &Table)| {
            let shared = n_whole.saturating_sub(table.first).min(table.pages.len());
            let mut pages: VecDeque<_> = table.pages.range(..shared).cloned().collect();
            if n_rows > 0
                && let Some(tail) = table.page(n_whole)
            {
                pages.push_back(Arc::new(self.copy(group, tail, n_rows)?));
            }
            let (first, valid) = if pages.is_empty() { (n_whole, len) } else { (table.first, table.valid.min(len)) };
            Ok(Table { first, valid, pages, first_write: 0 })
        };
        let groups = tables.groups.iter().enumerate().map(fork).collect::<Result<_>>()?;
        Ok(Tables { groups, records: tables.records.fork(len) })
    }

    /// A page of a sequence of `engine`, of which `n_tokens` positions are there.
    pub(crate) fn sealed(&self, tables: &Tables, (number, n_tokens): (usize, usize), engine: u64) -> SealedPage {
        let page = |table: &Table| table.pages.get(number.checked_sub(table.first)?).cloned();
        let end = number * PAGE_TOKENS + n_tokens;
        let record = || match n_tokens {
            PAGE_TOKENS => tables.records.beginning_at(end).cloned(),
            _ => tables.records.at(end).cloned(),
        };
        let record = self.records.is_some().then(record);
        SealedPage { number, n_tokens, groups: tables.groups.iter().map(page).collect(), record, engine }
    }

    /// Tables of the first `len` positions of these pages, of `engine`; the last one holds a part
    /// of them.
    ///
    /// # Errors
    /// Pages of another one, or not in their order.
    pub(crate) fn attach(&self, pages: &[SealedPage], len: usize, engine: u64) -> Result<Tables> {
        for (wanted, page) in pages.iter().enumerate() {
            if page.engine != engine {
                return Err(PageError::OtherEngine { number: wanted }.into());
            }
            if page.number != wanted {
                return Err(PageError::OutOfOrder { seen: page.number, wanted }.into());
            }
        }
        let table = |group: usize| {
            let of_group = || pages.iter().map(|page| page.groups[group].as_ref());
            let first = of_group().rposition(|page| page.is_none()).map_or(0, |last| last + 1);
            let kept: VecDeque<_> = of_group().skip(first).flatten().cloned().collect();
            Table { first, valid: (first * PAGE_TOKENS).min(len), pages: kept, first_write: 0 }
        };
        let last = pages.last().and_then(|page| Some((page, page.record.clone().flatten()?)));
        let mut records = last.map_or(Records::default(), |(page, record)| {
            Records::of(page.number * PAGE_TOKENS + page.n_tokens, record)
        });
        records.release(len);
        Ok(Tables { groups: (0..self.slabs.len()).map(table).collect(), records })
    }

    /// A page out of the bytes of each group, and of the record behind it.
    ///
    /// # Errors
    /// Bytes of another length than a page has, or no page is left.
    pub(crate) fn import(&self, number: usize, groups: &[Option<&[u8]>], engine: u64) -> Result<SealedPage> {
        let slabs: Vec<&Slab> = self.slabs.iter().chain(&self.records).collect();
        if groups.len() != slabs.len() {
            return Err(PageError::Parts { seen: groups.len(), wanted: slabs.len() }.into());
        }
        let page = |(bytes, slab): (&Option<&[u8]>, &Slab)| {
            let Some(bytes) = bytes else { return Ok(None) };
            let wanted = slab.block_bytes();
            if bytes.len() != wanted {
                return Err(PageError::Length { seen_bytes: bytes.len(), wanted_bytes: wanted }.into());
            }
            let mut page = self.take_of(slab)?;
            page.bytes_mut().copy_from_slice(bytes);
            Ok(Some(Arc::new(page)))
        };
        let mut groups: Vec<_> = groups.iter().zip(slabs).map(page).collect::<Result<_>>()?;
        let record = if self.records.is_some() { groups.pop() } else { None };
        Ok(SealedPage { number, n_tokens: PAGE_TOKENS, groups, record, engine })
    }

    /// Whether [`shift`](Self::shift) leaves what the positions behind it look at.
    pub(crate) fn can_shift(&self, tables: &Tables, from: &Range<usize>, to: usize) -> bool {
        let mut groups = self.layout.groups().iter().zip(&tables.groups);
        // What a state took from a position cannot be taken out of it.
        self.records.is_none()
            && groups.all(|(group, table)| {
                let len = to + from.len();
                group.visible.first_seen(len) >= Self::first_valid(table, from, to).min(len)
            })
    }

    /// The first position of a table that is valid once `from` has moved down to `to`.
    fn first_valid(table: &Table, from: &Range<usize>, to: usize) -> usize {
        let valid = table.valid;
        if valid <= to { valid } else { valid.saturating_sub(from.start).saturating_add(to).max(to) }
    }

    /// Replaces the pages that a shift writes to where others have them, or where they were given
    /// back.
    fn ready_for_shift(&self, tables: &mut Tables, from: &Range<usize>, to: usize) -> Result<()> {
        for (group, table) in tables.groups.iter_mut().enumerate() {
            let start = Self::first_valid(table, from, to).max(to) / PAGE_TOKENS;
            while table.first > start {
                table.pages.push_front(Arc::new(self.take(group)?));
                table.first -= 1;
            }
            for number in start..(to + from.len()).div_ceil(PAGE_TOKENS).min(table.end()) {
                let page = &mut table.pages[number - table.first];
                if Arc::get_mut(page).is_none() {
                    *page = Arc::new(self.copy(group, page, PAGE_TOKENS)?);
                }
            }
        }
        Ok(())
    }

    /// Moves positions `from` of every layer down to `to`, and lets `rotate`, which is given the
    /// layer of the cache, turn each key.
    ///
    /// # Errors
    /// No page is left; then nothing was changed.
    pub(crate) fn shift(
        &self,
        tables: &mut Tables,
        from: Range<usize>,
        to: usize,
        kernels: &Kernels,
        rotate: &dyn Fn(usize, &mut [f32]),
    ) -> Result<()> {
        let firsts: Vec<usize> = tables.groups.iter().map(|table| table.first).collect();
        if let Err(error) = self.ready_for_shift(tables, &from, to) {
            for (table, first) in tables.groups.iter_mut().zip(firsts) {
                table.pages.drain(..first - table.first);
                table.first = first;
            }
            return Err(error);
        }
        let mut held = Held::default();
        for (group, table) in tables.groups.iter_mut().enumerate() {
            for (i, pos) in from.clone().enumerate() {
                let (target, row) = ((to + i) / PAGE_TOKENS, (to + i) % PAGE_TOKENS);
                let Some(page) = table.page(pos / PAGE_TOKENS).filter(|_| target >= table.first) else { continue };
                self.layout.lift(kernels, group, (page.bytes(), pos % PAGE_TOKENS), rotate, &mut held);
                self.layout.lay(kernels, group, (table.page_mut(target).bytes_mut(), row), &held);
            }
        }
        for table in &mut tables.groups {
            table.valid = Self::first_valid(table, &from, to);
        }
        self.release(tables, to + from.len());
        Ok(())
    }
}
