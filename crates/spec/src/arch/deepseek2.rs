//! deepseek2: DeepSeek V2, V3 and R1 (arXiv 2405.04434, 2412.19437), and models like them: Kimi K2,
//! GLM 4.7 Flash. Latent attention, and experts behind some dense layers.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    AttentionSpec, Choice, FeedForward, GatedSpec, Gating, HiddenActivation, LatentExpansion, LatentSpec, Mixer,
    ModelSpec, Need, NormSpec, Position, RopeId, RopeScaling, Visible,
};

pub(super) const ARCH: Architecture =
    Architecture::new("deepseek2", "DeepSeek V2, V3 and R1, Kimi K2, GLM-4.7-Flash", read)
        .described("attention over compressed rows has no steps yet");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let latent = latent(keys, &mut spec)?;
    for layer in &mut spec.layers {
        if let Mixer::Attention(AttentionSpec { heads, .. }) = layer.mixer {
            layer.mixer = Mixer::Latent(LatentSpec { heads, ..latent.clone() });
        }
    }

    let n_dense = keys.u32("leading_dense_block_count")?.unwrap_or(0) as usize;
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    // Models without experts count all their layers as dense.
    let experts = (n_dense < keys.n_layer).then(|| Experts::read(keys, usual_gating(keys)?, false)).transpose()?;
    spec.fill_ffn(NormSpec::rms("ffn_norm", keys.rms_eps()?), |il| match &experts {
        Some(experts) if il >= n_dense => {
            let mut moe = experts.layer(il)?;
            moe.choice = Choice::Biased(Need::Maybe);
            Ok(FeedForward::Moe(moe))
        }
        _ => Ok(FeedForward::Gated(GatedSpec::plain(widths[il], HiddenActivation::Silu))),
    })?;
    spec.drop_nextn(keys)?;
    Ok(spec)
}

/// What the layers' attention has in common; also changes the rotation as it is here.
pub(super) fn latent(keys: &Keys<'_>, spec: &mut ModelSpec) -> Result<LatentSpec> {
    let rope = &mut spec.ropes[0];
    // Files of the first years hold the lengths of heads themselves, and the matrices to keys and
    // values as one.
    let whole = keys.optional_size("attention.key_length_mla", MAX_LENGTH)?;
    let whole_value = keys.optional_size("attention.value_length_mla", MAX_LENGTH)?;
    let expansion = if whole.is_some() { LatentExpansion::Split } else { LatentExpansion::Joined };
    let key_dim = match whole {
        Some(n) => n,
        None => keys.size("attention.key_length", MAX_LENGTH)?,
    };
    let value_dim = match whole_value {
        Some(n) => n,
        None => keys.size("attention.value_length", MAX_LENGTH)?,
    };
    let Some(nope_dim) = key_dim.checked_sub(rope.n_rot).filter(|n| *n > 0) else {
        let problem = format!("is {}, wanted less than the head's {key_dim} elements", rope.n_rot);
        return Err(keys.bad("rope.dimension_count", problem));
    };
    rope.first = nope_dim;
    let mut magnitude = f64::from(rope.magnitude);
    // The converter writes a tenth of the model's number.
    let log_factor = keys.f32("rope.scaling.yarn_log_multiplier")?.map_or(0.0, |x| f64::from(x) / 0.1);
    if let (RopeScaling::Yarn { factor, .. }, true) = (rope.scaling, log_factor != 0.0) {
        rope.magnitude = keys.rope_magnitude()?;
        magnitude = f64::from(rope.magnitude) * (1.0 + 0.1 * log_factor * f64::from(factor).ln());
    }
    Ok(LatentSpec {
        heads: 0,
        query_rank: keys.optional_size("attention.q_lora_rank", MAX_LENGTH)?,
        kv_rank: keys.size("attention.kv_lora_rank", MAX_LENGTH)?,
        eps: keys.rms_eps()?,
        nope_dim,
        rope_dim: rope.n_rot,
        value_dim,
        expansion,
        position: Position::Rope(RopeId(0)),
        visible: Visible::Causal,
        scale: (magnitude * magnitude / (key_dim as f64).sqrt()) as f32,
        temperature: keys.temperature()?,
    })
}

/// Files without the key are of DeepSeek V2, or of GLM 4.7 Flash, which its sizes tell.
fn usual_gating(keys: &Keys<'_>) -> Result<Gating> {
    let n_vocab = keys.stored_u32("vocab_size")?;
    let is_glm = matches!(keys.n_layer, 47 | 48) && n_vocab == Some(154_880);
    Ok(if is_glm { Gating::Sigmoid } else { Gating::Softmax })
}
