//! Systems that this crate knows nothing special about: everything loads, and what the system would
//! tell is unknown.

use std::fs::{File, Metadata};

#[cfg(unix)]
pub(crate) use super::unix::{
    Anonymous, anonymous, file_id, ignores_signal, irregular_kind, read_at, stdin_is_pipe_or_file,
};
use crate::advice::Advice;
use crate::snapshot::Snapshot;

/// The file's place moves, so reads take turns.
#[cfg(not(unix))]
pub(crate) fn read_at(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<usize> {
    use std::io::{Read, Seek, SeekFrom};
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|p| p.into_inner());
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.read(out)
}

#[cfg(not(unix))]
pub(crate) use memmap2::MmapMut as Anonymous;

#[cfg(not(unix))]
pub(crate) fn anonymous(len: usize) -> std::io::Result<Anonymous> {
    memmap2::MmapOptions::new().len(len).map_anon()
}

#[cfg(not(unix))]
pub(crate) fn irregular_kind(_metadata: &Metadata) -> &'static str {
    "a pipe or a device"
}

#[cfg(not(unix))]
pub(crate) fn file_id(_metadata: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Unknown: only what is asked for by name is read.
#[cfg(not(unix))]
pub(crate) fn stdin_is_pipe_or_file() -> bool {
    false
}

#[cfg(not(unix))]
pub(crate) fn ignores_signal(_signal: i32) -> bool {
    false
}

pub(crate) fn keep_terminal_modes() {}

#[cfg(unix)]
pub(crate) use super::unix::{lock, memlock_limit as lockable_bytes};

#[cfg(not(unix))]
pub(crate) fn lock(_bytes: &[u8]) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
pub(crate) fn lockable_bytes() -> Option<u64> {
    None
}

pub(crate) fn open_direct(_path: &std::path::Path) -> Option<File> {
    None
}

pub(crate) fn tells_residency(_file: &File, _metadata: &Metadata) -> bool {
    false
}

pub(crate) fn resident_bytes(_bytes: &[u8]) -> Option<u64> {
    None
}

pub(crate) fn mapped_resident_bytes(_bytes: &[u8]) -> Option<u64> {
    None
}

pub(crate) fn prefetch(_bytes: &[u8]) {}

pub(crate) fn prefetch_only(_bytes: &[u8]) {}

pub(crate) fn advise(_bytes: &[u8], _advice: Advice) -> bool {
    false
}

pub(crate) fn evict(_file: &File, _bytes: &[u8], _range: std::ops::Range<u64>) -> std::io::Result<bool> {
    Ok(false)
}

pub(crate) fn advise_huge_pages(_bytes: &[u8]) {}

/// No signal tells of them here.
pub(crate) fn handle_lost_pages() -> bool {
    false
}

pub(crate) fn snapshot() -> Snapshot {
    Snapshot::default()
}

pub(crate) fn machine_memory_bytes() -> Option<u64> {
    None
}

pub(crate) fn groups_memory_bytes() -> Option<u64> {
    None
}

pub(crate) fn refuse_huge_pages(_bytes: &[u8]) {}

/// Streaming needs memory at several addresses, which this system is not asked for: its pager does
/// the work.
pub(crate) fn shared_memory(_len: usize) -> std::io::Result<File> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub(crate) fn alias(_bytes: &[u8], _shared: &File, _offset: usize) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub(crate) fn set_direct(_file: &File, _direct: bool) -> bool {
    false
}

pub(crate) fn read_no_further(_file: &File) {}

pub(crate) fn drop_cached(_file: &File, _offset: u64, _len: u64) {}
