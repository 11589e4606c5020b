//! What a system can say about a process.

/// Figures of this process. `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Page faults that were served from memory, since the start. On Windows all faults.
    pub minor_faults: Option<u64>,
    /// Page faults that had to read from a disk, since the start.
    pub major_faults: Option<u64>,
    /// Bytes of all pages in memory, shared ones included.
    pub resident_bytes: Option<u64>,
    /// Bytes of pages that no file stands behind, which no other process can use: heap, stacks,
    /// buffers. On Windows all of the memory that is committed to this process.
    pub private_bytes: Option<u64>,
    /// Bytes of the other resident pages: those of files (a mapped model's, programs') and shared
    /// memory.
    pub shared_bytes: Option<u64>,
    /// Bytes read from disks, since the start.
    pub read_bytes: Option<u64>,
}
