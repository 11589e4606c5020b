//! gpt-oss: gpt-oss 20b and 120b (arXiv 2508.10925). Every other layer sees a window; heads have
//! sinks; biases everywhere; experts with a clamped gate, weighed by a softmax over the chosen
//! ones.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{
    FeedForward, Gating, HiddenActivation, ModelSpec, Need, NormSpec, Position, RopeId, RopeSpec, Visible,
};

pub(super) const ARCH: Architecture = Architecture::new("gpt-oss", "gpt-oss 20B and 120B", read);

/// Numbers of the model's description that no key holds.
const GATE: HiddenActivation = HiddenActivation::ClampedSwiglu { limit: 7.0, alpha: 1.702 };

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    let key = "attention.sliding_window";
    let window = keys.u32(key)?.ok_or_else(|| keys.bad(key, "is missing"))? as usize;
    let is_windowed = keys.windowed_layers(2, false)?;
    // Layers with a window rotate as the others, unless the file says otherwise.
    let swa_rope = match keys.positive_f32("rope.freq_base_swa")? {
        Some(base) if base != spec.ropes[0].base => {
            spec.ropes.push(RopeSpec { base, ..spec.ropes[0].clone() });
            RopeId(1)
        }
        _ => RopeId(0),
    };
    spec.each_attention(|il, attention| {
        attention.qkv_bias = Need::Always;
        attention.output_bias = Need::Always;
        attention.sinks = Need::Always;
        if is_windowed[il] {
            attention.visible = Visible::Window(window);
            attention.position = Position::Rope(swa_rope);
        }
    });
    let experts = Experts::read(keys, Gating::SoftmaxOfChosen, false)?;
    // The name stands for what follows attention, not for a norm of its output.
    spec.fill_ffn(NormSpec::rms("post_attention_norm", keys.rms_eps()?), |il| {
        let mut moe = experts.layer(il)?;
        moe.router_bias = Need::Always;
        moe.expert.bias = Need::Always;
        moe.expert.activation = GATE;
        Ok(FeedForward::Moe(moe))
    })?;
    Ok(spec)
}
