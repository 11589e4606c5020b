//! Models whose embedding, attention, halves of layers and logits have factors: granite (IBM 2024),
//! granitemoe, and minicpm (Hu et al. 2024, arXiv 2404.06395).

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Gating, ModelSpec, NormSpec};

pub(super) const DENSE: Architecture = Architecture { name: "granite", runs: true, read: granite };
pub(super) const MOE: Architecture = Architecture { name: "granitemoe", runs: true, read: granite };
pub(super) const MINICPM: Architecture = Architecture { name: "minicpm", runs: true, read: minicpm };

/// What a file does not say.
struct Usual {
    embedding: f32,
    residual: f32,
    logits: f32,
}

fn granite(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    scale(&mut spec, keys, &Usual { embedding: 1.0, residual: 1.0, logits: 1.0 })?;
    // The key stands for whether there is a rotation at all.
    if keys.flag("rope.scaling.finetuned")? == Some(false) {
        spec.without_rope(|_| true);
    }
    Ok(spec)
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
