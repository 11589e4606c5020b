//! One file of a model, in one of three ways.

use std::fs::{File, Metadata};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::StorageError;
use crate::os;
use crate::read::{read_exact_at, read_parallel};
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

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were read.
    pub done_bytes: u64,
    /// Bytes that will be read.
    pub total_bytes: u64,
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

/// One file. Its bytes never change through this type, and any number of threads may read them.
pub struct Storage {
    path: PathBuf,
    len: u64,
    bytes: Bytes,
}

enum Bytes {
    Map(Arc<Mmap>),
    Buffer(Arc<Buffer>),
    File { file: File, ranges: Vec<(Range<u64>, Buffer)> }, // sorted by start
}

impl Storage {
    /// Opens a file: maps it, reads it whole with `progress`, or only opens it, as `mode` says.
    ///
    /// # Errors
    /// No such file, no permission, no regular file, an empty file, no memory, or the callback's wish to end.
    pub fn open(
        path: &Path,
        mode: LoadMode,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Storage, StorageError> {
        // The kind is asked for before opening: to open a FIFO is to wait for its writer.
        let metadata = std::fs::metadata(path).map_err(|e| StorageError::io(path, e))?;
        check_kind(path, &metadata)?;
        let file = File::open(path).map_err(|e| StorageError::io(path, e))?;
        let metadata = file.metadata().map_err(|e| StorageError::io(path, e))?;
        check_kind(path, &metadata)?;
        let len = metadata.len();
        if len == 0 {
            return Err(StorageError::Empty(path.to_owned()));
        }
        let bytes = match mode {
            LoadMode::Map => Bytes::Map(Arc::new(map(path, &file)?)),
            LoadMode::Buffer => {
                let mut buffer = private(len, path)?;
                read_parallel((&file, path, len), &mut buffer, 0, 0, len, progress)?;
                Bytes::Buffer(Arc::new(buffer))
            }
            LoadMode::File => Bytes::File { file, ranges: Vec::new() },
        };
        Ok(Storage { path: path.to_owned(), len, bytes })
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file when it was opened, in bytes; not 0.
    #[allow(clippy::len_without_is_empty, reason = "an empty file is refused")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where the bytes live.
    pub fn mode(&self) -> LoadMode {
        match self.bytes {
            Bytes::Map(_) => LoadMode::Map,
            Bytes::Buffer(_) => LoadMode::Buffer,
            Bytes::File { .. } => LoadMode::File,
        }
    }

    /// The file's first bytes: all of them where they are at hand anyway, else a copy of the first `at_least` (or of all, if the
    /// file is shorter).
    ///
    /// # Errors
    /// A read that fails.
    pub fn header(&self, at_least: u64) -> Result<SharedBytes, StorageError> {
        match &self.bytes {
            Bytes::Map(map) => Ok(Arc::new(Header(Arc::clone(map)))),
            Bytes::Buffer(buffer) => Ok(Arc::new(Header(Arc::clone(buffer)))),
            Bytes::File { file, .. } => {
                let mut bytes = private(at_least.min(self.len), &self.path)?;
                read_exact_at(file, &self.path, &mut bytes, 0, self.len)?;
                Ok(Arc::new(Header(Arc::new(bytes))))
            }
        }
    }

    /// Reads byte ranges into memory of their own, in the given order, where the mode is [`LoadMode::File`]; nothing is to be done
    /// in the other modes.
    ///
    /// # Errors
    /// A range beyond the file's end, no memory, a read that fails, or the callback's wish to end.
    pub fn load(
        &mut self,
        wanted: &[Range<u64>],
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let Bytes::File { file, ranges } = &mut self.bytes else { return Ok(()) };
        let (path, len) = (&self.path, self.len);
        let total_bytes: u64 = wanted.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        check_memory(total_bytes, path)?;
        let mut done = 0;
        for range in wanted {
            if range.start > range.end || range.end > len {
                return Err(StorageError::Shrunk { path: path.clone(), at: len, wanted: range.end });
            }
            let n = range.end - range.start;
            let mut bytes = private(n, path)?;
            read_parallel((file, path, len), &mut bytes, range.start, done, total_bytes, progress)?;
            done += n;
            ranges.push((range.clone(), bytes));
        }
        ranges.sort_by_key(|(r, _)| r.start);
        Ok(())
    }

    /// The bytes of a range, where they live. `None` beyond the file's end, or where the range was not [loaded](Self::load).
    pub fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        let (whole, first): (&[u8], u64) = match &self.bytes {
            Bytes::Map(map) => (map, 0),
            Bytes::Buffer(buffer) => (buffer, 0),
            Bytes::File { ranges, .. } => {
                let after = ranges.partition_point(|(r, _)| r.start <= range.start);
                let (loaded, bytes) = ranges.get(after.checked_sub(1)?)?;
                (bytes, loaded.start)
            }
        };
        let at = |offset: u64| usize::try_from(offset.checked_sub(first)?).ok();
        whole.get(at(range.start)?..at(range.end)?)
    }

    /// Address of the file's first byte in memory; `None` where it lies in pieces.
    pub fn base_address(&self) -> Option<usize> {
        match &self.bytes {
            Bytes::Map(map) => Some(map.as_ptr() as usize),
            Bytes::Buffer(buffer) => Some(buffer.as_ptr() as usize),
            Bytes::File { .. } => None,
        }
    }

    /// Which part of a range of a mapped file the page cache holds, whoever brought it there. `None` for other modes, and where
    /// the system does not tell.
    pub fn residency(&self, range: Range<u64>) -> Option<Residency> {
        let Bytes::Map(map) = &self.bytes else { return None };
        let bytes = map.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)?;
        let resident_bytes = os::resident_bytes(bytes)?;
        Some(Residency { resident_bytes, total_bytes: bytes.len() as u64 })
    }

    /// Bytes of the mapping that this process has in its page tables: they count as its resident set although they are
    /// shared. `None` where the file is not mapped or the system does not tell.
    pub fn mapped_resident_bytes(&self) -> Option<u64> {
        let Bytes::Map(map) = &self.bytes else { return None };
        os::mapped_resident_bytes(map.as_ptr() as usize, map.len())
    }

    /// Asks for the pages of a range of a mapped file and makes them accessible without faults, where the system can; blocks
    /// until they are read. Does nothing in other modes.
    pub fn prefetch(&self, range: Range<u64>) {
        if let (Bytes::Map(map), Ok(start), Ok(end)) = (&self.bytes, range.start.try_into(), range.end.try_into())
            && let Some(bytes) = map.get::<Range<usize>>(start..end)
        {
            os::prefetch(bytes);
        }
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("path", &self.path).field("len", &self.len).field("mode", &self.mode()).finish()
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
        _ if metadata.is_dir() => Err(StorageError::IsDirectory(path.to_owned())),
        found => Err(StorageError::NotRegular { path: path.to_owned(), found }),
    }
}

fn map(path: &Path, file: &File) -> Result<Mmap, StorageError> {
    // SAFETY: a mapped file can change or shrink underneath. The bytes are handed out as `&[u8]` only, for which any content is
    // valid, and are never taken twice for a decision about memory; a lost page ends the process with SIGBUS, which the
    // crate's documentation says and which is no memory unsafety.
    let map = unsafe { Mmap::map(file) }.map_err(|source| StorageError::MapFailed { path: path.to_owned(), source })?;
    // A file that is read from disk now can come in pages of 2 MB, which spare the CPU most of its address translation. Where
    // memory is short they would make every miss read 2 MB.
    if crate::process::available_memory_bytes().is_some_and(|available| available / 2 > map.len() as u64) {
        os::advise_huge_pages(&map);
    }
    Ok(map)
}

/// Memory for `len` bytes of the file, if there is as much.
fn private(len: u64, path: &Path) -> Result<Buffer, StorageError> {
    check_memory(len, path)?;
    Buffer::new(usize::try_from(len).unwrap_or(usize::MAX))
}

fn check_memory(wanted_bytes: u64, path: &Path) -> Result<(), StorageError> {
    match crate::process::available_memory_bytes() {
        Some(available_bytes) if available_bytes < wanted_bytes => {
            let what = format!("a private copy of {} (-mmap needs none)", path.display());
            Err(StorageError::OutOfMemory { what, wanted_bytes, available_bytes })
        }
        _ => Ok(()),
    }
}
