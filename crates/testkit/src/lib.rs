//! For tests: a GGUF writer, tiny seeded models, float comparison, and a random generator with a
//! fixed stream.
//!
//! [`tiny`] builds the GGUF file of a [`TinySpec`]; [`tiny_specs`] lists those that goldens exist
//! for.
#![forbid(unsafe_code)]

mod emulated;
mod float;
mod models;
mod real;
mod sparse;
mod writer;

pub use emulated::{emulated, is_emulated};
pub use float::{Diff, argmax, diff, first_bit_difference, log_prob};
pub use modelembed_gguf::GgufValue;
pub use modelembed_synthetic::{Rng, random_tensor};
pub use models::{
    TINY_BOS, TINY_EOS, TINY_VOCAB, TinyArch, TinyRope, TinySpec, TinyTensor, TinyToken, sha256_hex, tiny,
    tiny_metadata, tiny_prompt, tiny_spec, tiny_specs, tiny_tensors, tiny_vocab,
};
pub use real::{GEMMA3, SMOLLM2, real_model};
pub use sparse::sparse_model;
pub use writer::GgufWriter;
