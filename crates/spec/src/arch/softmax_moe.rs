//! mellum, deepseek, bailingmoe and ernie4_5-moe: decoders with experts that are chosen by a softmax, shared
//! ones beside them, and dense layers before: DeepSeek MoE (arXiv 2401.06066), Ling (arXiv 2503.05139)
//! and ERNIE 4.5.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LAYERS};
use crate::model::{Choice, Gating, ModelSpec, Need, NormSpec, RopeFactors, RopeId, RopeScaling, RopeSpec};

pub(super) const DEEPSEEK: Architecture = Architecture::new("deepseek", "DeepSeek MoE 16B", deepseek);
pub(super) const BAILING: Architecture = Architecture::new("bailingmoe", "Ling Lite, Ling Plus", deepseek);
pub(super) const MELLUM: Architecture = Architecture::new("mellum", "Mellum", mellum);
pub(super) const ERNIE: Architecture = Architecture::new("ernie4_5-moe", "ERNIE 4.5 (21B-A3B, 300B-A47B)", ernie);

fn deepseek(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let experts = Experts::read(keys, Gating::Softmax, false)?;
    experts.fill(&mut spec, NormSpec::rms("ffn_norm", keys.rms_eps()?), |_| true, |_| {})?;
    Ok(spec)
}

fn ernie(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let step = keys.optional_size("interleave_moe_layer_step", MAX_LAYERS)?.unwrap_or(1);
    let experts = Experts::read(keys, Gating::Softmax, true)?;
    let norm = NormSpec::rms("ffn_norm", keys.rms_eps()?);
    experts.fill(
        &mut spec,
        norm,
        |il| (il + 1).is_multiple_of(step),
        |moe| {
            moe.choice = Choice::Biased(Need::Maybe);
        },
    )?;
    Ok(spec)
}

/// Mellum 2 (JetBrains 2026): as Qwen 3, but of each four layers three see a window, whose rotation
/// knows nothing of longer contexts.
fn mellum(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    let eps = keys.rms_eps()?;
    let norm = dense::norm_of_heads(eps);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    spec.ropes[0].factors = RopeFactors::None;
    if let Some(window) = keys.u32("attention.sliding_window")? {
        let base = f64::from(spec.ropes[0].base);
        keys.refuse_unless("rope.freq_base_swa", &[base], "another base in layers with a window")?;
        let (scaling, magnitude) = (RopeScaling::None, 1.0);
        spec.ropes.push(RopeSpec { scaling, magnitude, ..spec.ropes[0].clone() });
        spec.window_layers(&keys.windowed_layers(4, false)?, window, RopeId(1));
    }
    let experts = Experts::read(keys, Gating::Softmax, true)?;
    experts.fill(&mut spec, NormSpec::rms("ffn_norm", eps), |_| true, |_| {})?;
    Ok(spec)
}
