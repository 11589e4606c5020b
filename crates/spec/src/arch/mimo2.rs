//! mimo2: MiMo V2 (Xiaomi 2025, arXiv 2601.02780): values shorter than keys and scaled, most layers with
//! a window, heads of their own number and sinks, and experts that are chosen by a sigmoid and a bias.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Choice, Gating, ModelSpec, Need, NormSpec, RopeFactors, RopeId, RopeScaling, RopeSpec};

pub(super) const ARCH: Architecture =
    Architecture::new("mimo2", "MiMo V2", read).limit("blocks that predict several tokens (`nextn`) are not used");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    let value_scale = keys.f32("attention.value_scale")?.unwrap_or(1.0);
    spec.each_attention(|_, attention| {
        attention.sinks = Need::Maybe;
        attention.value_scale = value_scale;
        attention.output_bias = Need::Never;
    });
    spec.ropes[0].factors = RopeFactors::None;
    let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let magnitude = keys.rope_magnitude()?;
    spec.ropes.push(RopeSpec { base, scaling: RopeScaling::None, magnitude, ..spec.ropes[0].clone() });
    let key = "attention.sliding_window";
    let window = keys.u32(key)?.ok_or_else(|| keys.bad(key, "is missing"))?;
    let is_windowed = keys.array_of_windows()?;
    spec.window_layers(&is_windowed, window, RopeId(1));
    let experts = Experts::read(keys, Gating::Sigmoid, true)?;
    let norm = NormSpec::rms("ffn_norm", keys.rms_eps()?);
    experts.fill_where_routed(&mut spec, norm, |_, moe, _| {
        moe.choice = Choice::Biased(Need::Maybe);
        moe.shared = None;
    })?;
    spec.drop_nextn(keys)?;
    Ok(spec)
}
