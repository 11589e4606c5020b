//! qwen2vl, qwen3vl and qwen3vlmoe: the language models of Qwen 2 and 2.5 VL (arXiv 2409.12191) and Qwen
//! 3 VL (arXiv 2511.21631): Qwen 2 and 3, but for positions of several numbers, of which pairs of heads
//! turn with one each.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{FeedForward, Gating, ModelSpec, Need, NormSpec};

pub(super) const QWEN2: Architecture = Architecture::new("qwen2vl", "Qwen2-VL, Qwen2.5-VL", qwen2).limit("text only");
pub(super) const QWEN3: Architecture = Architecture::new("qwen3vl", "Qwen3-VL", qwen3).limit("text only");
pub(super) const QWEN3_MOE: Architecture =
    Architecture::new("qwen3vlmoe", "Qwen3-VL (30B-A3B, 235B-A22B)", qwen3_moe).limit("text only");

fn qwen2(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.ropes[0].sections = Some(keys.rope_sections(false)?);
    spec.each_attention(|_, attention| attention.qkv_bias = Need::Always);
    Ok(spec)
}

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
