//! Models without attention, whose layers are a recurrence behind a norm and nothing else: mamba (Gu
//! and Dao 2023, arXiv 2312.00752; Falcon Mamba: arXiv 2410.05355) and mamba2 (arXiv 2405.21060). jamba
//! (arXiv 2403.19887): Mamba or attention without positions, each with a network or a mixture behind it.

use super::experts::Experts;
use super::{Architecture, dense, scan};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    AttentionSpec, ChannelNorm, FeedForward, GatedSpec, Gating, HiddenActivation, LayerNorms, LayerSpec, Mixer,
    ModelSpec, Need, NormSpec, Position, RopeId,
};

pub(super) const MAMBA: Architecture = Architecture::new("mamba", "Mamba, Falcon Mamba", mamba);
pub(super) const MAMBA2: Architecture = Architecture::new("mamba2", "Mamba 2, Codestral Mamba", mamba2);
pub(super) const JAMBA: Architecture = Architecture::new("jamba", "Jamba", jamba);

fn mamba(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let norm = if keys.flag("ssm.dt_b_c_rms")? == Some(true) { ChannelNorm::Plain } else { ChannelNorm::None };
    let mixer = Mixer::Channels(scan::channels(keys, keys.rms_eps()?, norm)?);
    alone(arch, keys, &mixer)
}

fn mamba2(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut scan = scan::mamba2(keys, keys.rms_eps()?, Need::Always)?;
    scan.conv_bias = Need::Always;
    alone(arch, keys, &Mixer::Scan(scan))
}

/// Layers of this mixer alone.
fn alone(arch: &'static Architecture, keys: &Keys<'_>, mixer: &Mixer) -> Result<ModelSpec> {
    let eps = keys.rms_eps()?;
    let norms = LayerNorms { before_mixer: Some(NormSpec::rms("attn_norm", eps)), ..LayerNorms::default() };
    let layer = |_| LayerSpec::sequential(mixer.clone(), FeedForward::None, norms);
    let layers = (0..keys.n_layer).map(layer).collect();
    dense::of_layers(arch, keys, Vec::new(), layers, NormSpec::rms("output_norm", eps))
}

/// A layer without key heads is Mamba; a mixture is where the file has a router.
fn jamba(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    let scan = scan::channels(keys, eps, ChannelNorm::Weighted)?;
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    let norms = LayerNorms { before_mixer: Some(NormSpec::rms("attn_norm", eps)), ..LayerNorms::default() };
    let layer = |heads: &Option<dense::Heads>| {
        let mixer = match heads {
            Some(heads) => {
                let plain = AttentionSpec::plain(heads.heads, heads.kv_heads, heads.key_dim, RopeId(0));
                Mixer::Attention(AttentionSpec { value_dim: heads.value_dim, position: Position::None, ..plain })
            }
            None => Mixer::Channels(scan),
        };
        LayerSpec::sequential(mixer, FeedForward::None, norms)
    };
    let layers = dense::heads_or_none(keys, n_embd)?.iter().map(layer).collect();
    let mut spec = dense::of_layers(arch, keys, Vec::new(), layers, NormSpec::rms("output_norm", eps))?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let experts = if Experts::are_there(keys)? {
        Some(Experts::read(keys, Gating::Softmax, false)?.with_dense_width())
    } else {
        None
    };
    spec.fill_ffn(NormSpec::rms("ffn_norm", eps), |il| {
        let gated = GatedSpec::plain(widths[il], HiddenActivation::Silu);
        Ok(match &experts {
            Some(experts) => FeedForward::MoeOrGated(Box::new(experts.layer(il)?), gated),
            None => FeedForward::Gated(gated),
        })
    })?;
    Ok(spec)
}
