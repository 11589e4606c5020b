//! One file of a model, or a part of a file, in one of three ways.

use std::cmp::Reverse;
use std::fs::{File, Metadata};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::advice::Advice;
use crate::change::{Change, Stamp};
use crate::error::StorageError;
use crate::lost_pages::Named;
use crate::os;
use crate::read::{Progress, Source};
use crate::region::Buffer;

/// Where the bytes of a file live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadMode {
    /// In the page cache, mapped: shared with every process that opens the file, no private memory.
    #[default]
    Map,
    /// In one private buffer that is read as a whole.
    Buffer,
    /// In one private allocation for each tensor.
    File,
}

/// Which part of a range is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// Bytes of the pages that are in memory, clipped to the range.
    pub resident_bytes: u64,
    /// Length of the range.
    pub total_bytes: u64,
}

/// Bytes that outlive the call that handed them out.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// One file, or a range of its bytes ([`Storage::open_range`]): offsets count from the range's
/// start. The bytes never change through this type, and any number of threads may read them.
pub struct Storage {
    path: PathBuf,
    /// Where the range begins in the file.
    start: u64,
    len: u64,
    bytes: Bytes,
}

enum Bytes {
    Map { map: Arc<Map>, file: File, stamp: Stamp, tells_residency: bool },
    Buffer(Arc<Buffer>),
    File { file: File, ranges: Vec<(Range<u64>, Buffer)> }, // sorted by start
}

impl Storage {
    /// Opens a file: maps it, reads it whole with `progress`, or only opens it, as `mode` says.
    /// `progress` is called on this thread and ends the loading by breaking.
    ///
    /// # Errors
    /// No such file, no permission, no regular file, an empty file, no memory for a copy (found out
    /// before it is made), a file that shrinks while it is read, or the callback's wish to end.
    pub fn open(
        path: &Path,
        mode: LoadMode,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Storage, StorageError> {
        Storage::open_part(path, None, mode, progress)
    }

    /// As [`Storage::open`], of a range of the file only: a model that lies within another file.
    /// Any start can be mapped; tensors keep their alignment if it is a multiple of theirs.
    ///
    /// # Errors
    /// As [`Storage::open`], and a range that is empty or does not lie within the file.
    pub fn open_range(
        path: &Path,
        range: Range<u64>,
        mode: LoadMode,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Storage, StorageError> {
        Storage::open_part(path, Some(range), mode, progress)
    }

    fn open_part(
        path: &Path,
        range: Option<Range<u64>>,
        mode: LoadMode,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Storage, StorageError> {
        // The kind is asked for before opening: to open a FIFO is to wait for its writer.
        let metadata = std::fs::metadata(path).map_err(|e| StorageError::io(path, e))?;
        check_kind(path, &metadata)?;
        let file = File::open(path).map_err(|e| StorageError::io(path, e))?;
        let metadata = file.metadata().map_err(|e| StorageError::io(path, e))?;
        check_kind(path, &metadata)?;
        let file_bytes = metadata.len();
        if file_bytes == 0 {
            return Err(StorageError::Empty { path: path.to_owned() });
        }
        let (start, mut len) = match range.as_ref() {
            None => (0, file_bytes),
            Some(r) if r.start < r.end && r.end <= file_bytes => (r.start, r.end - r.start),
            Some(r) => {
                let Range { start, end } = *r;
                return Err(StorageError::OutOfRange { path: path.to_owned(), start, end, file_bytes });
            }
        };
        let bytes = match mode {
            LoadMode::Map => {
                let map = map(path, &file, range.is_some().then_some((start, len)))?;
                len = map.len() as u64; // If it changed since, the mapping knows better.
                let tells_residency = os::tells_residency(&file, &metadata);
                Bytes::Map { map: Arc::new(map), file, stamp: Stamp::of(&metadata), tells_residency }
            }
            LoadMode::Buffer => {
                check_memory(len, path)?;
                let mut buffer = private(len, path)?;
                Source { file: &file, path, start, len }.fill_parts(vec![(0, &mut buffer)], progress)?;
                Bytes::Buffer(Arc::new(buffer))
            }
            LoadMode::File => Bytes::File { file, ranges: Vec::new() },
        };
        Ok(Storage { path: path.to_owned(), start, len, bytes })
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the bytes begin in the file: 0 unless a range was opened.
    pub fn file_offset(&self) -> u64 {
        self.start
    }

    /// Length of the file (or of the range of it) when it was opened, in bytes; not 0.
    #[allow(clippy::len_without_is_empty, reason = "an empty file is refused")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where the bytes live.
    pub fn mode(&self) -> LoadMode {
        match self.bytes {
            Bytes::Map { .. } => LoadMode::Map,
            Bytes::Buffer(_) => LoadMode::Buffer,
            Bytes::File { .. } => LoadMode::File,
        }
    }

    /// The file's first bytes: all of them where they are at hand anyway, else a copy of the first
    /// `at_least` (or of all, if the file is shorter).
    ///
    /// # Errors
    /// A read that fails.
    pub fn header(&self, at_least: u64) -> Result<SharedBytes, StorageError> {
        match &self.bytes {
            Bytes::Map { map, .. } => Ok(Arc::new(Header(Arc::clone(map)))),
            Bytes::Buffer(buffer) => Ok(Arc::new(Header(Arc::clone(buffer)))),
            Bytes::File { file, .. } => {
                let wanted = at_least.min(self.len);
                check_memory(wanted, &self.path)?;
                let mut bytes = private(wanted, &self.path)?;
                Source { file, path: &self.path, start: self.start, len: self.len }.fill(&mut bytes, 0)?;
                Ok(Arc::new(Header(Arc::new(bytes))))
            }
        }
    }

    /// Reads byte ranges into memory of their own, each at a page boundary, in the given order,
    /// where the mode is [`LoadMode::File`]; nothing is to be done in the other modes. What is
    /// loaded already is not read again; ranges that overlap in part are read twice. After an error
    /// nothing of this call is kept.
    ///
    /// # Errors
    /// A range beyond the file's end, no memory (found out before any is taken), a read that fails,
    /// or the callback's wish to end.
    pub fn load(
        &mut self,
        wanted: &[Range<u64>],
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let Bytes::File { file, ranges } = &mut self.bytes else { return Ok(()) };
        let (path, start, len) = (self.path.as_path(), self.start, self.len);
        if let Some(&Range { start, end }) = wanted.iter().find(|r| r.start > r.end || r.end > len) {
            return Err(StorageError::OutOfRange { path: path.to_owned(), start, end, file_bytes: len });
        }
        let missing: Vec<_> = wanted.iter().filter(|r| loaded(ranges, r).is_none()).collect();
        check_memory(missing.iter().map(|r| r.end - r.start).sum(), path)?;
        let new: Result<Vec<_>, _> =
            missing.into_iter().map(|r| Ok((r.clone(), private(r.end - r.start, path)?))).collect();
        let mut new = new?;
        let parts = new.iter_mut().map(|(r, bytes)| (r.start, &mut bytes[..])).collect();
        Source { file, path, start, len }.fill_parts(parts, progress)?;
        ranges.append(&mut new);
        // Without those that lie within another, the last one to begin before a place is the one
        // that reaches furthest.
        ranges.sort_by_key(|(r, _)| (r.start, Reverse(r.end)));
        ranges.dedup_by(|(later, _), (earlier, _)| later.end <= earlier.end);
        Ok(())
    }

    /// The bytes of a range, where they live. `None` beyond the file's end, or where the range does
    /// not lie within one that was [loaded](Self::load).
    ///
    /// The bytes of a map are those of the file *now*: another program that writes to it changes
    /// them, one that truncates it ends this process with SIGBUS when they are read. Whatever
    /// decides about memory is to be copied out and checked.
    pub fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        match &self.bytes {
            Bytes::Map { map, .. } => within(map, 0, &range),
            Bytes::Buffer(buffer) => within(buffer, 0, &range),
            Bytes::File { ranges, .. } => loaded(ranges, &range),
        }
    }

    /// Address of the file's first byte in memory; `None` where it lies in pieces.
    pub fn base_address(&self) -> Option<usize> {
        match &self.bytes {
            Bytes::Map { map, .. } => Some(map.as_ptr() as usize),
            Bytes::Buffer(buffer) => Some(buffer.as_ptr() as usize),
            Bytes::File { .. } => None,
        }
    }

    /// A range of a mapped file, for questions to the system about its pages.
    pub(crate) fn mapped(&self, range: &Range<u64>) -> Option<&[u8]> {
        let Bytes::Map { map, .. } = &self.bytes else { return None };
        within(map, 0, range)
    }

    /// Which part of a range of a mapped file the page cache holds, whoever brought it there.
    /// `None` for other modes, beyond the end, and where the system does not tell: Linux tells only
    /// those who own the file or may write to it.
    pub fn residency(&self, range: Range<u64>) -> Option<Residency> {
        let Bytes::Map { tells_residency: true, .. } = self.bytes else { return None };
        let bytes = self.mapped(&range)?;
        Some(Residency { resident_bytes: os::resident_bytes(bytes)?, total_bytes: bytes.len() as u64 })
    }

    /// Bytes of the mapping that this process has in its page tables: they count as its resident
    /// set although they are shared. `None` where the file is not mapped or the system does not
    /// tell.
    pub fn mapped_resident_bytes(&self) -> Option<u64> {
        os::mapped_resident_bytes(self.mapped(&(0..self.len))?)
    }

    /// The same mapped file (or range of it) at a second address, whose pages are read one by one:
    /// for what is looked up here and there. `None` in other modes, or where the system refuses.
    pub fn random_view(&self) -> Option<Storage> {
        let Bytes::Map { file, stamp, tells_residency, .. } = &self.bytes else { return None };
        let file = file.try_clone().ok()?;
        let map = map(&self.path, &file, Some((self.start, self.len))).ok()?;
        os::advise(&map, Advice::Random);
        let bytes = Bytes::Map { map: Arc::new(map), file, stamp: *stamp, tells_residency: *tells_residency };
        Some(Storage { path: self.path.clone(), start: self.start, len: self.len, bytes })
    }

    /// What became of a mapped file since it was opened; `None` if nothing that the system would
    /// tell, and in other modes, whose copies nobody changes. Asks the system twice and reads
    /// nothing: cheap enough for every answer, not for every token.
    pub fn changed(&self) -> Option<Change> {
        let Bytes::Map { file, stamp, .. } = &self.bytes else { return None };
        stamp.change(&file.metadata().ok()?, &self.path)
    }

    /// The open file behind a mapping.
    pub(crate) fn mapped_file(&self) -> Option<&File> {
        let Bytes::Map { file, .. } = &self.bytes else { return None };
        Some(file)
    }

    /// Asks for the pages of a range of a mapped file and makes them accessible without faults,
    /// where the system can; may block until they are read. Does nothing in other modes, and is
    /// silent where the system refuses: pages come when touched.
    pub fn prefetch(&self, range: Range<u64>) {
        if let Some(bytes) = self.mapped(&range).filter(|bytes| !bytes.is_empty()) {
            os::prefetch(bytes);
        }
    }

    /// As [`prefetch`](Self::prefetch), and reads nothing around the range where the mapping was
    /// [advised](Self::advise) to be read at random: for memory that has no room for more.
    pub fn prefetch_only(&self, range: Range<u64>) {
        if let Some(bytes) = self.mapped(&range).filter(|bytes| !bytes.is_empty()) {
            os::prefetch_only(bytes);
        }
    }

    /// Asks for the pages of a range of a mapped file, and does not wait for them. Does nothing in
    /// other modes.
    pub fn ask(&self, range: Range<u64>) {
        if let Some(bytes) = self.mapped(&range).filter(|bytes| !bytes.is_empty()) {
            os::ask(bytes);
        }
    }

    /// Tells the system how the pages that a range of a mapped file touches will be used. Changes
    /// no byte. False where that had no effect: in other modes, beyond the end, and on systems
    /// without such advice.
    pub fn advise(&self, range: Range<u64>, advice: Advice) -> bool {
        self.mapped(&range).is_some_and(|bytes| !bytes.is_empty() && os::advise(bytes, advice))
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage")
            .field("path", &self.path)
            .field("start", &self.start)
            .field("len", &self.len)
            .field("mode", &self.mode())
            .finish()
    }
}

/// A mapped file, known by name as long as it is mapped.
struct Map {
    // Dropped in this order: no name without its mapping.
    _named: Named,
    map: Mmap,
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

struct Header<T>(Arc<T>);

impl<T: std::ops::Deref<Target = [u8]>> AsRef<[u8]> for Header<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), StorageError> {
    match os::irregular_kind(metadata) {
        _ if metadata.is_file() => Ok(()),
        _ if metadata.is_dir() => Err(StorageError::IsDirectory { path: path.to_owned() }),
        found => Err(StorageError::NotRegular { path: path.to_owned(), found }),
    }
}

/// Maps a file, or a part of it: (start, length).
fn map(path: &Path, file: &File, part: Option<(u64, u64)>) -> Result<Map, StorageError> {
    let mut options = MmapOptions::new();
    if let Some((start, len)) = part {
        options.offset(start).len(usize::try_from(len).unwrap_or(usize::MAX));
    }
    // SAFETY: a mapped file can change or shrink underneath. The bytes are handed out as `&[u8]`
    // only, for which any content is valid, and are never taken twice for a decision about memory;
    // a lost page ends the process with SIGBUS, which the crate's documentation says and which is
    // no memory unsafety.
    let map =
        unsafe { options.map(file) }.map_err(|source| StorageError::MapFailed { path: path.to_owned(), source })?;
    if map.is_empty() {
        return Err(StorageError::Empty { path: path.to_owned() });
    }
    // A file that is read from disk now can come in pages of 2 MB, which spare the CPU most of its
    // address translation. Where memory is short they would make every miss read 2 MB.
    if crate::process::available_memory_bytes().is_some_and(|available| available / 2 > map.len() as u64) {
        os::advise_huge_pages(&map);
    }
    Ok(Map { _named: Named::new(&map, path), map })
}

/// A range of the file, of whose bytes `whole` has those from `first` on.
fn within<'a>(whole: &'a [u8], first: u64, range: &Range<u64>) -> Option<&'a [u8]> {
    let at = |offset: u64| usize::try_from(offset.checked_sub(first)?).ok();
    whole.get(at(range.start)?..at(range.end)?)
}

/// A range of the file, if it lies within one of `ranges`, which are sorted and of which none lies
/// within another.
fn loaded<'a>(ranges: &'a [(Range<u64>, Buffer)], range: &Range<u64>) -> Option<&'a [u8]> {
    let after = ranges.partition_point(|(r, _)| r.start <= range.start);
    let (whole, bytes) = ranges.get(after.checked_sub(1)?)?;
    within(bytes, whole.start, range)
}

/// Memory for `len` bytes of the file.
fn private(len: u64, path: &Path) -> Result<Buffer, StorageError> {
    Buffer::new(usize::try_from(len).unwrap_or(usize::MAX)).map_err(|source| StorageError::CopyRefused {
        path: path.to_owned(),
        wanted_bytes: len,
        source,
    })
}

/// Refuses what cannot succeed before anything is allocated: afterwards it would be the system that
/// ends a process.
fn check_memory(wanted_bytes: u64, path: &Path) -> Result<(), StorageError> {
    match crate::process::available_memory_bytes() {
        Some(available_bytes) if available_bytes < wanted_bytes => {
            Err(StorageError::OutOfMemory { path: path.to_owned(), wanted_bytes, available_bytes })
        }
        _ => Ok(()),
    }
}
