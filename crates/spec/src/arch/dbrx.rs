//! dbrx: DBRX (Databricks 2024): layer norms without biases, limits of queries, keys and values, and
//! a mixture of experts in every layer.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Gating, ModelSpec, Need, NormSpec};

pub(super) const ARCH: Architecture = Architecture::new("dbrx", "DBRX", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.layer_norm_eps()?;
    let norm = |name| NormSpec::layer(name, eps, Need::Never);
    let mut spec = dense::decoder_with(arch, keys, RopeStyle::Halves, norm)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let limit = keys.positive_f32("attention.clamp_kqv")?;
    spec.each_attention(|_, attention| attention.qkv_limit = limit);
    // The name stands for where it is, not for what it is of.
    let norm = norm("attn_output_norm");
    Experts::read(keys, Gating::Softmax, true)?.with_dense_width().fill(&mut spec, norm, |_| true, |_| {})?;
    Ok(spec)
}
