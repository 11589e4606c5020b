//! Hashing and copying ranges of files in constant memory, with progress.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{ControlFlow, Range};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::PackedError;

/// How far the work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done.
    pub done_bytes: u64,
    /// Bytes to do.
    pub total_bytes: u64,
}

/// Bytes between two calls of the progress function: hashed from the page cache that the copy then
/// finds warm.
const STEP_BYTES: u64 = 8 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// Counts what was done and tells.
pub(crate) struct Counter<'a> {
    now: Progress,
    tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(total_bytes: u64, tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>) -> Counter<'a> {
        Counter { now: Progress { done_bytes: 0, total_bytes }, tell }
    }

    fn add(&mut self, bytes: u64) -> Result<(), PackedError> {
        self.now.done_bytes += bytes;
        match (self.tell)(self.now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(PackedError::Cancelled),
        }
    }
}

/// Hashes a range of a file.
pub(crate) fn hash_range(
    file: &mut File,
    path: &Path,
    range: Range<u64>,
    counter: &mut Counter<'_>,
) -> Result<Sha256, PackedError> {
    each_step(file, path, range, counter, |_, _| Ok(()))
}

/// Appends a range of a file to another, and hashes it. The system copies where it can: without
/// passing the bytes through this program, or by sharing the disk's blocks.
pub(crate) fn copy_range(
    file: &mut File,
    path: &Path,
    range: Range<u64>,
    (out, out_path): (&mut File, &Path),
    counter: &mut Counter<'_>,
) -> Result<Sha256, PackedError> {
    let read_failed = |source| PackedError::Read { path: path.to_owned(), source };
    let write_failed = |source| PackedError::Write { path: out_path.to_owned(), source };
    each_step(file, path, range, counter, |file, step| {
        file.seek(SeekFrom::Start(step.start)).map_err(read_failed)?;
        // What fails here has just been read without an error: it is the writing.
        let copied = io::copy(&mut file.take(step.end - step.start), out).map_err(write_failed)?;
        if copied == step.end - step.start { Ok(()) } else { Err(PackedError::SourceChanged { path: path.to_owned() }) }
    })
}

/// Hashes a range step by step, and does something with each step after it was read.
fn each_step(
    file: &mut File,
    path: &Path,
    range: Range<u64>,
    counter: &mut Counter<'_>,
    mut then: impl FnMut(&mut File, Range<u64>) -> Result<(), PackedError>,
) -> Result<Sha256, PackedError> {
    let failed = |source| PackedError::Read { path: path.to_owned(), source };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + STEP_BYTES);
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut left = end - at;
        while left > 0 {
            let piece = &mut buffer[..BUFFER_BYTES.min(usize::try_from(left).unwrap_or(BUFFER_BYTES))];
            file.read_exact(piece).map_err(failed)?;
            hash.update(&*piece);
            left -= piece.len() as u64;
        }
        then(file, at..end)?;
        counter.add(end - at)?;
        at = end;
    }
    Ok(hash)
}

/// Writes zeros up to a place in a file.
pub(crate) fn pad_to(out: &mut File, wanted: u64) -> io::Result<()> {
    let at = out.stream_position()?;
    io::copy(&mut io::repeat(0).take(wanted.saturating_sub(at)), out)?;
    Ok(())
}

/// Appends bytes.
pub(crate) fn append(out: &mut File, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)
}
