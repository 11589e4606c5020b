//! hunyuan-dense: Hunyuan 0.5B to 7B (Tencent 2025): norms of queries and keys behind the rotation,
//! whose base grows with the key `rope.scaling.alpha`. hunyuan-moe: Hunyuan A13B, with a mixture of
//! experts in every layer and a network that every position uses.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Gating, HeadNorm, ModelSpec, NormSpec};

pub(super) const DENSE: Architecture = Architecture::new("hunyuan-dense", "Hunyuan 0.5B to 7B", dense);
pub(super) const MOE: Architecture = Architecture::new("hunyuan-moe", "Hunyuan A13B", mixed);

fn mixed(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense(arch, keys)?;
    let norm = NormSpec::rms("ffn_norm", keys.rms_eps()?);
    Experts::read(keys, Gating::Softmax, true)?.fill(&mut spec, norm, |_| true, |_| {})?;
    Ok(spec)
}

fn dense(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let norm = HeadNorm { after_rope: true, ..dense::norm_of_heads(keys.rms_eps()?) };
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    let rope = &mut spec.ropes[0];
    if let (Some(alpha), true) = (keys.positive_f32("rope.scaling.alpha")?, rope.n_rot > 2) {
        rope.base *= alpha.powf(rope.n_rot as f32 / (rope.n_rot as f32 - 2.0));
    }
    Ok(spec)
}
