//! Reading parts of a file, several at a time.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::StorageError;
use crate::os;
use crate::storage::Progress;

/// Large enough for a disk's full speed, small enough to share out and to cancel soon.
const PIECE_BYTES: usize = 4 << 20;
/// Requests that are under way at once: what an SSD needs to be busy.
const READERS: usize = 4;
/// How often progress is reported and cancellation looked for.
const REPORT_EVERY: Duration = Duration::from_millis(5);

/// Fills `out` from `offset` on, whatever number of reads it takes.
pub(crate) fn read_exact_at(
    file: &File,
    path: &Path,
    out: &mut [u8],
    offset: u64,
    file_bytes: u64,
) -> Result<(), StorageError> {
    let mut done = 0;
    while done < out.len() {
        match os::read_at(file, &mut out[done..], offset + done as u64) {
            Ok(0) => {
                return Err(StorageError::Shrunk {
                    path: path.to_owned(),
                    at: offset + done as u64,
                    wanted: file_bytes,
                });
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(StorageError::io(path, e)),
        }
    }
    Ok(())
}

/// Fills `out` with the file from `offset` on, with several readers. `done_before` and `total` are for the reports.
pub(crate) fn read_parallel(
    source: (&File, &Path, u64),
    out: &mut [u8],
    offset: u64,
    done_before: u64,
    total_bytes: u64,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    let (file, path, file_bytes) = source;
    let wanted = out.len() as u64;
    let pieces: Vec<Mutex<(u64, &mut [u8])>> = out
        .chunks_mut(PIECE_BYTES)
        .enumerate()
        .map(|(i, p)| Mutex::new((offset + (i * PIECE_BYTES) as u64, p)))
        .collect();
    let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let failure = Mutex::new(None);
    let lock = |m: &Mutex<Option<StorageError>>, e| *m.lock().unwrap_or_else(|p| p.into_inner()) = Some(e);
    let read = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let mut piece = piece.lock().unwrap_or_else(|p| p.into_inner());
            let (at, bytes) = &mut *piece;
            if let Err(e) = read_exact_at(file, path, bytes, *at, file_bytes) {
                stop.store(true, Ordering::Relaxed);
                lock(&failure, e);
            }
            done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS.min(pieces.len())).map(|_| scope.spawn(read)).collect();
        while !readers.iter().all(|r| r.is_finished()) {
            let now = Progress { done_bytes: done_before + done.load(Ordering::Relaxed), total_bytes };
            if progress(now).is_break() && !stop.swap(true, Ordering::Relaxed) {
                lock(&failure, StorageError::Cancelled);
            }
            // A short file is over before the first report.
            if wanted > PIECE_BYTES as u64 { std::thread::sleep(REPORT_EVERY) } else { std::thread::yield_now() }
        }
    });
    match failure.into_inner().unwrap_or_else(|p| p.into_inner()) {
        Some(e) => Err(e),
        None => match progress(Progress { done_bytes: done_before + wanted, total_bytes }) {
            ControlFlow::Break(()) => Err(StorageError::Cancelled),
            ControlFlow::Continue(()) => Ok(()),
        },
    }
}
