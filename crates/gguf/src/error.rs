/// Why bytes are no usable GGUF file. Offsets count from the start of the file.
///
/// Names out of the file are quoted with control characters escaped and long ones cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Only the given prefix is too short; the file itself may hold the rest of the header.
    #[error("the header goes on beyond the {have_bytes} bytes that were given; at least {needed_bytes} are needed")]
    HeaderTruncated {
        /// Bytes that were given.
        have_bytes: u64,
        /// Bytes of the file that the next try should have at least.
        needed_bytes: u64,
    },
    /// The file ends inside its header.
    #[error("the file ends at byte {file_bytes}, but {what} at byte {offset} needs {wanted} bytes")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it begins.
        offset: u64,
        /// How long it says it is.
        wanted: u64,
        /// Length of the file.
        file_bytes: u64,
    },
    /// The first four bytes are not `GGUF`.
    #[error("no GGUF file: it begins with {seen:02x?}, wanted \"GGUF\"")]
    Magic {
        /// The first bytes.
        seen: Vec<u8>,
    },
    /// A version that cannot be read, or one in the other byte order.
    #[error("GGUF version {0}; versions 2 and 3 in little-endian byte order can be read")]
    Version(String),
    /// A count that the rest of the file cannot hold, or that is beyond any real file.
    #[error("{what} is {seen} (byte {offset}), more than the {most} that can be in this file")]
    Count {
        /// What is counted.
        what: String,
        /// The count.
        seen: u64,
        /// The bound.
        most: u64,
        /// Where it stands.
        offset: u64,
    },
    /// A key, its type or its value breaks a rule of the format.
    #[error("metadata {key}: {problem} (byte {offset})")]
    Metadata {
        /// The key, or its number where it has no readable name.
        key: String,
        /// What was seen and what was wanted.
        problem: String,
        /// Where.
        offset: u64,
    },
    /// A value has another type than the one asked for.
    #[error("metadata {key} is {seen}, wanted {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// Type (and value) in the file.
        seen: String,
        /// Type asked for.
        wanted: &'static str,
    },
    /// A key that must be there is not.
    #[error("metadata {key} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// An entry of the tensor directory breaks a rule of the format.
    #[error("tensor {name}: {problem}")]
    Tensor {
        /// Name, or number where it has no readable name.
        name: String,
        /// What was seen and what was wanted.
        problem: String,
    },
    /// The files of a split model do not belong together.
    #[error("split model: {0}")]
    Split(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
