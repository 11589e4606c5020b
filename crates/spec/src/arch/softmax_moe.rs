//! deepseek, bailingmoe and ernie4_5-moe: decoders with experts that are chosen by a softmax, shared
//! ones beside them, and dense layers before: DeepSeek MoE (arXiv 2401.06066), Ling (arXiv 2503.05139)
//! and ERNIE 4.5.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LAYERS};
use crate::model::{Choice, Gating, ModelSpec, Need, NormSpec};

pub(super) const DEEPSEEK: Architecture = Architecture { name: "deepseek", runs: true, read: deepseek };
pub(super) const BAILING: Architecture = Architecture { name: "bailingmoe", runs: true, read: deepseek };
pub(super) const ERNIE: Architecture = Architecture { name: "ernie4_5-moe", runs: true, read: ernie };

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
