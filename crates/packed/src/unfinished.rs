//! A file that has no name of its own until it is complete, and vanishes if it never is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::copy::{append, pad_to};
use crate::error::PackedError;

/// A file that is being written. On Linux, where the file system can, it has no name at all, so
/// that nothing is left of it even if the process is killed; elsewhere it has a hidden one, which
/// is removed unless the process is killed.
pub(crate) struct Unfinished {
    pub file: File,
    pub output: PathBuf,
    /// A name beside the output's that nothing else has.
    temporary: PathBuf,
    is_named: bool,
    overwrite: bool,
}

impl Unfinished {
    /// # Errors
    /// An output that is there already (unless it may be replaced), or that no regular file can
    /// have the name of.
    pub fn begin(output: &Path, overwrite: bool, executable: bool) -> Result<Unfinished, PackedError> {
        let refuse = |problem: &str| Err(PackedError::Output { path: output.to_owned(), problem: problem.into() });
        let Some(name) = output.file_name() else { return refuse("that is no file name") };
        match fs::symlink_metadata(output) {
            Ok(metadata) if metadata.is_dir() => return refuse("it is a folder"),
            Ok(_) if !overwrite => return Err(PackedError::Exists { path: output.to_owned() }),
            Ok(metadata) if !metadata.is_file() && !metadata.is_symlink() => return refuse("it is no regular file"),
            _ => {}
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.unfinished", std::process::id()));
        let temporary = output.with_file_name(hidden);
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (file, is_named) = match create_nameless(folder, executable) {
            Some(file) => (file, false),
            None => {
                let file = create(&temporary, executable)
                    .map_err(|source| PackedError::Write { path: output.to_owned(), source })?;
                (file, true)
            }
        };
        Ok(Unfinished { file, output: output.to_owned(), temporary, is_named, overwrite })
    }

    fn failed(&self, source: io::Error) -> PackedError {
        PackedError::Write { path: self.output.clone(), source }
    }

    pub fn pad_to(&mut self, wanted: u64) -> Result<(), PackedError> {
        pad_to(&mut self.file, wanted).map_err(|e| self.failed(e))
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), PackedError> {
        append(&mut self.file, bytes).map_err(|e| self.failed(e))
    }

    /// Makes sure that the bytes are on the disk, then gives the file its name.
    ///
    /// # Errors
    /// A write that fails, and a file that has the name meanwhile.
    pub fn finish(mut self) -> Result<(), PackedError> {
        self.file.sync_all().map_err(|e| self.failed(e))?;
        if !self.overwrite {
            // Unlike a renaming, a link never replaces what came to stand there meanwhile.
            match self.link(&self.output) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(PackedError::Exists { path: self.output.clone() });
                }
                Err(_) if fs::symlink_metadata(&self.output).is_ok() => {
                    return Err(PackedError::Exists { path: self.output.clone() });
                }
                Err(e) if !self.is_named => return Err(self.failed(e)),
                Err(_) => {} // A file system without links.
            }
        }
        if !self.is_named {
            self.link(&self.temporary).map_err(|e| self.failed(e))?;
            self.is_named = true;
        }
        fs::rename(&self.temporary, &self.output).map_err(|e| self.not_replaced(e))
    }

    /// Windows replaces no file that a program runs from or has mapped, and says of it no more than
    /// that access is denied.
    fn not_replaced(&self, source: io::Error) -> PackedError {
        if !cfg!(windows) || source.kind() != io::ErrorKind::PermissionDenied || !self.overwrite {
            return self.failed(source);
        }
        let problem =
            "Windows does not replace a program that is running, or a file that is open: end it, or give another name";
        PackedError::Output { path: self.output.clone(), problem: problem.into() }
    }

    fn link(&self, name: &Path) -> io::Result<()> {
        if self.is_named { fs::hard_link(&self.temporary, name) } else { name_it(&self.file, name) }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_named {
            // It has no such name any more if it was finished.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn permissions(executable: bool) -> u32 {
    if executable { 0o777 } else { 0o666 }
}

fn create(path: &Path, executable: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, permissions(executable));
    #[cfg(not(unix))]
    let _ = permissions(executable); // The name's ending says it.
    options.open(path)
}

/// A file without a name in a folder's file system, if that can make one and a name can be given to
/// it afterwards.
#[cfg(target_os = "linux")]
fn create_nameless(folder: &Path, executable: bool) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    let mode = Mode::from_raw_mode(permissions(executable));
    let file = File::from(rustix::fs::open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode).ok()?);
    descriptor(&file).exists().then_some(file)
}

#[cfg(target_os = "linux")]
fn name_it(file: &File, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    Ok(rustix::fs::linkat(CWD, descriptor(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// An open file as a path, which only /proc has.
#[cfg(target_os = "linux")]
fn descriptor(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)).into()
}

#[cfg(not(target_os = "linux"))]
fn create_nameless(_: &Path, _: bool) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn name_it(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
