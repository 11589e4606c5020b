//! lfm2 and lfm2moe: LFM2 (Liquid AI 2025, arXiv 2511.23404). A layer's mixer is attention or a short
//! gated convolution; the mixture of experts begins behind some dense layers.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    AttentionSpec, Choice, FeedForward, GatedSpec, Gating, HiddenActivation, LayerNorms, LayerSpec, Mixer, ModelSpec,
    Need, NormSpec, RopeId,
};

pub(super) const DENSE: Architecture = Architecture::new("lfm2", "LFM2, LFM2.5", read);
pub(super) const MOE: Architecture = Architecture::new("lfm2moe", "LFM2 8B-A1B and 24B-A2B", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    let kernel = keys.size("shortconv.l_cache", MAX_LENGTH)?;
    let mixers = dense::heads_or_none(keys, n_embd)?;
    let dim = mixers.iter().flatten().map(|heads| heads.key_dim).next().unwrap_or(n_embd);
    let rope = keys.rope(RopeStyle::Halves, dim)?;
    let norms = LayerNorms { before_mixer: Some(NormSpec::rms("attn_norm", eps)), ..LayerNorms::default() };
    let layer = |heads: &Option<dense::Heads>| {
        let mixer = match heads {
            Some(heads) => Mixer::Attention(AttentionSpec {
                value_dim: heads.value_dim,
                head_norm: Some(dense::norm_of_heads(eps)),
                ..AttentionSpec::plain(heads.heads, heads.kv_heads, heads.key_dim, RopeId(0))
            }),
            None => Mixer::ShortConv { kernel },
        };
        LayerSpec::sequential(mixer, FeedForward::None, norms)
    };
    // The last norm has a name of the input's.
    let (layers, last_norm) = (mixers.iter().map(layer).collect(), NormSpec::rms("token_embd_norm", eps));
    let mut spec = dense::of_layers(arch, keys, vec![rope], layers, last_norm)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let norm = NormSpec::rms("ffn_norm", eps);
    if arch.name == MOE.name {
        let experts = Experts::read(keys, Gating::Sigmoid, true)?;
        experts.fill(&mut spec, norm, |_| true, |moe| moe.choice = Choice::Biased(Need::Always))?;
        return Ok(spec);
    }
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    let gated = |il: usize| FeedForward::Gated(GatedSpec::plain(widths[il], HiddenActivation::Silu));
    spec.fill_ffn(norm, |il| Ok(gated(il)))?;
    Ok(spec)
}
