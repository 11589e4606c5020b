//! How fast a file's disk reads: a short measurement on the file itself.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::os;
use crate::region::Reserved;
use crate::storage::Storage;

/// Bytes of one request, as streaming makes them.
const PIECE_BYTES: u64 = 1 << 20;
/// Requests under way at once, as while streaming.
const READERS: usize = 8;
/// No request begins later than this.
const PROBING: Duration = Duration::from_millis(80);
/// No more than this is read, however fast the disk is.
const MOST_BYTES: u64 = 256 << 20;

/// What [`DiskSpeed::probe`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskSpeed {
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Bytes that were read for it.
    pub read_bytes: u64,
    /// Whether the reads went past the page cache. If not, only parts were read that the cache did
    /// not hold.
    pub is_direct: bool,
}

impl DiskSpeed {
    /// Reads a part of a mapped file for about 80 ms. `None` where that would not measure the disk:
    /// direct reads are refused (or are served from the cache, as on macOS) and the cache holds the
    /// file, or nobody knows what it holds; the file is too small; reading fails.
    pub fn probe(storage: &Storage) -> Option<DiskSpeed> {
        let pieces = (0..storage.len() / PIECE_BYTES).map(|i| i * PIECE_BYTES..(i + 1) * PIECE_BYTES);
        // Direct reads want offsets in the file that are whole blocks.
        let is_aligned = storage.file_offset().is_multiple_of(4096);
        if let Some(file) = os::open_direct(storage.path()).filter(|_| is_aligned) {
            let found = read(&file, storage.file_offset(), pieces.clone().collect());
            if let Some((read_bytes, bytes_per_second)) = found {
                return Some(DiskSpeed { bytes_per_second, read_bytes, is_direct: true });
            }
        }
        let absent = |piece: &Range<u64>| storage.residency(piece.clone()).is_some_and(|r| r.resident_bytes == 0);
        let most = (MOST_BYTES / PIECE_BYTES) as usize;
        let file = File::open(storage.path()).ok()?;
        let pieces: Vec<_> = pieces.filter(absent).take(most).collect();
        let (read_bytes, bytes_per_second) = read(&file, storage.file_offset(), pieces)?;
        Some(DiskSpeed { bytes_per_second, read_bytes, is_direct: false })
    }
}

/// Reads pieces with several threads until the time is over: bytes read, and bytes a second. `None`
/// if there are too few to tell, or where a read fails.
fn read(file: &File, file_offset: u64, pieces: Vec<Range<u64>>) -> Option<(u64, f64)> {
    if pieces.len() < READERS {
        return None;
    }
    let (next, done, failed) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    let work = || {
        // At the start of a page, as direct reads want it.
        let Ok(mut buffer) = Reserved::<u8>::zeroed(PIECE_BYTES as usize) else { return };
        while start.elapsed() < PROBING && done.load(Ordering::Relaxed) < MOST_BYTES {
            let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match os::read_at(file, &mut buffer, file_offset + piece.start) {
                Ok(n) if n > 0 => {
                    done.fetch_add(n as u64, Ordering::Relaxed);
                }
                _ => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..READERS {
            if std::thread::Builder::new().name("probe".into()).spawn_scoped(scope, work).is_err() {
                break; // The readers that there are do the work.
            }
        }
        work();
    });
    let (bytes, seconds) = (done.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    let is_enough = failed.load(Ordering::Relaxed) == 0 && bytes >= READERS as u64 * PIECE_BYTES / 2;
    is_enough.then_some((bytes, bytes as f64 / seconds.max(1e-6)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LoadMode;
    use std::ops::ControlFlow;

    #[test]
    fn a_probe_reads_no_more_than_it_may() {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        std::fs::write(file.path(), vec![1u8; 16 << 20]).unwrap();
        file.as_file().sync_all().unwrap();
        let storage = Storage::open(file.path(), LoadMode::Map, &mut |_| ControlFlow::Continue(())).unwrap();
        match DiskSpeed::probe(&storage) {
            None => eprintln!("skipped: this file system is no disk, or refuses direct reads"),
            Some(speed) => {
                assert!(speed.read_bytes <= 16 << 20 && speed.bytes_per_second > 0.0, "{speed:?}");
            }
        }
    }

    #[test]
    fn small_files_and_ranges_out_of_step_do_not_fail() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1u8; 9 << 20]).unwrap();
        let go_on = &mut |_| ControlFlow::Continue(());
        let odd = Storage::open_range(file.path(), 100..9 << 20, LoadMode::Map, go_on).unwrap();
        if let Some(speed) = DiskSpeed::probe(&odd) {
            assert!(!speed.is_direct, "{speed:?}");
        }
        let small = Storage::open_range(file.path(), 0..5000, LoadMode::Map, go_on).unwrap();
        assert_eq!(DiskSpeed::probe(&small), None);
    }
}
