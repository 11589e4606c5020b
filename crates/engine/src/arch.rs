//! The list of architectures: what sets each apart, as data.

use modelembed_terms::{Activation, RopeStyle};

/// What sets one architecture of decoder-only transformers apart from the others.
#[derive(Debug)]
pub struct Architecture {
    /// Value of `general.architecture`, and prefix of the architecture's metadata keys.
    pub name: &'static str,
    /// Which elements of a head form a rotated pair.
    pub rope_style: RopeStyle,
    /// Queries and keys are RMS-normalised per head before RoPE.
    pub has_qk_norm: bool,
    /// Q, K and V projections must have biases (elsewhere they may).
    pub needs_qkv_bias: bool,
    /// The outputs of attention and feed-forward network are normalised before they join the residual.
    pub has_post_norm: bool,
    /// Embeddings are multiplied by the square root of their length.
    pub scales_embedding: bool,
    /// Activation of the feed-forward gate.
    pub activation: Activation,
    /// Of every `n` layers the last sees everything and the others a sliding window, where the metadata gives one.
    pub window_period: Option<usize>,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    rope_style: RopeStyle::Adjacent,
    has_qk_norm: false,
    needs_qkv_bias: false,
    has_post_norm: false,
    scales_embedding: false,
    activation: Activation::Silu,
    window_period: None,
};

/// Every architecture that this library runs.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { name: "qwen2", rope_style: RopeStyle::Halves, needs_qkv_bias: true, ..LLAMA },
    Architecture { name: "qwen3", rope_style: RopeStyle::Halves, has_qk_norm: true, ..LLAMA },
    Architecture {
        name: "gemma3",
        rope_style: RopeStyle::Halves,
        has_qk_norm: true,
        has_post_norm: true,
        scales_embedding: true,
        activation: Activation::Gelu,
        window_period: Some(6),
        ..LLAMA
    },
];

/// The architecture of this name.
pub fn find(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|a| a.name == name)
}

/// Names of all architectures, for messages.
pub fn names() -> String {
    ARCHITECTURES.iter().map(|a| a.name).collect::<Vec<_>>().join(", ")
}
