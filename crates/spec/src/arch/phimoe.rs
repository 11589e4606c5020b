//! phimoe: Phi-3.5-MoE (arXiv 2404.14219): biases of attention, of norms and of the head, divisors of
//! the angles for long contexts and for others, and a mixture of experts in every layer.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Gating, ModelSpec, Need, NormSpec, RopeFactors};

pub(super) const ARCH: Architecture = Architecture::new("phimoe", "Phi-3.5-MoE", read);

/// As in llama.cpp the norms are RMS norms, to which biases are added, and a window is not used.
fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.rms_eps()?;
    let norm = |name| NormSpec { bias: Need::Always, ..NormSpec::rms(name, eps) };
    let mut spec = dense::decoder_with(arch, keys, RopeStyle::Halves, norm)?;
    spec.with_attention_biases();
    spec.output.bias = Need::Always;
    let original = keys.optional_size("rope.scaling.original_context_length", u32::MAX)?;
    spec.ropes[0].factors = RopeFactors::LongOrShort { original_ctx_tokens: original.unwrap_or(spec.ctx_train) };
    let experts = Experts::read(keys, Gating::Softmax, true)?.with_dense_width();
    experts.fill(&mut spec, norm("ffn_norm"), |_| true, |_| {})?;
    Ok(spec)
}
