//! The words in which the engine asks kernels and devices for work: kinds of activations, norms and
//! rotary embeddings, and what a KV cache is made of.
//!
//! Enums, their names and constant sizes only: what they mean in numbers is the kernels' business.
#![forbid(unsafe_code)]

mod cache_type;

pub use cache_type::{CacheType, MAX_I16_HEAD, Q8_BLOCK_BYTES, Q8_BLOCK_LEN};

/// The activation of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// The tanh form of GELU.
    Gelu,
}

/// How a vector is normalised before its elements are multiplied by weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// Divided by the root of the mean of its squares.
    Rms,
    /// Its mean taken off, then divided by the standard deviation.
    Layer,
}

/// Which elements of a head a rotary embedding pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// (0, 1), (2, 3), ...: llama's GGUF files.
    Adjacent,
    /// (0, n), (1, n + 1), ... for n pairs: NeoX; qwen, gemma.
    Halves,
}
