//! glm4: GLM-4 of 2025 (arXiv 2406.12793): norms before and behind each half, gate and up projection
//! in one matrix, half of each head rotated. chatglm: ChatGLM 3 and GLM-4 of 2024, without the norms
//! behind.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{ModelSpec, NormSpec};

pub(super) const GLM4: Architecture = Architecture::new("glm4", "GLM-4 of 2025 (0414), GLM-Z1", glm4);
pub(super) const CHATGLM: Architecture = Architecture::new("chatglm", "ChatGLM 3, GLM-4 of 2024", chatglm);

fn chatglm(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.each_gated(|gated| gated.is_fused = true);
    Ok(spec)
}

fn glm4(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = chatglm(arch, keys)?;
    let eps = keys.rms_eps()?;
    for layer in &mut spec.layers {
        layer.norms.after_mixer = Some(NormSpec::rms("post_attention_norm", eps));
        layer.norms.after_ffn = Some(NormSpec::rms("post_ffw_norm", eps));
    }
    Ok(spec)
}
