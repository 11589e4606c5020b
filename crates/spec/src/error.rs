/// Why a file does not describe a model that is known.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of the metadata is missing, or its value cannot be used.
    #[error("metadata {key}: {problem}")]
    Metadata {
        /// The GGUF key.
        key: String,
        /// What was seen and what was wanted.
        problem: String,
    },

    /// The architecture is not among those that are known.
    #[error("unknown architecture \"{name}\"{}; known are {known}", as_those_of(*resembles))]
    UnknownArchitecture {
        /// The value of `general.architecture`.
        name: String,
        /// The one whose keys and tensors the file's are but for the name, if there is one; the
        /// model may still compute otherwise.
        resembles: Option<&'static str>,
        /// Names of all architectures that run.
        known: String,
    },

    /// A key asks for a way of computing that is not known.
    #[error("unsupported: {key} is {seen}, wanted {wanted}")]
    Unsupported {
        /// The GGUF key.
        key: String,
        /// Its value.
        seen: String,
        /// Values that are known.
        wanted: String,
    },

    /// The architecture is known, but a part of it cannot be computed.
    #[error("unsupported: {part} (architecture {arch})")]
    NotRun {
        /// The architecture.
        arch: &'static str,
        /// What has no steps.
        part: &'static str,
    },

    /// A tensor that the architecture needs is not in the file.
    #[error("tensor {name} is missing (architecture {arch})")]
    MissingTensor {
        /// Name in the GGUF directory.
        name: String,
        /// The architecture that needs it.
        arch: &'static str,
    },

    /// A tensor has another shape than the metadata implies.
    #[error("tensor {name} has shape {seen:?}, wanted {wanted:?} (row length first)")]
    TensorShape {
        /// Name in the GGUF directory.
        name: String,
        /// Dimensions in the file, innermost first.
        seen: Vec<u64>,
        /// Dimensions that the metadata implies, innermost first.
        wanted: Vec<u64>,
    },

    /// The file holds a tensor that the architecture does not have.
    #[error(
        "tensor {name} is no part of architecture {arch} as this library knows it; running without it would give wrong text"
    )]
    UnusedTensor {
        /// Name in the GGUF directory.
        name: String,
        /// The architecture.
        arch: &'static str,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn as_those_of(arch: Option<&str>) -> String {
    arch.map_or(String::new(), |arch| format!(", whose keys and tensors are like those of {arch}"))
}
