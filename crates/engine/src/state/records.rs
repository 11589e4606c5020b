//! Recurrent states: what a sequence's recurrences remember of the positions before.
//!
//! A state changes at multiples of [`CHUNK`] positions only. A record holds the state at such a
//! boundary and the rows of the positions behind it, from which the outputs there are computed; so
//! the bits do not depend on how a sequence's tokens are cut into steps. Rows are appended: a step
//! that fails, and drafts that are taken back, leave what stands before them. A step that crosses a
//! boundary writes to a spare record, which takes the old one's place when the step has succeeded.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use modelembed_spec::{RecordShape, ScanShape};
use modelembed_storage::BLOCK_ALIGN;

use super::pages::Page;
use crate::error::{Error, Result};

/// Positions of a chunk.
pub(crate) const CHUNK: usize = 64;

/// Bytes of the records of a sequence that goes on, as far as they can be counted: the one that it
/// is in, and the next one while it is written.
pub(crate) fn bytes(shapes: &[RecordShape]) -> u64 {
    RecordLayout::new(shapes).map_or(u64::MAX / 4, |layout| 2 * layout.bytes as u64)
}

/// Where each layer's part is in a record.
pub(crate) struct RecordLayout {
    places: Vec<Place>,
    bytes: usize,
}

/// One layer's part: ranges of f32 in a record.
struct Place {
    shape: RecordShape,
    raw: Range<usize>,
    conv: Range<usize>,
    steps: Range<usize>,
    state: Range<usize>,
}

/// One layer's part of a record.
pub(crate) struct Record<'a> {
    /// What the convolution goes over: rows of the positions before the chunk, as many as it looks
    /// at, then those of the chunk; (conv_rows + CHUNK, conv_len).
    pub(crate) raw: &'a [f32],
    /// What it gives, but in the place of values what the state takes in: (CHUNK, conv_len).
    pub(crate) conv: &'a [f32],
    /// Step sizes, and sums of the logarithms of the decay since the chunk began: (CHUNK,
    /// steps_len).
    pub(crate) steps: &'a [f32],
    /// The state where the chunk begins: (heads, key_dim, value_dim).
    pub(crate) state: &'a [f32],
}

impl RecordLayout {
    /// For recurrences of these shapes.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub(crate) fn new(shapes: &[RecordShape]) -> Result<RecordLayout> {
        let too_large = || Error::StatesTooLarge { sequences: 1 };
        let mut end = 0usize;
        let mut section = |rows: usize, len: usize| {
            let start = end;
            let n = rows.checked_mul(len).and_then(|n| n.checked_next_multiple_of(BLOCK_ALIGN / size_of::<f32>()));
            end = n.and_then(|n| n.checked_add(start)).ok_or_else(too_large)?;
            Ok::<_, Error>(start..start + rows * len)
        };
        let mut places = Vec::with_capacity(shapes.len());
        for shape in shapes {
            // A convolution alone has rows and nothing else.
            let of_scan = |len: fn(&ScanShape) -> usize| shape.scan.as_ref().map_or(0, len);
            let state_len = shape.scan.map_or(Some(0), |scan| scan.key_dim.checked_mul(scan.value_dim));
            places.push(Place {
                shape: *shape,
                raw: section(shape.conv_rows + CHUNK, shape.conv_len)?,
                conv: section(CHUNK, of_scan(ScanShape::conv_len))?,
                steps: section(CHUNK, of_scan(ScanShape::steps_len))?,
                state: section(of_scan(|scan| scan.heads), state_len.ok_or_else(too_large)?)?,
            });
        }
        let bytes = end.checked_mul(size_of::<f32>()).ok_or_else(too_large)?;
        Ok(RecordLayout { places, bytes })
    }

    /// Bytes of a record; 0 where there is no recurrence.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A layer's part.
    pub(crate) fn of<'a>(&self, record: usize, bytes: &'a [u8]) -> Record<'a> {
        let (place, all) = (&self.places[record], floats(bytes));
        Record {
            raw: &all[place.raw.clone()],
            conv: &all[place.conv.clone()],
            steps: &all[place.steps.clone()],
            state: &all[place.state.clone()],
        }
    }

    /// A layer's part without the state, and the state, to be written.
    pub(crate) fn split_mut<'a>(&self, record: usize, bytes: &'a mut [u8]) -> (Record<'a>, &'a mut [f32]) {
        let place = &self.places[record];
        let (rows, rest) = floats_mut(bytes).split_at_mut(place.state.start);
        let rows = &*rows;
        let record = Record {
            raw: &rows[place.raw.clone()],
            conv: &rows[place.conv.clone()],
            steps: &rows[place.steps.clone()],
            state: &[],
        };
        (record, &mut rest[..place.state.len()])
    }

    /// Makes a record that of a sequence's start: nothing stands before it. Its state is taken to
    /// be zero, whatever is there.
    fn begin(&self, bytes: &mut [u8]) {
        let all = floats_mut(bytes);
        for place in &self.places {
            all[place.raw.clone()][..place.shape.conv_rows * place.shape.conv_len].fill(0.0);
        }
    }

    /// Copies what the first `rows` positions of a chunk need.
    pub(crate) fn copy(&self, from: &[u8], to: &mut [u8], rows: usize) {
        let (from, to) = (floats(from), floats_mut(to));
        for place in &self.places {
            let len = place.shape.conv_len;
            let mut copy = |section: &Range<usize>, n: usize| {
                let range = section.start..section.start + n;
                to[range.clone()].copy_from_slice(&from[range]);
            };
            copy(&place.raw, (place.shape.conv_rows + rows) * len);
            copy(&place.conv, place.conv.len() / CHUNK * rows);
            copy(&place.steps, place.steps.len() / CHUNK * rows);
            copy(&place.state, place.state.len());
        }
    }

    /// Stores a run's rows, of positions from `pos` on, in a layer's part of `to`. Where they reach
    /// into another chunk, which `to` then is of, those of that chunk alone, and before them what the
    /// convolution looks at, out of the rows or of the record `before`.
    pub(crate) fn store(&self, record: usize, to: &mut [u8], before: Before<'_>, pos: usize, new: &Rows<'_>) {
        let place = &self.places[record];
        let RecordShape { conv_rows: kept, conv_len: len, scan, .. } = place.shape;
        let end = pos + new.n;
        let all = floats_mut(to);
        let start = match before {
            Before::Same => pos,
            _ => end / CHUNK * CHUNK,
        };
        // Rows that the convolution still looks at stand before the chunk.
        for i in 0..if let Before::Same = before { 0 } else { kept } {
            let at = place.raw.start + i * len;
            let position = (start + i).checked_sub(kept);
            match position.and_then(|p| p.checked_sub(pos)) {
                Some(col) => all[at..at + len].copy_from_slice(new.raw(col, len)),
                None => {
                    let row = start + i - pos / CHUNK * CHUNK; // of the record before
                    match before {
                        Before::Other(bytes) => {
                            let from = &floats(bytes)[place.raw.clone()][row * len..][..len];
                            all[at..at + len].copy_from_slice(from);
                        }
                        _ => all.copy_within(place.raw.start + row * len..place.raw.start + (row + 1) * len, at),
                    }
                }
            }
        }
        for position in start..end {
            let (row, col) = (position % CHUNK, position - pos);
            all[place.raw.start + (kept + row) * len..][..len].copy_from_slice(new.raw(col, len));
            let Some(scan) = &scan else { continue };
            let n_steps = scan.steps_len();
            let to = &mut all[place.conv.start + row * len..][..len];
            to.copy_from_slice(&new.conv[col * len..][..len]);
            let (at, inner) = (scan.values_at(), scan.inner_len());
            to[at..at + inner].copy_from_slice(&new.taken[col * inner..][..inner]);
            all[place.steps.start + row * n_steps..][..n_steps].copy_from_slice(&new.steps[col * n_steps..][..n_steps]);
        }
    }
}

/// The record that held the positions before those that are stored.
#[derive(Clone, Copy)]
pub(crate) enum Before<'a> {
    /// The same, for the same chunk: rows are appended.
    Same,
    /// The same, of an earlier chunk.
    Earlier,
    /// Another one.
    Other(&'a [u8]),
}

/// The rows of a run's columns.
pub(crate) struct Rows<'a> {
    /// How many.
    pub(crate) n: usize,
    /// Columns that the raw rows are parts of.
    pub(crate) columns: &'a [f32],
    /// Elements of such a column, and where the row begins in it.
    pub(crate) column: (usize, usize),
    /// (n, conv_len).
    pub(crate) conv: &'a [f32],
    /// What the state takes in: (n, inner_len).
    pub(crate) taken: &'a [f32],
    /// (n, steps_len).
    pub(crate) steps: &'a [f32],
}

impl Rows<'_> {
    fn raw(&self, col: usize, len: usize) -> &[f32] {
        let (stride, at) = self.column;
        &self.columns[col * stride + at..][..len]
    }
}

/// The records of a sequence.
#[derive(Default)]
pub(crate) struct Records {
    /// In the order of their chunks; the last one is where the sequence goes on.
    slots: VecDeque<Slot>,
    /// While a step that crosses a boundary is computed, what it writes.
    spare: Option<Page>,
    /// Whether the chunks of tokens that were computed have crossed the boundary.
    is_in_spare: bool,
}

/// A record of a chunk.
struct Slot {
    /// Which chunk: it begins at so many times [`CHUNK`].
    number: usize,
    /// Positions of the chunk that can be gone on behind; behind the last one the next record goes
    /// on.
    rows: usize,
    /// Whether it stays when the sequence has gone on.
    is_kept: bool,
    page: Arc<Page>,
}

impl Slot {
    fn new(number: usize, rows: usize, page: Arc<Page>) -> Slot {
        Slot { number, rows, is_kept: false, page }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let page = Arc::get_mut(&mut self.page);
        page.unwrap_or_else(|| unreachable!("a record was made ready for writing")).bytes_mut()
    }

    /// Whether a sequence can go on behind its first `len` positions with it.
    fn holds(&self, len: usize) -> bool {
        let start = self.number * CHUNK;
        (start..=start + self.rows).contains(&len)
    }
}

impl Records {
    /// A record of another sequence, or out of a file, for going on at `len`.
    pub(crate) fn of(len: usize, page: Arc<Page>) -> Records {
        Records { slots: [Slot::new(len / CHUNK, len % CHUNK, page)].into(), ..Records::default() }
    }

    /// How many records there are.
    pub(crate) fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether the sequence can go on behind its first `len` positions.
    pub(crate) fn can_return(&self, len: usize) -> bool {
        len == 0 || self.slots.iter().any(|slot| slot.holds(len))
    }

    /// The last position up to `len` that the sequence can go on behind.
    pub(crate) fn returnable(&self, len: usize) -> usize {
        let before = self.slots.iter().filter(|slot| slot.number * CHUNK <= len);
        before.map(|slot| len.min(slot.number * CHUNK + slot.rows)).max().unwrap_or(0)
    }

    /// Those of another sequence that begins with the same `len` positions.
    pub(crate) fn fork(&self, len: usize) -> Records {
        let found = self.slots.iter().rev().find(|slot| len > 0 && slot.holds(len));
        found.map_or(Records::default(), |slot| Records::of(len, Arc::clone(&slot.page)))
    }

    /// The record with which a sequence goes on at `len`.
    pub(crate) fn at(&self, len: usize) -> Option<&Arc<Page>> {
        self.slots.iter().rev().find(|slot| slot.holds(len)).map(|slot| &slot.page)
    }

    /// The one whose chunk begins at `len`.
    pub(crate) fn beginning_at(&self, len: usize) -> Option<&Arc<Page>> {
        self.slots.iter().find(|slot| slot.number * CHUNK == len).map(|slot| &slot.page)
    }

    /// Gives back what was kept, but for the present record.
    pub(crate) fn keep_none(&mut self) {
        let last = self.slots.len().saturating_sub(1);
        self.slots.drain(..last);
        self.slots.iter_mut().for_each(|slot| slot.is_kept = false);
    }

    /// Keeps the present record when the sequence goes on.
    pub(crate) fn keep(&mut self) {
        if let Some(slot) = self.slots.back_mut() {
            slot.is_kept = true;
        }
    }

    /// Makes the records ready for `n` positions from `pos` on.
    ///
    /// # Errors
    /// As `take`.
    pub(crate) fn prepare(
        &mut self,
        layout: &RecordLayout,
        (pos, n): (usize, usize),
        take: &dyn Fn() -> Result<Page>,
    ) -> Result<()> {
        self.drop_spare();
        if self.slots.is_empty() {
            let mut page = take()?;
            layout.begin(page.bytes_mut());
            self.slots.push_back(Slot::new(0, 0, Arc::new(page)));
        }
        if let Some(slot) = self.slots.back_mut()
            && Arc::get_mut(&mut slot.page).is_none()
        {
            let mut page = take()?;
            layout.copy(slot.page.bytes(), page.bytes_mut(), slot.rows);
            slot.page = Arc::new(page);
        }
        if crosses(pos, n) {
            self.spare = Some(take()?);
        }
        Ok(())
    }

    fn drop_spare(&mut self) {
        self.spare = None;
        self.is_in_spare = false;
    }

    /// A chunk of tokens was computed.
    pub(crate) fn computed(&mut self, pos: usize, n: usize) {
        self.is_in_spare |= crosses(pos, n);
    }

    /// The step has succeeded: the sequence has `len` positions.
    pub(crate) fn commit(&mut self, len: usize) {
        let spare = self.spare.take().filter(|_| self.is_in_spare);
        self.is_in_spare = false;
        match spare {
            Some(page) => {
                if let Some(slot) = self.slots.back_mut() {
                    slot.rows = CHUNK - 1;
                }
                self.slots.push_back(Slot::new(len / CHUNK, len % CHUNK, Arc::new(page)));
            }
            None => {
                if let Some(slot) = self.slots.back_mut() {
                    slot.rows = len - slot.number * CHUNK;
                }
            }
        }
    }

    /// Forgets what is behind the first `len` positions.
    pub(crate) fn release(&mut self, len: usize) {
        self.drop_spare();
        while self.slots.back().is_some_and(|slot| len == 0 || slot.number * CHUNK > len) {
            self.slots.pop_back();
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.rows = slot.rows.min(len - slot.number * CHUNK);
        }
    }

    /// Gives back the records that nothing from `len` on goes back to.
    pub(crate) fn release_unseen(&mut self, len: usize) {
        let mut i = 0;
        while i + 1 < self.slots.len() {
            if !self.slots[i].is_kept && self.slots[i + 1].number * CHUNK <= len {
                self.slots.remove(i);
            } else {
                i += 1;
            }
        }
    }

    /// The record that holds the positions before the chunk of tokens that is computed.
    pub(crate) fn before(&self) -> &[u8] {
        match (&self.spare, self.slots.back()) {
            (Some(spare), _) if self.is_in_spare => spare.bytes(),
            (_, Some(slot)) => slot.page.bytes(),
            (_, None) => unreachable!("a record was made ready"),
        }
    }

    /// What a chunk of tokens that crosses a boundary reads, unless it is what it writes, and what
    /// it writes. The first takes the rows up to the boundary: drafts there may be taken back.
    pub(crate) fn crossing(&mut self) -> (Option<&mut [u8]>, &mut [u8]) {
        let Some(spare) = &mut self.spare else { unreachable!("a spare record was made ready") };
        let before = self.slots.back_mut().filter(|_| !self.is_in_spare).map(Slot::bytes_mut);
        (before, spare.bytes_mut())
    }

    /// The record that rows are appended to by a chunk of tokens that crosses no boundary.
    pub(crate) fn appended_mut(&mut self) -> &mut [u8] {
        match (&mut self.spare, self.slots.back_mut()) {
            (Some(spare), _) if self.is_in_spare => spare.bytes_mut(),
            (_, Some(slot)) => slot.bytes_mut(),
            (_, None) => unreachable!("a record was made ready"),
        }
    }
}

/// Whether `n` positions from `pos` on reach into another chunk.
pub(crate) fn crosses(pos: usize, n: usize) -> bool {
    (pos + n) / CHUNK > pos / CHUNK
}

fn floats(bytes: &[u8]) -> &[f32] {
    bytemuck::cast_slice(bytes)
}

fn floats_mut(bytes: &mut [u8]) -> &mut [f32] {
    bytemuck::cast_slice_mut(bytes)
}
