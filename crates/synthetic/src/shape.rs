//! Sizes of real models, and the metadata that follows from them.

use modelembed_gguf::{GgufValue, HeaderWriter};

/// Sizes of a model. Names follow the GGUF keys.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the keys'")]
pub struct Shape {
    pub name: &'static str,
    pub arch: &'static str,
    pub n_layer: usize,
    pub n_embd: usize,
    pub n_ff: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub head_dim: usize,
    pub n_vocab: usize,
    pub ctx_tokens: u32,
    pub rope_freq_base: f32,
    pub rms_eps: f32,
    /// The embedding is the output head too.
    pub tied: bool,
    /// Tokens that a local layer sees, for gemma3.
    pub window: Option<u32>,
}

const LLAMA: Shape = Shape {
    name: "llama-1.1b",
    arch: "llama",
    n_layer: 22,
    n_embd: 2048,
    n_ff: 5632,
    n_head: 32,
    n_head_kv: 4,
    head_dim: 64,
    n_vocab: 32000,
    ctx_tokens: 2048,
    rope_freq_base: 1e4,
    rms_eps: 1e-5,
    tied: false,
    window: None,
};

/// All shapes.
pub const SHAPES: [Shape; 5] = [
    // TinyLlama 1.1B
    LLAMA,
    // Llama 3 8B
    Shape {
        name: "llama-8b",
        n_layer: 32,
        n_embd: 4096,
        n_ff: 14336,
        n_head_kv: 8,
        head_dim: 128,
        n_vocab: 128_256,
        ctx_tokens: 8192,
        rope_freq_base: 5e5,
        ..LLAMA
    },
    Shape {
        name: "smollm2-135m",
        n_layer: 30,
        n_embd: 576,
        n_ff: 1536,
        n_head: 9,
        n_head_kv: 3,
        n_vocab: 49152,
        ctx_tokens: 8192,
        rope_freq_base: 1e5,
        tied: true,
        ..LLAMA
    },
    Shape {
        name: "gemma3-270m",
        arch: "gemma3",
        n_layer: 18,
        n_embd: 640,
        n_ff: 2048,
        n_head: 4,
        n_head_kv: 1,
        head_dim: 256,
        n_vocab: 262_144,
        ctx_tokens: 32768,
        rope_freq_base: 1e6,
        rms_eps: 1e-6,
        tied: true,
        window: Some(512),
    },
    Shape {
        name: "qwen2-0.5b",
        arch: "qwen2",
        n_layer: 24,
        n_embd: 896,
        n_ff: 4864,
        n_head: 14,
        n_head_kv: 2,
        n_vocab: 151_936,
        ctx_tokens: 32768,
        rope_freq_base: 1e6,
        rms_eps: 1e-6,
        tied: true,
        ..LLAMA
    },
];

impl Shape {
    /// The shape with this name, in any case.
    pub fn from_name(name: &str) -> Option<Shape> {
        SHAPES.iter().find(|s| s.name.eq_ignore_ascii_case(name)).copied()
    }

    /// Appends the architecture's metadata.
    pub(crate) fn metadata(&self, header: &mut HeaderWriter) {
        let mut own = |key: &str, value: GgufValue| header.pair(&format!("{}.{key}", self.arch), value);
        let size = |n: usize| GgufValue::U32(n as u32);
        own("block_count", size(self.n_layer));
        own("context_length", GgufValue::U32(self.ctx_tokens));
        own("embedding_length", size(self.n_embd));
        own("feed_forward_length", size(self.n_ff));
        own("attention.head_count", size(self.n_head));
        own("attention.head_count_kv", size(self.n_head_kv));
        own("attention.layer_norm_rms_epsilon", GgufValue::F32(self.rms_eps));
        own("attention.key_length", size(self.head_dim));
        own("attention.value_length", size(self.head_dim));
        own("rope.freq_base", GgufValue::F32(self.rope_freq_base));
        own("vocab_size", size(self.n_vocab));
        if let Some(window) = self.window {
            own("attention.sliding_window", GgufValue::U32(window));
        } else {
            // gemma3 files leave the key out: the whole head is rotated.
            own("rope.dimension_count", size(self.head_dim));
        }
    }

    /// Whether the model has a tensor that its architecture may have.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        tensor == "output.weight" && !self.tied
    }
}
