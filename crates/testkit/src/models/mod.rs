//! Tiny random models: every architecture and every tensor type in files of at most 2 MB.
//!
//! A spec and its seed give the same bytes on every machine and in every version: goldens made from
//! these files by llama.cpp carry the file's SHA-256, so a change here shows up as "run
//! tools/tiny_goldens.py again".

mod arch;
mod families;
mod vocab;

pub use arch::TinyTensor;
pub(crate) use arch::wants;
pub use vocab::{TINY_BOS, TINY_EOS, TINY_VOCAB, TinyToken, tiny_vocab};

use modelembed_gguf::TensorType;
use sha2::{Digest, Sha256};

use crate::{GgufValue, GgufWriter, Rng};

/// The architectures that tiny models exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the architectures' own")]
pub enum TinyArch {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    Phi3,
    Olmo2,
    CommandR,
    Gemma2,
    FalconH1,
    NemotronH,
    /// A llama with experts.
    Mixtral,
    Olmoe,
    Qwen2Moe,
    Qwen3Moe,
    GptOss,
    NemotronHMoe,
    Qwen35,
    Qwen35Moe,
    Lfm2,
    Lfm2Moe,
    Qwen3Vl,
    Qwen3VlMoe,
    MinimaxM2,
    Dots1,
    BailingMoe2,
    Deepseek,
    Ernie45Moe,
    /// As the E2B: embeddings for each layer, and layers that share keys and values.
    Gemma4,
    /// As the 31B: values that are keys.
    Gemma4Large,
    /// As the 26B-A4B: a mixture beside each network.
    Gemma4Moe,
    /// A row of the table of families.
    Family(&'static str),
}

/// How a tiny model's rotary embedding is scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TinyRope {
    /// Not at all.
    Plain,
    /// Positions divided by this (`rope.scaling.type` = linear).
    Linear(f32),
    /// A divisor for each frequency in `rope_freqs.weight`, as Llama 3.1 has.
    Factors,
    /// YaRN: this factor over an original context of this many tokens.
    Yarn(f32, u32),
    /// LongRoPE: divisors for contexts above this many tokens, and others for the rest.
    LongOrShort(u32),
}

/// Everything that a tiny model's bytes depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TinySpec {
    /// Name of the model, unique in [`tiny_specs`]; also the file's stem.
    pub name: &'static str,
    /// Architecture.
    pub arch: TinyArch,
    /// Type of all matrices; vectors are F32.
    pub ty: TensorType,
    /// Seed of the weights.
    pub seed: u64,
    /// Layers.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Width of the feed-forward part.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Leading elements of a head that are rotated.
    pub rope_dims: usize,
    /// Base of the rotary frequencies.
    pub rope_freq_base: f32,
    /// Scaling of the rotary embedding.
    pub rope: TinyRope,
    /// Factor on its cosines and sines (`rope.scaling.attn_factor`).
    pub rope_magnitude: Option<f32>,
    /// Whether the embedding matrix is the output matrix too.
    pub tied: bool,
    /// Positions that a local layer sees, for architectures with such layers.
    pub sliding_window: Option<u32>,
}

impl TinySpec {
    /// The plain model of an architecture in F32, which the variants of [`tiny_specs`] start from.
    pub fn new(name: &'static str, arch: TinyArch) -> TinySpec {
        let base = TinySpec {
            name,
            arch,
            ty: TensorType::F32,
            seed: 42,
            n_layer: 3,
            n_embd: 64,
            n_ff: 128,
            n_head: 4,
            n_head_kv: 2,
            head_dim: 16,
            rope_dims: 16,
            rope_freq_base: 10_000.0,
            rope: TinyRope::Plain,
            rope_magnitude: None,
            tied: false,
            sliding_window: None,
        };
        match arch {
            TinyArch::Llama => base,
            TinyArch::Qwen2 => TinySpec { tied: true, rope_freq_base: 1e6, ..base },
            TinyArch::Qwen3 => TinySpec { head_dim: 32, rope_dims: 32, rope_freq_base: 1e6, ..base },
            // Layers 0-4 and 6 are local, layer 5 sees everything.
            TinyArch::Gemma3 => TinySpec {
                n_layer: 7,
                n_head_kv: 1,
                head_dim: 32,
                rope_dims: 32,
                rope_freq_base: 1e6,
                tied: true,
                sliding_window: Some(16),
                ..base
            },
            // Three quarters of a head are rotated, as in Phi-4-mini. llama.cpp pads a context to
            // 256 tokens.
            TinyArch::Phi3 => TinySpec {
                rope_dims: 12,
                rope: TinyRope::LongOrShort(256),
                rope_magnitude: Some(1.19),
                tied: true,
                ..base
            },
            TinyArch::Olmo2 => base,
            TinyArch::CommandR => TinySpec { tied: true, ..base },
            // Each layer has attention and a recurrence.
            TinyArch::FalconH1 => base,
            // A layer is a recurrence, a feed-forward network or attention, in this order.
            TinyArch::NemotronH | TinyArch::NemotronHMoe => TinySpec { n_layer: 6, ..base },
            TinyArch::BailingMoe2 | TinyArch::Deepseek | TinyArch::Ernie45Moe => base,
            TinyArch::Qwen3Vl | TinyArch::Qwen3VlMoe => TinySpec { head_dim: 32, rope_dims: 32, ..base },
            TinyArch::Dots1 => TinySpec { head_dim: 32, rope_dims: 32, n_head_kv: 4, ..base },
            // Half of a head is rotated.
            TinyArch::MinimaxM2 => TinySpec { head_dim: 32, n_ff: 36, ..base },
            TinyArch::Mixtral => TinySpec { n_ff: 44, ..base },
            TinyArch::Qwen2Moe => base,
            TinyArch::Olmoe => TinySpec { n_ff: 36, n_head_kv: 4, ..base },
            TinyArch::Qwen3Moe => TinySpec { head_dim: 32, rope_dims: 32, ..base },
            // Layers 1 and 3 are attention, the others short convolutions.
            TinyArch::Lfm2 | TinyArch::Lfm2Moe => TinySpec { n_layer: 5, tied: true, ..base },
            // Layer 3 is attention, the others delta nets; half of a head is rotated.
            TinyArch::Qwen35 | TinyArch::Qwen35Moe => {
                TinySpec { n_layer: 5, head_dim: 32, rope_dims: 16, rope_freq_base: 1e6, ..base }
            }
            // Layers 2, 5 and 8 see everything, the others are local; layers 6 to 8 have no keys and
            // values of their own.
            TinyArch::Gemma4 => TinySpec {
                n_layer: 9,
                head_dim: 32,
                rope_dims: 32,
                rope: TinyRope::Factors,
                rope_freq_base: 1e6,
                tied: true,
                sliding_window: Some(16),
                ..base
            },
            // Layers 2 and 5 see everything.
            TinyArch::Gemma4Large => TinySpec { arch, n_layer: 7, ..TinySpec::new(name, TinyArch::Gemma4) },
            TinyArch::Gemma4Moe => TinySpec { arch, n_layer: 6, n_ff: 64, ..TinySpec::new(name, TinyArch::Gemma4) },
            // Layers 0 and 2 are local.
            TinyArch::GptOss => TinySpec { n_layer: 4, head_dim: 32, rope_dims: 32, sliding_window: Some(16), ..base },
            TinyArch::Family(name) => families::sized(name, base),
            // Layers 0 and 2 are local.
            TinyArch::Gemma2 => {
                TinySpec { n_layer: 4, head_dim: 32, rope_dims: 32, tied: true, sliding_window: Some(16), ..base }
            }
        }
    }

    /// A llama whose matrices have the type `ty`; rows are multiples of 256.
    fn quantised(name: &'static str, ty: TensorType) -> TinySpec {
        let wide = TinySpec {
            ty,
            n_layer: 2,
            n_embd: 256,
            n_ff: 512,
            head_dim: 64,
            rope_dims: 64,
            ..TinySpec::new(name, TinyArch::Llama)
        };
        match ty {
            TensorType::F16 | TensorType::BF16 => TinySpec { n_ff: 256, tied: true, ..wide },
            _ => wide,
        }
    }
}

/// All tiny models that goldens exist for.
pub fn tiny_specs() -> Vec<TinySpec> {
    use TinyArch::{CommandR, FalconH1, Gemma2, Gemma3, Llama, NemotronH, Olmo2, Phi3, Qwen2, Qwen3};
    let mut out = vec![
        TinySpec::new("llama", Llama),
        TinySpec { n_head_kv: 4, tied: true, ..TinySpec::new("llama-tied", Llama) },
        TinySpec { rope: TinyRope::Linear(4.0), ..TinySpec::new("llama-rope-linear", Llama) },
        TinySpec {
            rope: TinyRope::Factors,
            n_head_kv: 1,
            head_dim: 32,
            rope_dims: 32,
            n_embd: 128,
            rope_freq_base: 500_000.0,
            ..TinySpec::new("llama-rope-factors", Llama)
        },
        TinySpec { n_head: 3, n_head_kv: 1, head_dim: 32, rope_dims: 32, ..TinySpec::new("llama-key-length", Llama) },
        // Sizes that no vector width divides.
        TinySpec {
            n_embd: 54,
            n_head: 3,
            n_head_kv: 3,
            head_dim: 18,
            rope_dims: 18,
            n_ff: 77,
            ..TinySpec::new("llama-odd", Llama)
        },
        TinySpec::new("qwen2", Qwen2),
        // 40 tokens of prompt are past the original context of 32.
        TinySpec { rope: TinyRope::Yarn(4.0, 32), rope_freq_base: 1e4, ..TinySpec::new("qwen2-yarn", Qwen2) },
        TinySpec::new("qwen3", Qwen3),
        TinySpec::new("gemma3", Gemma3),
        TinySpec { rope: TinyRope::Linear(8.0), n_layer: 8, ..TinySpec::new("gemma3-rope-linear", Gemma3) },
        // llama.cpp wants tokens of Phi-3's in models with its name.
        TinySpec::new("phi4-mini", Phi3),
        // As the larger Phi-4, or Phi-3-mini for 4,096 tokens: whole heads are rotated.
        TinySpec {
            rope: TinyRope::Plain,
            rope_magnitude: None,
            rope_dims: 16,
            tied: false,
            ..TinySpec::new("phi4", Phi3)
        },
        TinySpec::new("olmo2", Olmo2),
        // As OLMo 3: layers 0 to 2 and 4 are local and know nothing of YaRN.
        TinySpec {
            n_layer: 5,
            sliding_window: Some(16),
            rope: TinyRope::Yarn(4.0, 32),
            ..TinySpec::new("olmo2-window-yarn", Olmo2)
        },
        // Magnitudes without a scaling, with a linear one, and with YaRN: of that local layers have
        // nothing, and those of OLMo 3 no magnitude at all.
        TinySpec { rope_magnitude: Some(1.3), ..TinySpec::new("qwen3-magnitude", Qwen3) },
        TinySpec {
            rope: TinyRope::Linear(4.0),
            rope_magnitude: Some(1.3),
            ..TinySpec::new("llama-rope-linear-magnitude", Llama)
        },
        TinySpec {
            rope: TinyRope::Yarn(4.0, 32),
            rope_magnitude: Some(1.3),
            ..TinySpec::new("gemma3-yarn-magnitude", Gemma3)
        },
        TinySpec {
            n_layer: 5,
            sliding_window: Some(16),
            rope_magnitude: Some(1.3),
            ..TinySpec::new("olmo2-window-magnitude", Olmo2)
        },
        TinySpec::new("command-r", CommandR),
        TinySpec::new("gemma2", Gemma2),
        TinySpec { rope: TinyRope::Linear(4.0), ..TinySpec::new("gemma2-rope-linear", Gemma2) },
        TinySpec { seed: 43, ..TinySpec::new("falcon-h1", FalconH1) },
        // With a norm behind the recurrence, and sizes that no vector width divides.
        TinySpec { n_embd: 54, n_ff: 77, head_dim: 18, rope_dims: 18, ..TinySpec::new("falcon-h1-odd", FalconH1) },
        TinySpec::new("nemotron-h", NemotronH),
        // Seeds with which no choice of experts is a close one: rounding may change it.
        TinySpec::new("mixtral", TinyArch::Mixtral),
        TinySpec::new("olmoe", TinyArch::Olmoe),
        TinySpec::new("qwen2moe", TinyArch::Qwen2Moe),
        TinySpec { seed: 45, ..TinySpec::new("qwen3moe", TinyArch::Qwen3Moe) },
        TinySpec { seed: 48, ..TinySpec::new("gpt-oss", TinyArch::GptOss) },
        TinySpec { seed: 43, ..TinySpec::new("nemotron-h-moe", TinyArch::NemotronHMoe) },
        TinySpec::new("qwen35", TinyArch::Qwen35),
        TinySpec::new("lfm2", TinyArch::Lfm2),
        TinySpec::new("qwen3vl", TinyArch::Qwen3Vl),
        TinySpec::new("qwen3vlmoe", TinyArch::Qwen3VlMoe),
        TinySpec { seed: 48, ..TinySpec::new("minimax-m2", TinyArch::MinimaxM2) },
        TinySpec::new("dots1", TinyArch::Dots1),
        TinySpec { seed: 50, ..TinySpec::new("bailingmoe2", TinyArch::BailingMoe2) },
        TinySpec::new("deepseek", TinyArch::Deepseek),
        TinySpec::new("ernie4_5-moe", TinyArch::Ernie45Moe),
        TinySpec::new("lfm2moe", TinyArch::Lfm2Moe),
        TinySpec::new("qwen35moe", TinyArch::Qwen35Moe),
        TinySpec::new("gemma4", TinyArch::Gemma4),
        TinySpec::new("gemma4-large", TinyArch::Gemma4Large),
        TinySpec::new("gemma4-moe", TinyArch::Gemma4Moe),
        TinySpec { ty: TensorType::Q8_0, ..TinySpec::new("gemma4-q8_0", TinyArch::Gemma4) },
        TinySpec { ty: TensorType::Q8_0, n_layer: 3, ..TinySpec::new("gemma4-moe-q8_0", TinyArch::Gemma4Moe) },
        TinySpec {
            ty: TensorType::Q4_K,
            n_layer: 2,
            n_embd: 256,
            n_ff: 256,
            head_dim: 64,
            rope_dims: 64,
            ..TinySpec::new("qwen3moe-q4_k", TinyArch::Qwen3Moe)
        },
    ];
    // For each mechanism a K-quant, whose rows are multiples of 256, and a type of codebooks.
    let wide = |name, arch, ty| TinySpec {
        ty,
        n_embd: 256,
        n_ff: 256,
        head_dim: 64,
        rope_dims: 64,
        ..TinySpec::new(name, arch)
    };
    out.extend([
        wide("qwen35-q4_k", TinyArch::Qwen35, TensorType::Q4_K),
        wide("lfm2-q5_k", TinyArch::Lfm2, TensorType::Q5_K),
        TinySpec { seed: 43, ..wide("falcon-h1-q6_k", FalconH1, TensorType::Q6_K) },
        wide("nemotron-h-q4_k", NemotronH, TensorType::Q4_K),
        TinySpec { n_layer: 2, ..wide("gpt-oss-q4_k", TinyArch::GptOss, TensorType::Q4_K) },
        TinySpec { n_layer: 6, ..wide("gemma4-q4_k", TinyArch::Gemma4, TensorType::Q4_K) },
        TinySpec { n_layer: 2, ..wide("qwen3moe-iq4_xs", TinyArch::Qwen3Moe, TensorType::IQ4_XS) },
    ]);
    let coded = |name, arch, ty| TinySpec { ty, ..TinySpec::new(name, arch) };
    out.extend([
        coded("gpt-oss-mxfp4", TinyArch::GptOss, TensorType::MXFP4),
        coded("qwen35-iq4_nl", TinyArch::Qwen35, TensorType::IQ4_NL),
        coded("lfm2-mxfp4", TinyArch::Lfm2, TensorType::MXFP4),
        coded("falcon-h1-iq4_nl", FalconH1, TensorType::IQ4_NL),
        coded("nemotron-h-iq4_nl", NemotronH, TensorType::IQ4_NL),
        coded("gemma4-iq4_nl", TinyArch::Gemma4, TensorType::IQ4_NL),
    ]);
    let types = [
        ("f16", TensorType::F16),
        ("bf16", TensorType::BF16),
        ("q4_0", TensorType::Q4_0),
        ("q4_1", TensorType::Q4_1),
        ("q5_0", TensorType::Q5_0),
        ("q5_1", TensorType::Q5_1),
        ("q8_0", TensorType::Q8_0),
        ("q2_k", TensorType::Q2_K),
        ("q3_k", TensorType::Q3_K),
        ("q4_k", TensorType::Q4_K),
        ("q5_k", TensorType::Q5_K),
        ("q6_k", TensorType::Q6_K),
        ("mxfp4", TensorType::MXFP4),
        ("nvfp4", TensorType::NVFP4),
        ("iq4_nl", TensorType::IQ4_NL),
        ("iq4_xs", TensorType::IQ4_XS),
        ("iq3_s", TensorType::IQ3_S),
        ("iq3_xxs", TensorType::IQ3_XXS),
        ("iq2_s", TensorType::IQ2_S),
        ("iq2_xs", TensorType::IQ2_XS),
        ("iq2_xxs", TensorType::IQ2_XXS),
        ("iq1_m", TensorType::IQ1_M),
        ("iq1_s", TensorType::IQ1_S),
        ("tq1_0", TensorType::TQ1_0),
        ("tq2_0", TensorType::TQ2_0),
        ("q1_0", TensorType::Q1_0),
        ("q2_0", TensorType::Q2_0),
    ];
    out.extend(families::specs());
    out.extend(types.map(|(name, ty)| TinySpec::quantised(name, ty)));
    out
}

/// The spec with this name.
///
/// # Panics
/// When there is none.
pub fn tiny_spec(name: &str) -> TinySpec {
    tiny_specs().into_iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no tiny model is named {name}"))
}

/// The GGUF file of a tiny model.
///
/// # Panics
/// When its architecture knows no model of these sizes.
pub fn tiny(spec: &TinySpec) -> Vec<u8> {
    let writer = tiny_metadata(spec).into_iter().fold(GgufWriter::new(), |w, (key, value)| w.pair(&key, value));
    tiny_tensors(spec).iter().fold(writer, |w, t| w.tensor(&t.name, t.ty, &t.dims, &t.data)).build()
}

/// The metadata of a tiny model, in file order: for tests that change some of it.
pub fn tiny_metadata(spec: &TinySpec) -> Vec<(String, GgufValue)> {
    arch::metadata(spec)
}

/// The tensors of a tiny model, in file order.
///
/// # Panics
/// When its architecture knows no model of these sizes.
pub fn tiny_tensors(spec: &TinySpec) -> Vec<TinyTensor> {
    arch::tensors(spec)
}

/// `n` token ids for a test prompt: `<s>`, then ids drawn from the whole vocabulary but its three
/// special tokens.
pub fn tiny_prompt(n: usize) -> Vec<u32> {
    let mut rng = Rng::new(1);
    (0..n).map(|i| if i == 0 { TINY_BOS } else { 3 + rng.below(TINY_VOCAB - 3) as u32 }).collect()
}

/// SHA-256 of a file's bytes, in hexadecimal, as the goldens name their models.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_fit_together_and_files_stay_small() {
        let mut failures = Vec::new();
        for spec in tiny_specs() {
            let bytes = tiny(&spec);
            let sane = spec.n_head % spec.n_head_kv == 0 && spec.rope_dims <= spec.head_dim && spec.rope_dims % 2 == 0;
            if !sane || bytes.len() > 2_200_000 || bytes != tiny(&spec) {
                failures.push((spec.name, bytes.len()));
            }
        }
        assert!(failures.is_empty(), "{failures:?}");
    }

    #[test]
    fn names_are_unique_and_found() {
        let specs = tiny_specs();
        for spec in &specs {
            assert_eq!(specs.iter().filter(|s| s.name == spec.name).count(), 1, "{}", spec.name);
            assert_eq!(tiny_spec(spec.name), *spec);
        }
    }

    #[test]
    fn a_seed_changes_the_weights() {
        let spec = tiny_spec("llama");
        assert_ne!(tiny(&spec), tiny(&TinySpec { seed: 43, ..spec }));
    }
}
