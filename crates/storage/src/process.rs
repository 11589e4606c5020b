//! What the operating system says about this process and this machine.

use crate::os;

/// Figures of this process. `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Page faults that were served from memory, since the start.
    pub minor_faults: Option<u64>,
    /// Page faults that had to read from a disk, since the start.
    pub major_faults: Option<u64>,
    /// Bytes of all pages in memory, shared ones included.
    pub resident_bytes: Option<u64>,
    /// Bytes of pages that belong to this process alone: they would be free without it. Clean pages of files do not count.
    pub private_bytes: Option<u64>,
    /// Bytes of pages that other processes use or may use as well.
    pub shared_bytes: Option<u64>,
    /// Bytes read from disks, since the start.
    pub read_bytes: Option<u64>,
}

/// The figures now.
pub fn snapshot() -> Snapshot {
    os::snapshot()
}

/// Bytes that this process may still allocate: the machine's available memory, or less where a control group limits it.
pub fn available_memory_bytes() -> Option<u64> {
    os::available_memory_bytes()
}
