use std::io;
use std::path::PathBuf;

use modelembed_gguf::shown_path;

/// Why a packed file cannot be used or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// There is a program and the beginning of a model, but not the end that describes it.
    #[error(
        "a model was packed into this program, but the end of the file is missing or changed: it has {file_bytes} bytes; it was \
         cut off, or something was appended\n  get or pack the file again"
    )]
    EndMissing {
        /// Length of the file.
        file_bytes: u64,
    },
    /// The description or a part of the model is not what it was when it was packed.
    #[error(
        "a model was packed into this program, but the file was changed since: {problem}\n  get or pack the file again"
    )]
    Changed {
        /// What is another.
        problem: String,
    },
    /// Made by a later version of this program.
    #[error("the model was packed by another version of modelembed (format {seen}, this one knows {wanted})")]
    Version {
        /// The file's format.
        seen: u32,
        /// The only one that is read.
        wanted: u32,
    },
    /// Reading failed.
    #[error("cannot read {}: {source}", shown_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Writing failed. Nothing is left behind.
    #[error("cannot write {}: {source}", shown_path(path))]
    Write {
        /// The file that was to be made.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file to be made is there already.
    #[error("{} is there already", shown_path(path))]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file to be made cannot be made there.
    #[error("cannot write {}: {problem}", shown_path(path))]
    Output {
        /// The file that was to be made.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// What was to be packed changed meanwhile.
    #[error("{} changed while it was copied; nothing was written", shown_path(path))]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// What was to be packed does not fit into the format.
    #[error("cannot pack this: {problem}")]
    Unfit {
        /// Why not.
        problem: String,
    },
    /// The progress callback ended the work. Nothing is left behind.
    #[error("cancelled; nothing was written")]
    Cancelled,
}

pub(crate) fn changed(problem: String) -> PackedError {
    PackedError::Changed { problem }
}

pub(crate) fn unfit(problem: String) -> PackedError {
    PackedError::Unfit { problem }
}
