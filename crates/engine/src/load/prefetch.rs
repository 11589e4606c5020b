//! Brings a mapped model's pages in, in the order in which the first token needs them, while the
//! prompt is being prepared and its first layers compute.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use modelembed_storage::Progress;

use crate::load::shard::Shard;

/// Bytes that a thread asks for at a time.
const STEP_BYTES: u64 = 2 << 20;
/// Threads while the disk is read: requests that are under way at once.
const READERS: usize = 8;
/// A step that takes longer reads from a disk: from the page cache the slowest of 360 took 0.35 ms
/// (a 2-core virtual machine).
const SLOW: Duration = Duration::from_millis(1);

/// The threads end when this is dropped, or when all is there. Dropping it waits for the step that
/// is under way: the files must be nobody's when a model is gone, since Windows lets no file be
/// written or removed while a map of it is left.
pub(crate) struct Prefetch {
    shared: Arc<Shared>,
    first: Option<JoinHandle<()>>,
}

struct Shared {
    shards: Arc<[Shard]>,
    /// (shard, first byte, end)
    steps: Vec<(usize, u64, u64)>,
    around: bool,
    next: AtomicUsize,
    done_bytes: AtomicU64,
    total_bytes: u64,
    stop: AtomicBool,
}

impl Prefetch {
    /// Begins with ranges (shard, bytes) in this order; `around`: there is room for what the system
    /// reads around them.
    pub(crate) fn start(
        shards: &Arc<[Shard]>,
        ranges: impl Iterator<Item = (usize, Range<u64>)>,
        around: bool,
    ) -> Prefetch {
        let mut steps = Vec::new();
        for (shard, range) in ranges {
            let mut at = range.start;
            while at < range.end {
                let next = range.end.min(at + STEP_BYTES);
                steps.push((shard, at, next));
                at = next;
            }
        }
        let total_bytes = steps.iter().map(|(_, start, end)| end - start).sum();
        let shared = Arc::new(Shared {
            shards: Arc::clone(shards),
            steps,
            around,
            next: AtomicUsize::new(0),
            done_bytes: AtomicU64::new(0),
            total_bytes,
            stop: AtomicBool::new(false),
        });
        // Without the thread pages come as they are touched: slower, not wrong.
        let first = spawn(&shared, READERS - 1).ok();
        Prefetch { shared, first }
    }

    /// How far it has come. Pages that come because they are touched count when their turn comes.
    pub(crate) fn progress(&self) -> Progress {
        Progress { done_bytes: self.shared.done_bytes.load(Ordering::Relaxed), total_bytes: self.shared.total_bytes }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(first) = self.first.take() {
            let _ = first.join();
        }
    }
}

fn spawn(shared: &Arc<Shared>, helpers: usize) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("prefetch".into()).spawn(move || shared.run(helpers))
}

impl Shared {
    /// Takes steps until there are none; once one turns out to read from a disk, `helpers` more
    /// threads do the same, and this one ends after them.
    fn run(self: Arc<Shared>, mut helpers: usize) {
        let mut others = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(&(shard, start, end)) = self.steps.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            let since = Instant::now();
            let storage = &self.shards[shard].storage;
            if self.around {
                storage.prefetch(start..end)
            } else {
                storage.prefetch_only(start..end)
            }
            self.done_bytes.fetch_add(end - start, Ordering::Relaxed);
            if helpers > 0 && since.elapsed() > SLOW {
                others.extend((0..std::mem::take(&mut helpers)).filter_map(|_| spawn(&self, 0).ok()));
            }
        }
        for other in others {
            let _ = other.join();
        }
    }
}
