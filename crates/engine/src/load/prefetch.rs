//! Brings a mapped model's pages in: first, while the prompt is being prepared and its first layers
//! compute, those that every token needs, in the order in which it needs them; then, once a token was
//! computed, the experts in the order of the file. Until they are all there, those that are chosen
//! are asked for by themselves.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use modelembed_spec::TensorId;
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
    /// How many of the steps are for every token, and their bytes.
    needed: (usize, u64),
    total_bytes: u64,
    /// Whether the others may begin.
    goes_on: AtomicBool,
    /// Tells those who wait for that, or for the end.
    changed: (Mutex<()>, Condvar),
    stop: AtomicBool,
}

impl Prefetch {
    /// Begins with ranges (shard, bytes) in this order, and those of `later` when it
    /// [goes on](Self::go_on); `around`: there is room for what the system reads around them.
    pub(crate) fn start(
        shards: &Arc<[Shard]>,
        ranges: impl Iterator<Item = (usize, Range<u64>)>,
        later: impl Iterator<Item = (usize, Range<u64>)>,
        around: bool,
    ) -> Prefetch {
        let mut steps = Vec::new();
        let mut add = |shard, range: Range<u64>| {
            let mut at = range.start;
            while at < range.end {
                let next = range.end.min(at + STEP_BYTES);
                steps.push((shard, at, next));
                at = next;
            }
            steps.len()
        };
        let n_needed = ranges.map(|(shard, range)| add(shard, range)).last().unwrap_or(0);
        later.for_each(|(shard, range)| {
            add(shard, range);
        });
        let bytes_of = |steps: &[(usize, u64, u64)]| steps.iter().map(|(_, start, end)| end - start).sum();
        let (needed_bytes, total_bytes) = (bytes_of(&steps[..n_needed]), bytes_of(&steps));
        let shared = Arc::new(Shared {
            shards: Arc::clone(shards),
            steps,
            around,
            next: AtomicUsize::new(0),
            done_bytes: AtomicU64::new(0),
            needed: (n_needed, needed_bytes),
            total_bytes,
            goes_on: AtomicBool::new(false),
            changed: Default::default(),
            stop: AtomicBool::new(false),
        });
        // Without the thread pages come as they are touched: slower, not wrong.
        let first = spawn(&shared, READERS - 1).ok();
        Prefetch { shared, first }
    }

    /// How far it has come. Pages that come because they are touched count when their turn comes.
    pub(crate) fn progress(&self) -> Progress {
        let shared = &*self.shared;
        let goes_on = shared.goes_on.load(Ordering::Relaxed);
        let total_bytes = if goes_on { shared.total_bytes } else { shared.needed.1 };
        Progress { done_bytes: shared.done_bytes.load(Ordering::Relaxed), total_bytes }
    }

    /// A token was computed: the rest may come.
    pub(crate) fn go_on(&self) {
        if !self.shared.goes_on.load(Ordering::Relaxed) {
            self.shared.goes_on.store(true, Ordering::Relaxed);
            self.shared.wake();
        }
    }

    /// Whether all was asked for.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.next.load(Ordering::Relaxed) >= self.shared.steps.len()
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
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
    fn wake(&self) {
        // Who is about to wait has looked before, or looks again.
        drop(self.changed.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.1.notify_all();
    }

    /// Waits until the rest may come; false if it never will.
    fn wait(&self) -> bool {
        let (lock, changed) = &self.changed;
        let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            if self.goes_on.load(Ordering::Relaxed) {
                return true;
            }
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes steps until there are none; once one turns out to read from a disk, `helpers` more
    /// threads do the same, and this one ends after them.
    fn run(self: Arc<Shared>, mut helpers: usize) {
        let mut others = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&(shard, start, end)) = self.steps.get(index) else { break };
            if index >= self.needed.0 && !self.wait() {
                break;
            }
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

/// Which experts' parts of tensors were asked for by themselves.
#[derive(Default)]
pub(crate) struct Asked {
    /// For each tensor of experts the first of its bits, and their number.
    of_tensor: HashMap<TensorId, (usize, usize)>,
    bits: Vec<AtomicU64>,
}

impl Asked {
    /// For tensors of so many experts each.
    pub(crate) fn new(tensors: impl Iterator<Item = (TensorId, usize)>) -> Asked {
        let mut n = 0;
        let place = |(id, n_experts)| {
            n += n_experts;
            (id, (n - n_experts, n_experts))
        };
        let of_tensor = tensors.map(place).collect();
        Asked { of_tensor, bits: (0..n.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// The number of the tensor's experts, if this one's part was not asked for before.
    pub(crate) fn first_time(&self, tensor: TensorId, expert: usize) -> Option<usize> {
        let &(first, n_experts) = self.of_tensor.get(&tensor)?;
        let (at, bit) = ((first + expert) / 64, 1 << ((first + expert) % 64));
        let before = self.bits.get(at)?.fetch_or(bit, Ordering::Relaxed);
        (before & bit == 0).then_some(n_experts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experts_part_is_asked_for_once() {
        let asked = Asked::new([(TensorId(7), 60), (TensorId(9), 60)].into_iter());
        assert!(!asked.is_empty() && Asked::default().is_empty());
        for (tensor, expert, want) in
            [(7, 59, Some(60)), (9, 0, Some(60)), (9, 59, Some(60)), (7, 59, None), (8, 1, None)]
        {
            assert_eq!(asked.first_time(TensorId(tensor), expert), want, "{tensor} {expert}");
        }
    }
}
