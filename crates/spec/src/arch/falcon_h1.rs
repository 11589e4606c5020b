//! falcon-h1: Falcon H1 (arXiv 2507.22448): in each layer attention and Mamba 2 read the same
//! input, and both are added. Its multipliers are part of the weights in a GGUF file.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense, scan};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Mixer, ModelSpec, Need, NormSpec};

pub(super) const ARCH: Architecture = Architecture::new("falcon-h1", "Falcon-H1", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let eps = keys.rms_eps()?;
    // Files of smaller models have no norm of the recurrence's output.
    let scan = scan::mamba2(keys, eps, Need::Maybe)?;
    for layer in &mut spec.layers {
        let attention = std::mem::replace(&mut layer.mixer, Mixer::None);
        layer.mixer = Mixer::Two(Box::new(attention), Box::new(Mixer::Scan(scan.clone())));
        layer.norms.before_ffn = Some(NormSpec { is_bare: true, ..NormSpec::rms("ffn_norm", eps) });
    }
    Ok(spec)
}
