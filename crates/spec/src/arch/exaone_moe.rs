//! exaone-moe: K-EXAONE (LG AI Research 2026): norms of queries and keys, of each four layers three that
//! see a window, which alone are rotated, and experts that are chosen by a sigmoid and a bias beside one
//! that every position uses.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Choice, Gating, ModelSpec, Need, NormSpec, RopeId, SharedSpec};

pub(super) const ARCH: Architecture = Architecture::new("exaone-moe", "K-EXAONE", read)
    .limit("blocks that predict several tokens (`nextn`) are not used");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    let eps = keys.rms_eps()?;
    let norm = dense::norm_of_heads(eps);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    let key = "attention.sliding_window";
    let window = keys.u32(key)?.ok_or_else(|| keys.bad(key, "is missing"))?;
    let is_windowed = keys.windowed_layers(4, false)?;
    let base = f64::from(spec.ropes[0].base);
    keys.refuse_unless("rope.freq_base_swa", &[base], "another base in layers with a window")?;
    spec.window_layers(&is_windowed, window, RopeId(0));
    spec.without_rope(|il| !is_windowed[il]);
    let experts = Experts::read(keys, Gating::Sigmoid, false)?;
    experts.fill(
        &mut spec,
        NormSpec::rms("ffn_norm", eps),
        |_| true,
        |moe| {
            moe.choice = Choice::Biased(Need::Maybe);
            let width = moe.expert.width;
            moe.shared.get_or_insert(SharedSpec { width, is_weighted: false, clamp: None });
        },
    )?;
    spec.drop_nextn(keys)?;
    Ok(spec)
}
