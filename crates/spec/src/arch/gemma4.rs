//! gemma4: the text model of Gemma 4: the E2B and E4B, whose layers have embeddings of their own and
//! whose last ones read the keys and values of earlier ones, the dense 12B and 31B, and the 26B-A4B,
//! with a mixture of experts beside each network.

use modelembed_terms::RopeStyle;

use super::dense::{self, Heads};
use super::experts::Experts;
use super::{Architecture, gemma3n};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    BothSpec, FeedForward, GatedSpec, Gating, HiddenActivation, InputSpec, KvSource, ModelSpec, MoeSpec, Need,
    NormSpec, PerLayerEmbedding, RopeFactors, RopeId, RopeScaling, RopeSpec, RouterInput,
};

pub(super) const ARCH: Architecture = Architecture::new("gemma4", "Gemma 4", read).limit("text only");

/// What the logits stay within where a file does not say; 0 means that they are not capped.
const FINAL_CAP: f32 = 30.0;

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let key = "attention.sliding_window_pattern";
    if !keys.is_array(key) {
        return Err(keys.bad(key, "is no array, wanted one that says for each layer whether it has a window"));
    }
    let is_windowed = keys.windowed_layers(1, false)?;
    let heads = heads(keys, n_embd, &is_windowed)?;
    let eps = keys.rms_eps()?;
    let rope = keys.rope(RopeStyle::Halves, long_dim(keys, n_embd)?)?;
    let mut spec = dense::attention_of(arch, keys, rope, &heads, |name| NormSpec::rms(name, eps))?;
    let root = (n_embd as f32).sqrt();
    keys.refuse_unless("embedding_scale", &[f64::from(root)], "another scale of the embedding")?;
    keys.refuse_unless("attention.scale", &[1.0], "another scale of scores")?;
    let width = keys.optional_size("embedding_length_per_layer_input", MAX_LENGTH)?;
    let per_layer = width.map(|width| PerLayerEmbedding { width, eps });
    spec.input = InputSpec { per_layer, ..InputSpec::scaled(root) };
    spec.output.soft_cap = match keys.stored_f32("final_logit_softcapping")? {
        None => Some(FINAL_CAP),
        Some(_) => keys.positive_f32("final_logit_softcapping")?,
    };

    let key = "attention.sliding_window";
    let window = keys.u32(key)?.ok_or_else(|| keys.bad(key, "is missing"))?;
    spec.ropes.push(window_rope(keys, &spec.ropes[0], &heads, &is_windowed)?);
    spec.window_layers(&is_windowed, window, RopeId(1));
    let own_layers = own_layers(keys, &heads, &is_windowed)?;
    let norm = dense::norm_of_heads(eps);
    spec.each_attention(|il, attention| {
        attention.head_norm = Some(norm);
        attention.value_norm_eps = Some(eps);
        attention.scale = 1.0;
        attention.kv = match gemma3n::source(own_layers, il, is_windowed[il]) {
            Some(source) => KvSource::Layer(source),
            None => KvSource::OwnOrKeys,
        };
    });

    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    let experts = if Experts::are_there(keys)? { Some(Experts::read(keys, Gating::Softmax, true)?) } else { None };
    spec.fill_ffn(NormSpec::rms("ffn_norm", eps), |il| {
        let network = GatedSpec { bias: Need::Never, ..GatedSpec::plain(widths[il], HiddenActivation::Gelu) };
        Ok(match &experts {
            Some(experts) => FeedForward::Both(Box::new(both(network, experts.layer(il)?, eps))),
            None => FeedForward::Gated(network),
        })
    })?;
    for layer in &mut spec.layers {
        layer.norms.after_mixer = Some(NormSpec::rms("post_attention_norm", eps));
        layer.norms.after_ffn = Some(NormSpec::rms("post_ffw_norm", eps));
        layer.has_own_embedding = per_layer.is_some();
        layer.output_scale = Need::Maybe;
    }
    Ok(spec)
}

/// Elements of a key of layers without a window.
fn long_dim(keys: &Keys<'_>, n_embd: usize) -> Result<usize> {
    Ok(dense::long_heads(keys, n_embd)?[0].key_dim)
}

/// The sizes of each layer's heads: those of layers with a window have a length of their own.
fn heads(keys: &Keys<'_>, n_embd: usize, is_windowed: &[bool]) -> Result<Vec<Heads>> {
    let long = dense::long_heads(keys, n_embd)?;
    let Heads { key_dim, value_dim, .. } = long[0];
    let key_dim = keys.optional_size("attention.key_length_swa", MAX_LENGTH)?.unwrap_or(key_dim);
    let value_dim = keys.optional_size("attention.value_length_swa", MAX_LENGTH)?.unwrap_or(value_dim);
    if key_dim % 2 != 0 {
        return Err(keys.bad("attention.key_length_swa", format!("is {key_dim}, wanted an even number")));
    }
    for (key, long, short) in [
        ("attention.value_length", long[0].key_dim, long[0].value_dim),
        ("attention.value_length_swa", key_dim, value_dim),
    ] {
        // Without a matrix of their own values are keys.
        if long != short {
            return Err(keys.bad(key, format!("is {short}, wanted the {long} elements of a key")));
        }
    }
    let of_layer = |(heads, windowed): (Heads, &bool)| {
        if *windowed { Heads { key_dim, value_dim, ..heads } } else { heads }
    };
    Ok(long.into_iter().zip(is_windowed).map(of_layer).collect())
}

/// The rotation of layers with a window, which know nothing of scalings and divisors.
fn window_rope(keys: &Keys<'_>, long: &RopeSpec, heads: &[Heads], is_windowed: &[bool]) -> Result<RopeSpec> {
    let windowed = heads.iter().zip(is_windowed).find(|(_, windowed)| **windowed).map(|(heads, _)| heads.key_dim);
    let key_dim = windowed.unwrap_or(long.n_rot);
    let key = "rope.dimension_count_swa";
    let n_rot = keys.optional_size(key, MAX_LENGTH)?.unwrap_or(key_dim);
    if n_rot > key_dim || n_rot % 2 != 0 {
        let problem = format!("is {n_rot}, wanted an even number up to the head's {key_dim} elements");
        return Err(keys.bad(key, problem));
    }
    Ok(RopeSpec {
        n_rot,
        base: keys.positive_f32("rope.freq_base_swa")?.unwrap_or(10_000.0),
        scaling: RopeScaling::None,
        magnitude: keys.rope_magnitude()?,
        factors: RopeFactors::None,
        ..long.clone()
    })
}

/// How many layers have keys and values of their own; the later ones read those of a layer with
/// such heads.
fn own_layers(keys: &Keys<'_>, heads: &[Heads], is_windowed: &[bool]) -> Result<usize> {
    let key = "attention.shared_kv_layers";
    let n_layer = heads.len();
    let shared = keys.u32(key)?.unwrap_or(0) as usize;
    let Some(own) = n_layer.checked_sub(shared).filter(|own| shared == 0 || *own >= 2) else {
        let most = n_layer.saturating_sub(2);
        return Err(keys.bad(key, format!("is {shared}, wanted at most {most} of the {n_layer} layers")));
    };
    for il in own..n_layer {
        let Some(source) = gemma3n::source(own, il, is_windowed[il]) else { continue };
        if is_windowed[source] != is_windowed[il] {
            let problem = format!("is {shared}, but layers {source} and {il} do not see the same positions");
            return Err(keys.bad(key, problem));
        }
        let (stored, read) = (heads[source].kv_heads, heads[il].kv_heads);
        if stored != read {
            let problem = format!("has {read} for layer {il}, which reads the {stored} of layer {source}");
            return Err(keys.bad("attention.head_count_kv", problem));
        }
    }
    Ok(own)
}

/// A network and a mixture of experts with its activation, whose router reads the residual stream
/// for itself.
fn both(network: GatedSpec, mut experts: MoeSpec, eps: f32) -> BothSpec {
    experts.expert.activation = network.activation;
    experts.router_input = RouterInput::OwnNorm { eps };
    BothSpec {
        network,
        after_network: NormSpec::rms("post_ffw_norm_1", eps),
        before_experts: NormSpec::rms("pre_ffw_norm_2", eps),
        experts,
        after_experts: NormSpec::rms("post_ffw_norm_2", eps),
    }
}
