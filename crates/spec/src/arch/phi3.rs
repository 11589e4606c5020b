//! phi3: Phi-3, Phi-3.5 and Phi-4 (arXiv 2404.14219): llama with other pairs in RoPE, which may
//! leave a part of each head as it is; one matrix for queries, keys and values and one for gate and
//! up projection; divisors of the angles for long contexts and for others (LongRoPE).

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{ModelSpec, RopeFactors};

pub(super) const ARCH: Architecture = Architecture::new("phi3", "Phi-3, Phi-3.5, Phi-4, Phi-4-mini", read);

/// Files may name a window. As in llama.cpp it is not used: no key says which layers have one.
fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    spec.each_gated(|gated| gated.is_fused = true);
    let original = keys.optional_size("rope.scaling.original_context_length", u32::MAX)?;
    spec.ropes[0].factors = RopeFactors::LongOrShort { original_ctx_tokens: original.unwrap_or(spec.ctx_train) };
    Ok(spec)
}
