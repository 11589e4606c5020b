//! qwen3moe: Qwen 3 with a mixture of experts in every layer (arXiv 2505.09388).

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{FeedForward, Gating, ModelSpec, NormSpec};

pub(super) const ARCH: Architecture = Architecture::new("qwen3moe", "Qwen 3 (30B-A3B, 235B-A22B), Qwen3-Coder", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let eps = keys.rms_eps()?;
    spec.each_attention(|_, attention| attention.head_norm = Some(dense::norm_of_heads(eps)));
    let experts = Experts::read(keys, Gating::Softmax, true)?;
    spec.fill_ffn(NormSpec::rms("ffn_norm", eps), |il| Ok(FeedForward::Moe(experts.layer(il)?)))?;
    Ok(spec)
}
