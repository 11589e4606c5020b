use std::path::PathBuf;

use modelembed_gguf::{TensorType, shown_path};
use modelembed_kernels::Isa;
use modelembed_storage::{StorageError, StreamReader};
use modelembed_terms::CacheType;
use modelembed_text::TextError;

use crate::gpu::error::GpuError;
use crate::residency::plan::Plan;
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
    #[error("{option} is {seen}, wanted {wanted}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value it has.
        seen: String,
        /// The values it can have.
        wanted: String,
    },

    /// An instruction set was asked for that the CPU does not have.
    #[error("this CPU does not have the instruction set {wanted}; it has {}", names(has))]
    InstructionSet {
        /// What was asked for.
        wanted: Isa,
        /// What there is.
        has: Vec<Isa>,
    },

    /// A memory budget was asked for in which the model cannot run.
    #[error("the budget of memory is too small: {plan}")]
    BudgetTooSmall {
        /// What was planned.
        plan: Box<Plan>,
    },

    /// A way of streaming was asked for that the system refuses.
    #[error("streaming by {} was asked for, but is refused: {source}", reader.name())]
    ReaderRefused {
        /// What was asked for.
        reader: StreamReader,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The model's heads do not fit the type that keys and values were to be stored in.
    #[error("{} in the cache need heads of {wanted} elements; this model's have {head_dim}", cache_type.name())]
    CacheHead {
        /// What was asked for.
        cache_type: CacheType,
        /// Elements of the model's heads.
        head_dim: usize,
        /// What the type takes.
        wanted: &'static str,
    },

    /// Keys and values of a context that memory cannot be addressed for.
    #[error("a context of {tokens} tokens is too large")]
    ContextTooLarge {
        /// Its tokens.
        tokens: usize,
    },

    /// Recurrent states of sequences that memory cannot be addressed for.
    #[error("the recurrent states of {sequences} sequences are too large")]
    StatesTooLarge {
        /// Sequences that were to be held.
        sequences: usize,
    },

    /// Nothing was to be evaluated.
    #[error("no tokens to evaluate")]
    NoTokens,

    /// Tokens that the context does not have were to be removed or forked.
    #[error("a context of {used} tokens has no tokens {start}..{end}")]
    NoSuchTokens {
        /// The first of them.
        start: usize,
        /// The one behind the last.
        end: usize,
        /// Tokens in the context.
        used: usize,
    },

    /// A saved context was to be restored into one that is in use.
    #[error("a context is restored into an empty one; this one has {used} tokens")]
    ContextInUse {
        /// Tokens in the context.
        used: usize,
    },

    /// A saved chat was to be restored into one that has begun.
    #[error("a chat is restored before it begins; this one has {messages} messages")]
    ChatHasBegun {
        /// Messages of the chat.
        messages: usize,
    },

    /// A note is too long to be saved with a context.
    #[error("a note of {seen_bytes} bytes is too long; wanted at most {most_bytes}")]
    NoteTooLong {
        /// Its length.
        seen_bytes: u64,
        /// How long it may be.
        most_bytes: u64,
    },

    /// Pages of keys and values do not fit what they are for.
    #[error(transparent)]
    Page(#[from] PageError),

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

/// Why pages of keys and values cannot be [attached](crate::Engine::attach) or
/// [imported](crate::Engine::import).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// A page of another engine.
    #[error("page {number} of keys and values is of another engine")]
    OtherEngine {
        /// Its place among those that were given.
        number: usize,
    },

    /// A page in another page's place.
    #[error("page {seen} of keys and values comes where page {wanted} was wanted")]
    OutOfOrder {
        /// The page that was given.
        seen: usize,
        /// The page of this place.
        wanted: usize,
    },

    /// More or fewer tokens than the pages hold.
    #[error("{pages} pages hold {wanted} tokens, not {seen}")]
    Tokens {
        /// Pages that were given.
        pages: usize,
        /// Tokens that were given.
        seen: usize,
        /// Tokens that these pages hold.
        wanted: usize,
    },

    /// Bytes for other parts (groups of layers, records) than the engine's pages have.
    #[error("a page has {seen} parts, wanted {wanted}")]
    Parts {
        /// Parts that were given.
        seen: usize,
        /// Parts that there are.
        wanted: usize,
    },

    /// Bytes of another length than a page has.
    #[error("a page of keys and values has {seen_bytes} bytes, wanted {wanted_bytes}")]
    Length {
        /// Bytes that were given.
        seen_bytes: usize,
        /// Bytes of a page.
        wanted_bytes: usize,
    },
}

impl Error {
    /// An option that is 0 and must not be.
    pub(crate) fn zero(option: &'static str) -> Error {
        Error::InvalidOption { option, seen: "0".into(), wanted: "at least 1".into() }
    }
}

fn names(isas: &[Isa]) -> String {
    isas.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<SavedError> for Error {
    fn from(source: SavedError) -> Error {
        Error::Saved { path: None, source }
    }
}
