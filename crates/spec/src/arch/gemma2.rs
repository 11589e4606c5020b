//! gemma2: Gemma 2 (arXiv 2408.00118): norms before and behind each half, GELU, soft caps of scores
//! and logits, and of each two layers one that sees a window.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{HiddenActivation, InputSpec, ModelSpec, NormSpec, RopeId, RopeSpec};

pub(super) const ARCH: Architecture = Architecture::new("gemma2", "Gemma 2", read);

/// Layers of the 27B, which was trained with the embedding's share of a head in place of a head's
/// length.
const LAYERS_OF_27B: usize = 46;
/// What the models have, where a file does not say it.
const WINDOW: u32 = 4096;
const ATTENTION_CAP: f32 = 50.0;
const LOGIT_CAP: f32 = 30.0;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    let (n_embd, n_layer, eps) = (spec.n_embd, spec.n_layer(), keys.rms_eps()?);
    spec.input = InputSpec::scaled((n_embd as f32).sqrt());
    keys.refuse_unless("embedding_scale", &[f64::from((n_embd as f32).sqrt())], "another scale of the embedding")?;
    spec.output.soft_cap = Some(keys.positive_f32("final_logit_softcapping")?.unwrap_or(LOGIT_CAP));
    spec.each_gated(|gated| gated.activation = HiddenActivation::Gelu);
    let cap = keys.positive_f32("attn_logit_softcapping")?.unwrap_or(ATTENTION_CAP);
    let has_scale = keys.f32("attention.scale")?.is_some();
    spec.each_attention(|_, attention| {
        attention.soft_cap = Some(cap);
        if n_layer == LAYERS_OF_27B && !has_scale {
            attention.scale = 1.0 / ((n_embd / attention.heads) as f32).sqrt();
        }
    });
    for layer in &mut spec.layers {
        layer.norms.after_mixer = Some(NormSpec::rms("post_attention_norm", eps));
        layer.norms.after_ffn = Some(NormSpec::rms("post_ffw_norm", eps));
    }
    let window = keys.u32("attention.sliding_window")?.unwrap_or(WINDOW);
    let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(spec.ropes[0].base);
    spec.ropes.push(RopeSpec { base, ..spec.ropes[0].clone() });
    spec.window_layers(&keys.windowed_layers(2, false)?, window, RopeId(1));
    Ok(spec)
}
