//! Making the system forget a file's pages.

use std::fs::File;
use std::ops::Range;

use crate::advice::Advice;
use crate::error::StorageError;
use crate::os;
use crate::storage::Storage;

impl Storage {
    /// Asks the system to drop the pages of a range of a mapped file from its cache. Nothing is
    /// lost: pages come back from the disk when they are read. Those stay which another process
    /// maps; `false` where the system cannot be asked at all.
    ///
    /// # Errors
    /// The file can no longer be opened, or what was written to it cannot be brought to the disk
    /// first.
    pub fn evict(&self, range: Range<u64>) -> Result<bool, StorageError> {
        let Some(bytes) = self.bytes(range.clone()).filter(|b| !b.is_empty()) else { return Ok(false) };
        // What stands in a page table stays.
        self.advise(range.clone(), Advice::Release);
        let file = File::open(self.path()).map_err(|e| StorageError::io(self.path(), e))?;
        os::evict(&file, bytes, range.start + self.file_offset()..range.end + self.file_offset())
            .map_err(|e| StorageError::io(self.path(), e))
    }
}
