//! The token of a running worker, and memory that belongs to one worker at a time.

use std::{cell::UnsafeCell, marker::PhantomData};

use crate::{pool::Pool, share::CachePadded};

/// Proof of running as a certain worker of a certain pool, handed to each chunk.
///
/// At most one token for a (pool, index) exists at any time. The lifetime is invariant and different for each call
/// of a body, so that two tokens cannot be swapped and none outlives its chunk.
#[derive(Debug)]
pub struct Worker<'w> {
    pool_id: u64,
    index: usize,
    _brand: PhantomData<*mut &'w ()>,
}

impl Worker<'_> {
    /// The caller promises that no other token for this pool and index lives as long as this one does.
    pub(crate) fn new(pool_id: u64, index: usize) -> Self {
        Worker { pool_id, index, _brand: PhantomData }
    }

    /// This worker's number, `0..pool.threads()`. Number 0 is the thread that called [`Pool::run`].
    pub fn index(&self) -> usize {
        self.index
    }
}

/// One value for each worker of a pool: scratch buffers that are allocated once.
pub struct PerWorker<T> {
    pool_id: u64,
    slots: Box<[CachePadded<UnsafeCell<T>>]>,
}

// SAFETY: a shared `PerWorker` hands out `&mut T` only, each to one thread at a time (see `get`), never `&T` to two;
// so it may be shared wherever a `T` may be sent.
unsafe impl<T: Send> Sync for PerWorker<T> {}

impl<T> PerWorker<T> {
    /// Makes the values with `make(index)`, on this thread.
    pub fn new(pool: &Pool, mut make: impl FnMut(usize) -> T) -> PerWorker<T> {
        let slots = (0..pool.threads()).map(|i| CachePadded(UnsafeCell::new(make(i)))).collect();
        PerWorker { pool_id: pool.id(), slots }
    }

    /// The value of the running worker. Both borrows last as long as the result, so a chunk has it once at a time.
    ///
    /// # Panics
    /// If `worker` runs for another pool than the one given to [`PerWorker::new`].
    #[allow(clippy::mut_from_ref)]
    pub fn get<'a>(&'a self, worker: &'a mut Worker<'_>) -> &'a mut T {
        assert_eq!(self.pool_id, worker.pool_id, "this PerWorker was made for another pool");
        // SAFETY: the token is unique for its pool and index and stays mutably borrowed for 'a, so nobody else can
        // reach this slot during 'a. `&mut self` methods need that no `get` result is alive, which the borrow of
        // `self` for 'a ensures.
        unsafe { &mut *self.slots[worker.index].0.get() }
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
