//! macOS: Mach's figures.

use std::fs::{File, Metadata};

pub(crate) use super::unix::{
    Anonymous, anonymous, handle_lost_pages, irregular_kind, lock, read_at, resident_bytes, stdin_is_pipe_or_file,
};
use super::unix::{advise_pages, faults};
use crate::process::Snapshot;
use crate::storage::Advice;

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
    // SAFETY: the call fills a structure of the version that is named; zeroed memory is a valid one in any case.
    unsafe {
        let ok = libc::proc_pid_rusage(libc::getpid(), libc::RUSAGE_INFO_V2, usage.as_mut_ptr().cast()) == 0;
        ok.then(|| usage.assume_init())
    }
}

/// Not told: mincore speaks of all pages in memory, in whatever page table they stand.
pub(crate) fn mapped_resident_bytes(_bytes: &[u8]) -> Option<u64> {
    None
}

pub(crate) fn tells_residency(_file: &File, _metadata: &Metadata) -> bool {
    true
}

pub(crate) fn prefetch(bytes: &[u8]) {
    advise_pages(bytes, libc::MADV_WILLNEED);
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

/// Nothing to ask for: macOS has no such advice.
pub(crate) fn advise_huge_pages(_bytes: &[u8]) {}

/// Free pages and those that hold nothing that was used of late.
pub(crate) fn available_memory_bytes() -> Option<u64> {
    let mut figures = std::mem::MaybeUninit::<libc::vm_statistics64>::zeroed();
    let mut count = libc::HOST_VM_INFO64_COUNT;
    // SAFETY: the call writes at most `count` words, which is the structure's length; zeroed memory is a valid one in any
    // case. The page size is a constant of the system. libc wants programs to use mach2 for one function: not worth a crate.
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
