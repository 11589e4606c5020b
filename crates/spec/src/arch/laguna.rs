//! laguna: Laguna (Poolside 2026): a gate by softplus for each head or element, norms of queries and keys,
//! of each four layers three that see a window with heads and a rotation of their own, and experts that
//! are chosen by a sigmoid and a bias.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    Choice, GateActivation, Gating, ModelSpec, Need, NormSpec, OutputGate, RopeFactors, RopeId, RopeScaling, RopeSpec,
    SharedSpec,
};

pub(super) const ARCH: Architecture = Architecture::new("laguna", "Laguna", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    let heads = dense::heads(keys, n_embd)?;
    let dim = heads[0].key_dim;
    let rope = RopeSpec { factors: RopeFactors::None, ..keys.rope(RopeStyle::Halves, dim)? };
    let mut spec = dense::attention_of(arch, keys, rope, &heads, |name| NormSpec::rms(name, eps))?;
    spec.each_attention(|_, attention| {
        attention.head_norm = Some(dense::norm_of_heads(eps));
        attention.output_gate = OutputGate::HeadsOrElements;
        attention.gate_activation = GateActivation::Softplus;
    });
    if let Some(window) = keys.u32("attention.sliding_window")? {
        let key = "rope.dimension_count_swa";
        let n_rot = keys.optional_size(key, MAX_LENGTH)?.unwrap_or(spec.ropes[0].n_rot);
        if n_rot > dim || n_rot % 2 != 0 {
            let wanted = format!("wanted an even number up to the head's {dim} elements");
            return Err(keys.bad(key, format!("is {n_rot}, {wanted}")));
        }
        let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(spec.ropes[0].base);
        let (scaling, magnitude) = (RopeScaling::None, 1.0);
        spec.ropes.push(RopeSpec { n_rot, base, scaling, magnitude, ..spec.ropes[0].clone() });
        spec.window_layers(&keys.windowed_layers(4, true)?, window, RopeId(1));
    }
    let experts = Experts::read(keys, Gating::Sigmoid, false)?;
    experts.fill(
        &mut spec,
        NormSpec::rms("ffn_norm", eps),
        |_| true,
        |moe| {
            moe.choice = Choice::Biased(Need::Always);
            let width = moe.expert.width;
            moe.shared.get_or_insert(SharedSpec { width, is_weighted: false, clamp: None });
        },
    )?;
    Ok(spec)
}
