//! olmoe: OLMoE (Muennighoff et al. 2024, arXiv 2409.02060): norms over all queries and all keys of a
//! position, and a mixture of experts in every layer.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{FeedForward, Gating, HeadNorm, HeadNormSpan, ModelSpec, NormSpec};

pub(super) const ARCH: Architecture = Architecture::new("olmoe", "OLMoE", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let eps = keys.rms_eps()?;
    let norm = HeadNorm { span: HeadNormSpan::Row, ..dense::norm_of_heads(eps) };
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    let experts = Experts::read(keys, Gating::Softmax, false)?.with_dense_width();
    spec.fill_ffn(NormSpec::rms("ffn_norm", eps), |il| Ok(FeedForward::Moe(experts.layer(il)?)))?;
    Ok(spec)
}
