//! command-r: Command R and Aya 23 (Cohere 2024): layer norms without biases, attention and
//! feed-forward network side by side behind one norm, and scaled logits.

use modelembed_terms::{NormKind, RopeStyle};

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{HeadNorm, HeadNormSpan, ModelSpec, Need, NormSpec, Residual};

pub(super) const ARCH: Architecture = Architecture::new("command-r", "Command R, Command R+, Aya 23", read);

/// Layers from which on queries and keys are normed: Command R+ has them, and no key says so.
const LAYERS_WITH_HEAD_NORMS: usize = 64;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.layer_norm_eps()?;
    let norm = |name| NormSpec::layer(name, eps, Need::Never);
    let mut spec = dense::decoder_with(arch, keys, RopeStyle::Adjacent, norm)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    for layer in &mut spec.layers {
        layer.residual = Residual::Parallel;
        layer.norms.before_ffn = None;
    }
    if spec.n_layer() >= LAYERS_WITH_HEAD_NORMS {
        let norm =
            HeadNorm { kind: NormKind::Layer, eps, span: HeadNormSpan::OwnHead, after_rope: false, need: Need::Always };
        spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    }
    spec.output.scale = keys.f32("logit_scale")?.unwrap_or(1.0);
    Ok(spec)
}
