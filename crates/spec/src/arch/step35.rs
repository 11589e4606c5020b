//! step35: Step 3.5 Flash (StepFun 2026): heads of each layer's own number with a gate each, windows in
//! most layers, half of a head rotated in the others, and limits of some layers' gates and up projections.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    Choice, Clamp, Gating, HeadNorm, ModelSpec, Need, NormSpec, OutputGate, RopeFactors, RopeId, RopeScaling, RopeSpec,
    SharedSpec,
};

pub(super) const ARCH: Architecture =
    Architecture::new("step35", "Step 3.5", read).limit("blocks that predict several tokens (`nextn`) are not used");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    let heads = dense::heads(keys, n_embd)?;
    let whole = keys.rope(RopeStyle::Halves, heads[0].key_dim)?;
    // The key says what layers with a window rotate, and others half of it. Divisors are as many as if
    // all of it were.
    let n_rot = whole.n_rot;
    keys.refuse_unless(
        "rope.dimension_count_swa",
        &[n_rot as f64],
        "a rotation of another length in layers with a window",
    )?;
    if n_rot % 4 != 0 {
        return Err(keys.bad("rope.dimension_count", format!("is {n_rot}, wanted a multiple of 4")));
    }
    let rope = RopeSpec { n_rot: n_rot / 2, factors: RopeFactors::FirstOf(n_rot / 2), ..whole.clone() };
    let mut spec = dense::attention_of(arch, keys, rope, &heads, |name| NormSpec::rms(name, eps))?;
    let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let (scaling, magnitude, factors) = (RopeScaling::None, keys.rope_magnitude()?, RopeFactors::None);
    spec.ropes.push(RopeSpec { base, scaling, magnitude, factors, ..whole });
    let norm = HeadNorm { need: Need::Maybe, ..dense::norm_of_heads(eps) };
    spec.each_attention(|_, attention| {
        attention.head_norm = Some(norm);
        attention.output_gate = OutputGate::Heads;
    });
    let key = "attention.sliding_window";
    let window = keys.u32(key)?.ok_or_else(|| keys.bad(key, "is missing"))?;
    spec.window_layers(&keys.array_of_windows()?, window, RopeId(1));
    let limits = |key| Ok(keys.fractions_of_layers(key)?.unwrap_or_else(|| vec![0.0; keys.n_layer]));
    let (of_experts, of_shared): (Vec<f32>, Vec<f32>) = (limits("swiglu_clamp_exp")?, limits("swiglu_clamp_shexp")?);
    let limit = |limit: f32| Some(Clamp::AfterActivation(limit)).filter(Clamp::is_there);
    let experts = Experts::read(keys, Gating::Sigmoid, false)?;
    experts.fill_where_routed(&mut spec, NormSpec::rms("ffn_norm", eps), |il, moe, gated| {
        moe.choice = Choice::Biased(Need::Maybe);
        moe.expert.clamp = limit(of_experts[il]);
        let width = moe.shared.map_or(moe.expert.width, |shared| shared.width);
        moe.shared = Some(SharedSpec { width, is_weighted: false, clamp: limit(of_shared[il]) });
        gated.clamp = limit(of_shared[il]);
    })?;
    spec.drop_nextn(keys)?;
    Ok(spec)
}
