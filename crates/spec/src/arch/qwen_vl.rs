//! qwen3vl and qwen3vlmoe: the language models of Qwen 3 VL (arXiv 2511.21631): Qwen 3, but for
//! positions of several numbers, of which pairs of heads turn with one each.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{FeedForward, Gating, ModelSpec, NormSpec};

pub(super) const QWEN3: Architecture = Architecture { name: "qwen3vl", runs: true, read: qwen3 };
pub(super) const QWEN3_MOE: Architecture = Architecture { name: "qwen3vlmoe", runs: true, read: qwen3_moe };

fn qwen3(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    attention(&mut spec, keys)?;
    Ok(spec)
}

fn qwen3_moe(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    attention(&mut spec, keys)?;
    let experts = Experts::read(keys, Gating::Softmax, true)?;
    let norm = NormSpec::rms("ffn_norm", keys.rms_eps()?);
    spec.fill_ffn(norm, |il| Ok(FeedForward::Moe(experts.layer(il)?)))?;
    Ok(spec)
}

/// Norms of heads, and sections that alternate. Layers that take in features of pictures change
/// nothing for text.
fn attention(spec: &mut ModelSpec, keys: &Keys<'_>) -> Result<()> {
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.ropes[0].sections = Some(keys.rope_sections(true)?);
    let norm = dense::norm_of_heads(keys.rms_eps()?);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    Ok(())
}
