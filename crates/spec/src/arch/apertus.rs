//! apertus: Apertus (Swiss AI 2025, arXiv 2509.14233): norms of queries and keys, and networks without
//! a gate whose activation each layer has learned.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{FeedForward, HiddenActivation, ModelSpec, Need};

pub(super) const ARCH: Architecture = Architecture::new("apertus", "Apertus", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let norm = dense::norm_of_heads(keys.rms_eps()?);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    let of = |key| keys.fractions_without_prefix(key);
    let (positive, negative) = (of("xielu.alpha_p")?, of("xielu.alpha_n")?);
    let (beta, eps) = (of("xielu.beta")?, of("xielu.eps")?);
    spec.without_gates(HiddenActivation::Relu, Need::Never);
    for (il, layer) in spec.layers.iter_mut().enumerate() {
        if let FeedForward::Plain(plain) = &mut layer.ffn {
            // Files hold what softplus makes the factors of.
            plain.activation = HiddenActivation::Xielu {
                positive: softplus(positive[il]),
                negative: beta[il] + softplus(negative[il]),
                beta: beta[il],
                eps: eps[il],
            };
        }
    }
    Ok(spec)
}

fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}
