//! cohere2: Command R7B and Command A (Cohere 2025, arXiv 2504.00698): as command-r, but of each four
//! layers three see a window, and only these are rotated.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{ModelSpec, Need, NormSpec, RopeId, RopeSpec};

pub(super) const ARCH: Architecture = Architecture::new("cohere2", "Command R7B, Command A", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.layer_norm_eps()?;
    let norm = |name| NormSpec::layer(name, eps, Need::Never);
    let mut spec = dense::decoder_with(arch, keys, RopeStyle::Adjacent, norm)?;
    spec.in_parallel();
    spec.layers.iter_mut().for_each(|layer| layer.norms.before_ffn = None);
    spec.output.scale = keys.f32("logit_scale")?.unwrap_or(1.0);
    let key = "attention.sliding_window";
    let window = keys.u32(key)?.ok_or_else(|| keys.bad(key, "is missing"))?;
    let is_windowed = keys.windowed_layers(4, false)?;
    if let Some(base) = keys.positive_f32("rope.freq_base_swa")? {
        spec.ropes[0] = RopeSpec { base, ..spec.ropes[0].clone() };
    }
    spec.window_layers(&is_windowed, window, RopeId(0));
    spec.without_rope(|il| !is_windowed[il]);
    Ok(spec)
}
