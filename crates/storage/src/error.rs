use std::io;
use std::path::{Path, PathBuf};

use modelembed_gguf::shown_path;

/// Why a file's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No file of this name.
    #[error("Model file not found: {}", shown_path(path))]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A link whose target does not exist.
    #[error(
        "Model file not found: {}\n  it is a link to {}, which does not exist",
        shown_path(path),
        shown_path(target)
    )]
    DanglingLink {
        /// The link.
        path: PathBuf,
        /// What it points to, as the link says it.
        target: PathBuf,
    },
    /// The file may not be read.
    #[error(
        "permission denied: {}\n  make the file readable for this user (chmod +r), and its folders searchable (chmod +x)",
        shown_path(path)
    )]
    PermissionDenied {
        /// The path.
        path: PathBuf,
    },
    /// A folder, not a file.
    #[error("{} is a directory; name a .gguf file in it", shown_path(path))]
    IsDirectory {
        /// The path.
        path: PathBuf,
    },
    /// A pipe, a socket or a device.
    #[error(
        "{} is {found}, not a regular file; a model must be a file that can be mapped and read anywhere",
        shown_path(path)
    )]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file without bytes.
    #[error("{} is empty (0 bytes); was the download interrupted?", shown_path(path))]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused to map the file.
    #[error("mmap failed: {}: {source}", shown_path(path))]
    MapFailed {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file ended before all of its bytes were read.
    #[error(
        "{} ended at byte {at} while it was read; it had {wanted} bytes when it was opened\n  wait until nothing writes to it, then try again",
        shown_path(path)
    )]
    Shrunk {
        /// The path.
        path: PathBuf,
        /// Where it ended.
        at: u64,
        /// Its length before.
        wanted: u64,
    },
    /// Reading failed.
    #[error("cannot read {}: {source}", shown_path(path))]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A part of the file that does not stay in memory could not be read again.
    #[error(
        "cannot read {} at byte {offset}: {source}\n  the model is larger than the memory it may use, so parts of it are read for every token",
        shown_path(path)
    )]
    StreamRead {
        /// The path.
        path: PathBuf,
        /// Where in the file the read began.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A range that was to be loaded does not lie within the file.
    #[error("bytes {start}..{end} of {} do not exist: the file has {file_bytes} bytes", shown_path(path))]
    OutOfRange {
        /// The path.
        path: PathBuf,
        /// Where the range begins.
        start: u64,
        /// Where it ends.
        end: u64,
        /// Length of the file.
        file_bytes: u64,
    },
    /// A private copy wants more memory than there is. Nothing was allocated.
    #[error(
        "not enough memory for a private copy of {}: {wanted_bytes} bytes wanted, {available_bytes} available",
        shown_path(path)
    )]
    OutOfMemory {
        /// The path.
        path: PathBuf,
        /// Bytes asked for.
        wanted_bytes: u64,
        /// Bytes that could be had.
        available_bytes: u64,
    },
    /// The operating system refused memory for a private copy, a resource limit (`ulimit -v`, `-d`)
    /// for example.
    #[error("cannot get {wanted_bytes} bytes of memory for a private copy of {}: {source}", shown_path(path))]
    CopyRefused {
        /// The path.
        path: PathBuf,
        /// Bytes asked for.
        wanted_bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system refused to reserve memory.
    #[error("cannot reserve {wanted_bytes} bytes of memory: {source}")]
    Reserve {
        /// Bytes asked for.
        wanted_bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// More parts of the file are wanted at once than there is memory for.
    #[error(
        "{n_items} parts of the model are wanted in memory together, and {budget_bytes} bytes have no room for them"
    )]
    NoSlot {
        /// Parts that were wanted.
        n_items: usize,
        /// Memory for all of them.
        budget_bytes: u64,
    },
    /// The progress callback ended the loading.
    #[error("loading was cancelled")]
    Cancelled,
}

impl StorageError {
    /// The error for a failed operation on `path`, named as precisely as the system's answer
    /// allows.
    pub(crate) fn io(path: &Path, source: io::Error) -> StorageError {
        match source.kind() {
            io::ErrorKind::NotFound => match std::fs::read_link(path) {
                Ok(target) => StorageError::DanglingLink { path: path.to_owned(), target },
                Err(_) => StorageError::NotFound { path: path.to_owned() },
            },
            // A part of the path is a file where a folder is wanted.
            io::ErrorKind::NotADirectory => StorageError::NotFound { path: path.to_owned() },
            io::ErrorKind::PermissionDenied => StorageError::PermissionDenied { path: path.to_owned() },
            _ => StorageError::Io { path: path.to_owned(), source },
        }
    }
}
