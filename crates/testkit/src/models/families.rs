//! Tiny models of dense families that differ from llama in keys and in tensors that a file may
//! have: a row each.

use modelembed_gguf::TensorType;

use super::{TinyArch, TinyRope, TinySpec};
use crate::GgufValue;

/// A value of the metadata.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    Number(u32),
    Fraction(f32),
    Flag(bool),
    Text(&'static str),
    Fractions(&'static [f32]),
    Numbers(&'static [u32]),
    Flags(&'static [bool]),
}

impl Key {
    pub(super) fn value(self) -> GgufValue {
        match self {
            Key::Number(n) => GgufValue::U32(n),
            Key::Fraction(x) => GgufValue::F32(x),
            Key::Flag(flag) => GgufValue::Bool(flag),
            Key::Text(text) => GgufValue::from(text),
            Key::Fractions(numbers) => GgufValue::from(numbers.to_vec()),
            Key::Flags(flags) => GgufValue::from(flags.to_vec()),
            Key::Numbers(numbers) => GgufValue::from(numbers.to_vec()),
        }
    }
}

use Key::{Flag, Flags, Fraction, Fractions, Number, Numbers, Text};

/// A row.
#[derive(Debug)]
pub(super) struct Family {
    /// Name of the model.
    pub(super) name: &'static str,
    /// Its architecture.
    pub(super) arch: &'static str,
    /// Whether its norms are layer norms.
    pub(super) has_layer_norms: bool,
    /// Keys that it has beside the usual ones, or with another value. Those of xIELU have no
    /// architecture's prefix.
    pub(super) keys: &'static [(&'static str, Key)],
    /// Ends of the names of tensors that it has and need not have.
    pub(super) tensors: &'static [&'static str],
    /// Sizes that differ from the plain model's.
    sizes: fn(TinySpec) -> TinySpec,
}

const BASE: Family = Family { name: "", arch: "", has_layer_norms: false, keys: &[], tensors: &[], sizes: |spec| spec };
/// The same with layer norms.
const LAYER: Family = Family { has_layer_norms: true, ..BASE };

const QKV_BIASES: &[&str] = &["attn_q.bias", "attn_k.bias", "attn_v.bias"];
/// Those of everything but the head.
const BIASES: &[&str] =
    &["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias"];
/// Queries, keys and values as one matrix.
const FUSED: &[&str] = &["attn_qkv.weight"];
const FUSED_WITH_BIAS: &[&str] = &["attn_qkv.weight", "attn_qkv.bias"];
/// 64 layers in a small file.
const DEEP: fn(TinySpec) -> TinySpec =
    |spec| TinySpec { n_layer: 64, n_embd: 32, n_ff: 32, n_head: 2, n_head_kv: 1, sliding_window: Some(16), ..spec };

const QWEN3_NEXT: &[(&str, Key)] = &[
    ("ssm.conv_kernel", Number(4)),
    ("ssm.inner_size", Number(96)),
    ("ssm.state_size", Number(16)),
    ("ssm.time_step_rank", Number(6)),
    ("ssm.group_count", Number(3)),
    ("full_attention_interval", Number(4)),
    ("attention.key_length", Number(32)),
    ("attention.value_length", Number(32)),
    ("expert_count", Number(8)),
    ("expert_used_count", Number(2)),
    ("expert_feed_forward_length", Number(36)),
    ("expert_shared_feed_forward_length", Number(80)),
];
const MAMBA: &[(&str, Key)] = &[
    ("feed_forward_length", Number(0)),
    ("attention.head_count", Number(0)),
    ("attention.head_count_kv", Number(0)),
    ("ssm.conv_kernel", Number(4)),
    ("ssm.inner_size", Number(128)),
    ("ssm.state_size", Number(16)),
    ("ssm.time_step_rank", Number(5)),
];

static FAMILIES: &[Family] = &[
    // So many layers have norms of each head.
    Family {
        name: "command-r-plus",
        arch: "command-r",
        keys: &[("logit_scale", Fraction(0.4))],
        sizes: |spec| TinySpec { sliding_window: None, tied: true, ..DEEP(spec) },
        ..LAYER
    },
    Family {
        name: "granite",
        arch: "granite",
        keys: &[
            ("embedding_scale", Fraction(1.7)),
            ("residual_scale", Fraction(0.6)),
            ("attention.scale", Fraction(0.2)),
            ("logit_scale", Fraction(1.4)),
        ],
        sizes: |spec| TinySpec { tied: true, ..spec },
        ..BASE
    },
    Family {
        name: "granite-nope",
        arch: "granite",
        keys: &[("logit_scale", Fraction(1.4)), ("rope.scaling.finetuned", Flag(false))],
        ..BASE
    },
    Family {
        name: "granitemoe",
        arch: "granitemoe",
        keys: &[
            ("embedding_scale", Fraction(1.7)),
            ("residual_scale", Fraction(0.6)),
            ("attention.scale", Fraction(0.2)),
            ("logit_scale", Fraction(1.4)),
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_shared_feed_forward_length", Number(80)),
        ],
        sizes: |spec| TinySpec { n_ff: 44, ..spec },
        ..BASE
    },
    // What is not said of the embedding and the halves is what the first models have.
    Family { name: "minicpm", arch: "minicpm", keys: &[("logit_scale", Fraction(0.9))], ..BASE },
    Family {
        name: "minicpm-longrope",
        arch: "minicpm",
        keys: &[
            ("embedding_scale", Fraction(6.0)),
            ("residual_scale", Fraction(0.5)),
            ("logit_scale", Fraction(0.7)),
            ("rope.scaling.type", Text("longrope")),
        ],
        sizes: |spec| TinySpec { rope: TinyRope::LongOrShort(256), rope_magnitude: Some(1.19), tied: true, ..spec },
        ..BASE
    },
    // Layer 3 has no rotation.
    Family { name: "smollm3", arch: "smollm3", sizes: |spec| TinySpec { n_layer: 5, tied: true, ..spec }, ..BASE },
    // Layer 3 sees everything and has no rotation.
    Family {
        name: "cohere2",
        arch: "cohere2",
        keys: &[("logit_scale", Fraction(0.4))],
        sizes: |spec| TinySpec { n_layer: 5, sliding_window: Some(16), tied: true, ..spec },
        ..LAYER
    },
    Family { name: "glm4", arch: "glm4", tensors: QKV_BIASES, sizes: |spec| TinySpec { rope_dims: 8, ..spec }, ..BASE },
    Family {
        name: "chatglm",
        arch: "chatglm",
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { rope_dims: 8, ..spec },
        ..BASE
    },
    Family { name: "exaone4", arch: "exaone4", ..BASE },
    Family { name: "exaone4-window", arch: "exaone4", sizes: DEEP, ..BASE },
    Family { name: "exaone", arch: "exaone", sizes: |spec| TinySpec { rope: TinyRope::Factors, ..spec }, ..BASE },
    Family { name: "seed_oss", arch: "seed_oss", ..BASE },
    Family {
        name: "mistral3",
        arch: "mistral3",
        keys: &[
            ("attention.temperature_scale", Fraction(0.3)),
            ("rope.scaling.yarn_beta_fast", Fraction(4.0)),
            ("rope.scaling.yarn_beta_slow", Fraction(0.5)),
            ("rope.scaling.yarn_log_multiplier", Fraction(0.7)),
        ],
        sizes: |spec| TinySpec { rope: TinyRope::Yarn(4.0, 12), ..spec },
        ..BASE
    },
    Family { name: "ernie4_5", arch: "ernie4_5", sizes: |spec| TinySpec { tied: true, ..spec }, ..BASE },
    Family {
        name: "hunyuan-dense",
        arch: "hunyuan-dense",
        keys: &[("rope.scaling.alpha", Fraction(4.0))],
        sizes: |spec| TinySpec { head_dim: 32, rope_dims: 32, ..spec },
        ..BASE
    },
    Family { name: "olmo", arch: "olmo", keys: &[("attention.clamp_kqv", Fraction(1.2))], ..LAYER },
    Family { name: "internlm2", arch: "internlm2", ..BASE },
    Family { name: "xverse", arch: "xverse", sizes: |spec| TinySpec { n_head_kv: 4, ..spec }, ..BASE },
    Family {
        name: "apertus",
        arch: "apertus",
        keys: &[
            ("xielu.alpha_n", Fractions(&[0.3, -0.4, 1.1])),
            ("xielu.alpha_p", Fractions(&[0.1, 0.8, -0.7])),
            ("xielu.beta", Fractions(&[0.5, 0.4, 0.6])),
            ("xielu.eps", Fractions(&[-1e-6, -1e-6, -1e-6])),
        ],
        ..BASE
    },
    Family { name: "arcee", arch: "arcee", ..BASE },
    Family { name: "plamo", arch: "plamo", sizes: |spec| TinySpec { n_head_kv: 1, ..spec }, ..BASE },
    Family {
        name: "qwen",
        arch: "qwen",
        keys: &[("feed_forward_length", Number(256))],
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { n_head_kv: 4, ..spec },
        ..BASE
    },
    Family {
        name: "gemma",
        arch: "gemma",
        sizes: |spec| TinySpec { head_dim: 32, rope_dims: 32, n_head_kv: 1, tied: true, ..spec },
        ..BASE
    },
    Family {
        name: "gpt2",
        arch: "gpt2",
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { n_head_kv: 4, tied: true, ..spec },
        ..LAYER
    },
    Family {
        name: "starcoder",
        arch: "starcoder",
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { n_head_kv: 1, tied: true, ..spec },
        ..LAYER
    },
    Family { name: "starcoder2", arch: "starcoder2", sizes: |spec| TinySpec { tied: true, ..spec }, ..LAYER },
    Family { name: "codeshell", arch: "codeshell", tensors: FUSED_WITH_BIAS, ..LAYER },
    Family {
        name: "phi2",
        arch: "phi2",
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { rope_dims: 8, n_head_kv: 4, ..spec },
        ..LAYER
    },
    Family {
        name: "gptneox",
        arch: "gptneox",
        keys: &[("use_parallel_residual", Flag(true))],
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { rope_dims: 4, n_head_kv: 4, ..spec },
        ..LAYER
    },
    Family {
        name: "gptneox-sequential",
        arch: "gptneox",
        keys: &[("use_parallel_residual", Flag(false))],
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { rope_dims: 4, n_head_kv: 4, ..spec },
        ..LAYER
    },
    Family {
        name: "falcon",
        arch: "falcon",
        tensors: FUSED,
        sizes: |spec| TinySpec { n_head_kv: 1, tied: true, ..spec },
        ..LAYER
    },
    Family { name: "falcon-40b", arch: "falcon", tensors: &["attn_qkv.weight", "attn_norm_2.weight"], ..LAYER },
    Family { name: "orion", arch: "orion", ..LAYER },
    Family {
        name: "stablelm",
        arch: "stablelm",
        keys: &[("use_parallel_residual", Flag(true))],
        tensors: &["ffn_norm.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias"],
        sizes: |spec| TinySpec { rope_dims: 4, ..spec },
        ..LAYER
    },
    Family {
        name: "stablelm-12b",
        arch: "stablelm",
        keys: &[("use_parallel_residual", Flag(true))],
        tensors: &["attn_q_norm.weight"],
        sizes: |spec| TinySpec { rope_dims: 4, ..spec },
        ..LAYER
    },
    // Five heads: one is beyond the largest power of two.
    Family {
        name: "bloom",
        arch: "bloom",
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { n_embd: 80, n_head: 5, n_head_kv: 5, tied: true, ..spec },
        ..LAYER
    },
    Family {
        name: "mpt",
        arch: "mpt",
        keys: &[("attention.max_alibi_bias", Fraction(6.0)), ("attention.clamp_kqv", Fraction(1.2))],
        tensors: FUSED,
        sizes: |spec| TinySpec { n_head: 8, head_dim: 8, rope_dims: 8, tied: true, ..spec },
        ..LAYER
    },
    Family {
        name: "jais",
        arch: "jais",
        keys: &[("attention.max_alibi_bias", Fraction(6.0))],
        tensors: FUSED_WITH_BIAS,
        sizes: |spec| TinySpec { n_embd: 96, n_head: 6, n_head_kv: 6, ..spec },
        ..LAYER
    },
    Family {
        name: "openelm",
        arch: "openelm",
        keys: &[
            ("attention.head_count", Numbers(&[4, 6, 8])),
            ("attention.head_count_kv", Numbers(&[2, 2, 4])),
            ("feed_forward_length", Numbers(&[96, 128, 160])),
            ("attention.key_length", Number(16)),
            ("attention.value_length", Number(16)),
        ],
        tensors: FUSED,
        sizes: |spec| TinySpec { tied: true, ..spec },
        ..BASE
    },
    Family { name: "pangu-embedded", arch: "pangu-embedded", ..BASE },
    Family { name: "maincoder", arch: "maincoder", ..BASE },
    Family { name: "refact", arch: "refact", sizes: |spec| TinySpec { n_head_kv: 1, ..spec }, ..BASE },
    Family {
        name: "baichuan",
        arch: "baichuan",
        sizes: |spec| TinySpec { n_layer: 32, n_embd: 32, n_ff: 32, n_head: 2, n_head_kv: 2, ..spec },
        ..BASE
    },
    Family {
        name: "baichuan-13b",
        arch: "baichuan",
        sizes: |spec| TinySpec { n_layer: 40, n_embd: 32, n_ff: 32, n_head: 2, n_head_kv: 2, ..spec },
        ..BASE
    },
    Family { name: "nemotron", arch: "nemotron", ..LAYER },
    Family { name: "jais2", arch: "jais2", tensors: BIASES, ..LAYER },
    Family {
        name: "bailingmoe",
        arch: "bailingmoe",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_shared_count", Number(1)),
            ("expert_weights_scale", Fraction(1.5)),
            ("expert_weights_norm", Flag(true)),
            ("leading_dense_block_count", Number(0)),
        ],
        ..BASE
    },
    Family {
        name: "glm4moe",
        arch: "glm4moe",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_shared_count", Number(1)),
            ("expert_weights_scale", Fraction(1.5)),
            ("expert_weights_norm", Flag(true)),
            ("leading_dense_block_count", Number(1)),
        ],
        tensors: &["exp_probs_b.bias", "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_q_norm.weight"],
        sizes: |spec| TinySpec { rope_dims: 8, ..spec },
        ..BASE
    },
    Family {
        name: "hunyuan-moe",
        arch: "hunyuan-moe",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(2)),
            ("expert_feed_forward_length", Number(44)),
            ("expert_shared_feed_forward_length", Number(80)),
        ],
        sizes: |spec| TinySpec { n_ff: 44, ..spec },
        ..BASE
    },
    Family {
        name: "dbrx",
        arch: "dbrx",
        keys: &[("attention.clamp_kqv", Fraction(1.2)), ("expert_count", Number(8)), ("expert_used_count", Number(3))],
        tensors: FUSED,
        sizes: |spec| TinySpec { n_ff: 44, ..spec },
        ..LAYER
    },
    Family {
        name: "phimoe",
        arch: "phimoe",
        keys: &[("expert_count", Number(8)), ("expert_used_count", Number(2))],
        sizes: |spec| TinySpec { n_ff: 44, rope: TinyRope::LongOrShort(256), rope_magnitude: Some(1.19), ..spec },
        ..BASE
    },
    // Layer 3 is attention.
    Family {
        name: "qwen3next",
        arch: "qwen3next",
        keys: QWEN3_NEXT,
        sizes: |spec| TinySpec { n_layer: 5, head_dim: 32, rope_dims: 8, rope_freq_base: 1e6, ..spec },
        ..BASE
    },
    // As the first files are: all that a delta net reads in one matrix, key head by key head.
    Family {
        name: "qwen3next-packed",
        arch: "qwen3next",
        keys: QWEN3_NEXT,
        tensors: &["ssm_in.weight"],
        sizes: |spec| TinySpec { seed: 44, n_layer: 4, head_dim: 32, rope_dims: 8, rope_freq_base: 1e6, ..spec },
        ..BASE
    },
    // Layer 1 is attention.
    Family {
        name: "granitehybrid",
        arch: "granitehybrid",
        keys: &[
            ("embedding_scale", Fraction(1.7)),
            ("residual_scale", Fraction(0.6)),
            ("attention.scale", Fraction(0.2)),
            ("logit_scale", Fraction(1.4)),
            ("attention.head_count_kv", Numbers(&[0, 2, 0])),
            ("ssm.conv_kernel", Number(4)),
            ("ssm.inner_size", Number(128)),
            ("ssm.state_size", Number(16)),
            ("ssm.time_step_rank", Number(8)),
            ("ssm.group_count", Number(2)),
        ],
        tensors: &["ssm_conv1d.bias"],
        sizes: |spec| TinySpec { tied: true, ..spec },
        ..BASE
    },
    Family {
        name: "granitehybrid-moe",
        arch: "granitehybrid",
        keys: &[
            ("embedding_scale", Fraction(1.7)),
            ("residual_scale", Fraction(0.6)),
            ("attention.scale", Fraction(0.2)),
            ("logit_scale", Fraction(1.4)),
            ("rope.scaling.finetuned", Flag(false)),
            ("attention.head_count_kv", Numbers(&[0, 2, 0])),
            ("ssm.conv_kernel", Number(4)),
            ("ssm.inner_size", Number(128)),
            ("ssm.state_size", Number(16)),
            ("ssm.time_step_rank", Number(8)),
            ("ssm.group_count", Number(1)),
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_shared_feed_forward_length", Number(80)),
        ],
        tensors: &["ssm_conv1d.bias"],
        sizes: |spec| TinySpec { seed: 43, n_ff: 44, ..spec },
        ..BASE
    },
    Family {
        name: "mamba2",
        arch: "mamba2",
        keys: &[
            ("feed_forward_length", Number(0)),
            ("attention.head_count", Number(0)),
            ("attention.head_count_kv", Number(0)),
            ("ssm.conv_kernel", Number(4)),
            ("ssm.inner_size", Number(128)),
            ("ssm.state_size", Number(16)),
            ("ssm.time_step_rank", Number(8)),
            ("ssm.group_count", Number(2)),
        ],
        sizes: |spec| TinySpec { tied: true, ..spec },
        ..BASE
    },
    Family { name: "mamba", arch: "mamba", keys: MAMBA, sizes: |spec| TinySpec { tied: true, ..spec }, ..BASE },
    Family {
        name: "falcon-mamba",
        arch: "mamba",
        keys: &[
            ("feed_forward_length", Number(0)),
            ("attention.head_count", Number(0)),
            ("attention.head_count_kv", Number(0)),
            ("ssm.conv_kernel", Number(4)),
            ("ssm.inner_size", Number(128)),
            ("ssm.state_size", Number(12)),
            ("ssm.time_step_rank", Number(6)),
            ("ssm.dt_b_c_rms", Flag(true)),
        ],
        ..BASE
    },
    // Layer 1 is attention; layers 1 and 2 have experts.
    Family {
        name: "jamba",
        arch: "jamba",
        keys: &[
            ("attention.head_count_kv", Numbers(&[0, 2, 0])),
            ("ssm.conv_kernel", Number(4)),
            ("ssm.inner_size", Number(128)),
            ("ssm.state_size", Number(16)),
            ("ssm.time_step_rank", Number(5)),
            ("expert_count", Number(8)),
            ("expert_used_count", Number(2)),
        ],
        tensors: &["blk.1.ffn_gate_inp.weight", "blk.2.ffn_gate_inp.weight"],
        sizes: |spec| TinySpec { n_ff: 44, ..spec },
        ..BASE
    },
    // One of the eight pairs does not turn. llama.cpp does not read its epsilon and takes 0.
    Family {
        name: "qwen2vl",
        arch: "qwen2vl",
        keys: &[
            ("rope.dimension_sections", Numbers(&[2, 3, 2, 1])),
            ("attention.layer_norm_rms_epsilon", Fraction(1e-12)),
        ],
        sizes: |spec| TinySpec { tied: true, rope_freq_base: 1e6, ..spec },
        ..BASE
    },
    // Layer 3 sees everything and has no rotation.
    Family {
        name: "afmoe",
        arch: "afmoe",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_shared_count", Number(2)),
            ("expert_gating_func", Number(2)),
            ("expert_weights_norm", Flag(true)),
            ("expert_weights_scale", Fraction(1.5)),
            ("leading_dense_block_count", Number(1)),
        ],
        sizes: |spec| TinySpec { seed: 46, n_layer: 5, head_dim: 32, rope_dims: 32, sliding_window: Some(16), ..spec },
        ..BASE
    },
    Family {
        name: "exaone-moe",
        arch: "exaone-moe",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_shared_count", Number(1)),
            ("expert_gating_func", Number(2)),
            ("expert_weights_norm", Flag(true)),
            ("expert_weights_scale", Fraction(1.5)),
            ("leading_dense_block_count", Number(1)),
        ],
        tensors: &["exp_probs_b.bias"],
        sizes: |spec| TinySpec { seed: 44, n_layer: 5, head_dim: 32, rope_dims: 32, sliding_window: Some(16), ..spec },
        ..BASE
    },
    // Layer 0 is dense.
    Family {
        name: "hy_v3",
        arch: "hy_v3",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_shared_feed_forward_length", Number(80)),
            ("expert_weights_norm", Flag(true)),
            ("expert_weights_scale", Fraction(1.5)),
        ],
        tensors: &["blk.1.ffn_gate_inp.weight", "blk.2.ffn_gate_inp.weight", "exp_probs_b"],
        sizes: |spec| TinySpec { seed: 47, head_dim: 32, rope_dims: 32, ..spec },
        ..BASE
    },
    // Layer 0 has no rotation.
    Family {
        name: "smallthinker",
        arch: "smallthinker",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(2)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_gating_func", Number(1)),
        ],
        sizes: |spec| TinySpec {
            seed: 43,
            n_layer: 3,
            head_dim: 32,
            rope_dims: 32,
            sliding_window: Some(4096),
            ..spec
        },
        ..BASE
    },
    Family {
        name: "smallthinker-turned",
        arch: "smallthinker",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_gating_func", Number(1)),
        ],
        sizes: |spec| TinySpec { seed: 46, ..spec },
        ..BASE
    },
    // Layer 4 sees everything. Widths that no key holds make it large: so 16 bits.
    Family {
        name: "gemma3n",
        arch: "gemma3n",
        keys: &[("embedding_length_per_layer_input", Number(256)), ("rope.freq_base_swa", Fraction(1e4))],
        sizes: |spec| TinySpec {
            ty: TensorType::F16,
            n_layer: 6,
            n_embd: 32,
            n_ff: 64,
            rope_freq_base: 1e6,
            tied: true,
            sliding_window: Some(16),
            ..spec
        },
        ..BASE
    },
    // Layer 3 is not rotated and sees everything; layers 1 and 3 have experts.
    Family {
        name: "llama4",
        arch: "llama4",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(2)),
            ("expert_feed_forward_length", Number(36)),
            ("interleave_moe_layer_step", Number(2)),
        ],
        sizes: |spec| TinySpec { seed: 70, n_layer: 5, head_dim: 32, rope_dims: 32, rope: TinyRope::Factors, ..spec },
        ..BASE
    },
    // So many experts mean that queries and keys are not normed.
    Family {
        name: "llama4-maverick",
        arch: "llama4",
        keys: &[
            ("expert_count", Number(128)),
            ("expert_used_count", Number(1)),
            ("expert_feed_forward_length", Number(8)),
            ("interleave_moe_layer_step", Number(2)),
        ],
        sizes: |spec| TinySpec { seed: 101, n_layer: 4, n_embd: 32, ..spec },
        ..BASE
    },
    // Layers 1 and 2 see a window; layer 0 is dense.
    Family {
        name: "mimo2",
        arch: "mimo2",
        keys: &[
            ("attention.head_count_kv", Numbers(&[2, 4, 4, 2])),
            ("attention.value_length", Number(16)),
            ("attention.value_scale", Fraction(0.7)),
            ("attention.sliding_window_pattern", Flags(&[false, true, true, false])),
            ("rope.freq_base_swa", Fraction(1e4)),
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
        ],
        tensors: &[
            "blk.1.ffn_gate_inp.weight",
            "blk.2.ffn_gate_inp.weight",
            "blk.3.ffn_gate_inp.weight",
            "blk.1.attn_sinks.weight",
            "blk.2.attn_sinks.weight",
            "exp_probs_b.bias",
        ],
        sizes: |spec| TinySpec {
            seed: 45,
            n_layer: 4,
            head_dim: 24,
            rope_dims: 8,
            rope_freq_base: 1e6,
            sliding_window: Some(16),
            ..spec
        },
        ..BASE
    },
    // Layers 1 to 3 see a window; layer 0 is dense, and has limits as some others.
    Family {
        name: "step35",
        arch: "step35",
        keys: &[
            ("attention.head_count", Numbers(&[4, 6, 6, 6, 4])),
            ("attention.sliding_window_pattern", Flags(&[false, true, true, true, false])),
            ("rope.freq_base_swa", Fraction(1e4)),
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_shared_feed_forward_length", Number(80)),
            ("expert_weights_norm", Flag(true)),
            ("expert_weights_scale", Fraction(1.5)),
            ("swiglu_clamp_exp", Fractions(&[0.0, 0.2, 0.0, 0.3, 0.4])),
            ("swiglu_clamp_shexp", Fractions(&[0.3, 0.0, 0.4, 0.2, 0.0])),
        ],
        tensors: &[
            "blk.1.ffn_gate_inp.weight",
            "blk.2.ffn_gate_inp.weight",
            "blk.3.ffn_gate_inp.weight",
            "blk.4.ffn_gate_inp.weight",
            "attn_q_norm.weight",
            "exp_probs_b.bias",
        ],
        sizes: |spec| TinySpec {
            seed: 50,
            n_layer: 5,
            head_dim: 32,
            rope_dims: 32,
            rope_freq_base: 1e6,
            rope: TinyRope::Factors,
            sliding_window: Some(16),
            ..spec
        },
        ..BASE
    },
    // Layers 1 to 3 see a window, rotate whole heads and know nothing of YaRN.
    Family {
        name: "laguna",
        arch: "laguna",
        keys: &[
            ("attention.head_count", Numbers(&[4, 6, 6, 6, 4])),
            ("rope.dimension_count_swa", Number(32)),
            ("rope.freq_base_swa", Fraction(1e4)),
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
            ("expert_shared_feed_forward_length", Number(80)),
            ("expert_weights_norm", Flag(true)),
            ("expert_weights_scale", Fraction(1.5)),
            ("leading_dense_block_count", Number(1)),
        ],
        sizes: |spec| TinySpec {
            seed: 59,
            n_layer: 5,
            head_dim: 32,
            rope_dims: 16,
            rope_freq_base: 5e5,
            rope: TinyRope::Yarn(4.0, 32),
            sliding_window: Some(16),
            ..spec
        },
        ..BASE
    },
    // Layers 0 to 2 and 4 see a window and know nothing of YaRN.
    Family {
        name: "mellum",
        arch: "mellum",
        keys: &[
            ("expert_count", Number(8)),
            ("expert_used_count", Number(3)),
            ("expert_feed_forward_length", Number(36)),
        ],
        sizes: |spec| TinySpec {
            seed: 44,
            n_layer: 5,
            head_dim: 32,
            rope_dims: 32,
            rope: TinyRope::Yarn(4.0, 32),
            sliding_window: Some(16),
            ..spec
        },
        ..BASE
    },
    Family { name: "bitnet", arch: "bitnet", sizes: |spec| TinySpec { tied: true, ..spec }, ..BASE },
    // Layer 1 has fewer heads, layer 2 a matrix in their place and layer 3 no attention.
    Family {
        name: "deci",
        arch: "deci",
        keys: &[
            ("attention.head_count", Numbers(&[4, 2, 4, 0, 4])),
            ("attention.head_count_kv", Numbers(&[2, 1, 0, 0, 4])),
            ("feed_forward_length", Numbers(&[128, 96, 64, 160, 32])),
        ],
        sizes: |spec| TinySpec { n_layer: 5, head_dim: 32, rope_dims: 32, rope: TinyRope::Factors, ..spec },
        ..BASE
    },
    // A third of a head is rotated: its last elements.
    Family {
        name: "minicpm3",
        arch: "minicpm3",
        keys: &[
            ("attention.key_length", Number(24)),
            ("attention.value_length", Number(16)),
            ("attention.q_lora_rank", Number(40)),
            ("attention.kv_lora_rank", Number(28)),
        ],
        sizes: |spec| TinySpec { n_head_kv: 4, rope_dims: 8, tied: true, ..spec },
        ..BASE
    },
];

/// The row of a model.
pub(super) fn family(name: &str) -> &'static Family {
    FAMILIES.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no family is named {name}"))
}

/// The models of all rows.
pub(super) fn specs() -> impl Iterator<Item = TinySpec> {
    FAMILIES.iter().map(|family| TinySpec::new(family.name, TinyArch::Family(family.name)))
}

/// The sizes of a row's model.
pub(super) fn sized(name: &str, base: TinySpec) -> TinySpec {
    (family(name).sizes)(base)
}
