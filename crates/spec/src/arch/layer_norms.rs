//! Decoders with layer norms that have biases, most with networks without a gate: GPT-2, GPT-NeoX,
//! StarCoder 1 and 2, Phi 1 and 2, Falcon, CodeShell, Orion, StableLM, BLOOM, MPT, Nemotron, Jais.

use modelembed_terms::{NormKind, RopeStyle};

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{HeadNorm, HeadNormSpan, HiddenActivation, ModelSpec, Need, NormSpec, Residual};

pub(super) const GPT2: Architecture = Architecture::new("gpt2", "GPT-2, Cerebras-GPT", gpt2);
pub(super) const GPTNEOX: Architecture =
    Architecture::new("gptneox", "Pythia, GPT-NeoX 20B, Dolly 2, RedPajama", gptneox);
pub(super) const STARCODER: Architecture = Architecture::new("starcoder", "StarCoder, SantaCoder", gpt2);
pub(super) const STARCODER2: Architecture = Architecture::new("starcoder2", "StarCoder 2", starcoder2);
pub(super) const CODESHELL: Architecture = Architecture::new("codeshell", "CodeShell", starcoder2);
pub(super) const PHI2: Architecture = Architecture::new("phi2", "Phi-1, Phi-1.5, Phi-2", phi2);
pub(super) const FALCON: Architecture = Architecture::new("falcon", "Falcon 7B, 40B and 180B", falcon);
pub(super) const ORION: Architecture = Architecture::new("orion", "Orion 14B", with_gates);
pub(super) const STABLELM: Architecture = Architecture::new("stablelm", "StableLM 2, StableLM 3B", stablelm);
pub(super) const BLOOM: Architecture = Architecture::new("bloom", "BLOOM, BLOOMZ", bloom);
pub(super) const MPT: Architecture = Architecture::new("mpt", "MPT 7B and 30B", mpt);
pub(super) const JAIS: Architecture = Architecture::new("jais", "Jais 13B and 30B", jais);
pub(super) const NEMOTRON: Architecture = Architecture::new("nemotron", "Nemotron 4, Minitron", nemotron);
pub(super) const JAIS2: Architecture = Architecture::new("jais2", "Jais 2", nemotron);

fn with_gates(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.layer_norm_eps()?;
    let norm = |name| NormSpec::layer(name, eps, Need::Always);
    let spec = dense::decoder_with(arch, keys, RopeStyle::Halves, norm)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    Ok(spec)
}

fn with_gelu(arch: &'static Architecture, keys: &Keys<'_>, bias: Need) -> Result<ModelSpec> {
    let mut spec = with_gates(arch, keys)?;
    spec.without_gates(HiddenActivation::Gelu, bias);
    Ok(spec)
}

/// Learned positions in the place of a rotation (Radford et al. 2019; StarCoder: arXiv 2305.06161).
fn gpt2(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gelu(arch, keys, Need::Always)?;
    spec.with_attention_biases();
    spec.without_rope(|_| true);
    spec.ropes.clear();
    spec.input.has_positions = true;
    Ok(spec)
}

/// Halves side by side with a norm each, or one after the other (arXiv 2204.06745).
fn gptneox(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gelu(arch, keys, Need::Always)?;
    spec.with_attention_biases();
    if keys.flag("use_parallel_residual")? == Some(true) {
        spec.in_parallel();
    }
    Ok(spec)
}

/// GPT-2 with a rotation (arXiv 2402.19173).
fn starcoder2(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gelu(arch, keys, Need::Always)?;
    spec.with_attention_biases();
    Ok(spec)
}

/// Halves side by side on one norm, and biases of everything (Microsoft 2023).
fn phi2(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = starcoder2(arch, keys)?;
    spec.in_parallel();
    spec.layers.iter_mut().for_each(|layer| layer.norms.before_ffn = None);
    spec.output.bias = Need::Always;
    Ok(spec)
}

/// Halves side by side without biases; in the 40B and 180B attention has a norm of its own (arXiv
/// 2311.16867).
fn falcon(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gelu(arch, keys, Need::Maybe)?;
    spec.in_parallel();
    for layer in &mut spec.layers {
        let norms = &mut layer.norms;
        norms.before_ffn = norms.before_mixer;
        norms.before_mixer =
            norms.before_mixer.map(|norm| NormSpec { name: Some("attn_norm_2"), instead: norm.name, ..norm });
    }
    Ok(spec)
}

/// Of the 12B halves side by side on one norm, and norms of each query and key head; both show in
/// the tensors only (arXiv 2402.17834).
fn stablelm(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gates(arch, keys)?;
    // The flag is not to be relied on: files of models with both norms have it.
    keys.flag("use_parallel_residual")?;
    let (kind, eps, span) = (NormKind::Layer, keys.layer_norm_eps()?, HeadNormSpan::OwnHead);
    let norm = HeadNorm { kind, eps, span, after_rope: false, need: Need::Maybe };
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    spec.layers.iter_mut().for_each(|layer| layer.residual = Residual::ParallelUnlessNormed);
    Ok(spec)
}

/// ALiBi, and a norm of the embedding (arXiv 2211.05100).
fn bloom(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gelu(arch, keys, Need::Always)?;
    spec.with_attention_biases();
    spec.with_alibi(dense::usual_alibi(keys)?);
    spec.input.norm = Some(NormSpec::layer("token_embd_norm", keys.layer_norm_eps()?, Need::Always));
    Ok(spec)
}

/// ALiBi, limits of queries, keys and values, and mostly no biases (MosaicML 2023).
fn mpt(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.layer_norm_eps()?;
    let norm = |name| NormSpec::layer(name, eps, Need::Maybe);
    let mut spec = dense::decoder_with(arch, keys, RopeStyle::Halves, norm)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.without_gates(HiddenActivation::Gelu, Need::Maybe);
    spec.with_alibi(dense::alibi(keys)?);
    let limit = keys.positive_f32("attention.clamp_kqv")?;
    let of_row = HeadNorm { kind: NormKind::Layer, eps, span: HeadNormSpan::Row, after_rope: false, need: Need::Maybe };
    spec.each_attention(|_, attention| {
        attention.qkv_limit = limit;
        attention.head_norm = Some(of_row);
    });
    Ok(spec)
}

/// ALiBi, gated networks with biases, and scores divided by a head's length (arXiv 2308.16149).
fn jais(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gates(arch, keys)?;
    spec.with_attention_biases();
    spec.with_alibi(dense::alibi(keys)?);
    spec.each_attention(|_, attention| attention.scale = 1.0 / attention.key_dim as f32);
    spec.each_gated(|gated| gated.bias = Need::Always);
    Ok(spec)
}

/// ReLU squared (Nemotron-4: arXiv 2402.16819).
fn nemotron(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_gates(arch, keys)?;
    spec.without_gates(HiddenActivation::ReluSquared, Need::Maybe);
    Ok(spec)
}
