//! Which item is in which slot, who holds it, and what is to be read: all changes under one lock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::layout::{Class, Item};
use super::{Keep, SlotStats};
use crate::advice::Advice;
use crate::direct::DirectFile;
use crate::error::StorageError;
use crate::memory::Memory;
use crate::os;
use crate::readers::{BusyTime, Feed, Request};

/// How soon a wait notices that its caller wants to stop.
const WAKE: Duration = Duration::from_millis(20);
/// An item has no slot.
const NONE: u32 = u32::MAX;

/// What those who hold items and those who read them share.
pub(super) struct Shared {
    pub(super) files: Vec<DirectFile>,
    pub(super) items: Vec<Item>,
    pub(super) classes: Vec<Class>,
    pub(super) memory: Memory<os::Anonymous>,
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
    pub(super) ready: Condvar,
}

pub(super) struct State {
    pub(super) items: Vec<ItemState>,
    pub(super) classes: Vec<ClassState>,
    pub(super) used_bytes: u64,
    pub(super) budget_bytes: u64,
    pub(super) clock: u64,
    /// Reads that somebody waits for, and those for what is expected: (item, piece).
    pub(super) wanted: VecDeque<(u32, u32)>,
    pub(super) ahead: VecDeque<(u32, u32)>,
    /// Items that are expected to be held next.
    pub(super) expected: Vec<u32>,
    pub(super) failures: HashMap<u32, StorageError>,
    pub(super) busy: BusyTime,
    pub(super) stats: SlotStats,
    pub(super) stop: bool,
}

#[derive(Clone, Copy)]
pub(super) struct ItemState {
    pub(super) slot: u32,
    pub(super) holders: u32,
    /// Pieces that are not there yet.
    pub(super) missing: u32,
    /// When it was used; 0 to be the first to leave.
    pub(super) stamp: u64,
    pub(super) failed: bool,
}

#[derive(Default)]
pub(super) struct ClassState {
    /// Slots that have been given back.
    pub(super) free: Vec<u32>,
    /// The first slot that was never used.
    pub(super) next: u32,
    /// Items that can leave, by when they were used.
    pub(super) idle: BTreeSet<(u64, u32)>,
}

impl State {
    /// No item has a slot.
    pub(super) fn new(n_items: usize, n_classes: usize, budget_bytes: u64) -> State {
        let none = ItemState { slot: NONE, holders: 0, missing: 0, stamp: 0, failed: false };
        State {
            items: vec![none; n_items],
            classes: (0..n_classes).map(|_| ClassState::default()).collect(),
            used_bytes: 0,
            budget_bytes,
            clock: 0,
            wanted: VecDeque::new(),
            ahead: VecDeque::new(),
            expected: Vec::new(),
            failures: HashMap::new(),
            busy: BusyTime::default(),
            stats: SlotStats::default(),
            stop: false,
        }
    }

    /// Whether an item is in memory or being read.
    pub(super) fn has(&self, item: u32) -> bool {
        self.items[item as usize].slot != NONE
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is guarded can be left half done by a panic.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for something that is read, for a short while.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match self.ready.wait_timeout(state, WAKE) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    pub(super) fn slot_at(&self, state: &State, item: u32) -> usize {
        let class = &self.classes[self.items[item as usize].class];
        class.at + class.slot_bytes * state.items[item as usize].slot as usize
    }

    /// Somebody more holds an item that has a slot.
    pub(super) fn take_hold(&self, state: &mut State, item: u32, keep: Keep) {
        let clock = state.clock;
        let of = &mut state.items[item as usize];
        let before = of.stamp;
        of.holders += 1;
        if keep == Keep::Lasting {
            of.stamp = clock;
        }
        if of.holders == 1 && of.missing == 0 {
            state.classes[self.items[item as usize].class].idle.remove(&(before, item));
        } else if of.missing > 0 {
            // What was expected is waited for now.
            let is_of = |piece: &&(u32, u32)| piece.0 == item;
            let pieces: Vec<_> = state.ahead.iter().filter(is_of).copied().collect();
            state.ahead.retain(|piece| piece.0 != item);
            state.wanted.extend(pieces);
        }
    }

    /// Somebody less does.
    pub(super) fn let_go(&self, state: &mut State, item: u32) {
        state.items[item as usize].holders -= 1;
        let of = state.items[item as usize];
        let is_of = |piece: &&(u32, u32)| piece.0 == item;
        if of.holders == 0 && of.missing > 0 && state.wanted.iter().filter(is_of).count() as u32 == of.missing {
            // Nothing of it is under way, and nobody wants it any more.
            state.wanted.retain(|piece| piece.0 != item);
            self.free(state, item, false);
            return self.shrink(state);
        }
        self.rest(state, item);
    }

    /// An item that nobody holds, and that is all there, can leave from now on.
    fn rest(&self, state: &mut State, item: u32) {
        let of = state.items[item as usize];
        if of.holders > 0 || of.missing > 0 {
            return;
        }
        if of.failed {
            state.failures.remove(&item);
            self.free(state, item, false);
        } else {
            state.classes[self.items[item as usize].class].idle.insert((of.stamp, item));
        }
        self.shrink(state);
    }

    /// Of what was expected, that which is not among `items` is the first to leave.
    pub(super) fn settle(&self, state: &mut State, items: &[u32]) {
        for item in std::mem::take(&mut state.expected) {
            let of = state.items[item as usize];
            if items.contains(&item) {
                state.stats.came_true += 1;
                state.stats.came_true_bytes += self.items[item as usize].len_bytes;
                continue;
            }
            if of.holders > 0 || of.slot == NONE {
                continue;
            }
            let n_pieces = self.items[item as usize].n_pieces;
            if of.missing == 0 {
                let idle = &mut state.classes[self.items[item as usize].class].idle;
                if idle.remove(&(of.stamp, item)) {
                    idle.insert((0, item));
                }
            } else if state.ahead.iter().filter(|piece| piece.0 == item).count() as u32 == n_pieces {
                // Nobody has begun to read it.
                state.ahead.retain(|piece| piece.0 != item);
                self.free(state, item, false);
                continue;
            }
            state.items[item as usize].stamp = 0;
        }
    }

    /// Finds a slot for an item that has none, and makes room for it. False where everything is
    /// held.
    pub(super) fn give_slot(&self, state: &mut State, item: u32) -> bool {
        let index = self.items[item as usize].class;
        let Class { slot_bytes, n_slots, .. } = self.classes[index];
        let bytes = slot_bytes as u64;
        let has_unused =
            |state: &State| !state.classes[index].free.is_empty() || (state.classes[index].next as usize) < n_slots;
        if state.used_bytes + bytes > state.budget_bytes || !has_unused(state) {
            if let Some(&(_, oldest)) = state.classes[index].idle.first() {
                self.free(state, oldest, false);
            }
            while state.used_bytes + bytes > state.budget_bytes {
                if !self.free_oldest(state) {
                    return false;
                }
            }
        }
        let class = &mut state.classes[index];
        let slot = match class.free.pop() {
            Some(slot) => slot,
            None if (class.next as usize) < n_slots => {
                class.next += 1;
                class.next - 1
            }
            None => return false,
        };
        state.used_bytes += bytes;
        let n_pieces = self.items[item as usize].n_pieces;
        state.items[item as usize] = ItemState { slot, holders: 0, missing: n_pieces, stamp: 0, failed: false };
        true
    }

    /// Gives memory back until the rest is within the budget, or held.
    pub(super) fn shrink(&self, state: &mut State) {
        while state.used_bytes > state.budget_bytes && self.free_oldest(state) {}
    }

    /// Takes the slot of the item that was used longest ago, of whatever class, and gives its memory
    /// back.
    fn free_oldest(&self, state: &mut State) -> bool {
        let Some(&(_, item)) = state.classes.iter().filter_map(|class| class.idle.first()).min() else { return false };
        self.free(state, item, true);
        true
    }

    /// Takes an item's slot; `releases`: its memory goes back to the system.
    fn free(&self, state: &mut State, item: u32, releases: bool) {
        let class = self.items[item as usize].class;
        let (at, slot_bytes) = (self.slot_at(state, item), self.classes[class].slot_bytes);
        let of = &mut state.items[item as usize];
        let slot = std::mem::replace(&mut of.slot, NONE);
        let stamp = std::mem::take(&mut of.stamp);
        of.missing = 0;
        of.failed = false;
        state.classes[class].idle.remove(&(stamp, item));
        state.classes[class].free.push(slot);
        state.used_bytes -= slot_bytes as u64;
        if releases {
            // SAFETY: the slot is nobody's: its item is not held, and none of its reads is under
            // way.
            os::advise(unsafe { self.memory.bytes(at, slot_bytes) }, Advice::Release);
        }
    }
}

/// A piece of an item that is being read into its slot.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    item: u32,
    piece: u32,
    /// Where the item's slot begins.
    at: usize,
}

// SAFETY: an item's slot is nobody else's until the item is freed, which happens when no piece of it
// is missing, or before one was taken; its bytes are read when none is missing. Its pieces lie apart
// and are queued once.
unsafe impl Feed for Shared {
    type Ticket = Ticket;

    fn take(&self, waits: bool) -> Option<Ticket> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let next = state.wanted.pop_front();
            if let Some((item, piece)) = next.or_else(|| state.ahead.pop_front()) {
                state.busy.begin();
                return Some(Ticket { item, piece, at: self.slot_at(&state, item) });
            }
            if !waits {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn request(&self, ticket: Ticket) -> Request<'_> {
        let (part, of) = self.items[ticket.item as usize].piece(ticket.piece);
        let least = part.least.saturating_sub(of.start).min(of.len());
        let out = self.memory.place(ticket.at + part.at + of.start, of.len());
        Request { file: &self.files[part.file], offset: part.offset + of.start as u64, len: of.len(), least, out }
    }

    fn finish(&self, ticket: Ticket, result: Result<(), StorageError>) {
        let len = self.request(ticket).len;
        let mut state = self.lock();
        state.busy.end();
        let of = &mut state.items[ticket.item as usize];
        of.missing -= 1;
        let is_last = of.missing == 0;
        match result {
            Ok(()) => state.stats.read_bytes += len as u64,
            Err(failure) => {
                state.items[ticket.item as usize].failed = true;
                state.failures.entry(ticket.item).or_insert(failure);
            }
        }
        if is_last {
            self.rest(&mut state, ticket.item);
            self.ready.notify_all();
        }
    }
}
