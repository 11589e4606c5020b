//! GGUF files: metadata, the tensor directory, and the table of tensor types.
//!
//! [`Gguf::parse`] walks a header once and checks every number in it; the bytes come from the
//! caller. Scalars and strings are copied out, arrays stay in the file and are read on demand
//! ([`StrArray`], [`NumArray`]) with their bounds checked each time, since a mapped file may
//! change. [`HeaderWriter`] writes a header.
#![forbid(unsafe_code)]

mod directory;
mod error;
mod gguf;
mod identify;
mod index;
mod metadata;
mod printable;
mod reader;
pub mod split;
mod tensor_type;
mod value;
mod write;

pub use directory::TensorInfo;
pub use error::{Error, Result};
pub use gguf::Gguf;
pub use identify::{FileKind, identify};
pub use printable::{escaped, shown_path};
pub use tensor_type::TensorType;
pub use value::{Array, NumArray, Number, StrArray, Value, ValueType};
pub use write::{GgufValue, HeaderWriter, encode_string};

/// The bytes that a header was parsed from, kept alive by whoever reads arrays out of them.
pub type SharedBytes = std::sync::Arc<dyn AsRef<[u8]> + Send + Sync>;
