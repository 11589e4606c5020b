//! Items that are held.

use std::io;
use std::time::Instant;

use super::state::State;
use super::{Keep, Slots};
use crate::error::StorageError;

/// Items that stay in memory for as long as this lives.
pub struct Held<'a> {
    pub(super) slots: &'a Slots,
    pub(super) keep: Keep,
    pub(super) items: Vec<HeldItem>,
}

pub(super) struct HeldItem {
    pub(super) item: u32,
    /// Where its slot begins.
    pub(super) at: Option<usize>,
    pub(super) ready: bool,
}

impl Held<'_> {
    /// Whether the item at a place of the list that was asked for is there.
    ///
    /// # Errors
    /// A read that failed; whoever holds the item again has it read again.
    pub fn is_ready(&mut self, index: usize) -> Result<bool, StorageError> {
        if self.items[index].ready {
            return Ok(true);
        }
        let mut state = self.slots.shared.lock();
        self.look(&mut state, index)
    }

    fn look(&mut self, state: &mut State, index: usize) -> Result<bool, StorageError> {
        let place = &mut self.items[index];
        let of = &state.items[place.item as usize];
        if of.missing > 0 {
            return Ok(false);
        }
        if of.failed {
            // Somebody else who held it was told why.
            let shared = &*self.slots.shared;
            let gone = || {
                let part = &shared.items[place.item as usize].parts[0];
                let source = io::Error::other("an earlier read of it failed");
                StorageError::StreamRead { path: shared.files[part.file].path.clone(), offset: part.offset, source }
            };
            return Err(state.failures.remove(&place.item).unwrap_or_else(gone));
        }
        place.ready = true;
        Ok(true)
    }

    /// Waits for one item.
    ///
    /// # Errors
    /// As [`is_ready`](Self::is_ready), or [`StorageError::Cancelled`].
    pub fn wait(&mut self, index: usize, is_cancelled: &dyn Fn() -> bool) -> Result<(), StorageError> {
        if self.is_ready(index)? {
            return Ok(());
        }
        let (shared, since) = (&*self.slots.shared, Instant::now());
        let mut state = shared.lock();
        let result = loop {
            match self.look(&mut state, index) {
                Ok(true) => break Ok(()),
                Err(failure) => break Err(failure),
                Ok(false) if is_cancelled() => break Err(StorageError::Cancelled),
                Ok(false) => {}
            }
            state = shared.wait(state);
        };
        let time = match self.keep {
            Keep::Lasting => &mut state.stats.wait_time,
            Keep::Passing => &mut state.stats.passed_wait_time,
        };
        *time += since.elapsed();
        result
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_all(&mut self, is_cancelled: &dyn Fn() -> bool) -> Result<(), StorageError> {
        (0..self.items.len()).try_for_each(|index| self.wait(index, is_cancelled))
    }

    /// The bytes of one of an item's ranges.
    ///
    /// # Panics
    /// For an item that was not [waited for](Self::wait).
    pub fn bytes(&self, index: usize, range: usize) -> &[u8] {
        let place = &self.items[index];
        assert!(place.ready, "an item is waited for before its bytes are read");
        let shared = &*self.slots.shared;
        let (at, len) = shared.items[place.item as usize].parts[range].bytes;
        // SAFETY: the item is in its slot, whole, and stays there while it is held.
        unsafe { shared.memory.bytes(place.at.unwrap_or_default() + at, len) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let shared = &*self.slots.shared;
        let mut state = shared.lock();
        for place in &self.items {
            shared.let_go(&mut state, place.item);
        }
    }
}
