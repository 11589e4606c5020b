//! llama4: Llama 4 (Meta 2025). Of each four layers three see a chunk of positions; the others are not
//! rotated and see everything, with queries that grow with the position. An expert's input is weighed, not
//! its output.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LAYERS};
use crate::model::{
    Gating, HeadNorm, HeadNormSpan, ModelSpec, NormSpec, Position, RopeId, RopeSpec, SharedSpec, Temperature, Visible,
};

pub(super) const ARCH: Architecture = Architecture::new("llama4", "Llama 4", read).limit("text only");

/// Of so many layers the last sees everything.
const PERIOD: usize = 4;
/// Positions of a chunk, whatever the file says, and over which the temperature stays the same.
const CHUNK: usize = 8192;
const TEMPERATURE_SCALE: f32 = 0.1;
/// Experts of Maverick, whose queries and keys are not normed.
const EXPERTS_OF_MAVERICK: usize = 128;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Adjacent)?;
    let eps = keys.rms_eps()?;
    let key = "attention.sliding_window";
    if keys.stored_u32(key)? == Some(0) {
        return Err(keys.bad(key, format!("is 0, wanted {CHUNK}: architecture llama4 runs here with chunks only")));
    }
    keys.refuse_unless(key, &[CHUNK as f64], "chunks of another length")?;
    // What it is in any case, as a file says that llama.cpp saved.
    let scale = f64::from(TEMPERATURE_SCALE);
    keys.refuse_unless("attention.temperature_scale", &[scale], "another temperature of attention")?;
    keys.refuse_unless("attention.temperature_length", &[CHUNK as f64], "another temperature of attention")?;
    let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(spec.ropes[0].base);
    spec.ropes.push(RopeSpec { base, ..spec.ropes[0].clone() });
    let is_chunked = keys.windowed_layers(PERIOD, false)?;
    let experts = Experts::read(keys, Gating::Sigmoid, false)?;
    let is_normed = experts.count() != EXPERTS_OF_MAVERICK;
    let norm = HeadNorm { span: HeadNormSpan::Plain, after_rope: true, ..dense::norm_of_heads(eps) };
    spec.each_attention(|il, attention| {
        if is_chunked[il] {
            attention.visible = Visible::Chunk(CHUNK);
            attention.position = Position::Rope(RopeId(1));
        }
        if (il + 1).is_multiple_of(PERIOD) {
            attention.position = Position::None;
            attention.temperature = Some(Temperature { scale: TEMPERATURE_SCALE, length_tokens: CHUNK, offset: 1 });
        } else if is_normed {
            attention.head_norm = Some(norm);
        }
    });
    let step = keys.size("interleave_moe_layer_step", MAX_LAYERS)?;
    experts.fill(
        &mut spec,
        NormSpec::rms("ffn_norm", eps),
        |il| (il + 1).is_multiple_of(step),
        |moe| {
            moe.weighs_input = true;
            moe.shared = Some(SharedSpec { width: moe.expert.width, is_weighted: false, clamp: None });
        },
    )?;
    Ok(spec)
}
