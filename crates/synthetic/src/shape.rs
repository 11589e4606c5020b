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
    /// Tokens that a local layer sees, for gemma3 and gpt-oss.
    pub window: Option<u32>,
    /// What else its architecture asks for.
    pub more: &'static [(&'static str, Key)],
}

/// A value of a shape's further keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Key {
    /// A whole number.
    U32(u32),
    /// A fraction.
    F32(f32),
    /// A list of whole numbers.
    I32s(&'static [i32]),
    /// A word.
    Text(&'static str),
}

impl From<Key> for GgufValue {
    fn from(key: Key) -> GgufValue {
        match key {
            Key::U32(n) => n.into(),
            Key::F32(x) => x.into(),
            Key::I32s(list) => list.to_vec().into(),
            Key::Text(text) => text.into(),
        }
    }
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
    more: &[],
};

/// All shapes.
pub const SHAPES: [Shape; 9] = [
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
        more: &[],
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
    // OLMoE 1B-7B
    Shape {
        name: "olmoe-7b-a1b",
        arch: "olmoe",
        n_layer: 16,
        n_ff: 1024,
        n_head: 16,
        n_head_kv: 16,
        head_dim: 128,
        n_vocab: 50304,
        ctx_tokens: 4096,
        more: &[("expert_count", Key::U32(64)), ("expert_used_count", Key::U32(8))],
        ..LLAMA
    },
    Shape {
        name: "qwen3-30b-a3b",
        arch: "qwen3moe",
        n_layer: 48,
        n_ff: 6144,
        head_dim: 128,
        n_vocab: 151_936,
        ctx_tokens: 40960,
        rope_freq_base: 1e6,
        rms_eps: 1e-6,
        more: &[
            ("expert_count", Key::U32(128)),
            ("expert_used_count", Key::U32(8)),
            ("expert_feed_forward_length", Key::U32(768)),
        ],
        ..LLAMA
    },
    Shape {
        name: "gpt-oss-20b",
        arch: "gpt-oss",
        n_layer: 24,
        n_embd: 2880,
        n_ff: 2880,
        n_head: 64,
        n_head_kv: 8,
        n_vocab: 201_088,
        ctx_tokens: 131_072,
        rope_freq_base: 150_000.0,
        window: Some(128),
        more: &[
            ("expert_count", Key::U32(32)),
            ("expert_used_count", Key::U32(4)),
            ("expert_feed_forward_length", Key::U32(2880)),
            ("rope.scaling.type", Key::Text("yarn")),
            ("rope.scaling.factor", Key::F32(32.0)),
            ("rope.scaling.original_context_length", Key::U32(4096)),
        ],
        ..LLAMA
    },
    // Qwen 3.5 35B-A3B without its layer that predicts one token more
    Shape {
        name: "qwen35-35b-a3b",
        arch: "qwen35moe",
        n_layer: 40,
        n_ff: 512,
        n_head: 16,
        n_head_kv: 2,
        head_dim: 256,
        n_vocab: 248_320,
        ctx_tokens: 262_144,
        rope_freq_base: 1e7,
        rms_eps: 1e-6,
        more: &[
            ("expert_count", Key::U32(256)),
            ("expert_used_count", Key::U32(8)),
            ("expert_feed_forward_length", Key::U32(512)),
            ("expert_shared_feed_forward_length", Key::U32(512)),
            ("full_attention_interval", Key::U32(4)),
            ("rope.dimension_count", Key::U32(64)),
            ("rope.dimension_sections", Key::I32s(&[11, 11, 10, 0])),
            ("ssm.conv_kernel", Key::U32(4)),
            ("ssm.state_size", Key::U32(128)),
            ("ssm.group_count", Key::U32(16)),
            ("ssm.time_step_rank", Key::U32(32)),
            ("ssm.inner_size", Key::U32(4096)),
        ],
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
        let is_listed = |key: &str| self.more.iter().any(|(other, _)| *other == key);
        if let Some(window) = self.window {
            own("attention.sliding_window", GgufValue::U32(window));
        } else if !is_listed("rope.dimension_count") {
            // gemma3 files leave the key out: the whole head is rotated.
            own("rope.dimension_count", size(self.head_dim));
        }
        for (key, value) in self.more {
            own(key, (*value).into());
        }
    }

    /// Whether the model has a tensor that its architecture may have.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        tensor == "output.weight" && !self.tied
    }
}
