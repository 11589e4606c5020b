//! macOS: Mach's figures.

use std::fs::{File, Metadata};

pub(crate) use super::unix::{
    Anonymous, alias, anonymous, file_id, handle_lost_pages, ignores_signal, irregular_kind, keep_terminal_modes, lock,
    memlock_limit as lockable_bytes, read_at, resident_bytes, stdin_is_pipe_or_file,
};
use super::unix::{advise_pages, faults};
use crate::advice::Advice;
use crate::snapshot::Snapshot;

pub(crate) fn snapshot() -> Snapshot {
    let (minor_faults, major_faults) = faults();
    let usage = resource_usage();
    Snapshot {
        minor_faults,
        major_faults,
        resident_bytes: usage.map(|u| u.ri_resident_size),
        private_bytes: usage.map(|u| u.ri_phys_footprint),
        shared_bytes: usage.map(|u| u.ri_resident_size.saturating_sub(u.ri_phys_footprint)),
        read_bytes: usage.map(|u| u.ri_diskio_bytesread),
    }
}

fn resource_usage() -> Option<libc::rusage_info_v2> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage_info_v2>::zeroed();
    // SAFETY: the call fills a structure of the version that is named; zeroed memory is a valid one
    // in any case.
    unsafe {
        let ok = libc::proc_pid_rusage(libc::getpid(), libc::RUSAGE_INFO_V2, usage.as_mut_ptr().cast()) == 0;
        ok.then(|| usage.assume_init())
    }
}

/// Not told: mincore speaks of all pages in memory, in whatever page table they stand.
pub(crate) fn mapped_resident_bytes(_bytes: &[u8]) -> Option<u64> {
    None
}

/// Reads without caching are answered from the cache where it has the pages: they would not measure
/// the disk.
pub(crate) fn open_direct(_path: &std::path::Path) -> Option<File> {
    None
}

pub(crate) fn tells_residency(_file: &File, _metadata: &Metadata) -> bool {
    true
}

pub(crate) fn prefetch(bytes: &[u8]) {
    advise_pages(bytes, libc::MADV_WILLNEED);
}

pub(crate) fn prefetch_only(bytes: &[u8]) {
    prefetch(bytes);
}

pub(crate) fn ask(bytes: &[u8]) {
    prefetch(bytes);
}

pub(crate) fn advise(bytes: &[u8], advice: Advice) -> bool {
    let advice = match advice {
        Advice::Normal => libc::MADV_NORMAL,
        Advice::Sequential => libc::MADV_SEQUENTIAL,
        Advice::Random => libc::MADV_RANDOM,
        // Here this one takes no page away: it says which may go first.
        Advice::Cold => libc::MADV_DONTNEED,
        Advice::Release => return false,
    };
    advise_pages(bytes, advice)
}

pub(crate) fn evict(_file: &File, bytes: &[u8], _range: std::ops::Range<u64>) -> std::io::Result<bool> {
    Ok(super::unix::invalidate(bytes))
}

/// Nothing to ask for: macOS has no such advice.
pub(crate) fn advise_huge_pages(_bytes: &[u8]) {}

/// Free pages and those that hold nothing that was used of late.
pub(crate) fn machine_memory_bytes() -> Option<u64> {
    let mut figures = std::mem::MaybeUninit::<libc::vm_statistics64>::zeroed();
    let mut count = libc::HOST_VM_INFO64_COUNT;
    // SAFETY: the call writes at most `count` words, which is the structure's length; zeroed memory
    // is a valid one in any case. The page size is a constant of the system. libc wants programs to
    // use mach2 for one function: not worth a crate.
    #[allow(deprecated)]
    let (ok, figures, page_bytes) = unsafe {
        let host = libc::mach_host_self();
        let out = figures.as_mut_ptr().cast();
        let ok = libc::host_statistics64(host, libc::HOST_VM_INFO64, out, &raw mut count) == libc::KERN_SUCCESS;
        (ok, figures.assume_init(), libc::sysconf(libc::_SC_PAGESIZE))
    };
    let pages = u64::from(figures.free_count) + u64::from(figures.inactive_count);
    ok.then_some(pages * u64::try_from(page_bytes).ok()?)
}

pub(crate) fn groups_memory_bytes() -> Option<u64> {
    None
}

pub(crate) fn refuse_huge_pages(_bytes: &[u8]) {}

/// Memory that can be mapped at several addresses: a POSIX shared memory object whose name is given
/// up at once.
pub(crate) fn shared_memory(len: usize) -> std::io::Result<File> {
    use std::os::fd::FromRawFd;
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = std::ffi::CString::new(format!("/modelembed-{}-{number}", std::process::id()))?;
    // SAFETY: the name is a string that ends with a zero; the descriptor is new and belongs to
    // nobody else.
    let file = unsafe {
        let fd = libc::shm_open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600);
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        libc::shm_unlink(name.as_ptr());
        File::from_raw_fd(fd)
    };
    file.set_len(len as u64)?;
    Ok(file)
}

/// Reads past the page cache, or through it again.
pub(crate) fn set_direct(file: &File, direct: bool) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: changes a flag of an open file only.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, libc::c_int::from(direct)) == 0 }
}

pub(crate) fn read_no_further(_file: &File) {}

pub(crate) fn drop_cached(_file: &File, _offset: u64, _len: u64) {}
