//! Parts of mapped files that do not stay in memory: read again and again, ahead of their use,
//! through a few windows.
//!
//! A streamed range keeps its address within the file's mapping. Its pages there are replaced by
//! those of a window, so whoever reads the range by [`Storage::bytes`] reads the window, and
//! nothing above storage needs to know which bytes stream. Units (a layer's ranges, say) take turns
//! in the windows in a fixed order. Reads are direct where the file system lets them be: they leave
//! no trace in the page cache, where what stays in memory would otherwise compete with them.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use crate::direct::{ALIGN_BYTES, DirectFile, read_at_random};
use crate::error::StorageError;
use crate::memory::Memory;
use crate::os;
use crate::readers::{BusyTime, Feed, PIECE_BYTES, Readers, Request};
use crate::storage::Storage;

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

/// Who reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamReader {
    /// A ring where the system allows one, else threads.
    #[default]
    Auto,
    /// One thread that keeps the reads under way by io_uring (Linux).
    Ring,
    /// One thread for each read under way.
    Threads,
}

impl StreamReader {
    /// The name that people know it by.
    pub fn name(self) -> &'static str {
        match self {
            StreamReader::Auto => "auto",
            StreamReader::Ring => "io_uring",
            StreamReader::Threads => "threads",
        }
    }
}

/// How a [`Stream`] reads.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// Units in memory at once, at least 2.
    pub n_windows: usize,
    /// Who reads.
    pub reader: StreamReader,
    /// Whether reads go past the page cache where the file system lets them.
    pub direct: bool,
}

/// What streaming did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Time in which at least one read was under way: with `read_bytes`, the speed that the files
    /// were read at.
    pub read_time: Duration,
    /// How often a unit was not there when it was needed.
    pub stalls: u64,
    /// Time spent waiting for units.
    pub stall_time: Duration,
    /// Whether reads go past the page cache.
    pub is_direct: bool,
    /// Who reads: not [`StreamReader::Auto`].
    pub reader: StreamReader,
}

/// Units of streamed ranges, and the threads that read them.
pub struct Stream {
    shared: Arc<Shared>,
    readers: Readers,
}

struct Shared {
    files: Vec<DirectFile>,
    units: Vec<Unit>,
    /// The windows' memory at an address that can be written to.
    memory: Memory<MmapMut>,
    state: Mutex<State>,
    work: Condvar,
    ready: Condvar,
    read_bytes: AtomicU64,
    stalls: AtomicU64,
    stall_ns: AtomicU64,
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
    /// Reads under way, in all windows.
    busy: BusyTime,
    stop: bool,
}

impl State {
    fn new(n_windows: usize) -> State {
        State {
            current: 0,
            next: (0, 0),
            windows: (0..n_windows).map(|_| Window::default()).collect(),
            busy: BusyTime::default(),
            stop: false,
        }
    }
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

    /// Takes ranges out of the mappings and begins to read the first units. From now on the bytes
    /// of a unit's ranges are valid between [`acquire`](Self::acquire) of it and of the next one,
    /// and anything else at other times.
    ///
    /// `units` come in the order of their use, and each has the ranges that are used together,
    /// [aligned](Self::align). No bytes of `storages` may be in use. Their mappings are read at
    /// random from now on, one page a fault, without large pages: ask for what stays by
    /// [`Storage::prefetch_only`].
    ///
    /// # Errors
    /// A file that is not mapped, a ring that was asked for and is refused, or a system that lacks
    /// what this needs. The storages then are as they were.
    pub fn start(storages: &[&Storage], units: &[Vec<StreamedRange>], options: StreamOptions) -> io::Result<Stream> {
        let n_windows = options.n_windows.max(2);
        let unit_bytes = |unit: &Vec<StreamedRange>| unit.iter().map(|r| r.bytes.end - r.bytes.start).sum::<u64>();
        let window_bytes = units.iter().map(unit_bytes).max().unwrap_or(0) as usize;
        let memory_bytes = window_bytes.checked_mul(n_windows).filter(|n| *n > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let memory_file = os::shared_memory(memory_bytes)?;
        // SAFETY: nobody else knows the file, which is memory.
        let memory = Memory::new(unsafe { MmapMut::map_mut(&memory_file)? });
        let files = storages.iter().map(|s| DirectFile::new(s, options.direct)).collect::<io::Result<Vec<_>>>()?;
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
        for (storage, bytes, offset, _) in &aliases {
            // Once is enough for what was in the cache before: direct reads bring nothing there.
            os::drop_cached(storage.mapped_file().ok_or(io::ErrorKind::InvalidInput)?, *offset, bytes.len() as u64);
        }
        let shared = Arc::new(Shared {
            files,
            units: plan,
            memory,
            state: Mutex::new(State::new(n_windows)),
            work: Condvar::new(),
            ready: Condvar::new(),
            read_bytes: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            stall_ns: AtomicU64::new(0),
        });
        let readers = Readers::start(&shared, options.reader)?;
        let stream = Stream { shared, readers };
        for (done, (_, bytes, _, at)) in aliases.iter().enumerate() {
            let Err(refusal) = os::alias(bytes, &memory_file, *at) else { continue };
            for (storage, bytes, offset, _) in &aliases[..done] {
                let file = storage.mapped_file().ok_or(io::ErrorKind::InvalidInput)?;
                os::alias(bytes, file, *offset as usize)?;
            }
            return Err(refusal);
        }
        read_at_random(storages);
        Ok(stream)
    }

    /// Why there is no ring, where one was wanted but not asked for by name.
    pub fn ring_refusal(&self) -> Option<&io::Error> {
        self.readers.ring_refusal.as_ref()
    }

    /// Waits until a unit is in memory, and keeps it there until another one is acquired. Units
    /// between the last one and this one are passed over; a unit that was acquired before the last
    /// one comes from the next round.
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

    /// How fast the files are read, in bytes a second, if nothing is computed meanwhile: goes
    /// through units from the first one on, at most once and until a disk has shown its speed (16
    /// MB or 100 ms), and then begins anew with the first one. `None` if nothing came within a
    /// second. Does not count as waiting. For a stream that nobody has used yet.
    pub fn measure(&self) -> Option<f64> {
        const ENOUGH_BYTES: u64 = 16 << 20;
        const ENOUGH_TIME: Duration = Duration::from_millis(100);
        const TOO_LONG: Duration = Duration::from_secs(1);
        let (shared, since) = (&*self.shared, Instant::now());
        for unit in 0..shared.units.len() {
            // What fails here fails again when it is needed, and is reported then.
            let is_over = self.acquire(unit, &|| since.elapsed() > TOO_LONG).is_err();
            if is_over || self.stats().read_bytes >= ENOUGH_BYTES || since.elapsed() >= ENOUGH_TIME {
                break;
            }
        }
        let stats = self.stats();
        shared.stalls.store(0, Ordering::Relaxed);
        shared.stall_ns.store(0, Ordering::Relaxed);
        let mut state = shared.lock();
        state.current = state.current.next_multiple_of(shared.units.len().max(1) as u64);
        shared.work.notify_all();
        // Since the stream began: no bytes came before the time that is counted.
        (stats.read_bytes > 0).then(|| stats.read_bytes as f64 / stats.read_time.as_secs_f64().max(1e-6))
    }

    /// Bytes of the windows.
    pub fn window_bytes(&self) -> u64 {
        self.shared.memory.len() as u64
    }

    /// Bytes of one unit that stream.
    pub fn unit_bytes(&self, unit: usize) -> u64 {
        self.shared.units[unit].pieces.iter().map(|p| p.len as u64).sum()
    }

    /// What was done so far.
    pub fn stats(&self) -> StreamStats {
        let shared = &*self.shared;
        let state = shared.lock();
        StreamStats {
            read_bytes: shared.read_bytes.load(Ordering::Relaxed),
            read_time: state.busy.time(),
            stalls: shared.stalls.load(Ordering::Relaxed),
            stall_time: Duration::from_nanos(shared.stall_ns.load(Ordering::Relaxed)),
            is_direct: shared.files.iter().all(|f| f.is_direct()),
            reader: self.readers.kind,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        self.readers.join();
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

    fn unit_of(&self, turn: u64) -> &Unit {
        &self.units[(turn % self.units.len() as u64) as usize]
    }

    /// Notes that a piece is there, or why not.
    fn note(&self, state: &mut State, unit: &Unit, piece: &Piece, result: Result<(), StorageError>) {
        state.busy.end();
        let window = &mut state.windows[unit.window];
        window.in_flight -= 1;
        window.missing -= 1;
        match result {
            Ok(()) => {
                self.read_bytes.fetch_add(piece.len as u64, Ordering::Relaxed);
            }
            Err(failure) => {
                window.failure.get_or_insert(failure);
            }
        }
        if window.missing == 0 {
            self.ready.notify_all();
        }
        if window.in_flight == 0 {
            self.work.notify_all(); // A window that was passed over may be free now.
        }
    }

    /// The next piece whose window is free: (turn, index).
    fn take_piece(&self, state: &mut State) -> Option<(u64, usize)> {
        if state.next.0 < state.current {
            state.next = (state.current, 0);
        }
        let (turn, index) = state.next;
        let unit = self.unit_of(turn);
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
        state.busy.begin();
        state.next = if index + 1 == unit.pieces.len() { (turn + 1, 0) } else { (turn, index + 1) };
        Some((turn, index))
    }
}

// SAFETY: a piece is taken once a turn, when its window is free, and nobody reads the window before
// `finish` said of each of its pieces that it is there. Pieces of a window lie apart.
unsafe impl Feed for Shared {
    /// (turn, index of the piece)
    type Ticket = (u64, usize);

    fn take(&self, waits: bool) -> Option<(u64, usize)> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            match self.take_piece(&mut state) {
                None if waits => state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner()),
                taken => return taken,
            }
        }
    }

    fn request(&self, (turn, index): (u64, usize)) -> Request<'_> {
        let Piece { file, offset, len, at } = self.unit_of(turn).pieces[index];
        Request { file: &self.files[file], offset, len, least: len, out: self.memory.place(at, len) }
    }

    fn finish(&self, (turn, index): (u64, usize), result: Result<(), StorageError>) {
        let unit = self.unit_of(turn);
        self.note(&mut self.lock(), unit, &unit.pieces[index], result);
    }
}
