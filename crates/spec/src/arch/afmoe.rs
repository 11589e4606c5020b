//! afmoe: Trinity (Arcee AI 2025): norms before and behind each half, an output gate for each element of
//! the heads, of each four layers three that see a window and one without a rotation, and experts that
//! are chosen by a sigmoid and a bias.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Choice, Gating, InputSpec, ModelSpec, Need, NormSpec, OutputGate, RopeId, RopeSpec};

pub(super) const ARCH: Architecture = Architecture::new("afmoe", "Trinity", read);

/// Of so many layers the last is not rotated.
const PERIOD: usize = 4;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    let eps = keys.rms_eps()?;
    spec.input = InputSpec::scaled((spec.n_embd as f32).sqrt());
    spec.each_attention(|_, attention| {
        attention.head_norm = Some(dense::norm_of_heads(eps));
        attention.output_gate = OutputGate::Elements;
    });
    if let Some(window) = keys.u32("attention.sliding_window")? {
        let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(spec.ropes[0].base);
        spec.ropes.push(RopeSpec { base, ..spec.ropes[0].clone() });
        spec.window_layers(&keys.windowed_layers(PERIOD, false)?, window, RopeId(1));
    }
    spec.without_rope(|il| (il + 1).is_multiple_of(PERIOD));
    let experts = Experts::read(keys, Gating::Sigmoid, false)?;
    experts.fill(
        &mut spec,
        NormSpec::rms("ffn_norm", eps),
        |_| true,
        |moe| moe.choice = Choice::Biased(Need::Always),
    )?;
    for layer in &mut spec.layers {
        layer.norms.after_mixer = Some(NormSpec::rms("post_attention_norm", eps));
        layer.norms.after_ffn = Some(NormSpec::rms("post_ffw_norm", eps));
    }
    Ok(spec)
}
