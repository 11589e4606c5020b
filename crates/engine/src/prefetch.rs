//! Brings a mapped model's pages in, in the order in which the first token needs them, while the prompt is being prepared and
//! its first layers compute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use modelembed_storage::Progress;

use crate::files::Shard;

/// Bytes that a thread asks for at a time.
const STEP_BYTES: u64 = 2 << 20;
/// Threads while the disk is read: requests that are under way at once.
const READERS: usize = 8;
/// A step that takes longer reads from a disk: from the page cache the slowest of 360 took 0.35 ms (a 2-core virtual machine).
const SLOW: Duration = Duration::from_millis(1);

/// The threads end when this is dropped, or when all is there.
pub(crate) struct Prefetch(Arc<Shared>);

struct Shared {
    shards: Arc<[Shard]>,
    /// (shard, first byte, end)
    steps: Vec<(usize, u64, u64)>,
    next: AtomicUsize,
    done_bytes: AtomicU64,
    total_bytes: u64,
    stop: AtomicBool,
}

impl Prefetch {
    /// Begins with ranges (shard, start, end) in this order.
    pub(crate) fn start(shards: &Arc<[Shard]>, ranges: impl Iterator<Item = (usize, u64, u64)>) -> Prefetch {
        let mut steps = Vec::new();
        for (shard, start, end) in ranges {
            let mut at = start;
            while at < end {
                let next = end.min(at + STEP_BYTES);
                steps.push((shard, at, next));
                at = next;
            }
        }
        let total_bytes = steps.iter().map(|(_, start, end)| end - start).sum();
        let shared = Arc::new(Shared {
            shards: Arc::clone(shards),
            steps,
            next: AtomicUsize::new(0),
            done_bytes: AtomicU64::new(0),
            total_bytes,
            stop: AtomicBool::new(false),
        });
        let first = Arc::clone(&shared);
        // Without the thread pages come as they are touched: slower, not wrong.
        let _ = std::thread::Builder::new().name("prefetch".into()).spawn(move || first.run(READERS - 1));
        Prefetch(shared)
    }

    /// How far it has come. Pages that come because they are touched count when their turn comes.
    pub(crate) fn progress(&self) -> Progress {
        Progress { done_bytes: self.0.done_bytes.load(Ordering::Relaxed), total_bytes: self.0.total_bytes }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Takes steps until there are none; once one turns out to read from a disk, `helpers` more threads do the same.
    fn run(self: Arc<Shared>, mut helpers: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(&(shard, start, end)) = self.steps.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let since = Instant::now();
            self.shards[shard].storage.prefetch(start..end);
            self.done_bytes.fetch_add(end - start, Ordering::Relaxed);
            if helpers > 0 && since.elapsed() > SLOW {
                for _ in 0..std::mem::take(&mut helpers) {
                    let shared = Arc::clone(&self);
                    let _ = std::thread::Builder::new().name("prefetch".into()).spawn(move || shared.run(0));
                }
            }
        }
    }
}
