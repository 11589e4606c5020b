//! gemma3: the text model of Gemma 3 (arXiv 2503.19786): norms before and behind each half, GELU,
//! and of each six layers five that see a window.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{HiddenActivation, InputSpec, ModelSpec, NormSpec, RopeFactors, RopeId, RopeScaling, RopeSpec};

pub(super) const ARCH: Architecture = Architecture::new("gemma3", "Gemma 3", read).limit("text only");

/// Layers of the 27B, which was trained with the embedding's share of a head in place of a head's
/// length.
const LAYERS_OF_27B: usize = 62;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    let (n_embd, n_layer, eps) = (spec.n_embd, spec.n_layer(), keys.rms_eps()?);
    spec.input = InputSpec::scaled((n_embd as f32).sqrt());
    keys.refuse_unless("embedding_scale", &[f64::from((n_embd as f32).sqrt())], "another scale of the embedding")?;
    spec.output.soft_cap = keys.positive_f32("final_logit_softcapping")?;
    spec.each_gated(|gated| gated.activation = HiddenActivation::Gelu);
    let has_scale = keys.f32("attention.scale")?.is_some();
    let norm = dense::norm_of_heads(eps);
    spec.each_attention(|_, attention| {
        attention.head_norm = Some(norm);
        if n_layer == LAYERS_OF_27B && !has_scale {
            attention.scale = 1.0 / ((n_embd / attention.heads) as f32).sqrt();
        }
    });
    for layer in &mut spec.layers {
        layer.norms.after_mixer = Some(NormSpec::rms("post_attention_norm", eps));
        layer.norms.after_ffn = Some(NormSpec::rms("post_ffw_norm", eps));
    }
    if let Some(window) = keys.u32("attention.sliding_window")? {
        let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(10_000.0);
        spec.ropes.push(RopeSpec {
            base,
            scaling: RopeScaling::None,
            magnitude: keys.rope_magnitude()?,
            factors: RopeFactors::None,
            ..spec.ropes[0].clone()
        });
        spec.window_layers(&keys.windowed_layers(6, false)?, window, RopeId(1));
    }
    Ok(spec)
}
