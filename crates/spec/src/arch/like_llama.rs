//! Decoders that differ from llama in a line or two: SmolLM 3, ERNIE 4.5, InternLM 2, XVERSE,
//! Baichuan, Refact, Arcee, Seed-OSS, PLaMo, OpenELM, openPangu, Maincoder, Qwen 1, Gemma 1, OLMo 1,
//! BitNet b1.58.

use modelembed_terms::{NormKind, RopeStyle};

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{HeadNorm, HiddenActivation, ModelSpec, Need, NormSpec};

pub(super) const SMOLLM3: Architecture = Architecture::new("smollm3", "SmolLM3", smollm3);
pub(super) const ERNIE: Architecture = Architecture::new("ernie4_5", "ERNIE 4.5 0.3B", adjacent);
pub(super) const INTERNLM2: Architecture = Architecture::new("internlm2", "InternLM 2, InternLM 2.5", adjacent);
pub(super) const XVERSE: Architecture = Architecture::new("xverse", "XVERSE", adjacent);
pub(super) const ARCEE: Architecture = Architecture::new("arcee", "AFM 4.5B", arcee);
pub(super) const SEED_OSS: Architecture = Architecture::new("seed_oss", "Seed-OSS 36B", seed_oss);
pub(super) const PLAMO: Architecture = Architecture::new("plamo", "PLaMo 13B", plamo);
pub(super) const QWEN: Architecture = Architecture::new("qwen", "Qwen 1", qwen);
pub(super) const OPENELM: Architecture = Architecture::new("openelm", "OpenELM", openelm);
pub(super) const PANGU: Architecture = Architecture::new("pangu-embedded", "openPangu Embedded", pangu);
pub(super) const MAINCODER: Architecture = Architecture::new("maincoder", "Maincoder 1B", maincoder);
pub(super) const BAICHUAN: Architecture = Architecture::new("baichuan", "Baichuan 1 and 2", baichuan);
pub(super) const REFACT: Architecture = Architecture::new("refact", "Refact 1.6B", refact);
pub(super) const GEMMA: Architecture = Architecture::new("gemma", "Gemma 1, CodeGemma", gemma);
pub(super) const OLMO: Architecture = Architecture::new("olmo", "OLMo 1", olmo);
pub(super) const BITNET: Architecture = Architecture::new("bitnet", "BitNet b1.58", bitnet);

fn adjacent(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    Ok(spec)
}

fn halves(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    Ok(spec)
}

/// Every fourth layer knows no positions (Yang et al. 2025, arXiv 2501.18795).
fn smollm3(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = adjacent(arch, keys)?;
    spec.without_rope(|il| (il + 1) % 4 == 0);
    Ok(spec)
}

/// Networks without a gate.
fn arcee(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = adjacent(arch, keys)?;
    spec.without_gates(HiddenActivation::ReluSquared, Need::Maybe);
    Ok(spec)
}

/// Biases of queries, keys and values, and another name for the second norm.
fn seed_oss(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = halves(arch, keys)?;
    let norm = NormSpec::rms("post_attention_norm", keys.rms_eps()?);
    spec.layers.iter_mut().for_each(|layer| layer.norms.before_ffn = Some(norm));
    spec.each_attention(|_, attention| attention.qkv_bias = Need::Always);
    Ok(spec)
}

/// Both halves on one input.
fn plamo(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = halves(arch, keys)?;
    spec.in_parallel();
    spec.layers.iter_mut().for_each(|layer| layer.norms.before_ffn = None);
    Ok(spec)
}

/// Biases of queries, keys and values; the key of the network's width counts gate and up projection
/// (arXiv 2309.16609).
fn qwen(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = halves(arch, keys)?;
    spec.each_attention(|_, attention| attention.qkv_bias = Need::Always);
    spec.each_gated(|gated| gated.width /= 2);
    Ok(spec)
}

/// The 13B, of 40 layers, has ALiBi in the place of a rotation (arXiv 2309.10305).
fn baichuan(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = adjacent(arch, keys)?;
    match spec.n_layer() {
        32 => {}
        40 => spec.with_alibi(dense::usual_alibi(keys)?),
        n => return Err(keys.unsupported("block_count", n, "32 or 40, by which Baichuan's positions are told")),
    }
    Ok(spec)
}

/// Norms of queries and keys; heads and widths differ from layer to layer (arXiv 2404.14619).
fn openelm(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = halves(arch, keys)?;
    let norm = dense::norm_of_heads(keys.rms_eps()?);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    Ok(spec)
}

/// Biases of attention (arXiv 2505.22375).
fn pangu(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = halves(arch, keys)?;
    spec.with_attention_biases();
    Ok(spec)
}

/// Norms of queries and keys behind the rotation.
fn maincoder(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = adjacent(arch, keys)?;
    let norm = HeadNorm { after_rope: true, ..dense::norm_of_heads(keys.rms_eps()?) };
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    Ok(spec)
}

/// ALiBi, in a llama with one key head (Refact 2023).
fn refact(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = halves(arch, keys)?;
    spec.with_alibi(dense::usual_alibi(keys)?);
    Ok(spec)
}

/// GELU, and an embedding times the root of its length (arXiv 2403.08295).
fn gemma(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = halves(arch, keys)?;
    let scale = (spec.n_embd as f32).sqrt();
    spec.input.scale = scale;
    keys.refuse_unless("embedding_scale", &[f64::from(scale)], "another scale of the embedding")?;
    spec.each_gated(|gated| gated.activation = HiddenActivation::Gelu);
    Ok(spec)
}

/// Layer norms without weights, and limits of queries, keys and values (Groeneveld et al. 2024,
/// arXiv 2402.00838).
fn olmo(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.layer_norm_eps()?;
    let bare = |_| NormSpec { kind: NormKind::Layer, name: None, ..NormSpec::rms("", eps) };
    let mut spec = dense::decoder_with(arch, keys, RopeStyle::Adjacent, bare)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let limit = keys.positive_f32("attention.clamp_kqv")?;
    spec.each_attention(|_, attention| attention.qkv_limit = limit);
    Ok(spec)
}

/// BitNet b1.58 (arXiv 2402.17764): norms before the last projections of both halves.
fn bitnet(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let eps = keys.rms_eps()?;
    spec.each_attention(|_, attention| attention.sub_norm = Some(NormSpec::rms("attn_sub_norm", eps)));
    spec.each_gated(|gated| gated.sub_norm = Some(NormSpec::rms("ffn_sub_norm", eps)));
    Ok(spec)
}
