//! Items of mapped files that do not all stay in memory: each is read when it is wanted, and stays
//! for as long as there is room.
//!
//! An item is some ranges of bytes that are used together, as the matrices of one expert. It is read
//! into a slot of anonymous memory, past the page cache where the file system allows it, and its
//! bytes are taken from there: the map is left alone, since thousands of items in it would be as
//! many mappings, and a change of them a miss. Items that nobody holds leave when room is wanted,
//! those first that were used longest ago. Slots of equal items are a class; what is left of the
//! budget goes to whichever class wants it, and then each takes from itself.

mod held;
mod layout;
mod state;

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use self::held::HeldItem;
use self::state::{Shared, State};
use crate::direct::{DirectFile, read_at_random};
use crate::error::StorageError;
use crate::memory::Memory;
use crate::os;
use crate::readers::Readers;
use crate::storage::Storage;
use crate::stream::{StreamReader, StreamedRange};

pub use self::held::Held;

/// How [`Slots`] read, and how much they keep.
#[derive(Clone, Copy, Debug)]
pub struct SlotOptions {
    /// Bytes of all slots at most.
    pub budget_bytes: u64,
    /// Who reads.
    pub reader: StreamReader,
    /// Whether reads go past the page cache where the file system lets them.
    pub direct: bool,
}

/// Whether items that are held count as used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They do: they stay for as long as others were used longer ago.
    Lasting,
    /// They do not: those that were there stay as they were, others are the first to leave. For
    /// whoever goes over all items once.
    Passing,
}

/// What was asked for and read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotStats {
    /// Items that were there when they were held to last, or were being read for it already.
    pub hits: u64,
    /// Items that were not.
    pub misses: u64,
    /// Bytes of those items.
    pub missed_bytes: u64,
    /// Items that were held in passing, and those of them that were not there.
    pub passed: u64,
    /// See there.
    pub passed_misses: u64,
    /// Items that were read because they were expected.
    pub expected: u64,
    /// Those of them that were held next.
    pub came_true: u64,
    /// Bytes of those.
    pub came_true_bytes: u64,
    /// Bytes that were read, for whatever reason: whole pages.
    pub read_bytes: u64,
    /// Time in which at least one read was under way.
    pub read_time: Duration,
    /// Time spent waiting for items that were held to last.
    pub wait_time: Duration,
    /// The same of those that were held in passing.
    pub passed_wait_time: Duration,
    /// Bytes of the slots that are in use.
    pub used_bytes: u64,
    /// Bytes that they may take.
    pub budget_bytes: u64,
    /// Whether reads go past the page cache.
    pub is_direct: bool,
    /// Who reads: not [`StreamReader::Auto`].
    pub reader: StreamReader,
}

impl SlotStats {
    /// What was asked for and read since then.
    #[must_use]
    pub fn since(&self, before: &SlotStats) -> SlotStats {
        SlotStats {
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            missed_bytes: self.missed_bytes - before.missed_bytes,
            passed: self.passed - before.passed,
            passed_misses: self.passed_misses - before.passed_misses,
            expected: self.expected - before.expected,
            came_true: self.came_true - before.came_true,
            came_true_bytes: self.came_true_bytes - before.came_true_bytes,
            read_bytes: self.read_bytes - before.read_bytes,
            read_time: self.read_time - before.read_time,
            wait_time: self.wait_time - before.wait_time,
            passed_wait_time: self.passed_wait_time - before.passed_wait_time,
            ..*self
        }
    }
}

/// Items, the slots of those that are in memory, and the threads that read them.
pub struct Slots {
    shared: Arc<Shared>,
    readers: Readers,
}

impl Slots {
    /// Bytes of the slot of an item whose ranges have these lengths: each with the whole pages that
    /// it may touch.
    pub fn slot_bytes(lens: impl Iterator<Item = u64>) -> u64 {
        layout::slot_bytes(lens)
    }

    /// Begins with no item in memory. Anything but the items is asked for by
    /// [`Storage::prefetch_only`]: the maps are read at random from now on, and the items' pages
    /// leave the page cache.
    ///
    /// # Errors
    /// A file that is not mapped, a ring that was asked for and is refused, or a system that lacks
    /// what this needs. The storages then are as they were.
    pub fn start(storages: &[&Storage], items: &[Vec<StreamedRange>], options: SlotOptions) -> io::Result<Slots> {
        let files = storages.iter().map(|s| DirectFile::new(s, options.direct)).collect::<io::Result<Vec<_>>>()?;
        let (placed, classes, memory_bytes) = layout::layout(storages, items, options.budget_bytes)?;
        let state = State::new(placed.len(), classes.len(), options.budget_bytes);
        let shared = Arc::new(Shared {
            files,
            items: placed,
            classes,
            memory: Memory::new(os::anonymous(memory_bytes.max(1))?),
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let readers = Readers::start(&shared, options.reader)?;
        for (storage, range) in items.iter().flatten().map(|r| (storages[r.file], &r.bytes)) {
            // Once is enough for what was in the cache before: direct reads bring nothing there.
            if let Some(file) = storage.mapped_file() {
                os::drop_cached(file, storage.file_offset() + range.start, range.end - range.start);
            }
        }
        read_at_random(storages);
        Ok(Slots { shared, readers })
    }

    /// Why there is no ring, where one was wanted but not asked for by name.
    pub fn ring_refusal(&self) -> Option<&io::Error> {
        self.readers.ring_refusal.as_ref()
    }

    /// Keeps items in memory until what is returned is dropped, and has those read that are not
    /// there. Each item once.
    ///
    /// # Errors
    /// [`StorageError::NoSlot`] where more is held at once than the budget has room for.
    pub fn hold(&self, items: &[u32], keep: Keep) -> Result<Held<'_>, StorageError> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        state.clock += 1;
        if keep == Keep::Lasting {
            shared.settle(&mut state, items);
        }
        // Those that are there first, so that none of them makes room for another.
        let mut held = Held { slots: self, keep, items: Vec::with_capacity(items.len()) };
        for &item in items {
            let is_there = state.has(item);
            if is_there {
                shared.take_hold(&mut state, item, keep);
            }
            let stats = &mut state.stats;
            match (keep, is_there) {
                (Keep::Lasting, true) => stats.hits += 1,
                (Keep::Lasting, false) => {
                    stats.misses += 1;
                    stats.missed_bytes += shared.items[item as usize].len_bytes;
                }
                (Keep::Passing, is_there) => {
                    stats.passed += 1;
                    stats.passed_misses += u64::from(!is_there);
                }
            }
            held.items.push(HeldItem { item, at: is_there.then_some(0), ready: false });
        }
        for place in &mut held.items {
            if place.at.is_none() {
                while !shared.give_slot(&mut state, place.item) {
                    // What was let go of while it was read makes room when that is over.
                    if state.items.iter().any(|of| of.holders == 0 && of.missing > 0) {
                        state = shared.wait(state);
                        continue;
                    }
                    let (budget_bytes, n_items) = (state.budget_bytes, items.len());
                    held.items.retain(|place| place.at.is_some());
                    drop(state);
                    return Err(StorageError::NoSlot { n_items, budget_bytes });
                }
                let n_pieces = shared.items[place.item as usize].n_pieces;
                state.wanted.extend((0..n_pieces).map(|piece| (place.item, piece)));
                shared.take_hold(&mut state, place.item, keep);
            }
            place.at = Some(shared.slot_at(&state, place.item));
        }
        drop(state);
        shared.work.notify_all();
        Ok(held)
    }

    /// Has items read that will probably be [held](Self::hold) to last next. Those that then are
    /// not leave first. Reads nothing where that would displace what is held.
    pub fn expect(&self, items: &[u32]) {
        let shared = &*self.shared;
        let mut state = shared.lock();
        for &item in items {
            if state.has(item) || !shared.give_slot(&mut state, item) {
                continue;
            }
            state.items[item as usize].stamp = state.clock;
            let n_pieces = shared.items[item as usize].n_pieces;
            state.ahead.extend((0..n_pieces).map(|piece| (item, piece)));
            state.expected.push(item);
            state.stats.expected += 1;
        }
        drop(state);
        shared.work.notify_all();
    }

    /// Whether an item is in memory or being read.
    pub fn has(&self, item: u32) -> bool {
        self.shared.lock().has(item)
    }

    /// Changes how much may be kept. What is too much is given back to the system at once, but for
    /// what is held, which follows.
    pub fn set_budget(&self, bytes: u64) {
        let shared = &*self.shared;
        let most = shared.memory.len() as u64;
        let mut state = shared.lock();
        state.budget_bytes = bytes.min(most);
        shared.shrink(&mut state);
    }

    /// How fast items are read from the files, in bytes a second: reads some that are not in memory,
    /// as many at a time as requests are under way, for so long. `None` if all are, or nothing came.
    /// Counts as neither used nor missed.
    pub fn measure(&self, duration: Duration) -> Option<f64> {
        let (shared, since) = (&*self.shared, Instant::now());
        let n_items = shared.items.len() as u32;
        let before = self.stats();
        // A step that reaches every item, far from neighbours that the disk may read on its own.
        let stride = (n_items / 2..).find(|s| gcd(*s, n_items.max(1)) == 1).unwrap_or(1);
        let mut item = 0;
        let mut next = || {
            item = (item + stride) % n_items.max(1);
            item
        };
        let is_over = || since.elapsed() >= duration;
        let mut tried = 0;
        let mut last: Option<Held<'_>> = None;
        while n_items > 0 && !is_over() && tried < 4 * n_items {
            let mut some: Vec<u32> = Vec::new();
            for _ in 0..n_items.min(64) {
                let item = next();
                tried += 1;
                if !self.has(item) && !some.contains(&item) {
                    some.push(item);
                }
                if some.len() == 4 {
                    break;
                }
            }
            // While these are read the ones before are waited for.
            let Ok(held) = self.hold(&some, Keep::Passing) else { break };
            if last.replace(held).is_some_and(|mut held| held.wait_all(&is_over).is_err()) {
                break;
            }
        }
        drop(last);
        let after = self.stats();
        let (bytes, time) = (after.read_bytes - before.read_bytes, after.read_time - before.read_time);
        let mut state = shared.lock();
        state.stats.passed = before.passed;
        state.stats.passed_misses = before.passed_misses;
        state.stats.passed_wait_time = before.passed_wait_time;
        drop(state);
        (bytes > 0).then(|| bytes as f64 / time.as_secs_f64().max(1e-6))
    }

    /// What was done so far.
    pub fn stats(&self) -> SlotStats {
        let shared = &*self.shared;
        let state = shared.lock();
        SlotStats {
            read_time: state.busy.time(),
            used_bytes: state.used_bytes,
            budget_bytes: state.budget_bytes,
            is_direct: shared.files.iter().all(DirectFile::is_direct),
            reader: self.readers.kind,
            ..state.stats
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        self.readers.join();
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("n_items", &self.shared.items.len()).field("stats", &self.stats()).finish()
    }
}
