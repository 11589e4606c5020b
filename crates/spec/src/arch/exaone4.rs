//! exaone4: EXAONE 4.0 (LG AI Research 2025, arXiv 2507.11407): norms of queries and keys, norms
//! behind the halves only, and in the 32B of each four layers three that see a window, which alone
//! are rotated. exaone: EXAONE 3 and 3.5 (arXiv 2408.03541), a llama with other pairs in RoPE.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{LayerNorms, ModelSpec, NormSpec, RopeId, RopeSpec};

pub(super) const EXAONE: Architecture = Architecture::new("exaone", "EXAONE 3, EXAONE Deep", exaone);
pub(super) const EXAONE4: Architecture = Architecture::new("exaone4", "EXAONE 4", exaone4);

/// Layers of the 32B, the only model with windows.
const LAYERS_OF_32B: usize = 64;
/// What it has where a file does not say it.
const WINDOW: u32 = 4096;

fn exaone(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    Ok(spec)
}

fn exaone4(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    let eps = keys.rms_eps()?;
    let norm = dense::norm_of_heads(eps);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    for layer in &mut spec.layers {
        layer.norms = LayerNorms {
            after_mixer: Some(NormSpec::rms("post_attention_norm", eps)),
            after_ffn: Some(NormSpec::rms("post_ffw_norm", eps)),
            ..LayerNorms::default()
        };
    }
    if spec.n_layer() != LAYERS_OF_32B {
        dense::refuse_window(keys, spec.ctx_train)?;
        return Ok(spec);
    }
    let window = keys.u32("attention.sliding_window")?.unwrap_or(WINDOW);
    let is_windowed = keys.windowed_layers(4, false)?;
    if let Some(base) = keys.positive_f32("rope.freq_base_swa")? {
        spec.ropes[0] = RopeSpec { base, ..spec.ropes[0].clone() };
    }
    spec.window_layers(&is_windowed, window, RopeId(0));
    spec.without_rope(|il| !is_windowed[il]);
    Ok(spec)
}
