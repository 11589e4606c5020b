use std::io;
use std::path::{Path, PathBuf};

/// Why a file's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No file of this name.
    #[error("Model file not found: {}\n  check the path, or name another file with -model", .0.display())]
    NotFound(PathBuf),
    /// The file may not be read.
    #[error("permission denied: {}\n  make the file readable for this user (chmod +r)", .0.display())]
    PermissionDenied(PathBuf),
    /// A folder, not a file.
    #[error("{} is a directory; name a .gguf file in it", .0.display())]
    IsDirectory(PathBuf),
    /// A pipe, a socket or a device.
    #[error("{} is {found}, not a regular file; a model must be a file that can be mapped and read anywhere", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file without bytes.
    #[error("{} is empty (0 bytes); was the download interrupted?", .0.display())]
    Empty(PathBuf),
    /// The operating system refused to map the file.
    #[error("mmap failed: {}: {source}\n  try -mmap=false, which reads the file instead", path.display())]
    MapFailed {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file ended before all of its bytes were read.
    #[error("{} ended at byte {at} while it was read; it had {wanted} bytes when it was opened", path.display())]
    Shrunk {
        /// The path.
        path: PathBuf,
        /// Where it ended.
        at: u64,
        /// Its length before.
        wanted: u64,
    },
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// More memory was wanted than there is.
    #[error("not enough memory for {what}: {wanted_bytes} bytes wanted, {available_bytes} available")]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// Bytes asked for.
        wanted_bytes: u64,
        /// Bytes that could be had.
        available_bytes: u64,
    },
    /// The operating system refused to reserve memory.
    #[error("cannot reserve {wanted_bytes} bytes of memory: {source}")]
    Reserve {
        /// Bytes asked for.
        wanted_bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The progress callback ended the loading.
    #[error("loading was cancelled")]
    Cancelled,
}

impl StorageError {
    /// The error for a failed operation on `path`, named as precisely as the system's answer allows.
    pub(crate) fn io(path: &Path, source: io::Error) -> StorageError {
        match source.kind() {
            io::ErrorKind::NotFound => StorageError::NotFound(path.to_owned()),
            io::ErrorKind::PermissionDenied => StorageError::PermissionDenied(path.to_owned()),
            _ => StorageError::Io { path: path.to_owned(), source },
        }
    }
}
