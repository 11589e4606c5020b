//! Windows.

use std::fs::{File, Metadata};
use std::io;
use std::os::windows::fs::FileExt;
use std::os::windows::io::AsRawHandle;
use std::ptr::NonNull;

use windows_sys::Win32::Foundation::{ERROR_NOT_LOCKED, GetLastError};
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_DISK, FILE_TYPE_PIPE, GetFileType};
use windows_sys::Win32::System::Memory::{
    GetProcessWorkingSetSizeEx, MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_READWRITE, PrefetchVirtualMemory,
    SetProcessWorkingSetSizeEx, VirtualAlloc, VirtualFree, VirtualLock, VirtualUnlock, WIN32_MEMORY_RANGE_ENTRY,
};
use windows_sys::Win32::System::ProcessStatus::{
    GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS, PROCESS_MEMORY_COUNTERS_EX, PSAPI_WORKING_SET_EX_INFORMATION,
    QueryWorkingSetEx,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use crate::advice::Advice;
use crate::snapshot::Snapshot;

const PAGE_BYTES: usize = 4096;

/// Private memory, which the process's figures count as such: an anonymous file mapping would not
/// be. All of it counts as committed at once, since Windows promises no more than it has; pages
/// come when they are touched.
pub(crate) struct Anonymous {
    start: NonNull<u8>,
    len: usize,
}

pub(crate) fn anonymous(len: usize) -> io::Result<Anonymous> {
    // SAFETY: asks for fresh memory, wherever there is room.
    let start = unsafe { VirtualAlloc(std::ptr::null(), len, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) };
    let start = NonNull::new(start.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
    Ok(Anonymous { start, len })
}

// SAFETY: plain memory that this value owns.
unsafe impl Send for Anonymous {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Anonymous {}

impl std::ops::Deref for Anonymous {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes at `start` can be read and written, are zero at first, and live as
        // long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Anonymous {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: exactly the memory that `anonymous` got, which nobody borrows any more.
        unsafe { VirtualFree(self.start.as_ptr().cast(), 0, MEM_RELEASE) };
    }
}

pub(crate) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(out, offset)
}

pub(crate) fn irregular_kind(_metadata: &Metadata) -> &'static str {
    "a pipe or a device"
}

/// The standard library does not hand it out here.
pub(crate) fn file_id(_metadata: &Metadata) -> Option<(u64, u64)> {
    None
}

/// There are no signals that a parent could have ignored.
pub(crate) fn ignores_signal(_signal: i32) -> bool {
    false
}

pub(crate) fn keep_terminal_modes() {}

pub(crate) fn stdin_is_pipe_or_file() -> bool {
    // SAFETY: the call takes any handle, and this one is open as long as the process runs.
    let kind = unsafe { GetFileType(io::stdin().as_raw_handle()) };
    kind == FILE_TYPE_PIPE || kind == FILE_TYPE_DISK
}

/// Pages of the mapping in this process's working set; Windows does not tell what else its cache
/// holds.
pub(crate) fn resident_bytes(bytes: &[u8]) -> Option<u64> {
    const WINDOW: usize = 4096; // pages asked about at once
    let (first, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
    let start = first / PAGE_BYTES * PAGE_BYTES;
    let mut resident = 0;
    for window in (start..end).step_by(WINDOW * PAGE_BYTES) {
        let pages = (window..end.min(window + WINDOW * PAGE_BYTES)).step_by(PAGE_BYTES);
        let mut entries: Vec<PSAPI_WORKING_SET_EX_INFORMATION> = pages
            .clone()
            .map(|at| {
                // SAFETY: the structure consists of numbers and a pointer, for which zeros are
                // valid.
                let mut entry: PSAPI_WORKING_SET_EX_INFORMATION = unsafe { std::mem::zeroed() };
                entry.VirtualAddress = at as *mut _;
                entry
            })
            .collect();
        let size = size_of_val(entries.as_slice()) as u32;
        // SAFETY: the call fills the entries, whose size it is told.
        if unsafe { QueryWorkingSetEx(GetCurrentProcess(), entries.as_mut_ptr().cast(), size) } == 0 {
            return None;
        }
        for (entry, at) in entries.iter().zip(pages) {
            // SAFETY: `Flags` is the plain number of the union; bit 0 says that the page is there.
            if unsafe { entry.VirtualAttributes.Flags } & 1 != 0 {
                resident += (at + PAGE_BYTES).min(end) - at.max(first);
            }
        }
    }
    Some(resident as u64)
}

pub(crate) fn mapped_resident_bytes(bytes: &[u8]) -> Option<u64> {
    resident_bytes(bytes)
}

pub(crate) fn tells_residency(_file: &File, _metadata: &Metadata) -> bool {
    true
}

/// Windows takes no advice about the pages of a mapped file, but lets them go: to unlock pages that
/// are not locked takes them out of the working set, and into the cache. The call fails then, with
/// an error that says so.
pub(crate) fn advise(bytes: &[u8], advice: Advice) -> bool {
    match advice {
        // SAFETY: the pages are mapped, since `bytes` is borrowed; what can be read there does not
        // change.
        Advice::Release => unsafe {
            VirtualUnlock(bytes.as_ptr().cast(), bytes.len()) == 0 && GetLastError() == ERROR_NOT_LOCKED
        },
        Advice::Normal | Advice::Sequential | Advice::Random | Advice::Cold => false,
    }
}

/// A process may lock as much as the smallest working set that it is promised, about 200 KB at
/// first: so that grows by as much, which needs no privilege, and the largest keeps its distance.
pub(crate) fn lock(bytes: &[u8]) -> io::Result<()> {
    let pages_bytes = bytes.len() + 2 * PAGE_BYTES; // parts of pages at both ends
    let (mut least, mut most, mut flags) = (0, 0, 0);
    // SAFETY: the calls write the three numbers and take them; the pages are mapped, since `bytes`
    // is borrowed, and locking changes nothing that can be read there.
    let locked = unsafe {
        let process = GetCurrentProcess();
        GetProcessWorkingSetSizeEx(process, &raw mut least, &raw mut most, &raw mut flags) != 0
            && SetProcessWorkingSetSizeEx(process, least + pages_bytes, most + pages_bytes, flags) != 0
            && VirtualLock(bytes.as_ptr().cast(), bytes.len()) != 0
    };
    if locked { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Only the attempt tells.
pub(crate) fn lockable_bytes() -> Option<u64> {
    None
}

pub(crate) fn open_direct(path: &std::path::Path) -> Option<File> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_FLAG_NO_BUFFERING: u32 = 0x2000_0000;
    std::fs::OpenOptions::new().read(true).custom_flags(FILE_FLAG_NO_BUFFERING).open(path).ok()
}

/// There is no call for it.
pub(crate) fn evict(_file: &File, _bytes: &[u8], _range: std::ops::Range<u64>) -> io::Result<bool> {
    Ok(false)
}

/// Large pages need a privilege that users do not have.
pub(crate) fn advise_huge_pages(_bytes: &[u8]) {}

pub(crate) fn prefetch(bytes: &[u8]) {
    let range = WIN32_MEMORY_RANGE_ENTRY { VirtualAddress: bytes.as_ptr() as *mut _, NumberOfBytes: bytes.len() };
    // SAFETY: one entry is given, for memory that is mapped.
    unsafe {
        PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
    }
}

pub(crate) fn prefetch_only(bytes: &[u8]) {
    prefetch(bytes);
}

pub(crate) fn ask(bytes: &[u8]) {
    prefetch(bytes);
}

/// No signal tells of them here.
pub(crate) fn handle_lost_pages() -> bool {
    false
}

pub(crate) fn snapshot() -> Snapshot {
    // SAFETY: a structure of numbers, for which zeros are valid.
    let mut counters: PROCESS_MEMORY_COUNTERS_EX = unsafe { std::mem::zeroed() };
    let size = size_of::<PROCESS_MEMORY_COUNTERS_EX>() as u32;
    let pointer = (&raw mut counters).cast::<PROCESS_MEMORY_COUNTERS>();
    // SAFETY: the call fills the structure, whose size it is told.
    if unsafe { GetProcessMemoryInfo(GetCurrentProcess(), pointer, size) } == 0 {
        return Snapshot::default();
    }
    Snapshot {
        minor_faults: Some(counters.PageFaultCount.into()), // Windows counts both kinds together
        resident_bytes: Some(counters.WorkingSetSize as u64),
        private_bytes: Some(counters.PrivateUsage as u64), // with what was swapped out or never touched
        ..Snapshot::default()
    }
}

pub(crate) fn machine_memory_bytes() -> Option<u64> {
    // SAFETY: a structure of numbers, for which zeros are valid.
    let mut status: MEMORYSTATUSEX = unsafe { std::mem::zeroed() };
    status.dwLength = size_of::<MEMORYSTATUSEX>() as u32;
    // SAFETY: the call fills the structure, whose size stands in it.
    (unsafe { GlobalMemoryStatusEx(&mut status) } != 0).then_some(status.ullAvailPhys)
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
