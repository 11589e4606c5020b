//! t5: T5 and Flan-T5 (arXiv 1910.10683): an encoder, and a decoder that also attends to its
//! result. Positions enter as a bias a bucket of distances.

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LAYERS, MAX_LENGTH};
use crate::model::{
    AttentionSpec, CrossSpec, EncoderSpec, FeedForward, GatedSpec, HiddenActivation, InputSpec, LayerNorms, LayerSpec,
    Mixer, ModelSpec, Need, NormSpec, OutputSpec, PlainSpec, Position, RopeId, Visible,
};

pub(super) const ARCH: Architecture =
    Architecture::new("t5", "T5, Flan-T5", read).described("encoders and attention to another text have no steps yet");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let heads = dense::heads(keys, n_embd)?;
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    // Buckets of an encoder are halved for the two directions.
    let buckets = keys.size("attention.relative_buckets_count", MAX_LENGTH)?;
    let n_decoder = keys.optional_size("decoder_block_count", MAX_LAYERS)?.unwrap_or(keys.n_layer);
    let layer = |il: usize, visible: Visible| {
        let (heads, width) = (heads[il], widths[il]);
        let attention = AttentionSpec {
            value_dim: heads.value_dim,
            position: Position::RelativeBias { buckets },
            visible,
            // The factor is part of the weights.
            scale: 1.0,
            ..AttentionSpec::plain(heads.heads, heads.kv_heads, heads.key_dim, RopeId(0))
        };
        // Only the tensors tell the first models, without a gate, from later ones.
        let gated = GatedSpec { bias: Need::Never, ..GatedSpec::plain(width, HiddenActivation::Gelu) };
        let plain = PlainSpec { width, activation: HiddenActivation::Relu, bias: Need::Never };
        let norms = LayerNorms {
            before_mixer: Some(NormSpec::rms("attn_norm", eps)),
            before_ffn: Some(NormSpec::rms("ffn_norm", eps)),
            ..LayerNorms::default()
        };
        LayerSpec::sequential(Mixer::Attention(attention), FeedForward::GatedOrPlain(gated, plain), norms)
    };
    // The keys have one number for the layers of both, or one for each of the encoder's.
    let decoder_layer = |il: usize| {
        let layer = layer(il.min(keys.n_layer - 1), Visible::Causal);
        let cross = match &layer.mixer {
            Mixer::Attention(attention) => Some(CrossSpec {
                norm: NormSpec::rms("cross_attn_norm", eps),
                attention: AttentionSpec { position: Position::None, visible: Visible::All, ..attention.clone() },
            }),
            _ => None,
        };
        LayerSpec { cross, ..layer }
    };
    Ok(ModelSpec {
        arch,
        name: None,
        n_embd,
        ctx_train: keys.size("context_length", u32::MAX)?,
        input: InputSpec::scaled(1.0),
        ropes: Vec::new(),
        layers: (0..n_decoder).map(decoder_layer).collect(),
        n_nextn: 0,
        encoder: Some(EncoderSpec {
            layers: (0..keys.n_layer).map(|il| layer(il, Visible::All)).collect(),
            norm: NormSpec::rms("enc.output_norm", eps),
            start_token: keys.stored_u32("decoder_start_token_id")?,
        }),
        output: OutputSpec::head(NormSpec::rms("dec.output_norm", eps)),
    })
}
