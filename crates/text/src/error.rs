//! What can be wrong with a vocabulary or a text.

/// Why a tokenizer cannot be built, or a text cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A metadata key that every vocabulary of this kind has is not in the file.
    #[error("metadata key {key} is missing: the file holds no complete vocabulary")]
    MissingKey {
        /// The GGUF metadata key.
        key: &'static str,
    },
}
