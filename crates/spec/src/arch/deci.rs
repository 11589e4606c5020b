//! deci: Llama Nemotron Super and Nemotron 51B (NVIDIA 2025, arXiv 2505.00949): a llama in whose layers a
//! search has left fewer heads, a matrix in the place of attention, or no attention.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_HEADS, MAX_LENGTH};
use crate::model::{
    AttentionSpec, FeedForward, GatedSpec, HiddenActivation, LayerNorms, LayerSpec, Mixer, ModelSpec, NormSpec, RopeId,
};

pub(super) const ARCH: Architecture = Architecture::new("deci", "Llama Nemotron Super 49B and 51B (DeciLM)", read)
    .limit("layers without a feed-forward network are refused");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    let counts = |key| keys.per_layer(key)?.ok_or_else(|| keys.bad(key, "is missing"));
    let heads = counts("attention.head_count")?;
    let kv_heads = keys.per_layer("attention.head_count_kv")?.unwrap_or_else(|| heads.clone());
    let widths = counts("feed_forward_length")?;
    let most = heads.iter().copied().max().unwrap_or(0);
    let most = keys.bounded("attention.head_count", most, MAX_HEADS)?;
    let dim = keys.optional_size("attention.key_length", MAX_LENGTH)?.unwrap_or(n_embd / most);
    keys.refuse_unless("attention.value_length", &[dim as f64], "values of another length than keys")?;
    if dim == 0 {
        return Err(keys.bad("attention.head_count", format!("is {most}, more than the embedding's {n_embd} elements")));
    }
    let rope = keys.rope(RopeStyle::Adjacent, dim)?;
    let scale = keys.f32("attention.scale")?;
    let layer = |il: usize| {
        let (heads, kv_heads) = (heads[il] as usize, kv_heads[il] as usize);
        let mixer = match (heads, kv_heads) {
            (0, _) => Mixer::None,
            (_, 0) => Mixer::Linear,
            _ if !heads.is_multiple_of(kv_heads) || heads > most => {
                let problem = format!("{kv_heads} does not divide the {heads} heads of layer {il}");
                return Err(keys.bad("attention.head_count_kv", problem));
            }
            _ => {
                let plain = AttentionSpec::plain(heads, kv_heads, dim, RopeId(0));
                Mixer::Attention(AttentionSpec { scale: scale.unwrap_or(plain.scale), ..plain })
            }
        };
        // A layer without a network is not computed as a whole in llama.cpp, whatever its attention.
        let width = keys.bounded("feed_forward_length", widths[il], MAX_LENGTH)?;
        let ffn = FeedForward::Gated(GatedSpec::plain(width, HiddenActivation::Silu));
        let norms = LayerNorms {
            before_mixer: (mixer != Mixer::None).then(|| NormSpec::rms("attn_norm", eps)),
            before_ffn: Some(NormSpec::rms("ffn_norm", eps)),
            ..LayerNorms::default()
        };
        Ok(LayerSpec::sequential(mixer, ffn, norms))
    };
    let layers = (0..keys.n_layer).map(layer).collect::<Result<_>>()?;
    let spec = dense::of_layers(arch, keys, vec![rope], layers, NormSpec::rms("output_norm", eps))?;
    dense::refuse_window(keys, spec.ctx_train)?;
    Ok(spec)
}
