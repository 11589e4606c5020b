//! mistral3: Ministral 3 (Mistral AI 2025): llama with queries that grow with the position, and a
//! magnitude of its own in YaRN.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Gating, ModelSpec, NormSpec, RopeScaling, Temperature};

pub(super) const ARCH: Architecture = Architecture::new("mistral3", "Ministral 3", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let multiplier = keys.f32("rope.scaling.yarn_log_multiplier")?;
    if let (RopeScaling::Yarn { factor, .. }, Some(by)) = (spec.ropes[0].scaling, multiplier) {
        spec.ropes[0].magnitude /= 1.0 + 0.1 * by * factor.ln();
    }
    let original = keys.optional_size("rope.scaling.original_context_length", u32::MAX)?;
    if let Some(scale) = keys.f32("attention.temperature_scale")? {
        let length_tokens = original.unwrap_or(spec.ctx_train);
        spec.each_attention(|_, attention| {
            attention.temperature = Some(Temperature { scale, length_tokens, offset: 0 });
        });
    }
    if Experts::are_there(keys)? {
        let norm = NormSpec::rms("ffn_norm", keys.rms_eps()?);
        Experts::read(keys, Gating::Softmax, true)?.with_dense_width().fill(&mut spec, norm, |_| true, |_| {})?;
    }
    Ok(spec)
}
