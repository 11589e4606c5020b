//! Equal blocks of reserved memory that are handed out and come back.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::StorageError;
use crate::region::Reserved;

/// Blocks begin at multiples of this many bytes, a line of the cache, so that numbers of any type
/// can stand at their start.
pub const BLOCK_ALIGN: usize = 64;

/// Address space for a number of equal blocks. A block costs memory once it is written, page by
/// page, and stays where it is; one that comes back is the next to be handed out.
#[derive(Debug)]
pub struct Slab {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Kept for its mapping; looked into through `start` alone.
    _memory: Reserved<u8>,
    /// The first byte.
    start: Start,
    block_bytes: usize,
    n_blocks: usize,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Start(*mut u8);

// SAFETY: a block is reached through its `Block` alone, which only one owner has; the pointer by
// itself gives access to nothing.
unsafe impl Send for Start {}
// SAFETY: as above.
unsafe impl Sync for Start {}

#[derive(Debug, Default)]
struct Free {
    /// Blocks from here on were never handed out.
    next: usize,
    returned: Vec<usize>,
}

impl Slab {
    /// Reserves `n_blocks` blocks of at least `block_bytes`.
    ///
    /// # Errors
    /// Sizes that overflow, or the operating system's refusal.
    pub fn new(block_bytes: usize, n_blocks: usize) -> Result<Slab, StorageError> {
        let block_bytes = block_bytes.checked_next_multiple_of(BLOCK_ALIGN).unwrap_or(usize::MAX);
        let mut memory = Reserved::zeroed(block_bytes.saturating_mul(n_blocks))?;
        let start = Start(memory.as_mut_ptr());
        let free = Mutex::new(Free::default());
        Ok(Slab { shared: Arc::new(Shared { _memory: memory, start, block_bytes, n_blocks, free }) })
    }

    /// A block, with whatever its last owner left in it or zeros; `None` if all are out.
    pub fn take(&self) -> Option<Block> {
        let mut free = self.shared.free();
        let index = match free.returned.pop() {
            Some(index) => index,
            None if free.next < self.shared.n_blocks => {
                free.next += 1;
                free.next - 1
            }
            None => return None,
        };
        Some(Block { shared: Arc::clone(&self.shared), index })
    }

    /// Blocks that can be taken.
    pub fn n_free(&self) -> usize {
        let free = self.shared.free();
        self.shared.n_blocks - free.next + free.returned.len()
    }

    /// Blocks in all.
    pub fn n_blocks(&self) -> usize {
        self.shared.n_blocks
    }

    /// Length of a block in bytes.
    pub fn block_bytes(&self) -> usize {
        self.shared.block_bytes
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Free> {
        // A panic leaves the list whole: each change is one store.
        self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A block of a [`Slab`], which it goes back to when it is dropped.
#[derive(Debug)]
pub struct Block {
    shared: Arc<Shared>,
    index: usize,
}

impl Block {
    fn start(&self) -> *mut u8 {
        // SAFETY: `index` is below `n_blocks`, so the block lies within the reserved memory.
        unsafe { self.shared.start.0.add(self.index * self.shared.block_bytes) }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory lives as long as `shared`. No other `Block` has this index until this
        // one is dropped, so nobody writes to these bytes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start(), self.shared.block_bytes) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.shared.block_bytes) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.shared.free().returned.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_come_back() {
        let slab = Slab::new(100, 3).unwrap();
        assert_eq!((slab.block_bytes(), slab.n_blocks(), slab.n_free()), (128, 3, 3));
        let mut blocks: Vec<Block> = std::iter::from_fn(|| slab.take()).collect();
        assert_eq!((blocks.len(), slab.n_free()), (3, 0));
        for (i, block) in blocks.iter_mut().enumerate() {
            assert!(block.as_ptr().addr().is_multiple_of(BLOCK_ALIGN));
            assert!(block.iter().all(|&b| b == 0));
            block.fill(i as u8 + 1);
        }
        for (i, block) in blocks.iter().enumerate() {
            assert!(block.iter().all(|&b| b == i as u8 + 1));
        }
        drop(blocks.remove(1));
        assert_eq!(slab.n_free(), 1);
        assert!(slab.take().unwrap().iter().all(|&b| b == 2), "the one that came back");
        // Blocks outlive the slab's owner.
        drop(slab);
        assert!(blocks[1].iter().all(|&b| b == 3));
    }

    #[test]
    fn a_slab_of_nothing_hands_out_nothing() {
        assert!(Slab::new(64, 0).unwrap().take().is_none());
        assert!(Slab::new(usize::MAX, 2).is_err());
    }
}
