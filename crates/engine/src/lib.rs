//! Run GGUF language models straight from a memory map.
#![forbid(unsafe_code)]

mod sampler;

pub use sampler::{Candidate, InvalidSamplerOption, Sampler, SamplerOptions};

/// Index of a token in a model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);
