//! macOS: Mach's task information.

use super::unix::{faults, pages_of};
pub(crate) use super::unix::{irregular_kind, read_at, resident_bytes};
use crate::process::Snapshot;

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

pub(crate) fn mapped_resident_bytes(_start: usize, _len: usize) -> Option<u64> {
    None
}

pub(crate) fn prefetch(bytes: &[u8]) {
    let (start, len) = pages_of(bytes);
    // SAFETY: the pages are mapped, since `bytes` is borrowed, and the advice does not change what they hold.
    unsafe {
        libc::madvise(start as *mut libc::c_void, len, libc::MADV_WILLNEED);
    }
}

pub(crate) fn advise_huge_pages(_bytes: &[u8]) {}

pub(crate) fn available_memory_bytes() -> Option<u64> {
    let mut bytes = 0u64;
    let mut size = size_of::<u64>();
    // SAFETY: the name ends with a zero; hw.memsize is a u64, and `size` says that there is room for one.
    let ok = unsafe {
        libc::sysctlbyname(c"hw.memsize".as_ptr(), (&raw mut bytes).cast(), &raw mut size, std::ptr::null_mut(), 0) == 0
    };
    ok.then_some(bytes)
}
