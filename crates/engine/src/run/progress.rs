//! How far an evaluation is, for another thread to show.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How far a [`Session`](crate::Session)'s evaluation is: counted by the session that was given it
/// in [`SessionOptions::progress`](crate::SessionOptions::progress), and read by any thread
/// meanwhile.
#[derive(Debug, Default)]
pub struct EvalProgress {
    done: AtomicUsize,
    total: AtomicUsize,
}

impl EvalProgress {
    /// Tokens of the evaluation under way, or of the last one: (done, all). A token half of whose
    /// layers are computed counts as half a token. Both are 0 before the first one.
    pub fn tokens(&self) -> (usize, usize) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(crate) fn start(&self, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn reach(&self, done: usize) {
        self.done.store(done, Ordering::Relaxed);
    }
}
