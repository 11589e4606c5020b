//! What the operating system says about this process and this machine.

use crate::os;
pub use crate::snapshot::Snapshot;

/// The figures now.
pub fn snapshot() -> Snapshot {
    os::snapshot()
}

/// Who leaves this process how much memory, page cache that would be given up included. `None`
/// where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLeft {
    /// Bytes that the machine has for all programs.
    pub machine_bytes: Option<u64>,
    /// Bytes up to the nearest limit of this process's control groups, of version 1 or 2; `None`
    /// without one.
    pub groups_bytes: Option<u64>,
}

/// The figures now.
pub fn memory_left() -> MemoryLeft {
    MemoryLeft { machine_bytes: os::machine_memory_bytes(), groups_bytes: os::groups_memory_bytes() }
}

/// Bytes that this process may still allocate: the smaller figure of [`memory_left`].
pub fn available_memory_bytes() -> Option<u64> {
    let left = memory_left();
    left.machine_bytes.into_iter().chain(left.groups_bytes).min()
}

/// Whether standard input is a pipe or a file that can be read to its end: no terminal, and no
/// device such as /dev/null or NUL.
pub fn stdin_is_pipe_or_file() -> bool {
    os::stdin_is_pipe_or_file()
}

/// Whether this process ignores a signal, by its number: what its parent ignored stays ignored.
/// False where there are no signals, and for a number that is none.
pub fn ignores_signal(signal: i32) -> bool {
    os::ignores_signal(signal)
}
