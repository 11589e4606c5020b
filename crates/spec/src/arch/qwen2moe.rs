//! qwen2moe: Qwen 1.5 and 2 with a mixture of experts (arXiv 2407.10671): one shared network, weighed
//! by a gate, beside those that are chosen.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{FeedForward, Gating, ModelSpec, Need, NormSpec, SharedSpec};

pub(super) const ARCH: Architecture = Architecture::new("qwen2moe", "Qwen 1.5 MoE, Qwen 2 57B-A14B", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.each_attention(|_, attention| attention.qkv_bias = Need::Always);
    let experts = Experts::read(keys, Gating::Softmax, false)?;
    // Without a key the shared network is as wide as a dense one would be.
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    spec.fill_ffn(NormSpec::rms("ffn_norm", keys.rms_eps()?), |il| {
        let mut moe = experts.layer(il)?;
        let width = moe.shared.map_or(widths[il], |shared| shared.width);
        moe.shared = Some(SharedSpec { width, is_weighted: true, clamp: None });
        Ok(FeedForward::Moe(moe))
    })?;
    Ok(spec)
}
