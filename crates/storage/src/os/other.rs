//! Systems that this crate knows nothing special about.

use crate::process::Snapshot;

#[cfg(unix)]
pub(crate) use super::unix::{irregular_kind, read_at};

pub(crate) fn resident_bytes(_bytes: &[u8]) -> Option<u64> {
    None
}

pub(crate) fn mapped_resident_bytes(_start: usize, _len: usize) -> Option<u64> {
    None
}

pub(crate) fn prefetch(_bytes: &[u8]) {}

pub(crate) fn snapshot() -> Snapshot {
    Snapshot::default()
}

pub(crate) fn advise_huge_pages(_bytes: &[u8]) {}

pub(crate) fn available_memory_bytes() -> Option<u64> {
    None
}
