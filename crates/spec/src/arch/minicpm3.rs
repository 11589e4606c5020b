//! minicpm3: MiniCPM 3 (arXiv 2404.06395): latent attention, and factors of the embedding, the halves and
//! the logits that no key holds.

use modelembed_terms::RopeStyle;

use super::{Architecture, deepseek2, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{AttentionSpec, LatentExpansion, LatentSpec, Mixer, ModelSpec};

pub(super) const ARCH: Architecture = Architecture::new("minicpm3", "MiniCPM 3", read);

/// Factor on the embedding.
const EMBEDDING_SCALE: f32 = 12.0;
/// Of each half's output, shared by the layers.
const DEPTH_SCALE: f32 = 1.4;
/// Length of the embedding with which logits would have no factor.
const BASE_LENGTH: f32 = 256.0;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let latent = LatentSpec { expansion: LatentExpansion::Joined, ..deepseek2::latent(keys, &mut spec)? };
    let residual = DEPTH_SCALE / (spec.n_layer() as f32).sqrt();
    for layer in &mut spec.layers {
        layer.residual_scale = residual;
        if let Mixer::Attention(AttentionSpec { heads, .. }) = layer.mixer {
            layer.mixer = Mixer::Latent(LatentSpec { heads, ..latent.clone() });
        }
    }
    spec.input.scale = EMBEDDING_SCALE;
    spec.output.scale = BASE_LENGTH / spec.n_embd as f32;
    Ok(spec)
}
