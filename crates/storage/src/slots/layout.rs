//! Where items lie in their files and in their slots, and which slots are alike.

use std::io;
use std::ops::Range;

use crate::direct::ALIGN_BYTES;
use crate::readers::PIECE_BYTES;
use crate::storage::Storage;
use crate::stream::StreamedRange;

/// Slots of one size.
pub(super) struct Class {
    /// Where the first one begins.
    pub(super) at: usize,
    pub(super) slot_bytes: usize,
    pub(super) n_slots: usize,
}

pub(super) struct Item {
    pub(super) class: usize,
    pub(super) parts: Vec<Part>,
    /// Of its ranges.
    pub(super) len_bytes: u64,
    /// Reads that it takes.
    pub(super) n_pieces: u32,
}

/// A range of a file, and the whole pages around it.
pub(super) struct Part {
    pub(super) file: usize,
    /// In the file, whole pages.
    pub(super) offset: u64,
    pub(super) len: usize,
    /// As much of that is in the file.
    pub(super) least: usize,
    /// Where in the slot the pages begin.
    pub(super) at: usize,
    /// Where in the slot the range begins, and its length.
    pub(super) bytes: (usize, usize),
}

/// Items with the classes of their slots, as many slots as the budget has room for, and the bytes of
/// all slots.
///
/// # Errors
/// A range outside of a mapped file.
pub(super) fn layout(
    storages: &[&Storage],
    items: &[Vec<StreamedRange>],
    budget_bytes: u64,
) -> io::Result<(Vec<Item>, Vec<Class>, usize)> {
    let mut classes: Vec<Class> = Vec::new();
    let mut placed = Vec::with_capacity(items.len());
    for ranges in items {
        let (parts, slot_bytes) = lay_out(storages, ranges)?;
        let class = classes.iter().position(|class| class.slot_bytes == slot_bytes).unwrap_or_else(|| {
            classes.push(Class { at: 0, slot_bytes, n_slots: 0 });
            classes.len() - 1
        });
        classes[class].n_slots += 1;
        let n_pieces = parts.iter().map(Part::n_pieces).sum();
        let len_bytes = parts.iter().map(|part| part.bytes.1 as u64).sum();
        placed.push(Item { class, parts, len_bytes, n_pieces });
    }
    let mut end = 0;
    for class in &mut classes {
        class.at = end;
        class.n_slots = class.n_slots.min((budget_bytes / class.slot_bytes.max(1) as u64) as usize);
        end += class.n_slots * class.slot_bytes;
    }
    Ok((placed, classes, end))
}

impl Part {
    /// Reads that it takes.
    fn n_pieces(&self) -> u32 {
        self.len.div_ceil(PIECE_BYTES as usize) as u32
    }

    /// Bytes of a piece, but perhaps of the last one: all are as long, so that they come at the same
    /// time.
    fn piece_bytes(&self) -> usize {
        self.len.div_ceil(self.n_pieces().max(1) as usize).next_multiple_of(ALIGN_BYTES as usize)
    }
}

impl Item {
    /// The part that a piece is of, and which of its bytes the piece has.
    pub(super) fn piece(&self, mut piece: u32) -> (&Part, Range<usize>) {
        for part in &self.parts {
            if piece < part.n_pieces() {
                let (at, len) = (piece as usize * part.piece_bytes(), part.piece_bytes());
                return (part, at.min(part.len)..part.len.min(at + len));
            }
            piece -= part.n_pieces();
        }
        unreachable!("an item has as many pieces as its parts")
    }
}

/// Bytes of the slot of an item whose ranges have these lengths: each with the whole pages that it
/// may touch.
pub(super) fn slot_bytes(lens: impl Iterator<Item = u64>) -> u64 {
    lens.map(|len| len.next_multiple_of(ALIGN_BYTES) + ALIGN_BYTES).sum()
}

/// The parts of an item one after the other, each at the same place within a page as in its file,
/// and the bytes of a slot for them.
fn lay_out(storages: &[&Storage], ranges: &[StreamedRange]) -> io::Result<(Vec<Part>, usize)> {
    let mut at = 0;
    let mut parts = Vec::with_capacity(ranges.len());
    for StreamedRange { file, bytes } in ranges {
        let storage = storages.get(*file).ok_or(io::ErrorKind::InvalidInput)?;
        storage.mapped(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let (start, end) = (storage.file_offset() + bytes.start, storage.file_offset() + bytes.end);
        let offset = start / ALIGN_BYTES * ALIGN_BYTES;
        let len = (end.next_multiple_of(ALIGN_BYTES) - offset) as usize;
        let before = (start - offset) as usize;
        let least = before + (end - start) as usize;
        parts.push(Part { file: *file, offset, len, least, at, bytes: (at + before, least - before) });
        // As much as it would take anywhere, so that equal items have equal slots.
        at += slot_bytes(std::iter::once(end - start)) as usize;
    }
    Ok((parts, at))
}
