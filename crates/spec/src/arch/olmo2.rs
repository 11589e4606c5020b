//! olmo2: OLMo 2 and 3 (arXiv 2501.00656, 2512.13961): norms behind each half and none before,
//! norms over all heads of queries and of keys; in OLMo 3 of each four layers three that see a
//! window.

use modelembed_terms::{NormKind, RopeStyle};

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{HeadNorm, HeadNormSpan, LayerNorms, ModelSpec, Need, NormSpec, RopeId, RopeScaling, RopeSpec};

pub(super) const ARCH: Architecture = Architecture::new("olmo2", "OLMo 2, OLMo 3", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    let eps = keys.rms_eps()?;
    let norm = HeadNorm { kind: NormKind::Rms, eps, span: HeadNormSpan::Row, after_rope: false, need: Need::Always };
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    for layer in &mut spec.layers {
        layer.norms = LayerNorms {
            after_mixer: Some(NormSpec::rms("post_attention_norm", eps)),
            after_ffn: Some(NormSpec::rms("post_ffw_norm", eps)),
            ..LayerNorms::default()
        };
    }
    if let Some(window) = keys.u32("attention.sliding_window")? {
        // A context that grew has not changed what these layers see: as in llama.cpp, their cosines
        // and sines stay as they are, too.
        let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(spec.ropes[0].base);
        let scaling = RopeScaling::None;
        spec.ropes.push(RopeSpec { base, scaling, magnitude: 1.0, ..spec.ropes[0].clone() });
        spec.window_layers(&keys.windowed_layers(4, false)?, window, RopeId(1));
    }
    Ok(spec)
}
