//! Reading parts of a file, several at a time.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::StorageError;
use crate::os;

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were read.
    pub done_bytes: u64,
    /// Bytes that will be read.
    pub total_bytes: u64,
}

/// Bytes of one request: enough for a disk's full speed, few enough to share out, to report and to
/// cancel soon. One huge page of x86-64 and AArch64, so that no two readers fault the same one in.
const PIECE_BYTES: usize = 2 << 20;
/// Requests that are under way at once: what an SSD needs to be busy.
const READERS: u64 = 4;

/// A part of a file: its offset, and the memory that it goes to.
pub(crate) type Part<'a> = (u64, &'a mut [u8]);

/// What is read from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a File,
    pub(crate) path: &'a Path,
    /// Where the storage begins in the file: offsets count from there.
    pub(crate) start: u64,
    /// Length of the storage when it was opened, for messages.
    pub(crate) len: u64,
}

impl Source<'_> {
    /// Fills `out` from `offset` on, whatever number of reads it takes.
    pub(crate) fn fill(self, out: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let read = |out: &mut [u8], offset| os::read_at(self.file, out, offset);
        fill(out, self.start + offset, read).map_err(|stopped| match stopped {
            Stopped::End(at) => StorageError::Shrunk { path: self.path.to_owned(), at, wanted: self.start + self.len },
            Stopped::Error(source) => StorageError::io(self.path, source),
        })
    }

    /// Fills all parts, in their order, with several requests under way. `progress` is called on
    /// this thread; once it breaks, no further request is made.
    pub(crate) fn fill_parts(
        self,
        parts: Vec<Part<'_>>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let total_bytes: u64 = parts.iter().map(|(_, out)| out.len() as u64).sum();
        let pieces = Mutex::new(parts.into_iter().flat_map(|(offset, out)| {
            let pieces = out.chunks_mut(PIECE_BYTES).enumerate();
            pieces.map(move |(i, piece)| (offset + (i * PIECE_BYTES) as u64, piece))
        }));
        let (done, stop, failure) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
        let fail = |e| {
            stop.store(true, Ordering::Relaxed);
            lock(&failure).get_or_insert(e);
        };
        // Reads one piece; false when there is nothing left to do.
        let read_one = || {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            let Some((offset, piece)) = lock(&pieces).next() else { return false };
            match self.fill(piece, offset) {
                Ok(()) => drop(done.fetch_add(piece.len() as u64, Ordering::Relaxed)),
                Err(e) => fail(e),
            }
            true
        };
        std::thread::scope(|scope| {
            for _ in 1..READERS.min(total_bytes.div_ceil(PIECE_BYTES as u64)) {
                let helper = std::thread::Builder::new().name("read".into());
                if helper.spawn_scoped(scope, || while read_one() {}).is_err() {
                    break; // The readers that there are do the work.
                }
            }
            while read_one() {
                let now = Progress { done_bytes: done.load(Ordering::Relaxed), total_bytes };
                if progress(now).is_break() {
                    fail(StorageError::Cancelled);
                }
            }
        });
        match failure.into_inner().unwrap_or_else(|p| p.into_inner()) {
            Some(e) => Err(e),
            None => match progress(Progress { done_bytes: total_bytes, total_bytes }) {
                ControlFlow::Break(()) => Err(StorageError::Cancelled),
                ControlFlow::Continue(()) => Ok(()),
            },
        }
    }
}

/// Nothing that is guarded here can be left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[derive(Debug)]
enum Stopped {
    /// The file ends at this byte.
    End(u64),
    Error(io::Error),
}

/// Calls `read(out, offset)` until `out` is full: a read may be short, and a signal may interrupt
/// it.
fn fill(out: &mut [u8], offset: u64, mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> Result<(), Stopped> {
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read(rest, offset + done as u64) {
            Ok(0) => return Err(Stopped::End(offset + done as u64)),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Stopped::Error(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose reads go as the script says: a number of bytes, or an error.
    fn run(script: &[Result<usize, io::ErrorKind>]) -> (Result<(), Stopped>, Vec<u8>) {
        let file: Vec<u8> = (0..100).collect();
        let mut steps = script.iter();
        let mut out = [0; 10];
        let result = fill(&mut out, 50, |out, at| {
            let n = (*steps.next().expect("one read too many"))?.min(out.len());
            out[..n].copy_from_slice(&file[at as usize..][..n]);
            Ok(n)
        });
        assert!(steps.next().is_none(), "stopped early");
        (result, out.to_vec())
    }

    #[test]
    fn short_and_interrupted_reads_go_on() {
        use io::ErrorKind::Interrupted;
        let whole: Vec<u8> = (50..60).collect();
        for script in [&[Ok(10)][..], &[Ok(3), Ok(7)], &[Err(Interrupted), Ok(1), Err(Interrupted), Ok(8), Ok(99)]] {
            let (result, out) = run(script);
            assert!(result.is_ok() && out == whole, "{script:?}: {result:?} {out:?}");
        }
    }

    #[test]
    fn an_end_and_an_error_stop_the_reading() {
        let (result, _) = run(&[Ok(3), Ok(0)]);
        assert!(matches!(result, Err(Stopped::End(53))), "{result:?}");
        let (result, _) = run(&[Ok(3), Err(io::ErrorKind::TimedOut)]);
        assert!(matches!(&result, Err(Stopped::Error(e)) if e.kind() == io::ErrorKind::TimedOut), "{result:?}");
    }
}
