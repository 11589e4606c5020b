//! Keeping pages in memory whatever else wants it.

use std::io;
use std::ops::Range;

use crate::os;
use crate::storage::Storage;

impl Storage {
    /// Keeps the pages of a range in memory until this storage is dropped. Pages that are not there
    /// yet are not waited for where the system can lock them as they come (Linux); elsewhere this
    /// returns when they are there.
    ///
    /// # Errors
    /// The system's refusal, most often a limit on locked memory; a range that is not in this
    /// storage.
    pub fn lock(&self, range: Range<u64>) -> io::Result<()> {
        match self.bytes(range) {
            Some([]) => Ok(()),
            Some(bytes) => os::lock(bytes),
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// Bytes that this process may still [lock](Storage::lock). `None` where nothing but the size of
/// memory limits them, or where the system tells only by refusing.
pub fn lockable_bytes() -> Option<u64> {
    os::lockable_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LoadMode;
    use std::ops::ControlFlow;

    #[test]
    fn a_few_pages_can_be_locked_and_nothing_beyond_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7u8; 50_000]).unwrap();
        for mode in [LoadMode::Map, LoadMode::Buffer] {
            let storage = Storage::open(file.path(), mode, &mut |_| ControlFlow::Continue(())).unwrap();
            assert!(storage.lock(0..60_000).is_err());
            assert!(storage.lock(5..5).is_ok());
            if lockable_bytes().is_some_and(|bytes| bytes < 60_000) {
                continue; // Not even this much is allowed here.
            }
            if cfg!(any(target_os = "linux", target_os = "macos", windows)) {
                storage.lock(100..40_000).unwrap();
            }
            assert_eq!(storage.bytes(0..50_000).unwrap(), [7u8; 50_000]);
        }
    }
}
