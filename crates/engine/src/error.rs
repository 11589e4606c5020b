use std::path::PathBuf;

use modelembed_gguf::{TensorType, shown_path};
use modelembed_storage::StorageError;
use modelembed_text::TextError;

use crate::gpu::error::GpuError;
use crate::run::saved::error::SavedError;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened, mapped or read.
    #[error(transparent)]
    Storage(#[from] StorageError),

    /// The file is no usable GGUF file.
    #[error("{}: {source}", shown_path(path))]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: modelembed_gguf::Error,
    },

    /// A model was packed into the file, but is not as it was packed.
    #[error("{}: {source}", shown_path(path))]
    Packed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: modelembed_packed::PackedError,
    },

    /// The file is of another kind, recognised by its first bytes.
    #[error("{} is not a GGUF file: {found}", shown_path(path))]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What its first bytes say it is.
        found: String,
    },

    /// The metadata or the tensors describe no model that this library runs.
    #[error(transparent)]
    Spec(#[from] modelembed_spec::Error),

    /// A tensor has a type that cannot be computed with in its place.
    #[error("tensor {name} has type {seen}; {wanted}")]
    TensorType {
        /// Name in the GGUF directory.
        name: String,
        /// The type in the file.
        seen: TensorType,
        /// What can be used.
        wanted: String,
    },

    /// The tokenizer could not be built, or a text could not be encoded.
    #[error(transparent)]
    Text(#[from] TextError),

    /// A chat template failed.
    #[error(transparent)]
    Template(#[from] modelembed_text::chat::TemplateError),

    /// More tokens than the context holds.
    #[error("the context is full: {used} tokens are in it, {wanted} more were to be added, it holds {capacity}")]
    ContextFull {
        /// Tokens in the context.
        used: usize,
        /// Tokens that were to be added.
        wanted: usize,
        /// Size of the context.
        capacity: usize,
    },

    /// No memory is left for keys and values.
    #[error(
        "no memory is left for keys and values: {used_bytes} of {budget_bytes} bytes are in use, {wanted_bytes} more were wanted"
    )]
    OutOfPages {
        /// Bytes that all contexts use.
        used_bytes: u64,
        /// Bytes that were wanted besides.
        wanted_bytes: u64,
        /// Bytes that they may use.
        budget_bytes: u64,
    },

    /// An engine's pages are all in use.
    #[error(
        "all {pages} pages of keys and values are in use, which have room for {tokens} tokens of the engine's contexts"
    )]
    NoFreePage {
        /// Pages of a group of layers.
        pages: usize,
        /// Tokens that they have room for.
        tokens: usize,
    },

    /// A context cannot be taken back: layers that look at a window forgot what is far behind it,
    /// and recurrences what they took in.
    #[error("a context of {used} tokens cannot go on behind {len} of them: what its layers need there is forgotten")]
    CannotReturn {
        /// Tokens that were to be left, or that stand before those that were to be removed.
        len: usize,
        /// Tokens in the context.
        used: usize,
    },

    /// An engine holds as many sequences as it can.
    #[error("there are {capacity} sequences, as many as the engine holds")]
    TooManySequences {
        /// Sequences that it holds at most.
        capacity: usize,
    },

    /// A sequence that has ended, or one of another engine.
    #[error("the engine has no such sequence")]
    NoSuchSequence,

    /// A batch names a sequence twice.
    #[error("run {run} of a batch names the sequence of another run")]
    SequenceTwice {
        /// The second of the two.
        run: usize,
    },

    /// Layers on a GPU, whose keys and values are not in pages.
    #[error("{what} needs all layers on the CPU")]
    NotOnGpu {
        /// What was to be done.
        what: &'static str,
    },

    /// A saved context cannot be used.
    #[error("{}{source}", path.as_ref().map_or(String::new(), |path| format!("{}: ", shown_path(path))))]
    Saved {
        /// The file, where it is one.
        path: Option<PathBuf>,
        /// What is wrong with it.
        source: SavedError,
    },

    /// A token id outside the vocabulary.
    #[error("token {id} is outside the vocabulary of {n_vocab} tokens")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        n_vocab: usize,
    },

    /// Nothing can be chosen: the weights hold infinities, NaNs, or numbers that overflow when they
    /// are computed with.
    #[error(
        "none of the {n_vocab} logits after {n_tokens} tokens is a number: the file holds weights that are none, or too large"
    )]
    NoLogitIsANumber {
        /// Tokens in the vocabulary.
        n_vocab: usize,
        /// Tokens that these logits follow.
        n_tokens: usize,
    },

    /// An option has a value that cannot be used.
    #[error("{0}")]
    InvalidOption(String),

    /// An option of the sampler has a value that cannot be used.
    #[error(transparent)]
    Sampler(#[from] crate::run::sampler::InvalidSamplerOption),

    /// Layers cannot be computed on a GPU.
    #[error(transparent)]
    Gpu(#[from] GpuError),

    /// The model could not be locked in memory as a whole.
    #[error("only {locked_bytes} of {wanted_bytes} bytes can be locked in memory: {reason}")]
    NotLocked {
        /// Bytes that could be locked.
        locked_bytes: u64,
        /// Bytes that were to be.
        wanted_bytes: u64,
        /// What ended it.
        reason: String,
    },

    /// The caller's cancel flag was set.
    #[error("cancelled")]
    Cancelled,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<SavedError> for Error {
    fn from(source: SavedError) -> Error {
        Error::Saved { path: None, source }
    }
}
