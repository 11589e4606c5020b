//! Parts of mapped files that do not stay in memory: read again and again, ahead of their use, through a few windows.
//!
//! A streamed range keeps its address within the file's mapping. Its pages there are replaced by those of a window, so whoever
//! reads the range by [`Storage::bytes`] reads the window, and nothing above storage needs to know which bytes stream. Units
//! (a layer's ranges, say) take turns in the windows in a fixed order. Reads are direct where the file system lets them be:
//! they leave no trace in the page cache, where what stays in memory would otherwise compete with them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use crate::error::StorageError;
use crate::os;
use crate::storage::Storage;

/// Everything streams in multiples of this: pages, and what direct reads want addresses and offsets to be a multiple of.
const ALIGN_BYTES: u64 = 4096;
/// Bytes of one request: enough for a disk's full speed, few enough to have several of one unit under way.
const PIECE_BYTES: u64 = 512 << 10;
/// Requests that are under way at once.
const READERS: usize = 8;
/// How soon a wait notices that its caller wants to stop.
const WAKE: Duration = Duration::from_millis(20);

/// A part of one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamedRange {
    /// Index of the file.
    pub file: usize,
    /// Bytes of it; see [`Stream::align`].
    pub bytes: Range<u64>,
}

/// What streaming did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Bytes that were read.
    pub read_bytes: u64,
    /// How often a unit was not there when it was needed.
    pub stalls: u64,
    /// Time spent waiting for units.
    pub stall_time: Duration,
    /// Whether reads go past the page cache.
    pub is_direct: bool,
}

/// Units of streamed ranges, and the threads that read them.
pub struct Stream {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

struct Shared {
    files: Vec<Source>,
    units: Vec<Unit>,
    n_windows: usize,
    /// The windows' memory at an address that can be written to.
    memory: Memory,
    state: Mutex<State>,
    work: Condvar,
    ready: Condvar,
    read_bytes: AtomicU64,
    stalls: AtomicU64,
    stall_ns: AtomicU64,
}

struct Source {
    path: PathBuf,
    file: File,
    is_direct: AtomicBool,
}

struct Unit {
    window: usize,
    pieces: Vec<Piece>,
}

struct Piece {
    file: usize,
    /// In the file, whole.
    offset: u64,
    len: usize,
    /// In the windows' memory.
    at: usize,
}

/// Turns are counted without end: turn `t` is that of unit `t % n_units`.
struct State {
    /// The turn that is being used or waited for. Earlier ones are over.
    current: u64,
    /// The next piece to be read: its turn and its index.
    next: (u64, usize),
    windows: Vec<Window>,
    stop: bool,
}

/// What one window holds.
#[derive(Default)]
struct Window {
    turn: Option<u64>,
    /// Pieces that are not there yet.
    missing: usize,
    /// Reads that may write to it.
    in_flight: usize,
    failure: Option<StorageError>,
}

impl Stream {
    /// The part of a range that can stream: whole pages of the file that hold nothing else.
    pub fn align(storage: &Storage, range: Range<u64>) -> Range<u64> {
        let base = storage.file_offset();
        let start = (base + range.start).next_multiple_of(ALIGN_BYTES) - base;
        let end = ((base + range.end) / ALIGN_BYTES * ALIGN_BYTES).saturating_sub(base);
        start..end.max(start)
    }

    /// Takes ranges out of the mappings and begins to read the first units. From now on the bytes of a unit's ranges are valid
    /// between [`acquire`](Self::acquire) of it and of the next one, and anything else at other times.
    ///
    /// `units` come in the order of their use, and each has the ranges that are used together, [aligned](Self::align).
    /// `n_windows` of them (at least 2) are in memory at once. No bytes of `storages` may be in use.
    ///
    /// # Errors
    /// A file that is not mapped, or a system that lacks what this needs. The storages then are as they were.
    pub fn start(storages: &[&Storage], units: &[Vec<StreamedRange>], n_windows: usize) -> io::Result<Stream> {
        let n_windows = n_windows.max(2);
        let unit_bytes = |unit: &Vec<StreamedRange>| unit.iter().map(|r| r.bytes.end - r.bytes.start).sum::<u64>();
        let window_bytes = units.iter().map(unit_bytes).max().unwrap_or(0) as usize;
        let memory_bytes = window_bytes.checked_mul(n_windows).filter(|n| *n > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let memory_file = os::shared_memory(memory_bytes)?;
        let memory = Memory::new(&memory_file)?;
        let files = storages.iter().map(|s| Source::new(s)).collect::<io::Result<Vec<_>>>()?;
        let mut plan = Vec::with_capacity(units.len());
        let mut aliases = Vec::new();
        for (i, ranges) in units.iter().enumerate() {
            let window = i % n_windows;
            let mut at = window * window_bytes;
            let mut pieces = Vec::new();
            for range in ranges {
                let storage = storages.get(range.file).ok_or(io::ErrorKind::InvalidInput)?;
                let (start, end) = (range.bytes.start, range.bytes.end);
                if Stream::align(storage, start..end) != (start..end) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let bytes = storage.mapped(&(start..end)).ok_or(io::ErrorKind::InvalidInput)?;
                aliases.push((*storage, bytes, storage.file_offset() + start, at));
                for offset in (start..end).step_by(PIECE_BYTES as usize) {
                    let len = (end - offset).min(PIECE_BYTES) as usize;
                    pieces.push(Piece { file: range.file, offset: storage.file_offset() + offset, len, at });
                    at += len;
                }
            }
            plan.push(Unit { window, pieces });
        }
        for storage in storages {
            if let Some(all) = storage.mapped(&(0..storage.len())) {
                // Pages of 2 MB would bring neighbours in that shall not stay.
                os::refuse_huge_pages(all);
            }
        }
        for piece in plan.iter().flat_map(|unit| &unit.pieces) {
            // Once is enough for what was in the cache before: direct reads bring nothing there.
            os::drop_cached(&files[piece.file].file, piece.offset, piece.len as u64);
        }
        let windows = (0..n_windows).map(|_| Window::default()).collect();
        let shared = Arc::new(Shared {
            files,
            units: plan,
            n_windows,
            memory,
            state: Mutex::new(State { current: 0, next: (0, 0), windows, stop: false }),
            work: Condvar::new(),
            ready: Condvar::new(),
            read_bytes: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            stall_ns: AtomicU64::new(0),
        });
        let mut stream = Stream { shared, readers: Vec::new() };
        for _ in 0..READERS {
            let shared = Arc::clone(&stream.shared);
            match std::thread::Builder::new().name("stream".into()).spawn(move || shared.read_all()) {
                Ok(reader) => stream.readers.push(reader),
                Err(e) if stream.readers.is_empty() => return Err(e),
                Err(_) => break, // The readers that there are do the work.
            }
        }
        for (done, (_, bytes, _, at)) in aliases.iter().enumerate() {
            let Err(refusal) = os::alias(bytes, &memory_file, *at) else { continue };
            for (storage, bytes, offset, _) in &aliases[..done] {
                let file = storage.mapped_file().ok_or(io::ErrorKind::InvalidInput)?;
                os::alias(bytes, file, *offset as usize)?;
            }
            return Err(refusal);
        }
        Ok(stream)
    }

    /// Waits until a unit is in memory, and keeps it there until another one is acquired. Units between the last one and this
    /// one are passed over; a unit that was acquired before the last one comes from the next round.
    ///
    /// # Errors
    /// A read that failed (a later round tries again), or [`StorageError::Cancelled`].
    pub fn acquire(&self, unit: usize, is_cancelled: &dyn Fn() -> bool) -> Result<(), StorageError> {
        let shared = &*self.shared;
        let n_units = shared.units.len() as u64;
        let mut state = shared.lock();
        let turn = state.current + (unit as u64 + n_units - state.current % n_units) % n_units;
        state.current = turn;
        shared.work.notify_all();
        let window = shared.units[unit].window;
        let mut waiting_since = None;
        let result = loop {
            let held = &mut state.windows[window];
            if held.turn == Some(turn) && held.missing == 0 {
                break match held.failure.take() {
                    Some(failure) => {
                        // What is there is incomplete: whoever asks again has it read again.
                        state.current += 1;
                        shared.work.notify_all();
                        Err(failure)
                    }
                    None => Ok(()),
                };
            }
            if is_cancelled() {
                break Err(StorageError::Cancelled);
            }
            waiting_since.get_or_insert_with(Instant::now);
            state = match shared.ready.wait_timeout(state, WAKE) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        };
        if let Some(since) = waiting_since {
            shared.stalls.fetch_add(1, Ordering::Relaxed);
            shared.stall_ns.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
        result
    }

    /// Waits until all windows are full, at most for a second, and returns the bytes that are in them.
    pub fn fill(&self) -> u64 {
        let (shared, since) = (&*self.shared, Instant::now());
        let mut state = shared.lock();
        let wanted = shared.n_windows.min(shared.units.len());
        while state.windows[..wanted].iter().any(|w| w.turn.is_none() || w.missing > 0) {
            if since.elapsed() > Duration::from_secs(1) {
                break;
            }
            state = match shared.ready.wait_timeout(state, WAKE) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        shared.read_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the windows.
    pub fn window_bytes(&self) -> u64 {
        self.shared.memory.map.len() as u64
    }

    /// Bytes of one unit that stream.
    pub fn unit_bytes(&self, unit: usize) -> u64 {
        self.shared.units[unit].pieces.iter().map(|p| p.len as u64).sum()
    }

    /// What was done so far.
    pub fn stats(&self) -> StreamStats {
        let shared = &*self.shared;
        StreamStats {
            read_bytes: shared.read_bytes.load(Ordering::Relaxed),
            stalls: shared.stalls.load(Ordering::Relaxed),
            stall_time: Duration::from_nanos(shared.stall_ns.load(Ordering::Relaxed)),
            is_direct: shared.files.iter().all(|f| f.is_direct.load(Ordering::Relaxed)),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for reader in self.readers.drain(..) {
            // A reader that panicked has nothing more to say.
            let _ = reader.join();
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("n_units", &self.shared.units.len()).field("stats", &self.stats()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is guarded can be left half done by a panic.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A reader's life.
    fn read_all(&self) {
        let mut state = self.lock();
        loop {
            if state.stop {
                return;
            }
            let Some((turn, index)) = self.take_piece(&mut state) else {
                state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            drop(state);
            let unit = &self.units[(turn % self.units.len() as u64) as usize];
            let piece = &unit.pieces[index];
            let result = self.read(piece);
            state = self.lock();
            let window = &mut state.windows[unit.window];
            window.in_flight -= 1;
            window.missing -= 1;
            if let Err(failure) = result {
                window.failure.get_or_insert(failure);
            }
            if window.missing == 0 {
                self.ready.notify_all();
            }
            if window.in_flight == 0 {
                self.work.notify_all(); // A window that was passed over may be free now.
            }
        }
    }

    /// The next piece whose window is free: (turn, index).
    fn take_piece(&self, state: &mut State) -> Option<(u64, usize)> {
        if state.next.0 < state.current {
            state.next = (state.current, 0);
        }
        let (turn, index) = state.next;
        let unit = &self.units[(turn % self.units.len() as u64) as usize];
        let current = state.current;
        let window = &mut state.windows[unit.window];
        if window.turn != Some(turn) {
            if window.turn.is_some_and(|held| held >= current) || window.in_flight > 0 {
                return None;
            }
            *window = Window { turn: Some(turn), missing: unit.pieces.len(), in_flight: 0, failure: None };
        }
        if unit.pieces.is_empty() {
            state.next = (turn + 1, 0);
            self.ready.notify_all();
            return self.take_piece(state);
        }
        window.in_flight += 1;
        state.next = if index + 1 == unit.pieces.len() { (turn + 1, 0) } else { (turn, index + 1) };
        Some((turn, index))
    }

    fn read(&self, piece: &Piece) -> Result<(), StorageError> {
        let source = &self.files[piece.file];
        // SAFETY: this piece's reader alone writes there until it says so in `in_flight`, and nobody reads at this address.
        let out = unsafe { self.memory.piece(piece.at, piece.len) };
        source.fill(out, piece.offset)?;
        self.read_bytes.fetch_add(piece.len as u64, Ordering::Relaxed);
        if !source.is_direct.load(Ordering::Relaxed) {
            os::drop_cached(&source.file, piece.offset, piece.len as u64);
        }
        Ok(())
    }
}

impl Source {
    fn new(storage: &Storage) -> io::Result<Source> {
        let file = storage.mapped_file().ok_or(io::ErrorKind::InvalidInput)?.try_clone()?;
        let is_direct = AtomicBool::new(os::set_direct(&file, true));
        Ok(Source { path: storage.path().to_owned(), file, is_direct })
    }

    /// Fills `out` from an offset of the file on.
    fn fill(&self, out: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let mut done = 0;
        while done < out.len() {
            let (at, direct) = (offset + done as u64, self.is_direct.load(Ordering::Relaxed));
            match os::read_at(&self.file, &mut out[done..], at) {
                Ok(0) => {
                    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before: it was cut short");
                    return Err(StorageError::StreamRead { path: self.path.clone(), offset: at, source });
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Some file systems take the flag and refuse the read; some end a direct read within a block.
                // Several readers may see it at once: each tries again without, unless it was without already.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput && direct => {
                    self.is_direct.store(false, Ordering::Relaxed);
                    os::set_direct(&self.file, false);
                }
                Err(source) => return Err(StorageError::StreamRead { path: self.path.clone(), offset: at, source }),
            }
        }
        Ok(())
    }
}

/// The windows. Written through this mapping, read through those that lie over the files' mappings.
struct Memory {
    map: MmapMut,
    start: *mut u8,
}

// SAFETY: the pointer is to memory that `map` owns; `piece` says who may write where.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(file: &File) -> io::Result<Memory> {
        // SAFETY: nobody else knows the file, which is memory.
        let mut map = unsafe { MmapMut::map_mut(file)? };
        let start = map.as_mut_ptr();
        Ok(Memory { map, start })
    }

    /// # Safety
    /// Nobody else reads or writes this piece through this mapping while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "pieces are dealt out under a lock")]
    unsafe fn piece(&self, at: usize, len: usize) -> &mut [u8] {
        assert!(at <= self.map.len() && len <= self.map.len() - at, "a piece lies within the windows");
        // SAFETY: it lies within the mapping, any bytes are a value, and the caller promises the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
