//! Models whose embedding, attention, halves of layers and logits have factors: granite (IBM 2024),
//! granitemoe, granitehybrid, whose layers are attention or Mamba 2 (Granite 4, Bamba), and minicpm (Hu
//! et al. 2024, arXiv 2404.06395).

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense, scan};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    AttentionSpec, FeedForward, GatedSpec, Gating, HiddenActivation, LayerNorms, LayerSpec, Mixer, ModelSpec, Need,
    NormSpec, RopeId,
};

pub(super) const DENSE: Architecture = Architecture::new("granite", "Granite 3 (dense)", granite);
pub(super) const MOE: Architecture = Architecture::new("granitemoe", "Granite 3 (1B-A400M, 3B-A800M)", granite);
pub(super) const HYBRID: Architecture = Architecture::new("granitehybrid", "Granite 4 (H), Bamba", hybrid);
pub(super) const MINICPM: Architecture = Architecture::new("minicpm", "MiniCPM, MiniCPM 2 and 4", minicpm);

/// What a file does not say.
struct Usual {
    embedding: f32,
    residual: f32,
    logits: f32,
}

fn granite(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    finish_granite(&mut spec, keys)?;
    Ok(spec)
}

/// A layer without key heads is Mamba 2.
fn hybrid(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    let mixers = dense::heads_or_none(keys, n_embd)?;
    let dim = mixers.iter().flatten().map(|heads| heads.key_dim).next().unwrap_or(n_embd);
    let rope = keys.rope(RopeStyle::Adjacent, dim)?;
    let scan = scan::mamba2(keys, eps, Need::Always)?;
    let scale = keys.f32("attention.scale")?;
    let norms = LayerNorms { before_mixer: Some(NormSpec::rms("attn_norm", eps)), ..LayerNorms::default() };
    let layer = |heads: &Option<dense::Heads>| {
        let mixer = match heads {
            Some(heads) => {
                let plain = AttentionSpec::plain(heads.heads, heads.kv_heads, heads.key_dim, RopeId(0));
                let scale = scale.unwrap_or(plain.scale);
                Mixer::Attention(AttentionSpec { value_dim: heads.value_dim, scale, ..plain })
            }
            None => Mixer::Scan(scan.clone()),
        };
        LayerSpec::sequential(mixer, FeedForward::None, norms)
    };
    let layers = mixers.iter().map(layer).collect();
    let mut spec = dense::of_layers(arch, keys, vec![rope], layers, NormSpec::rms("output_norm", eps))?;
    if !Experts::are_there(keys)? {
        let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
        let gated = |il: usize| FeedForward::Gated(GatedSpec::plain(widths[il], HiddenActivation::Silu));
        spec.fill_ffn(NormSpec::rms("ffn_norm", eps), |il| Ok(gated(il)))?;
    }
    finish_granite(&mut spec, keys)?;
    Ok(spec)
}

fn finish_granite(spec: &mut ModelSpec, keys: &Keys<'_>) -> Result<()> {
    scale(spec, keys, &Usual { embedding: 1.0, residual: 1.0, logits: 1.0 })?;
    // The key stands for whether there is a rotation at all; mixtures without recurrences have one
    // whatever it says.
    if keys.flag("rope.scaling.finetuned")? == Some(false) && keys.arch != MOE.name {
        spec.without_rope(|_| true);
    }
    Ok(())
}

fn minicpm(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    // Of the logits as the models have it: llama.cpp divides by the inverse where the key is absent.
    let usual =
        Usual { embedding: 12.0, residual: 1.4 / (spec.n_layer() as f32).sqrt(), logits: spec.n_embd as f32 / 256.0 };
    scale(&mut spec, keys, &usual)?;
    Ok(spec)
}

/// Logits are divided by their factor.
fn scale(spec: &mut ModelSpec, keys: &Keys<'_>, usual: &Usual) -> Result<()> {
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.input.scale = keys.f32("embedding_scale")?.unwrap_or(usual.embedding);
    let residual = keys.f32("residual_scale")?.unwrap_or(usual.residual);
    spec.layers.iter_mut().for_each(|layer| layer.residual_scale = residual);
    spec.output.scale = 1.0 / keys.f32("logit_scale")?.unwrap_or(usual.logits);
    if Experts::are_there(keys)? {
        let norm = NormSpec::rms("ffn_norm", keys.rms_eps()?);
        Experts::read(keys, Gating::Softmax, true)?.with_dense_width().fill(spec, norm, |_| true, |_| {})?;
    }
    Ok(())
}
