//! NumPy's file format, version 1.0: a header that tells type and shape, then the numbers.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A matrix of float32 that is written row by row. There is the whole file in the end or none: it
/// has another name until then, unless it goes to a pipe or a device.
pub struct NpyFile {
    out: BufWriter<Target>,
    path: PathBuf,
}

enum Target {
    Temporary(NamedTempFile),
    Direct(File),
}

impl NpyFile {
    pub fn create(path: &Path, n_rows: usize, n_cols: usize) -> Result<NpyFile> {
        let cannot = || format!("cannot write {}", path.display());
        let is_special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
        let target = if is_special {
            Target::Direct(File::options().write(true).open(path).with_context(cannot)?)
        } else {
            anyhow::ensure!(!path.is_dir(), "cannot write {}: it is a folder", path.display());
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Target::Temporary(temporary().tempfile_in(folder).with_context(cannot)?)
        };
        let mut out = BufWriter::with_capacity(1 << 20, target);
        out.write_all(&header(n_rows, n_cols)).with_context(cannot)?;
        Ok(NpyFile { out, path: path.to_owned() })
    }

    pub fn row(&mut self, values: &[f32]) -> std::io::Result<()> {
        values.iter().try_for_each(|x| self.out.write_all(&x.to_le_bytes()))
    }

    /// Gives the file its name.
    pub fn finish(self) -> Result<()> {
        let NpyFile { out, path } = self;
        let cannot = || format!("cannot write {}", path.display());
        match out.into_inner().map_err(|error| error.into_error()).with_context(cannot)? {
            Target::Temporary(file) => drop(file.persist(&path).map_err(|error| error.error).with_context(cannot)?),
            Target::Direct(_) => {}
        }
        Ok(())
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Target::Temporary(file) => file.write(bytes),
            Target::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Target::Temporary(file) => file.flush(),
            Target::Direct(file) => file.flush(),
        }
    }
}

fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".logits");
    // As any new file, not for the owner alone: the system takes off what the user's mask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// Magic bytes, version, length, and a Python dictionary, filled up so that the numbers begin at a
/// multiple of 64.
fn header(n_rows: usize, n_cols: usize) -> Vec<u8> {
    const ALIGN: usize = 64;
    let mut dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {n_cols}), }}");
    let before = b"\x93NUMPY\x01\x00".len() + 2;
    let len = (before + dictionary.len() + 1).next_multiple_of(ALIGN) - before;
    dictionary.push_str(&" ".repeat(len - 1 - dictionary.len()));
    dictionary.push('\n');
    // Two numbers of at most 20 digits: far below what 16 bits count.
    let n = dictionary.len() as u16;
    [b"\x93NUMPY\x01\x00", &n.to_le_bytes()[..], dictionary.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_aligned_and_say_their_own_length() {
        for (rows, cols) in [(1, 1), (12, 49152), (usize::MAX, usize::MAX), (123_456, 7)] {
            let header = header(rows, cols);
            assert_eq!(header.len() % 64, 0);
            let len = usize::from(u16::from_le_bytes([header[8], header[9]]));
            assert_eq!(len, header.len() - 10);
            let text = std::str::from_utf8(&header[10..]).unwrap();
            assert!(text.ends_with('\n') && text.contains(&format!("'shape': ({rows}, {cols})")), "{text:?}");
        }
    }
}
