//! bert: BERT (arXiv 1810.04805) and what has its layers: BGE, E5, MiniLM, RoBERTa, XLM-R. An
//! encoder whose norms come behind the sums.

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    AttentionSpec, FeedForward, HiddenActivation, InputSpec, LayerNorms, LayerSpec, Mixer, ModelSpec, Need, NormSpec,
    OutputSpec, PlainSpec, Pooling, Position, Residual, RopeId, Visible,
};

pub(super) const ARCH: Architecture = Architecture::new("bert", "BERT, BGE, E5, MiniLM", read)
    .described("layers that see what follows have no steps yet");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let heads = dense::heads(keys, n_embd)?;
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    let eps = keys.layer_norm_eps()?;
    let norm = |name| NormSpec::layer(name, eps, Need::Always);
    let visible = if keys.flag("attention.causal")?.unwrap_or(true) { Visible::Causal } else { Visible::All };
    let layer = |(heads, width): (&dense::Heads, &usize)| {
        let plain = AttentionSpec::plain(heads.heads, heads.kv_heads, heads.key_dim, RopeId(0));
        let attention = AttentionSpec { value_dim: heads.value_dim, position: Position::None, visible, ..plain };
        // The models were trained with the exact GELU; llama.cpp, by which files are judged,
        // computes the tanh form.
        let ffn = PlainSpec { width: *width, activation: HiddenActivation::Gelu, bias: Need::Maybe };
        let norms = LayerNorms {
            after_mixer: Some(norm("attn_output_norm")),
            after_ffn: Some(norm("layer_output_norm")),
            ..LayerNorms::default()
        };
        let layer = LayerSpec::sequential(Mixer::Attention(attention), FeedForward::Plain(ffn), norms);
        LayerSpec { residual: Residual::NormOfSum, ..layer }
    };
    Ok(ModelSpec {
        arch,
        name: None,
        n_embd,
        ctx_train: keys.size("context_length", u32::MAX)?,
        input: InputSpec {
            norm: Some(norm("token_embd_norm")),
            has_positions: true,
            token_types: Need::Maybe,
            ..InputSpec::scaled(1.0)
        },
        ropes: Vec::new(),
        layers: heads.iter().zip(&widths).map(layer).collect(),
        n_nextn: 0,
        encoder: None,
        output: OutputSpec {
            scale: 1.0,
            norm: None,
            soft_cap: None,
            bias: Need::Never,
            pooling: Pooling::None,
            has_head: false,
        },
    })
}
