//! qwen3next, qwen35 and qwen35moe: Qwen 3 Next, 3.5 and 3.6. Of each four layers three are gated
//! delta nets; in the others each query has a gate beside it for the head's output.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense, scan};
use crate::error::Result;
use crate::keys::{Keys, MAX_LAYERS, MAX_LENGTH};
use crate::model::{
    FeedForward, GatedSpec, Gating, HiddenActivation, KeySharing, Mixer, ModelSpec, NormSpec, OutputGate, ScanPacking,
    ScanSpec,
};

pub(super) const NEXT: Architecture = Architecture::new("qwen3next", "Qwen3-Next", read_moe)
    .limit("blocks that predict several tokens (`nextn`) are not used");
pub(super) const DENSE: Architecture = Architecture::new("qwen35", "Qwen 3.5 and 3.6 (dense)", read_dense)
    .limit("text only; blocks that predict several tokens (`nextn`) are not used");
pub(super) const MOE: Architecture = Architecture::new("qwen35moe", "Qwen 3.5 and 3.6 (35B-A3B and larger)", read_moe)
    .limit("text only; blocks that predict several tokens (`nextn`) are not used");

fn read_dense(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = mixers(arch, keys)?;
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    let gated = |il: usize| FeedForward::Gated(GatedSpec::plain(widths[il], HiddenActivation::Silu));
    spec.fill_ffn(ffn_norm(keys)?, |il| Ok(gated(il)))?;
    Ok(spec)
}

fn read_moe(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = mixers(arch, keys)?;
    let experts = Experts::read(keys, Gating::Softmax, true)?;
    spec.fill_ffn(ffn_norm(keys)?, |il| {
        let mut moe = experts.layer(il)?;
        moe.shared.iter_mut().for_each(|shared| shared.is_weighted = true);
        Ok(FeedForward::Moe(moe))
    })?;
    Ok(spec)
}

/// The name stands for what follows attention, not for a norm of its output.
fn ffn_norm(keys: &Keys<'_>) -> Result<NormSpec> {
    Ok(NormSpec::rms("post_attention_norm", keys.rms_eps()?))
}

fn mixers(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    let eps = keys.rms_eps()?;
    // The first of them sees no pictures, and has the key heads' parts of its matrices together.
    let is_next = arch.name == NEXT.name;
    if !is_next {
        spec.ropes[0].sections = Some(keys.rope_sections(true)?);
    }
    spec.each_attention(|_, attention| {
        attention.head_norm = Some(dense::norm_of_heads(eps));
        attention.output_gate = OutputGate::OfQuery;
    });
    let interval = keys.optional_size("full_attention_interval", MAX_LAYERS)?.unwrap_or(4);
    let is_recurrent = match keys.per_layer("attention.recurrent_layers")? {
        Some(flags) => flags.into_iter().map(|flag| flag != 0).collect(),
        None => (0..keys.n_layer).map(|il| !(il + 1).is_multiple_of(interval)).collect::<Vec<_>>(),
    };
    let mut scan = scan::gated_delta(keys, eps)?;
    if is_next {
        scan = ScanSpec { sharing: KeySharing::Grouped, packing: ScanPacking::ByKeyHead, ..scan };
    }
    for (layer, _) in spec.layers.iter_mut().zip(is_recurrent).filter(|(_, is_recurrent)| *is_recurrent) {
        layer.mixer = Mixer::Scan(scan.clone());
    }
    spec.drop_nextn(keys)?;
    Ok(spec)
}
