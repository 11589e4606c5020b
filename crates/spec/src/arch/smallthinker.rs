//! smallthinker: SmallThinker (arXiv 2507.20984): the router reads the layer's input before any norm,
//! and gates are ReLU. Of each four layers the first sees everything and is not rotated, the others see a
//! window; models without windows are rotated everywhere.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Gating, HiddenActivation, ModelSpec, NormSpec, RopeId, RopeSpec, RouterInput};

pub(super) const ARCH: Architecture = Architecture::new("smallthinker", "SmallThinker", read);

/// Of so many layers the first is not rotated.
const PERIOD: usize = 4;
/// The only window that there is: llama.cpp takes it whatever the file says.
const WINDOW: u32 = 4096;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    if let Some(window) = keys.u32("attention.sliding_window")? {
        keys.refuse_unless("attention.sliding_window", &[f64::from(WINDOW)], "another window")?;
        let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(spec.ropes[0].base);
        spec.ropes.push(RopeSpec { base, ..spec.ropes[0].clone() });
        spec.window_layers(&keys.windowed_layers(PERIOD, true)?, window, RopeId(1));
        spec.without_rope(|il| il.is_multiple_of(PERIOD));
    }
    let key = "expert_gating_func";
    if keys.u32(key)?.is_none() {
        return Err(keys.bad(key, "is missing"));
    }
    let experts = Experts::read(keys, Gating::Sigmoid, true)?;
    let norm = NormSpec::rms("ffn_norm", keys.rms_eps()?);
    experts.fill(
        &mut spec,
        norm,
        |_| true,
        |moe| {
            moe.router_input = RouterInput::LayerInput;
            moe.expert.activation = HiddenActivation::Relu;
        },
    )?;
    Ok(spec)
}
