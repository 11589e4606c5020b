//! GGUF files: metadata, the tensor directory, and the table of tensor types.
#![forbid(unsafe_code)]

mod tensor_type;

pub use tensor_type::TensorType;
