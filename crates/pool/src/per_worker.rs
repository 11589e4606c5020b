//! Memory that belongs to one worker at a time.

use std::cell::UnsafeCell;

use crate::{pool::Pool, share::CachePadded, worker::Worker};

/// One value for each worker of a pool: scratch buffers that are allocated once.
pub struct PerWorker<T> {
    pool_id: u64,
    slots: Box<[CachePadded<UnsafeCell<T>>]>,
}

// SAFETY: a shared `PerWorker` hands out `&mut T` only, each to one thread at a time (see `get`),
// never `&T` to two; so it may be shared wherever a `T` may be sent.
unsafe impl<T: Send> Sync for PerWorker<T> {}

impl<T> PerWorker<T> {
    /// Makes the values with `make(index)`, on this thread.
    pub fn new(pool: &Pool, mut make: impl FnMut(usize) -> T) -> PerWorker<T> {
        let slots = (0..pool.threads()).map(|i| CachePadded(UnsafeCell::new(make(i)))).collect();
        PerWorker { pool_id: pool.id(), slots }
    }

    /// The value of the running worker. Both borrows last as long as the result, so a chunk has it
    /// once at a time.
    ///
    /// # Panics
    /// If `worker` runs for another pool than the one given to [`PerWorker::new`].
    #[allow(clippy::mut_from_ref)]
    pub fn get<'a>(&'a self, worker: &'a mut Worker<'_>) -> &'a mut T {
        assert_eq!(self.pool_id, worker.pool_id(), "this PerWorker was made for another pool");
        // SAFETY: the token is unique for its pool and index and stays mutably borrowed for 'a, so
        // nobody else can reach this slot during 'a. `&mut self` methods need that no `get` result
        // is alive, which the borrow of `self` for 'a ensures.
        unsafe { &mut *self.slots[worker.index()].0.get() }
    }

    /// All values, in order of worker number.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut T> {
        self.slots.iter_mut().map(|slot| slot.0.get_mut())
    }
}

impl<T> IntoIterator for PerWorker<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    /// All values, in order of worker number.
    fn into_iter(self) -> Self::IntoIter {
        self.slots.into_iter().map(|slot| slot.0.into_inner()).collect::<Vec<T>>().into_iter()
    }
}

impl<T> std::fmt::Debug for PerWorker<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerWorker").field("workers", &self.slots.len()).finish_non_exhaustive()
    }
}
