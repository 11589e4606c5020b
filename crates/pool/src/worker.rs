//! The token of a running worker.

use std::marker::PhantomData;

/// Proof of running as a certain worker of a certain pool, handed to each chunk.
///
/// At most one token for a (pool, index) exists at any time. The lifetime is invariant and
/// different for each call of a body, so that two tokens cannot be swapped and none outlives its
/// chunk.
#[derive(Debug)]
pub struct Worker<'w> {
    pool_id: u64,
    index: usize,
    _brand: PhantomData<*mut &'w ()>,
}

impl Worker<'_> {
    /// The caller promises that no other token for this pool and index lives as long as this one
    /// does.
    pub(crate) fn new(pool_id: u64, index: usize) -> Self {
        Worker { pool_id, index, _brand: PhantomData }
    }

    /// The pool's number.
    pub(crate) fn pool_id(&self) -> u64 {
        self.pool_id
    }

    /// This worker's number, `0..pool.threads()`. Number 0 is the thread that called
    /// [`Pool::run`](crate::Pool::run).
    pub fn index(&self) -> usize {
        self.index
    }
}
