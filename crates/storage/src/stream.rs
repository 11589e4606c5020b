//! Parts of mapped files that do not stay in memory: read again and again, ahead of their use,
//! through a few windows.
//!
//! A streamed range keeps its address within the file's mapping. Its pages there are replaced by
//! those of a window, so whoever reads the range by [`Storage::bytes`] reads the window, and
//! nothing above storage needs to know which bytes stream. Units (a layer's ranges, say) take turns
//! in the windows in a fixed order. Reads are direct where the file system lets them be: they leave
//! no trace in the page cache, where what stays in memory would otherwise compete with them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use crate::advice::Advice;
use crate::error::StorageError;
use crate::os;
use crate::storage::Storage;

/// Everything streams in multiples of this: pages, and what direct reads want addresses and offsets
/// to be a multiple of.
const ALIGN_BYTES: u64 = 4096;
/// Bytes of one request: enough for a disk's full speed, few enough to have several of one unit
/// under way.
const PIECE_BYTES: u64 = 1 << 20;
/// Requests that are under way at once: threads, or places in a ring. More gained nothing on a
/// virtual disk.
const DEPTH: usize = 8;
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
    readers: Vec<JoinHandle<()>>,
    reader: StreamReader,
    ring_refusal: Option<io::Error>,
}

struct Shared {
    files: Vec<Source>,
    units: Vec<Unit>,
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
    /// Reads under way, in all windows.
    in_flight: usize,
    /// When the first of them began.
    reading_since: Option<Instant>,
    /// As [`StreamStats::read_time`], up to when the last one ended.
    read_time: Duration,
    stop: bool,
}

impl State {
    fn new(n_windows: usize) -> State {
        State {
            current: 0,
            next: (0, 0),
            windows: (0..n_windows).map(|_| Window::default()).collect(),
            in_flight: 0,
            reading_since: None,
            read_time: Duration::ZERO,
            stop: false,
        }
    }

    fn begin_read(&mut self) {
        if self.in_flight == 0 {
            self.reading_since = Some(Instant::now());
        }
        self.in_flight += 1;
    }

    fn end_read(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.read_time += self.reading_since.take().map_or(Duration::ZERO, |since| since.elapsed());
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
        let (ring, ring_refusal) = match options.reader {
            StreamReader::Threads => (None, None),
            wanted => match os::Ring::new(DEPTH) {
                Ok(ring) => (Some(ring), None),
                Err(e) if wanted == StreamReader::Ring => return Err(e),
                Err(e) => (None, Some(e)),
            },
        };
        let unit_bytes = |unit: &Vec<StreamedRange>| unit.iter().map(|r| r.bytes.end - r.bytes.start).sum::<u64>();
        let window_bytes = units.iter().map(unit_bytes).max().unwrap_or(0) as usize;
        let memory_bytes = window_bytes.checked_mul(n_windows).filter(|n| *n > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let memory_file = os::shared_memory(memory_bytes)?;
        let memory = Memory::new(&memory_file)?;
        let files = storages.iter().map(|s| Source::new(s, options.direct)).collect::<io::Result<Vec<_>>>()?;
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
        let reader = if ring.is_some() { StreamReader::Ring } else { StreamReader::Threads };
        let mut stream = Stream { shared, readers: Vec::new(), reader, ring_refusal };
        stream.start_readers(ring)?;
        for (done, (_, bytes, _, at)) in aliases.iter().enumerate() {
            let Err(refusal) = os::alias(bytes, &memory_file, *at) else { continue };
            for (storage, bytes, offset, _) in &aliases[..done] {
                let file = storage.mapped_file().ok_or(io::ErrorKind::InvalidInput)?;
                os::alias(bytes, file, *offset as usize)?;
            }
            return Err(refusal);
        }
        for storage in storages {
            if let Some(all) = storage.mapped(&(0..storage.len())) {
                // Pages of 2 MB, and reading ahead, would bring neighbours in that shall not stay.
                // They would displace what shall.
                os::refuse_huge_pages(all);
                os::advise(all, Advice::Random);
            }
        }
        Ok(stream)
    }

    fn start_readers(&mut self, mut ring: Option<os::Ring>) -> io::Result<()> {
        let n = if ring.is_some() { 1 } else { DEPTH };
        for _ in 0..n {
            let (shared, ring) = (Arc::clone(&self.shared), ring.take());
            let read = move || match ring {
                Some(ring) => read_by_ring(&shared, ring),
                None => shared.read_all(),
            };
            match std::thread::Builder::new().name("stream".into()).spawn(read) {
                Ok(reader) => self.readers.push(reader),
                Err(e) if self.readers.is_empty() => return Err(e),
                Err(_) => break, // The readers that there are do the work.
            }
        }
        Ok(())
    }

    /// Why there is no ring, where one was wanted but not asked for by name.
    pub fn ring_refusal(&self) -> Option<&io::Error> {
        self.ring_refusal.as_ref()
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
        self.shared.memory.map.len() as u64
    }

    /// Bytes of one unit that stream.
    pub fn unit_bytes(&self, unit: usize) -> u64 {
        self.shared.units[unit].pieces.iter().map(|p| p.len as u64).sum()
    }

    /// What was done so far.
    pub fn stats(&self) -> StreamStats {
        let shared = &*self.shared;
        let state = shared.lock();
        let under_way = state.reading_since.map_or(Duration::ZERO, |since| since.elapsed());
        StreamStats {
            read_bytes: shared.read_bytes.load(Ordering::Relaxed),
            read_time: state.read_time + under_way,
            stalls: shared.stalls.load(Ordering::Relaxed),
            stall_time: Duration::from_nanos(shared.stall_ns.load(Ordering::Relaxed)),
            is_direct: shared.files.iter().all(|f| f.is_direct.load(Ordering::Relaxed)),
            reader: self.reader,
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
            let unit = self.unit_of(turn);
            let piece = &unit.pieces[index];
            let result = self.read(piece);
            state = self.lock();
            self.finish(&mut state, unit, piece, result);
        }
    }

    fn unit_of(&self, turn: u64) -> &Unit {
        &self.units[(turn % self.units.len() as u64) as usize]
    }

    /// Notes that a piece is there, or why not.
    fn finish(&self, state: &mut State, unit: &Unit, piece: &Piece, result: Result<(), StorageError>) {
        state.end_read();
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
        state.begin_read();
        state.next = if index + 1 == unit.pieces.len() { (turn + 1, 0) } else { (turn, index + 1) };
        Some((turn, index))
    }

    fn read(&self, piece: &Piece) -> Result<(), StorageError> {
        let source = &self.files[piece.file];
        // SAFETY: this piece's reader alone writes there until it says so in `in_flight`, and
        // nobody reads at this address.
        let out = unsafe { self.memory.piece(piece.at, piece.len) };
        source.fill(out, piece.offset)?;
        source.forget(piece);
        Ok(())
    }
}

/// The life of the one thread that reads by a ring.
fn read_by_ring(shared: &Arc<Shared>, mut ring: os::Ring) {
    // What is under way, at the place that is its tag.
    let mut under_way: Vec<Option<Read>> = (0..DEPTH).map(|_| None).collect();
    let mut again: Vec<usize> = Vec::with_capacity(DEPTH);
    loop {
        let mut state = shared.lock();
        while !ring.is_full() && !state.stop {
            let Some(tag) = under_way.iter().position(Option::is_none) else { break };
            let Some((turn, index)) = shared.take_piece(&mut state) else { break };
            let read = under_way[tag].insert(Read { turn, index, done: 0, is_direct: false });
            // SAFETY: as for `again` below.
            unsafe { push(shared, &mut ring, read, tag) };
        }
        if ring.is_idle() {
            if state.stop {
                return;
            }
            drop(shared.work.wait(state));
            continue;
        }
        drop(state);
        let waited = ring.wait(|tag, result| {
            let place = &mut under_way[tag as usize];
            let Some(read) = place else { return };
            match shared.advance(read, result) {
                None => again.push(tag as usize),
                Some(result) => {
                    let (unit, piece) = shared.piece(read);
                    *place = None;
                    shared.finish(&mut shared.lock(), unit, piece, result);
                }
            }
        });
        for tag in again.drain(..) {
            // SAFETY: this thread alone writes to the windows, each piece by one read at a time;
            // nobody reads a piece before `finish` says that it is there. The files and the
            // windows' memory live as long as `shared`, which outlives the reads: the loop ends
            // when nothing is under way, and where nobody tells when that is, it is kept for good
            // (below).
            under_way[tag].iter_mut().for_each(|read| unsafe { push(shared, &mut ring, read, tag) });
        }
        if let Err(failure) = waited {
            std::mem::forget(Arc::clone(shared));
            return shared.fail_for_good(under_way.into_iter().flatten(), &failure);
        }
    }
}

/// Queues what is left of a read.
///
/// # Safety
/// As of [`os::Ring::push`], for the rest of the piece.
unsafe fn push(shared: &Shared, ring: &mut os::Ring, read: &mut Read, tag: usize) {
    let (_, piece) = shared.piece(read);
    let source = &shared.files[piece.file];
    read.is_direct = source.is_direct.load(Ordering::Relaxed);
    let (at, left) = (piece.at + read.done, piece.len - read.done);
    let out = shared.memory.place(at, left);
    // SAFETY: the caller's promise.
    unsafe { ring.push(&source.file, out, left, piece.offset + read.done as u64, tag as u64) };
}

/// A piece that is being read by a ring.
struct Read {
    turn: u64,
    index: usize,
    /// Bytes of it that are there.
    done: usize,
    /// Whether the request under way was to go past the page cache.
    is_direct: bool,
}

impl Shared {
    fn piece(&self, read: &Read) -> (&Unit, &Piece) {
        let unit = self.unit_of(read.turn);
        (unit, &unit.pieces[read.index])
    }

    /// Takes what one request read. `None` if the rest is to be asked for.
    fn advance(&self, read: &mut Read, result: io::Result<usize>) -> Option<Result<(), StorageError>> {
        let (_, piece) = self.piece(read);
        let source = &self.files[piece.file];
        match source.take(result, piece.offset + read.done as u64, read.is_direct) {
            Err(failure) => return Some(Err(failure)),
            Ok(n) => read.done += n,
        }
        if read.done < piece.len {
            return None;
        }
        source.forget(piece);
        Some(Ok(()))
    }

    /// Answers every piece, from now on, with a failure: the system tells no more what becomes of
    /// reads.
    fn fail_for_good(&self, under_way: impl Iterator<Item = Read>, failure: &io::Error) {
        let error = |piece: &Piece| {
            let source = io::Error::new(failure.kind(), format!("io_uring: {failure}"));
            Err(StorageError::StreamRead { path: self.files[piece.file].path.clone(), offset: piece.offset, source })
        };
        let mut state = self.lock();
        for read in under_way {
            let (unit, piece) = self.piece(&read);
            self.finish(&mut state, unit, piece, error(piece));
        }
        while !state.stop {
            match self.take_piece(&mut state) {
                Some((turn, index)) => {
                    let unit = self.unit_of(turn);
                    self.finish(&mut state, unit, &unit.pieces[index], error(&unit.pieces[index]));
                }
                None => state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner()),
            }
        }
    }
}

impl Source {
    fn new(storage: &Storage, direct: bool) -> io::Result<Source> {
        let file = storage.mapped_file().ok_or(io::ErrorKind::InvalidInput)?.try_clone()?;
        let is_direct = os::set_direct(&file, direct) && direct;
        if !is_direct {
            os::read_no_further(&file);
        }
        Ok(Source { path: storage.path().to_owned(), file, is_direct: AtomicBool::new(is_direct) })
    }

    /// Fills `out` from an offset of the file on.
    fn fill(&self, out: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let mut done = 0;
        while done < out.len() {
            let (at, is_direct) = (offset + done as u64, self.is_direct.load(Ordering::Relaxed));
            done += self.take(os::read_at(&self.file, &mut out[done..], at), at, is_direct)?;
        }
        Ok(())
    }

    /// What one request at an offset read: bytes, and 0 if it is to be tried again. `was_direct` is
    /// what it was begun as.
    fn take(&self, result: io::Result<usize>, at: u64, was_direct: bool) -> Result<usize, StorageError> {
        let refusal = match result {
            Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before: it was cut short"),
            Ok(n) => return Ok(n),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => return Ok(0),
            // Some file systems take the flag and refuse the read; some end a direct read within a
            // block. Several requests may see it at once: each is tried again without, unless it
            // was without already.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && was_direct => {
                self.is_direct.store(false, Ordering::Relaxed);
                os::set_direct(&self.file, false);
                os::read_no_further(&self.file);
                return Ok(0);
            }
            Err(e) => e,
        };
        Err(StorageError::StreamRead { path: self.path.clone(), offset: at, source: refusal })
    }

    /// Lets the page cache forget a piece that went through it.
    fn forget(&self, piece: &Piece) {
        if !self.is_direct.load(Ordering::Relaxed) {
            os::drop_cached(&self.file, piece.offset, piece.len as u64);
        }
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
        // SAFETY: it lies within the mapping, any bytes are a value, and the caller promises the
        // rest.
        unsafe { std::slice::from_raw_parts_mut(self.place(at, len), len) }
    }

    /// Where a piece begins.
    fn place(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.map.len() && len <= self.map.len() - at, "a piece lies within the windows");
        self.start.wrapping_add(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(is_direct: bool) -> Source {
        Source { path: "model".into(), file: tempfile::tempfile().unwrap(), is_direct: AtomicBool::new(is_direct) }
    }

    #[test]
    fn what_a_request_ends_with() {
        let os = |code: i32| Err(io::Error::from_raw_os_error(code));
        let refused = |code: i32| format!("{}", io::Error::from_raw_os_error(code));
        const EINTR: i32 = 4;
        const EIO: i32 = 5;
        const EINVAL: i32 = 22;
        // (result, begun as direct, bytes or error, still direct)
        let rows = [
            (Ok(100), true, Ok(100), true),
            (Ok(100), false, Ok(100), true),
            (Ok(0), true, Err("cut short".to_owned()), true),
            (Err(io::ErrorKind::Interrupted.into()), true, Ok(0), true),
            (Err(io::ErrorKind::WouldBlock.into()), true, Ok(0), true),
            (os(EIO), true, Err(refused(EIO)), true),
        ];
        // Windows numbers its refusals in another way.
        let unix = [
            (os(EINTR), true, Ok(0), true),
            (os(EINVAL), true, Ok(0), false),
            (os(EINVAL), false, Err(refused(EINVAL)), true),
        ];
        let rows = rows.into_iter().chain(unix.into_iter().filter(|_| cfg!(unix)));
        for (i, (result, was_direct, wanted, still)) in rows.enumerate() {
            let source = source(true);
            match (source.take(result, 4096, was_direct), wanted) {
                (Ok(n), Ok(wanted)) => assert_eq!(n, wanted, "row {i}"),
                (Err(e), Err(words)) => {
                    let text = e.to_string();
                    assert!(text.contains("model at byte 4096") && text.contains(&words), "row {i}: {text}");
                }
                (seen, wanted) => panic!("row {i}: {seen:?}, wanted {wanted:?}"),
            }
            assert_eq!(source.is_direct.load(Ordering::Relaxed), still, "row {i}");
        }
    }

    /// Reads may end before their request does: the rest is asked for, from where it ended.
    #[test]
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn short_reads_go_on_where_they_ended() {
        use crate::storage::LoadMode;
        use std::ops::ControlFlow;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 3 << 20]).unwrap();
        let storage = Storage::open(file.path(), LoadMode::Map, &mut |_| ControlFlow::Continue(())).unwrap();
        let unit = vec![StreamedRange { file: 0, bytes: 0..2 << 20 }];
        let options = StreamOptions { n_windows: 2, reader: StreamReader::Threads, direct: false };
        let stream = Stream::start(&[&storage], &[unit], options).unwrap();
        let mut read = Read { turn: 0, index: 1, done: 0, is_direct: false };
        let len = PIECE_BYTES as usize;
        assert!(stream.shared.advance(&mut read, Ok(100)).is_none() && read.done == 100);
        assert!(stream.shared.advance(&mut read, Err(io::ErrorKind::Interrupted.into())).is_none() && read.done == 100);
        assert!(stream.shared.advance(&mut read, Ok(len - 101)).is_none() && read.done == len - 1);
        let end = stream.shared.advance(&mut read, Ok(0)).unwrap().unwrap_err().to_string();
        assert!(end.contains(&format!("at byte {}", 2 * len - 1)), "{end}");
        assert!(matches!(stream.shared.advance(&mut read, Ok(1)), Some(Ok(()))));
    }
}
