//! Finding a model in a file, and checking it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{ControlFlow, Range};
use std::path::Path;

use crate::copy::{Counter, Progress, hash_range};
use crate::error::{self, PackedError};
use crate::manifest::{ALIGNMENT, MAX_MANIFEST_BYTES, Manifest, Part, hex};
use crate::mark::{MARK_BYTES, Mark};

/// A program with a model. What it says of itself was checked against its hash and the file's
/// length; of the model's bytes nothing was read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    manifest: Manifest,
}

/// How far into a file without an end mark a front mark is looked for: a larger program would be a
/// strange one.
const SEARCHED_BYTES: u64 = 1 << 30;

impl Packed {
    /// Looks for a model in the file. `None` for files of any other kind, GGUF files among them,
    /// and for what cannot be opened: that is not this function's to report.
    ///
    /// # Errors
    /// A packed file that is not as it was made, or a read that fails.
    pub fn find(path: &Path) -> Result<Option<Packed>, PackedError> {
        // The kind is asked for before opening: to open a FIFO is to wait for its writer.
        if !std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(None);
        }
        let Ok(mut file) = File::open(path) else { return Ok(None) };
        Packed::find_in(&mut file, path)
    }

    /// As [`Packed::find`], in anything that can be read; `path` stands in errors.
    ///
    /// # Errors
    /// As [`Packed::find`].
    pub fn find_in(file: &mut (impl Read + Seek), path: &Path) -> Result<Option<Packed>, PackedError> {
        let failed = |source| PackedError::Read { path: path.to_owned(), source };
        let file_bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if file_bytes < MARK_BYTES as u64 {
            return Ok(None);
        }
        let mark_at = file_bytes - MARK_BYTES as u64;
        let end = read_mark(file, mark_at).map_err(failed)?;
        match Mark::read(&end)? {
            Some(Mark::End(manifest_bytes)) => {
                let at = mark_at.checked_sub(manifest_bytes).filter(|_| manifest_bytes <= MAX_MANIFEST_BYTES);
                let Some(at) = at else {
                    return Err(error::changed(format!("a description of {manifest_bytes} bytes")));
                };
                let mut json = vec![0; manifest_bytes as usize];
                read_at(file, at, &mut json).map_err(failed)?;
                if Mark::End(manifest_bytes).to_bytes(&json) != end {
                    return Err(error::changed("its description has another SHA-256".into()));
                }
                let manifest = Manifest::parse(&json, at).map_err(error::changed)?;
                let first = manifest.parts[0].offset; // there is one, and it is far enough behind the program
                let front = read_mark(file, first - MARK_BYTES as u64).map_err(failed)?;
                if front != Mark::Front(first).to_bytes(&[]) {
                    return Err(error::changed("the mark before the model is another".into()));
                }
                Ok(Some(Packed { manifest }))
            }
            _ if has_front_mark(file, file_bytes).map_err(failed)? => Err(PackedError::EndMissing { file_bytes }),
            _ => Ok(None),
        }
    }

    /// The executable in front.
    pub fn program_range(&self) -> Range<u64> {
        0..self.manifest.program.bytes
    }

    /// What lies where.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Hashes the program and all parts. `progress` is called in between and ends the work by
    /// breaking.
    ///
    /// # Errors
    /// What was changed since it was packed, by name; a read that fails; the callback's wish to
    /// end.
    pub fn check(&self, path: &Path, progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<(), PackedError> {
        let mut file = File::open(path).map_err(|source| PackedError::Read { path: path.to_owned(), source })?;
        let Manifest { program, parts, .. } = &self.manifest;
        let total_bytes = program.bytes + parts.iter().map(|part| part.bytes).sum::<u64>();
        let mut counter = Counter::new(total_bytes, progress);
        let mut check = |what: &str, range: Range<u64>, wanted: &str| {
            let seen = hex(hash_range(&mut file, path, range, &mut counter)?);
            if seen == wanted { Ok(()) } else { Err(changed(what, &seen, wanted)) }
        };
        check("the program", self.program_range(), &program.sha256)?;
        parts.iter().try_for_each(|part| check(&part.name, part.range(), &part.sha256))
    }
}

impl Part {
    /// Where it lies in the packed file.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes
    }

    /// Compares the part's GGUF header with its hash. `bytes` holds at least
    /// [`Part::header_bytes`].
    ///
    /// # Errors
    /// Another header.
    pub fn check_header(&self, bytes: &[u8]) -> Result<(), PackedError> {
        let header = usize::try_from(self.header_bytes).ok().and_then(|n| bytes.get(..n)).unwrap_or_default();
        let seen = crate::manifest::sha256_hex(header);
        let what = format!("the header of {}", self.name);
        if seen == self.header_sha256 { Ok(()) } else { Err(changed(&what, &seen, &self.header_sha256)) }
    }
}

pub(crate) fn changed(what: &str, seen: &str, wanted: &str) -> PackedError {
    error::changed(format!("{what} has the SHA-256 {seen}, wanted {wanted}"))
}

fn read_at(file: &mut (impl Read + Seek), at: u64, out: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(out)
}

fn read_mark(file: &mut (impl Read + Seek), at: u64) -> io::Result<[u8; MARK_BYTES]> {
    let mut mark = [0; MARK_BYTES];
    read_at(file, at, &mut mark)?;
    Ok(mark)
}

/// Whether a model begins somewhere in a file whose end does not say so: at a multiple of the
/// alignment.
fn has_front_mark(file: &mut (impl Read + Seek), file_bytes: u64) -> io::Result<bool> {
    let mut first = [0; 4];
    read_at(file, 0, &mut first)?;
    if first == *b"GGUF" {
        return Ok(false); // A model, not a program: not worth the search.
    }
    for end in (ALIGNMENT..=file_bytes.min(SEARCHED_BYTES)).step_by(ALIGNMENT as usize) {
        if read_mark(file, end - MARK_BYTES as u64)? == Mark::Front(end).to_bytes(&[]) {
            return Ok(true);
        }
    }
    Ok(false)
}
