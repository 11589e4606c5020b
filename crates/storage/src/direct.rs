//! A file that is read past the page cache, where its file system lets it be.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::advice::Advice;
use crate::error::StorageError;
use crate::os;
use crate::storage::Storage;

/// Direct reads want addresses, offsets and lengths to be multiples of this.
pub(crate) const ALIGN_BYTES: u64 = 4096;

/// Has the maps of files read one page a fault, without large pages: reading ahead and around would
/// bring neighbours in that shall not stay, and they would displace what shall.
pub(crate) fn read_at_random(storages: &[&Storage]) {
    for all in storages.iter().filter_map(|storage| storage.mapped(&(0..storage.len()))) {
        os::refuse_huge_pages(all);
        os::advise(all, Advice::Random);
    }
}

/// A file of its own descriptor, so that how it is read is nobody else's matter.
pub(crate) struct DirectFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    is_direct: AtomicBool,
}

impl DirectFile {
    /// The file behind a mapping; `direct`: past the page cache, if it can be.
    ///
    /// # Errors
    /// A file that is not mapped, or the system's refusal.
    pub(crate) fn new(storage: &Storage, direct: bool) -> io::Result<DirectFile> {
        let file = storage.mapped_file().ok_or(io::ErrorKind::InvalidInput)?.try_clone()?;
        let is_direct = os::set_direct(&file, direct) && direct;
        if !is_direct {
            os::read_no_further(&file);
        }
        Ok(DirectFile { path: storage.path().to_owned(), file, is_direct: AtomicBool::new(is_direct) })
    }

    /// Fills `out`, or `least` bytes of it where the file ends there, from an offset of the file on.
    pub(crate) fn fill(&self, out: &mut [u8], least: usize, offset: u64) -> Result<(), StorageError> {
        let mut done = 0;
        while done < least {
            let (at, is_direct) = (offset + done as u64, self.is_direct.load(Ordering::Relaxed));
            done += self.take(os::read_at(&self.file, &mut out[done..], at), at, is_direct)?;
        }
        Ok(())
    }

    /// What one request at an offset read: bytes, and 0 if it is to be tried again. `was_direct` is
    /// what it was begun as.
    pub(crate) fn take(&self, result: io::Result<usize>, at: u64, was_direct: bool) -> Result<usize, StorageError> {
        let refusal = match result {
            Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before: it was cut short"),
            Ok(n) => return Ok(n),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => return Ok(0),
            // Some file systems take the flag and refuse the read; some end a direct read within a
            // block. Several requests may see it at once: each is tried again without, unless it
            // was without already.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && was_direct => {
                self.is_direct.store(false, Ordering::Relaxed);
                os::set_direct(&self.file, false);
                os::read_no_further(&self.file);
                return Ok(0);
            }
            Err(e) => e,
        };
        Err(StorageError::StreamRead { path: self.path.clone(), offset: at, source: refusal })
    }

    /// Lets the page cache forget a range, if it went through it.
    pub(crate) fn forget(&self, offset: u64, len: usize) {
        if !self.is_direct() {
            os::drop_cached(&self.file, offset, len as u64);
        }
    }

    /// Whether reads go past the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn of_test(is_direct: bool) -> DirectFile {
        DirectFile { path: "model".into(), file: tempfile::tempfile().unwrap(), is_direct: AtomicBool::new(is_direct) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_ends_with() {
        let os = |code: i32| Err(io::Error::from_raw_os_error(code));
        let refused = |code: i32| format!("{}", io::Error::from_raw_os_error(code));
        const EINTR: i32 = 4;
        const EIO: i32 = 5;
        const EINVAL: i32 = 22;
        // (result, begun as direct, bytes or error, still direct)
        let rows = [
            (Ok(100), true, Ok(100), true),
            (Ok(100), false, Ok(100), true),
            (Ok(0), true, Err("cut short".to_owned()), true),
            (Err(io::ErrorKind::Interrupted.into()), true, Ok(0), true),
            (Err(io::ErrorKind::WouldBlock.into()), true, Ok(0), true),
            (os(EIO), true, Err(refused(EIO)), true),
        ];
        // Windows numbers its refusals in another way.
        let unix = [
            (os(EINTR), true, Ok(0), true),
            (os(EINVAL), true, Ok(0), false),
            (os(EINVAL), false, Err(refused(EINVAL)), true),
        ];
        let rows = rows.into_iter().chain(unix.into_iter().filter(|_| cfg!(unix)));
        for (i, (result, was_direct, wanted, still)) in rows.enumerate() {
            let source = DirectFile::of_test(true);
            match (source.take(result, 4096, was_direct), wanted) {
                (Ok(n), Ok(wanted)) => assert_eq!(n, wanted, "row {i}"),
                (Err(e), Err(words)) => {
                    let text = e.to_string();
                    assert!(text.contains("model at byte 4096") && text.contains(&words), "row {i}: {text}");
                }
                (seen, wanted) => panic!("row {i}: {seen:?}, wanted {wanted:?}"),
            }
            assert_eq!(source.is_direct(), still, "row {i}");
        }
    }
}
