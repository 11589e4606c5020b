//! Sizes of real models, and the metadata and tensors that follow from them.

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

/// A tensor of a shape. A matrix gets its type from the mix; a vector is F32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub name: String,
    /// Name without layer and suffix.
    pub part: &'static str,
    pub layer: usize,
    pub kind: Kind,
}

/// How a tensor's values are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `rows` of `k`; at `gain` 1 it keeps the size of a random input.
    Matrix { rows: usize, k: usize, gain: f32 },
    /// `n` values around `centre`.
    Vector { n: usize, centre: f32, deviation: f32 },
}

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

    /// All tensors in file order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let mut parts = Parts(Vec::new());
        // A gain of 3 spreads the logits over a few units.
        parts.matrix(None, "token_embd", self.n_vocab, self.n_embd, 3.0);
        for layer in 0..self.n_layer {
            self.layer(layer, &mut parts);
        }
        parts.norm(None, "output_norm", self.n_embd);
        if !self.tied {
            parts.matrix(None, "output", self.n_vocab, self.n_embd, 3.0);
        }
        parts.0
    }

    fn layer(&self, layer: usize, parts: &mut Parts) {
        let il = Some(layer);
        let (q, kv) = (self.n_head * self.head_dim, self.n_head_kv * self.head_dim);
        let gemma = self.arch == "gemma3";
        parts.norm(il, "attn_norm", self.n_embd);
        // Queries and keys of more than unit size: attention that is far from uniform.
        for (part, rows, gain) in [("attn_q", q, 1.5), ("attn_k", kv, 1.5), ("attn_v", kv, 1.0)] {
            parts.matrix(il, part, rows, self.n_embd, gain);
            if self.arch == "qwen2" {
                let kind = Kind::Vector { n: rows, centre: 0.0, deviation: 0.5 };
                parts.0.push(Part { name: format!("blk.{layer}.{part}.bias"), part, layer, kind });
            }
        }
        parts.matrix(il, "attn_output", self.n_embd, q, 1.0);
        if gemma {
            parts.norm(il, "attn_q_norm", self.head_dim);
            parts.norm(il, "attn_k_norm", self.head_dim);
            parts.norm(il, "post_attention_norm", self.n_embd);
        }
        parts.norm(il, "ffn_norm", self.n_embd);
        parts.matrix(il, "ffn_gate", self.n_ff, self.n_embd, 1.0);
        parts.matrix(il, "ffn_up", self.n_ff, self.n_embd, 1.0);
        parts.matrix(il, "ffn_down", self.n_embd, self.n_ff, 2.0);
        if gemma {
            parts.norm(il, "post_ffw_norm", self.n_embd);
        }
    }
}

struct Parts(Vec<Part>);

impl Parts {
    fn push(&mut self, layer: Option<usize>, part: &'static str, kind: Kind) {
        let name = layer.map_or(format!("{part}.weight"), |il| format!("blk.{il}.{part}.weight"));
        self.0.push(Part { name, part, layer: layer.unwrap_or(0), kind });
    }

    fn matrix(&mut self, layer: Option<usize>, part: &'static str, rows: usize, k: usize, gain: f32) {
        self.push(layer, part, Kind::Matrix { rows, k, gain });
    }

    fn norm(&mut self, layer: Option<usize>, part: &'static str, n: usize) {
        self.push(layer, part, Kind::Vector { n, centre: 1.0, deviation: 0.2 });
    }
}
