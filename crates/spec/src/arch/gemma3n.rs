//! gemma3n: Gemma 3n E2B and E4B: Gemma 3 with four residual streams, a low-rank branch beside
//! attention, an embedding for each layer, sparse gates in the first layers, and last layers that
//! read the keys and values of earlier ones.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_HEADS, MAX_LENGTH};
use crate::model::{
    FeedForward, HiddenActivation, InputSpec, KvSource, LowRankSpec, ModelSpec, NormSpec, PerLayerEmbedding, Position,
    Residual, RopeFactors, RopeId, RopeScaling, RopeSpec, StreamKind, Visible,
};

pub(super) const ARCH: Architecture = Architecture::new("gemma3n", "Gemma 3n", read).limit("text only");

/// Layers with keys and values of their own where the file does not say how many share.
const OWN_KV_LAYERS: usize = 20;
/// Layers with sparse gates where the file does not say.
const SPARSE_LAYERS: usize = 10;
/// 95 % of a normal distribution lie below the mean and so many standard deviations, as the model's
/// own code has it in f32.
const DEVIATIONS_OF_95_PERCENT: f32 = 1.644_853_4;
/// Rank of the branch beside attention, which no key holds.
const LOW_RANK: usize = 64;
/// The only soft cap of the logits that there is.
const FINAL_CAP: f32 = 30.0;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    let (n_embd, n_layer, eps) = (spec.n_embd, spec.n_layer(), keys.rms_eps()?);
    let width = keys.optional_size("embedding_length_per_layer_input", MAX_LENGTH)?.unwrap_or(256);
    let per_layer = Some(PerLayerEmbedding { width, eps });
    spec.input = InputSpec { per_layer, ..InputSpec::scaled((n_embd as f32).sqrt()) };
    keys.refuse_unless("final_logit_softcapping", &[f64::from(FINAL_CAP)], "another soft cap of the logits")?;
    spec.output.soft_cap = Some(FINAL_CAP);

    let base = keys.positive_f32("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let (scaling, magnitude, factors) = (RopeScaling::None, keys.rope_magnitude()?, RopeFactors::None);
    spec.ropes.push(RopeSpec { base, scaling, magnitude, factors, ..spec.ropes[0].clone() });
    let key = "attention.sliding_window";
    let window = keys.u32(key)?.ok_or_else(|| keys.bad(key, "is missing"))? as usize;
    let is_windowed = keys.windowed_layers(5, false)?;
    let own_layers = own_layers(keys, n_layer)?;
    spec.each_attention(|il, attention| {
        attention.head_norm = Some(dense::norm_of_heads(eps));
        attention.value_norm_eps = Some(eps);
        attention.scale = 1.0;
        if is_windowed[il] {
            attention.visible = Visible::Window(window);
            attention.position = Position::Rope(RopeId(1));
        }
        if let Some(source) = source(own_layers, il, is_windowed[il]) {
            attention.kv = KvSource::Layer(source);
        }
    });

    let count = keys.optional_size("altup.num_inputs", MAX_HEADS)?.unwrap_or(4);
    let active = keys.stored_u32("altup.active_idx")?.unwrap_or(0) as usize;
    if active >= count {
        return Err(keys.bad("altup.active_idx", format!("is {active}, wanted less than the {count} streams")));
    }
    let sparsity = sparsity(keys)?;
    for (layer, sparsity) in spec.layers.iter_mut().zip(sparsity) {
        layer.norms.after_mixer = Some(NormSpec::rms("post_attention_norm", eps));
        layer.norms.after_ffn = Some(NormSpec::rms("post_ffw_norm", eps));
        layer.residual = Residual::Streams { count, kind: StreamKind::AltUp { active } };
        layer.low_rank = Some(LowRankSpec { rank: LOW_RANK, norm: NormSpec::rms("laurel_post_norm", eps) });
        layer.has_own_embedding = true;
        if let FeedForward::Gated(gated) = &mut layer.ffn {
            gated.activation = HiddenActivation::Gelu;
            gated.sparsity = sparsity;
        }
    }
    Ok(spec)
}

/// The layer whose keys and values a layer reads, if not its own: the last two layers with their own
/// are one of each kind.
pub(super) fn source(own_layers: usize, il: usize, is_windowed: bool) -> Option<usize> {
    (il >= own_layers).then(|| own_layers - if is_windowed { 2 } else { 1 })
}

/// How many layers have keys and values of their own. All later ones read the last windowed or the
/// last other one of these.
fn own_layers(keys: &Keys<'_>, n_layer: usize) -> Result<usize> {
    let key = "attention.shared_kv_layers";
    match keys.u32(key)?.map(|n| n as usize) {
        Some(shared) if shared + 2 <= n_layer => Ok(n_layer - shared),
        Some(shared) => {
            Err(keys
                .bad(key, format!("is {shared}, wanted at most {} of the {n_layer} layers", n_layer.saturating_sub(2))))
        }
        None => Ok(OWN_KV_LAYERS.min(n_layer)),
    }
}

/// How many standard deviations above the mean a layer's gate begins; the file holds minus infinity
/// for layers without that.
fn sparsity(keys: &Keys<'_>) -> Result<Vec<Option<f32>>> {
    Ok(match keys.fractions_of_layers("activation_sparsity_scale")? {
        Some(deviations) => deviations.into_iter().map(|x| x.is_finite().then_some(x)).collect(),
        None => (0..keys.n_layer).map(|il| (il < SPARSE_LAYERS).then_some(DEVIATIONS_OF_95_PERCENT)).collect(),
    })
}
