//! nemotron_h and nemotron_h_moe: Nemotron H (arXiv 2504.03624), Nemotron Nano 2 and Nemotron 3. A
//! layer is one block behind one norm: Mamba 2, attention without positions, or a feed-forward
//! network with squared ReLU.

use super::Architecture;
use super::experts::Experts;
use crate::error::Result;
use crate::keys::{Keys, MAX_HEADS, MAX_LENGTH};
use crate::model::{
    AttentionSpec, Choice, FeedForward, Gating, HiddenActivation, InputSpec, LayerNorms, LayerSpec, Mixer, ModelSpec,
    Need, NormSpec, OutputSpec, PlainSpec, Position, RopeId,
};

pub(super) const DENSE: Architecture = Architecture::new("nemotron_h", "Nemotron-H, Nemotron Nano 2", read);
pub(super) const MOE: Architecture = Architecture::new("nemotron_h_moe", "Nemotron 3 Nano and Super", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = eps(keys)?;
    let (n_layer, n_nextn) = keys.layers_and_nextn()?;
    let heads = keys.sizes_of_layers("attention.head_count", MAX_HEADS)?;
    let counts = |key| keys.per_layer(key)?.ok_or_else(|| keys.bad(key, "is missing"));
    let (kv_heads, widths) = (counts("attention.head_count_kv")?, counts("feed_forward_length")?);
    let dim = keys.size("attention.key_length", MAX_LENGTH)?;
    keys.refuse_unless("attention.value_length", &[dim as f64], "values of another length than keys")?;
    let scan = super::scan::mamba2(keys, eps, Need::Always)?;
    let experts = (arch.name == MOE.name).then(|| Experts::read(keys, Gating::Sigmoid, false)).transpose()?;
    let latent = keys.optional_size("moe_latent_size", MAX_LENGTH)?;
    let norm = Some(NormSpec::rms("attn_norm", eps));
    let layer = |il: usize| -> Result<LayerSpec> {
        let (before_mixer, before_ffn) = if widths[il] == 0 { (norm, None) } else { (None, norm) };
        let norms = LayerNorms { before_mixer, before_ffn, ..LayerNorms::default() };
        let (mixer, ffn) = match (widths[il], kv_heads[il], &experts) {
            (0, 0, _) => (Mixer::Scan(scan.clone()), FeedForward::None),
            (0, kv_heads, _) => {
                let kv_heads = kv_heads as usize;
                if kv_heads > heads[il] || heads[il] % kv_heads != 0 {
                    let problem = format!("{kv_heads} does not divide the {} heads of layer {il}", heads[il]);
                    return Err(keys.bad("attention.head_count_kv", problem));
                }
                let plain = AttentionSpec::plain(heads[il], kv_heads, dim, RopeId(0));
                let attention = AttentionSpec { position: Position::None, ..plain };
                (Mixer::Attention(attention), FeedForward::None)
            }
            (_, _, Some(experts)) => {
                let mut moe = experts.layer(il)?;
                moe.choice = Choice::Biased(Need::Always);
                moe.expert.is_gated = false;
                moe.expert.activation = HiddenActivation::ReluSquared;
                moe.latent = latent;
                (Mixer::None, FeedForward::Moe(moe))
            }
            (width, _, None) => {
                let width = keys.bounded("feed_forward_length", width, MAX_LENGTH)?;
                let activation = HiddenActivation::ReluSquared;
                (Mixer::None, FeedForward::Plain(PlainSpec { width, activation, bias: Need::Maybe }))
            }
        };
        Ok(LayerSpec::sequential(mixer, ffn, norms))
    };
    Ok(ModelSpec {
        arch,
        name: None,
        n_embd,
        ctx_train: keys.size("context_length", u32::MAX)?,
        input: InputSpec::scaled(1.0),
        ropes: Vec::new(),
        layers: (0..n_layer).map(layer).collect::<Result<_>>()?,
        n_nextn,
        encoder: None,
        output: OutputSpec::head(NormSpec::rms("output_norm", eps)),
    })
}

/// Files of the first models have the layer norms' key only.
fn eps(keys: &Keys<'_>) -> Result<f32> {
    match keys.stored_f32("attention.layer_norm_rms_epsilon")? {
        Some(_) => keys.rms_eps(),
        None => keys.layer_norm_eps(),
    }
}
