//! Windows.

use std::fs::{File, Metadata};
use std::io;
use std::os::windows::fs::FileExt;

use windows_sys::Win32::System::Memory::{PrefetchVirtualMemory, VirtualLock, WIN32_MEMORY_RANGE_ENTRY};
use windows_sys::Win32::System::ProcessStatus::{
    GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS, PROCESS_MEMORY_COUNTERS_EX, PSAPI_WORKING_SET_EX_INFORMATION,
    QueryWorkingSetEx,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessWorkingSetSize, SetProcessWorkingSetSize};

use crate::process::Snapshot;
use crate::storage::Advice;

const PAGE_BYTES: usize = 4096;

pub(crate) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(out, offset)
}

pub(crate) fn irregular_kind(_metadata: &Metadata) -> &'static str {
    "a pipe or a device"
}

/// Pages of the mapping in this process's working set; Windows does not tell what else its cache holds.
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
                // SAFETY: the structure consists of numbers and a pointer, for which zeros are valid.
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

/// The working set must have room for locked pages beside the others: it is asked to grow, which needs no privilege.
pub(crate) fn lock(bytes: &[u8]) -> io::Result<()> {
    const ROOM_BYTES: usize = 8 << 20;
    // SAFETY: the memory is mapped, since `bytes` is borrowed; locking changes nothing that can be read there. The calls before it
    // take numbers and fill the two that they are given.
    unsafe {
        let process = GetCurrentProcess();
        let (mut least, mut most) = (0, 0);
        if GetProcessWorkingSetSize(process, &raw mut least, &raw mut most) != 0 {
            let (wanted_least, wanted_most) = (least + bytes.len(), most.max(least + bytes.len() + ROOM_BYTES));
            SetProcessWorkingSetSize(process, wanted_least, wanted_most);
        }
        if VirtualLock(bytes.as_ptr().cast(), bytes.len()) != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
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

/// Windows takes no advice about the pages of a mapped file.
pub(crate) fn advise(_bytes: &[u8], _advice: Advice) -> bool {
    false
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

pub(crate) fn available_memory_bytes() -> Option<u64> {
    // SAFETY: a structure of numbers, for which zeros are valid.
    let mut status: MEMORYSTATUSEX = unsafe { std::mem::zeroed() };
    status.dwLength = size_of::<MEMORYSTATUSEX>() as u32;
    // SAFETY: the call fills the structure, whose size stands in it.
    (unsafe { GlobalMemoryStatusEx(&mut status) } != 0).then_some(status.ullAvailPhys)
}

pub(crate) fn refuse_huge_pages(_bytes: &[u8]) {}

/// Streaming needs memory at several addresses, which this system is not asked for: its pager does the work.
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
