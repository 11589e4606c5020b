//! What can be wrong with a vocabulary or a text.

use modelembed_gguf as gguf;

/// Why a tokenizer cannot be built, or a text cannot be encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A metadata key that every vocabulary of this kind has is not in the file.
    #[error("metadata {key} is missing: the file holds no complete vocabulary")]
    MissingKey {
        /// The GGUF metadata key.
        key: &'static str,
    },
    /// The file holds no vocabulary, by its own word or because nothing names one: the model takes
    /// and gives token ids only.
    #[error(
        "the model has no vocabulary (metadata tokenizer.ggml.model is {}): it takes token ids and no text",
        seen.as_ref().map_or("missing".to_string(), |name| format!("{name:?}"))
    )]
    NoVocabulary {
        /// The name in the file.
        seen: Option<String>,
    },
    /// A value of the metadata has the wrong type.
    #[error("the vocabulary cannot be read: {0}")]
    Metadata(#[from] gguf::Error),
    /// `tokenizer.ggml.model` names a kind of vocabulary that is not supported.
    #[error("metadata tokenizer.ggml.model is {seen:?}, wanted one of {known}")]
    UnknownModel {
        /// The name in the file.
        seen: String,
        /// The names that are supported.
        known: String,
    },
    /// The list of tokens is empty, or longer than ids reach.
    #[error("metadata tokenizer.ggml.tokens has {seen} elements, wanted 1 to {most}")]
    VocabularySize {
        /// Tokens in the file.
        seen: usize,
        /// The bound.
        most: usize,
    },
    /// An array with one element a token is shorter than the list of tokens.
    #[error("metadata {key} has {seen} elements, wanted one for each of the {wanted} tokens")]
    ArrayLength {
        /// The GGUF metadata key.
        key: &'static str,
        /// Elements in the file.
        seen: usize,
        /// Tokens.
        wanted: usize,
    },
    /// A text is longer than positions in it can be counted.
    #[error("the text has {seen} bytes, wanted at most {most}")]
    TextTooLong {
        /// Bytes of the text.
        seen: usize,
        /// The bound.
        most: usize,
    },
}
